"""Which command lines run this very Python, so that a template can run them as well."""

import os
import sys
from pathlib import Path

import pytest

from artesian.train.python_command import PythonCommand, is_same_python, python_command

OWN = Path(sys.executable)
ENVIRON = {"PATH": str(OWN.parent)}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.py").write_text("")
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__init__", "inner", "__main__"):
        (package / f"{name}.py").write_text("raise SystemExit('nobody imports it')")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("word", [sys.executable, OWN.name])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("x.py", "-m", "a"), ("x.py", ("-m", "a"), False, "x.py")),
        (("-u", "./x.py"), ("./x.py", (), False, "x.py")),
        (("-m", "package.inner", "7"), ("package.inner", ("7",), True, "package/inner.py")),
        (("-u", "-m", "package"), ("package", (), True, "package/__main__.py")),
    ],
)
def test_a_script_or_module_of_this_python_is_taken_apart(
    word: str, words: tuple[str, ...], expected: tuple[str, tuple[str, ...], bool, str], tmp_path: Path
) -> None:
    found = python_command((word, *words), ENVIRON)
    script, args, is_module, file = expected
    assert found == PythonCommand(
        script=script, args=args, is_module=is_module, file=found.file if found else OWN
    )
    assert found.file.resolve() == (tmp_path / file).resolve()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-c", "print(1)"),
        ("-",),
        ("-O", "x.py"),
        ("-X", "faulthandler", "x.py"),
        ("-I", "x.py"),
        ("-um", "package"),
        ("-m",),
        ("-m", "no_such_module"),
        ("-m", "sys"),
        ("no-such-file.py",),
        ("package",),
    ],
)
def test_what_a_template_would_run_otherwise_is_left_as_it_is(words: tuple[str, ...]) -> None:
    assert python_command((sys.executable, *words), ENVIRON) is None


def test_a_path_that_is_safe_stays_so() -> None:
    assert python_command((sys.executable, "x.py"), {**ENVIRON, "PYTHONSAFEPATH": "1"}) is None


def test_other_interpreters_and_programs_are_not_this_python(tmp_path: Path) -> None:
    assert not is_same_python("sh", {"PATH": os.defpath}, sys.executable)
    assert not is_same_python("no-such-program", ENVIRON, sys.executable)
    assert not is_same_python(OWN.name, {"PATH": str(tmp_path)}, sys.executable)
    assert not is_same_python(sys.executable, ENVIRON, "")


def test_the_same_binary_in_another_venv_is_another_python(tmp_path: Path) -> None:
    other = tmp_path / "venv" / "bin"
    other.mkdir(parents=True)
    (other / "python").symlink_to(OWN.resolve())
    assert not is_same_python("python", {"PATH": str(other)}, sys.executable)
    beside = tmp_path / "bin"
    beside.mkdir()
    for name in ("python", "python3"):
        (beside / name).symlink_to(OWN.resolve())
    assert is_same_python("python3", {"PATH": str(beside)}, str(beside / "python"))
