"""torchrun's options: none is unknown, and those that cannot be had are refused with what to use instead."""

import os
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from artesian.train.launch import _parser, main

OPTIONS = sorted({flag for action in get_args_parser()._actions for flag in action.option_strings})


@pytest.mark.parametrize("flag", OPTIONS)
def test_every_option_of_torchrun_is_known(flag: str) -> None:
    assert flag in _parser()._option_string_actions


def test_options_with_torchruns_meaning_reach_the_worker(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import os; print(os.environ['ROLE_NAME'], os.environ['TORCHELASTIC_RUN_ID'])")
    logs = tmp_path / "logs"
    options = [
        "--role",
        "judge",
        "--rdzv_id",
        "r7",
        "--log-dir",
        str(logs),
        "-r",
        "3",
        "--monitor-interval",
        "1",
        "--rdzv-backend",
        "static",
    ]
    assert main([*options, str(script)]) == 0
    assert (logs / "rank-0.out").read_text() == "judge r7\n"
    said = capfd.readouterr().err
    assert said.count("--monitor-interval is without effect") == 1
    assert "--rdzv-backend" not in said, "it names what is done anyway"


@pytest.mark.parametrize(
    "options",
    [["-t", "3"], ["--numa-binding", "node"], ["-r", "1"], ["--virtual-local-rank"], ["--logs-specs", "x"]],
)
def test_what_cannot_be_had_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*options, "train.py"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "is not supported here: " in err or "expected 0, or 3" in err


def test_cpu_counts_the_processors() -> None:
    assert _parser().parse_args(["--nproc-per-node", "cpu", "x.py"]).nproc_per_node == os.cpu_count()


def test_a_forked_worker_has_rank_and_script_for_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "worker.py"
    script.write_text("print(open('/proc/self/comm').read(), end='')")
    assert main(["--preload", "json", str(script)]) == 0
    assert capfd.readouterr().out == "0:worker.py\n"
