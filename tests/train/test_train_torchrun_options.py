"""torchrun's options: none is unknown, and those that cannot be had are refused with what to use instead."""

import os
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from artesian.train.launch import _parser, main
from artesian.train.torchrun_options import VARIABLES, take_environment

OPTIONS = sorted({flag for action in get_args_parser()._actions for flag in action.option_strings})
WITH_VARIABLE = {
    action.dest: action.nargs == 0
    for action in get_args_parser()._actions
    if type(action).__name__ in ("env", "check_env")
}
VALUES = {
    "nnodes": ("2:3", (2, 3)),
    "nproc_per_node": ("4", 4),
    "rdzv_endpoint": ("n0:29400", (("n0", 29400),)),
    "max_restarts": ("5", 5),
    "node_rank": ("1", 1),
    "master_port": ("29500", 29500),
    "shutdown_timeout": ("3", 3.0),
}
"""What a variable says, and what comes of it; of the others it is the same."""


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


def test_torchruns_variables_are_ours() -> None:
    assert set(VARIABLES) == set(WITH_VARIABLE)


@pytest.mark.parametrize("dest", sorted(WITH_VARIABLE))
def test_each_of_torchruns_variables_stands_for_an_option_that_is_not_given(dest: str) -> None:
    text, value = ("1", True) if WITH_VARIABLE[dest] else VALUES.get(dest, ("x7", "x7"))
    for environ, expected in (({f"PET_{dest.upper()}": text}, value), ({}, None)):
        parser = _parser()
        default = parser.get_default(dest)
        take_environment(parser, environ)
        assert getattr(parser.parse_args(["x.py"]), dest) == (default if expected is None else expected)


def test_an_option_goes_before_its_variable_whatever_that_says() -> None:
    parser = _parser()
    take_environment(parser, {"PET_NPROC_PER_NODE": "nonsense", "PET_STANDALONE": "0", "PET_ROLE": ""})
    args = parser.parse_args(["--nproc-per-node", "3", "x.py"])
    assert (args.nproc_per_node, args.standalone, args.role) == (3, False, "default")


@pytest.mark.parametrize(
    ("name", "text"), [("PET_NNODES", "3:2"), ("PET_MASTER_PORT", "x"), ("PET_MODULE", "yes")]
)
def test_a_variable_that_makes_no_sense_is_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARTESIAN_JOB_ID", raising=False)
    monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit) as ended:
        main(["x.py"])
    assert ended.value.code == 2
    assert f"${name}: " in capsys.readouterr().err


def test_within_a_job_the_engine_says_how_many_workers_there_are() -> None:
    parser = _parser()
    take_environment(parser, {"PET_NPROC_PER_NODE": "4", "ARTESIAN_JOB_ID": "j1"})
    assert parser.parse_args(["x.py"]).nproc_per_node is None


def test_the_variables_reach_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARTESIAN_JOB_ID", raising=False)
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    monkeypatch.setenv("PET_ROLE", "judge")
    script = tmp_path / "worker.py"
    script.write_text(
        "import os; os.write(1, (os.environ['ROLE_NAME'] + os.environ['WORLD_SIZE'] + '\\n').encode())"
    )
    assert main([str(script)]) == 0
    assert capfd.readouterr().out == "judge2\njudge2\n"
