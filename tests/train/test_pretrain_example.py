"""The example: it runs as it stands, learns, and goes on from its checkpoint."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrain.py"
TINY = [
    "--batch",
    "4",
    "--context",
    "32",
    "--dim",
    "32",
    "--layers",
    "2",
    "--experts",
    "4",
    "--warmup",
    "5",
    "--lr",
    "0.01",
]


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_learns_and_goes_on_from_where_it_was(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "poem").write_text("well water wells up well\n" * 200)
    monkeypatch.setenv("ARTESIAN_DATASET", str(text))
    monkeypatch.setenv("ARTESIAN_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))

    def printed(steps: int) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *TINY, "--steps", str(steps)])
        example.main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]

    first, second = printed(20), printed(40)
    assert [line.split()[1] for line in first] == ["10/20", "20/20"]
    assert [line.split()[1] for line in second] == ["30/40", "40/40"]
    losses = [float(line.split()[3]) for line in (*first, *second)]
    assert losses[0] < 5.5
    assert losses[-1] < 0.6 * losses[0]


def test_the_example_stays_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 150
