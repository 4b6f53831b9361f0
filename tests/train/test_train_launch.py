"""The launch agent, with real processes: their environment, their ends, and that none is left."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from artesian.engines.local.outcome import restarts
from artesian.train.gang import Formation, Gang, worker_environment
from artesian.train.launch import main
from artesian.train.standby import uses_torch
from artesian.train.worker_process import WorkerProcess, execute, usable_cpus
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import WorkerFailed
from proc import children, stat

DEADLINE_S = 240.0
TORCHRUN_VARIABLES = [
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_NAME",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_USE_AGENT_STORE",
    "OMP_NUM_THREADS",
]

# What workers do in these tests; `RANK` and `ready()` are there for them.
PRELUDE = """
import os, signal, subprocess, sys
RANK = int(os.environ["RANK"])
def ready(*pids):
    os.write(1, (" ".join(map(str, (os.getpid(), *pids))) + "\\n").encode())
"""
WAIT_FOREVER = "ready()\nwhile True: signal.pause()"


class Launch:
    """A running agent whose workers run ``body``."""

    def __init__(self, folder: Path, body: str, *options: str, env: Mapping[str, str] | None = None) -> None:
        script = folder / "worker.py"
        script.write_text(PRELUDE + body)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ARTESIAN_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "artesian.train.launch", *options, str(script)],
            env={**clean, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pidfds_of_ready(self, workers: int) -> list[int]:
        """Wait until ``workers`` workers are ready, and return a pidfd of each process they name."""
        assert self.process.stdout is not None
        pids = [int(pid) for _ in range(workers) for pid in self.process.stdout.readline().split()]
        return [os.pidfd_open(pid) for pid in pids]

    def finish(self) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


Start = Callable[..., Launch]


@pytest.fixture(params=["executed", "forked"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start agents whose workers are executed, or forked from a template: their promises are the same."""
    started: list[Launch] = []
    preload = ("--preload", "json" if request.param == "forked" else "none")

    def start_one(body: str, *options: str, env: Mapping[str, str] | None = None) -> Launch:
        launch = Launch(tmp_path, body, *preload, *options, env=env)
        started.append(launch)
        return launch

    yield start_one
    for launch in started:
        launch.process.kill()
        launch.process.communicate()


def assert_all_end(pidfds: list[int]) -> None:
    """Wait for every process to end."""
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], DEADLINE_S)[0], "a process is left"
        os.close(pidfd)


def failures(progress_dir: Path) -> list[WorkerFailed]:
    return [message for message in ProgressReader(progress_dir).read() if isinstance(message, WorkerFailed)]


def test_every_worker_gets_torchruns_environment(start: Start, tmp_path: Path) -> None:
    body = f"""
import json
with open(f"{tmp_path}/env-{{RANK}}.json", "w") as file:
    json.dump(dict(os.environ), file)
"""
    code, _, _ = start(body, "--nproc_per_node=3", "--standalone").finish()
    assert code == 0
    found = [json.loads((tmp_path / f"env-{rank}.json").read_text()) for rank in range(3)]
    for rank, env in enumerate(found):
        assert set(TORCHRUN_VARIABLES) <= set(env)
        assert (env["RANK"], env["LOCAL_RANK"], env["ROLE_RANK"]) == (str(rank),) * 3
        assert (env["WORLD_SIZE"], env["LOCAL_WORLD_SIZE"], env["ROLE_WORLD_SIZE"]) == ("3",) * 3
        assert (env["GROUP_RANK"], env["GROUP_WORLD_SIZE"]) == ("0", "1")
        assert env["MASTER_ADDR"] == "127.0.0.1"
        assert env["TORCHELASTIC_USE_AGENT_STORE"] == "False"
    assert len({env["MASTER_PORT"] for env in found}) == 1


def formation(*, node_rank: int = 0, nodes: int = 1, master_host: str = "127.0.0.1") -> Formation:
    return Formation(
        number=0,
        node_rank=node_rank,
        nodes=nodes,
        master_host=master_host,
        master_port=29500,
        is_store_served=False,
    )


def test_the_second_node_counts_on_from_the_first() -> None:
    gang = Gang(command=("x",), local_workers=4, nodes=2)
    env = worker_environment(gang, formation(node_rank=1, nodes=2, master_host="host"), 2, {})
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"], env["GROUP_RANK"]) == ("6", "2", "8", "1")
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("host", "29500")


def test_nodes_with_different_numbers_of_workers_are_told_where_theirs_begin() -> None:
    gang = Gang(command=("x",), local_workers=3, nodes=2, node_rank=1, first_rank=1, world_size=4)
    env = worker_environment(gang, formation(node_rank=1, nodes=2), 2, {})
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"], env["LOCAL_WORLD_SIZE"]) == (
        "3",
        "2",
        "4",
        "3",
    )
    assert [gang.local_rank_of(gang.rank_of(1, local)) for local in range(3)] == [0, 1, 2]


def test_threads_are_shared_out_unless_the_user_has_said_how_many() -> None:
    many = Gang(command=("x",), local_workers=10_000)
    assert worker_environment(many, formation(), 0, {})["OMP_NUM_THREADS"] == "1"
    assert worker_environment(many, formation(), 0, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    alone = Gang(command=("x",), local_workers=1)
    assert worker_environment(alone, formation(), 0, {})["OMP_NUM_THREADS"] == str(usable_cpus())


def test_a_cgroup_quota_limits_the_cpus(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_the_number_of_workers_comes_from_the_environment_when_no_option_says_it(start: Start) -> None:
    body = 'os.write(1, (os.environ["WORLD_SIZE"] + "\\n").encode())'
    assert start(body, env={"ARTESIAN_WORKERS": "2"}).finish()[1] == "2\n2\n"
    assert start(body, "--nproc-per-node", "1", env={"ARTESIAN_WORKERS": "2"}).finish()[1] == "1\n"
    assert start(body).finish()[1] == "1\n"


def test_arguments_after_the_script_are_the_scripts_own(tmp_path: Path) -> None:
    script = tmp_path / "args.py"
    script.write_text("import sys; print(sys.argv[1:])")
    command = [sys.executable, "-m", "artesian.train.launch", str(script), "--nnodes", "9", "-m", "x"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.stdout == "['--nnodes', '9', '-m', 'x']\n"


def test_a_module_and_a_program_can_be_run_too(tmp_path: Path) -> None:
    (tmp_path / "some_module.py").write_text("print(__name__, __spec__.name)")
    agent = [sys.executable, "-m", "artesian.train.launch"]
    module = subprocess.run(
        [*agent, "-m", "some_module"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert module.stdout == "__main__ some_module\n"
    program = subprocess.run(
        [*agent, "--no-python", "sh", "-c", "echo $RANK"], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert program.stdout == "0\n"


def test_a_whole_command_line_is_run_as_a_script_where_it_is_this_python(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import sys; print(sys.argv, sys.flags.optimize, __file__)")
    file = str(tmp_path / "x.py")
    agent = [sys.executable, "-m", "artesian.train.launch"]
    for preload in ([], ["--preload", "json"]):
        for words, said in (
            ([sys.executable, "x.py", "-m", "a"], f"['x.py', '-m', 'a'] 0 {file}\n"),
            ([sys.executable, "-O", "x.py"], f"['x.py'] 1 {file}\n"),
            (["sh", "-c", "echo $RANK"], "0\n"),
        ):
            command = [*agent, *preload, "--command", *words]
            ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)
            assert (ran.stdout, ran.returncode) == (said, 0), ran.stderr


def test_only_what_a_restart_is_for_leads_to_one(start: Start) -> None:
    body = "if os.environ['ARTESIAN_RESTART'] == '0': sys.exit(3)"
    assert start(body, "--max-restarts", "2", "--restart-on", "signal").finish()[0] == 3
    assert start(body, "--max-restarts", "2", "--restart-on", "signal,user_error").finish()[0] == 0


WRONG_PROGRAMS = {
    "syntax": ("if True print()", "SyntaxError"),
    "import": ("import artesian.nothing_of_the_kind", "ModuleNotFoundError"),
    "name": ("print(undefined)", "NameError"),
    "our argument": (
        "from artesian.train.stragglers import Stragglers\nStragglers(None, every=0)",
        "every and patience must be positive",
    ),
    "its arguments": (
        "import argparse\nargparse.ArgumentParser().parse_args(['--nonsense'])",
        "its command line is wrong",
    ),
}


@pytest.mark.parametrize("start", ["forked"], indirect=True)
@pytest.mark.parametrize("wrong", WRONG_PROGRAMS)
def test_a_program_that_is_wrong_before_its_first_step_is_not_started_again(
    start: Start, tmp_path: Path, wrong: str
) -> None:
    body, sign = WRONG_PROGRAMS[wrong]
    options = ("--max-restarts", "3")
    code, _, err = start(body, *options, env={"ARTESIAN_PROGRESS_DIR": str(tmp_path)}).finish()
    assert code == (2 if wrong == "its arguments" else 1)
    assert f"{sign}" in err
    assert "a restart would come to the same" in err
    assert "restart 1 of 3" not in err
    (failure,) = failures(tmp_path)
    assert (failure.restarts, failure.exit_code) == (0, code)


@pytest.mark.parametrize("wrong", ["name", "import", "our argument"])
def test_a_worker_that_knows_its_agent_tells_of_a_final_error_however_it_was_started(
    start: Start, wrong: str
) -> None:
    """One that was executed tells from where it has got its line to the agent, as ``Run`` does."""
    body, sign = WRONG_PROGRAMS[wrong]
    body = f"from artesian.train.link import link\nlink()\n{body}"
    code, _, err = start(body, "--max-restarts", "3").finish()
    assert code == 1
    assert err.count("Traceback (most recent call last)") == 1
    assert sign in err
    assert "a restart would come to the same" in err
    assert "restart 1 of 3" not in err


@pytest.mark.parametrize(
    "body",
    [
        "link().heart.beat()\nprint(undefined)",  # after a step
        "int('x')",  # the same type, of the script's own
        "sys.exit(2)",
        "open('/proc/self/mem', 'rb').read()",  # EIO
    ],
)
def test_what_may_go_better_is_worth_a_restart(start: Start, body: str) -> None:
    first = "from artesian.train.link import link\nlink()\nif os.environ['ARTESIAN_RESTART'] == '0':\n"
    body = first + "".join(f"    {line}\n" for line in body.splitlines())
    code, _, err = start(body, "--max-restarts", "1").finish()
    assert code == 0, err
    assert "restart 1 of 1" in err


def test_a_script_that_is_not_there_is_told_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--max-restarts", "3", str(tmp_path / "nothing.py")])
    assert ended.value.code == 2
    assert "expected a Python file, found nothing at" in capfd.readouterr().err


def test_a_worker_that_does_not_come_to_its_first_step_shows_its_stacks_and_is_killed(start: Start) -> None:
    body = """
from artesian.train.heartbeat import Activity
from artesian.train.link import link
def stuck_in_its_start(): signal.pause()
if os.environ["ARTESIAN_RESTART"] == "0":
    link().heart.set(Activity.STARTING, 0.5)
    stuck_in_its_start()
"""
    code, _, err = start(body, "--max-restarts", "1").finish()
    assert code == 0, err
    assert "has not come to its first step within 0.5 s; restart 1 of 1" in err
    assert "in stuck_in_its_start" in err


def test_a_worker_that_is_slow_is_started_anew_where_nobody_can_take_its_place_and_no_restart_is_used_up(
    start: Start, tmp_path: Path
) -> None:
    body = """
from artesian.train.link import link
if os.environ["ARTESIAN_RESTART"] == "0":
    if RANK == 1: link().is_slow("it says so")
    signal.pause()
if os.environ["ARTESIAN_RESTART"] in "12":
    if RANK == 0: sys.exit(3)
    signal.pause()
"""
    options = ("--nproc-per-node", "2", "--max-restarts", "1", "--restart-on", "user_error")
    code, _, err = start(body, *options, env={"ARTESIAN_PROGRESS_DIR": str(tmp_path)}).finish()
    assert code == 3
    assert "is slow: it says so; replacement 1 of 3" in err
    assert "exited with code 3; restart 1 of 1" in err
    (failure,) = failures(tmp_path)
    assert failure.restarts == restarts(tmp_path) == 1


@pytest.mark.parametrize(
    ("options", "replaced", "why_not"),
    [
        (("--max-restarts", "1"), 3, "the 3 of --max-replacements are used up"),
        (("--max-restarts", "1", "--max-replacements", "1"), 1, "the 1 of --max-replacements are used up"),
        ((), 0, "nothing is started anew without --max-restarts"),
    ],
)
def test_a_detector_that_errs_does_not_replace_for_ever(
    start: Start, options: tuple[str, ...], replaced: int, why_not: str
) -> None:
    body = f"""
from artesian.train.link import link
link().is_slow("it says so")
if os.environ["ARTESIAN_RESTART"] != "{replaced}": signal.pause()
"""
    code, _, err = start(body, *options).finish()
    assert code == 0, err
    assert err.count("; replacement") == replaced
    assert f"is slow: it says so; it is not replaced: {why_not}" in err


def test_a_killed_worker_is_reported_and_ends_the_others(start: Start, tmp_path: Path) -> None:
    body = "if RANK == 1: os.kill(os.getpid(), signal.SIGKILL)\n" + WAIT_FOREVER
    launch = start(body, "--nproc-per-node", "3", env={"ARTESIAN_PROGRESS_DIR": str(tmp_path / "progress")})
    code, _, err = launch.finish()
    assert code == 128 + signal.SIGKILL
    assert "worker 1" in err
    assert "was killed by SIGKILL (9); ending the other 2" in err
    (failure,) = failures(tmp_path / "progress")
    assert (failure.rank, failure.exit_code, failure.signal) == (1, None, signal.SIGKILL)
    assert not failure.is_oom_kill


def test_the_code_of_the_first_failure_is_the_agents(start: Start, tmp_path: Path) -> None:
    body = "if RANK == 0: sys.exit(3)\n" + WAIT_FOREVER
    launch = start(body, "--nproc-per-node", "2", env={"ARTESIAN_PROGRESS_DIR": str(tmp_path)})
    code, _, err = launch.finish()
    assert code == 3
    assert "exited with code 3" in err
    (failure,) = failures(tmp_path)
    assert (failure.rank, failure.exit_code, failure.signal) == (0, 3, None)


def test_workers_that_ignore_sigterm_are_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready()
if RANK == 1:
    open({str(gate)!r}).read()
    sys.exit(5)
while True: signal.pause()
"""
    launch = start(body, "--nproc-per-node", "2", "--grace", "0.1")
    pidfds = launch.pidfds_of_ready(2)
    gate.write_text("go")
    assert launch.finish()[0] == 5
    assert_all_end(pidfds)


def test_sigterm_is_passed_on_and_the_agent_waits_for_the_workers(start: Start) -> None:
    body = (
        """
def save(number, frame):
    os.write(1, f"saved {RANK}\\n".encode())
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
"""
        + WAIT_FOREVER
    )
    launch = start(body, "--nproc-per-node", "2")
    pidfds = launch.pidfds_of_ready(2)
    launch.process.send_signal(signal.SIGTERM)
    code, out, err = launch.finish()
    assert code == 128 + signal.SIGTERM
    assert sorted(out.splitlines()) == ["saved 0", "saved 1"]
    assert err == ""
    assert_all_end(pidfds)


def test_a_stop_that_every_process_gets_by_itself_leaves_the_workers_their_store(tmp_path: Path) -> None:
    """Slurm signals all processes of a step, not the agent alone, and not the agent first."""
    body = """
import time
import torch.distributed as dist
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
dist.init_process_group("gloo")
ready()
while not told:
    time.sleep(0.01)
store = dist.distributed_c10d._get_default_store()
store.set(f"saved-{RANK}", "yes")
store.get(f"saved-{1 - RANK}")
os.write(1, f"saved {RANK}\\n".encode())
os._exit(143)
"""
    launch = Launch(
        tmp_path, body, "--preload", "torch", "--nproc-per-node", "2", env={"OMP_NUM_THREADS": "1"}
    )
    try:
        assert launch.process.stdout is not None
        workers = [int(launch.process.stdout.readline()) for _ in range(2)]
        others = set(children(launch.process.pid)) - set(workers)
        assert len(others) >= 2, "the template and the store"
        for pid in (*others, launch.process.pid, *workers):
            os.kill(pid, signal.SIGTERM)
        code, out, err = launch.finish()
        assert (code, sorted(out.splitlines())) == (128 + signal.SIGTERM, ["saved 0", "saved 1"]), err
    finally:
        launch.process.kill()
        launch.process.communicate()


def test_a_worker_that_ended_by_the_stop_that_the_agent_got_too_has_not_failed(
    start: Start, tmp_path: Path
) -> None:
    """Whichever of them the agent comes to see first: the other worker has the grace of a stop, and saves."""
    body = f"""
import time
def save(number, frame):
    os.write(1, b"saving\\n")
    while not os.path.exists({str(tmp_path / "go")!r}):
        time.sleep(0.01)
    os.write(1, b"saved\\n")
    os._exit(143)
if RANK:
    signal.signal(signal.SIGTERM, save)
""" + (WAIT_FOREVER.replace("ready()", "ready(RANK)"))
    launch = start(body, "--nproc-per-node", "2", "--grace", "0.1", "--stop-grace", "200")
    assert launch.process.stdout is not None
    pids = {int(rank): int(pid) for pid, rank in (launch.process.stdout.readline().split() for _ in range(2))}
    agent = launch.process.pid
    os.kill(agent, signal.SIGSTOP)
    until_in_state(agent, b"T")
    os.kill(pids[0], signal.SIGTERM)
    until_in_state(pids[0], b"Z")
    os.kill(agent, signal.SIGTERM)
    os.kill(agent, signal.SIGCONT)
    assert launch.process.stdout.readline() == "saving\n"
    time.sleep(0.5)  # a grace that is not meant for it would be over by then
    (tmp_path / "go").touch()
    code, out, err = launch.finish()
    assert (code, out, err) == (128 + signal.SIGTERM, "saved\n", "")


def until_in_state(pid: int, state: bytes) -> None:
    """Wait until a process is stopped, or has ended and is not reaped."""
    deadline_s = time.monotonic() + DEADLINE_S
    while stat(pid)[0] != state:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_who_does_not_leave_after_a_stop_is_killed_after_its_grace(start: Start) -> None:
    """Rank 0 is stopped, as by a debugger: no signal but SIGKILL reaches it, nor its child. Rank 1 leaves."""
    body = """
STOP_PARENT = (
    'kill -STOP $PPID; while ! grep -q "^State:.T" /proc/$PPID/status; do sleep 0.01; done; '
    'echo $PPID $$; exec sleep 1000'
)
if RANK == 0:
    subprocess.Popen(["sh", "-c", STOP_PARENT])
else:
    ready()
while True: signal.pause()
"""
    launch = start(body, "--nproc-per-node", "2", "--stop-grace", "0.5")
    pidfds = launch.pidfds_of_ready(2)
    launch.process.send_signal(signal.SIGTERM)
    code, _, err = launch.finish()
    assert code == 128 + signal.SIGTERM
    assert "told to stop by SIGTERM, and still there: worker 0" in err
    assert len(pidfds) == 3
    assert_all_end(pidfds)


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_the_grace_of_a_stop_is_nine_tenths_of_the_engines(
    start: Start, kind: signal.Signals, code: int
) -> None:
    body = "for it in (signal.SIGTERM, signal.SIGUSR1): signal.signal(it, signal.SIG_IGN)\n" + WAIT_FOREVER
    launch = start(body, env={"ARTESIAN_STOP_GRACE": "0.5"})
    pidfds = launch.pidfds_of_ready(1)
    launch.process.send_signal(kind)
    assert launch.finish()[0] == code
    assert_all_end(pidfds)


def test_a_stop_before_any_worker_runs_is_no_good_end(tmp_path: Path) -> None:
    """The template hangs in an import: it never comes to start a worker, so none ends badly."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "hanging.py").write_text(f"import signal; open({str(gate)!r}, 'w').close(); signal.pause()")
    launch = Launch(
        tmp_path, "", "--preload", "hanging", "--stop-grace", "0.1", env={"PYTHONPATH": str(tmp_path)}
    )
    gate.read_text()
    launch.process.send_signal(signal.SIGTERM)
    code, _, err = launch.finish()
    assert code == 128 + signal.SIGTERM
    assert "still there: workers that were about to start" in err


def test_a_notice_of_preemption_is_passed_on_and_the_code_is_that_of_a_stop(start: Start) -> None:
    launch = start("signal.signal(signal.SIGUSR1, lambda *_: sys.exit(143))\n" + WAIT_FOREVER)
    pidfds = launch.pidfds_of_ready(1)
    launch.process.send_signal(signal.SIGUSR1)
    assert launch.finish()[0] == 143
    assert_all_end(pidfds)


def test_a_failed_gang_is_started_again_as_often_as_it_may_be(start: Start) -> None:
    body = 'os.write(1, (os.environ["TORCHELASTIC_RESTART_COUNT"] + "\\n").encode()); sys.exit(7)'
    code, out, err = start(body, "--max-restarts", "2").finish()
    assert code == 7
    assert out == "0\n1\n2\n"
    assert "restart 2 of 2" in err


def test_a_stop_that_was_asked_for_is_no_reason_to_start_again(start: Start) -> None:
    assert start("sys.exit(143)", "--max-restarts", "2").finish()[0] == 143


def test_a_stop_after_which_all_workers_have_ended_well_is_a_success(start: Start) -> None:
    launch = start("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + WAIT_FOREVER)
    assert_pids = launch.pidfds_of_ready(1)
    launch.process.send_signal(signal.SIGTERM)
    assert launch.finish()[0] == 0
    assert_all_end(assert_pids)


def test_an_interrupt_asks_workers_to_save_as_a_stop_does(start: Start) -> None:
    launch = start("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n" + WAIT_FOREVER)
    pidfds = launch.pidfds_of_ready(1)
    launch.process.send_signal(signal.SIGINT)
    code, _, err = launch.finish()
    assert code == 130
    assert "KeyboardInterrupt" not in err
    assert_all_end(pidfds)


def test_interrupting_twice_kills_workers_that_do_not_listen(start: Start) -> None:
    body = (
        """
def note(number, frame):
    ready()
signal.signal(signal.SIGTERM, note)
"""
        + WAIT_FOREVER
    )
    launch = start(body)
    pidfds = launch.pidfds_of_ready(1)
    launch.process.send_signal(signal.SIGINT)
    pidfds += launch.pidfds_of_ready(1)  # it has got the first one, and goes on
    launch.process.send_signal(signal.SIGINT)
    assert launch.finish()[0] == 128 + signal.SIGINT
    assert_all_end(pidfds)


def test_no_worker_outlives_an_agent_that_is_killed(start: Start) -> None:
    launch = start(WAIT_FOREVER, "--nproc-per-node", "3")
    pidfds = launch.pidfds_of_ready(3)
    launch.process.kill()
    launch.process.wait()
    assert_all_end(pidfds)


def test_what_a_worker_has_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = f"""
child = subprocess.Popen(["sleep", "1000"])
ready(child.pid)
open({str(gate)!r}).read()
"""
    launch = start(body)
    pidfds = launch.pidfds_of_ready(1)
    assert len(pidfds) == 2
    gate.write_text("go")
    assert launch.finish()[0] == 0
    assert_all_end(pidfds)


def test_the_first_worker_writes_to_the_agents_output_and_the_others_to_files(
    start: Start, tmp_path: Path
) -> None:
    body = 'print(f"out {RANK}"); print(f"err {RANK}", file=sys.stderr)'
    code, out, err = start(
        body, "--nproc-per-node", "2", env={"ARTESIAN_LOG_DIR": str(tmp_path / "logs")}
    ).finish()
    assert (code, out, err) == (0, "out 0\n", "err 0\n")
    assert sorted(os.listdir(tmp_path / "logs")) == ["rank-1.out"]
    assert (tmp_path / "logs/rank-1.out").read_text() == "out 1\nerr 1\n"


def test_the_last_lines_of_a_failed_workers_file_are_shown(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "rank-1.out"
    log.write_text("of an earlier attempt\n")
    body = (
        """
if RANK == 1:
    print(*(f"line {i}" for i in range(30)), sep="\\n")
    raise RuntimeError("out of luck")
"""
        + WAIT_FOREVER
    )
    _, _, err = start(body, "--nproc-per-node", "2", env={"ARTESIAN_LOG_DIR": str(tmp_path)}).finish()
    assert "RuntimeError: out of luck" in err
    assert "line 29" in err
    assert "line 3\n" not in err
    assert "earlier" not in err
    assert log.read_text().startswith("of an earlier attempt\nline 0\n")


def test_a_program_that_is_not_there_is_code_127_and_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "artesian.train.launch", "--no-python", "no-such-program"]
    env = {**os.environ, "ARTESIAN_PROGRESS_DIR": str(tmp_path)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.returncode == 127
    assert "cannot start worker 0: No such file or directory: no-such-program" in result.stderr
    assert [failure.exit_code for failure in failures(tmp_path)] == [127]


def test_a_progress_folder_that_cannot_be_written_does_not_hide_the_failure(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = start("sys.exit(4)", env={"ARTESIAN_PROGRESS_DIR": str(tmp_path / "file/x")}).finish()
    assert code == 4
    assert "cannot report the failure" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: SCRIPT"),
        (["--nproc-per-node", "0", "x.py"], "at least 1, got '0'"),
        (["--nnodes", "1:4", "x.py"], "--nnodes 1:4 needs --rdzv-endpoint"),
        (["--nnodes", "4:1", "x.py"], "expected MIN:MAX with MIN at most MAX, got '4:1'"),
        (["--nnodes", "2", "x.py"], "needs --rdzv-endpoint, or --master-addr and --master-port"),
        (["--rdzv-endpoint", "host", "x.py"], "expected HOST:PORT, got 'host'"),
        (
            ["--rdzv-endpoint", "host:1", "--preload", "torch", "x.py"],
            "a shared secret in $ARTESIAN_RDZV_TOKEN",
        ),
        (["--rdzv-endpoint", "127.0.0.1:1", "x.py"], "needs a Python script that imports torch"),
        (["--max-restarts", "-1", "x.py"], "expected a whole number, got '-1'"),
        (["--node-rank", "1", "x.py"], "--node-rank must lie between 0 and --nnodes - 1 = 0, got 1"),
        (["--first-rank", "1", "x.py"], "--first-rank and --world-size belong together"),
        (
            ["--first-rank", "2", "--world-size", "4", "--nproc-per-node", "3", "x.py"],
            "--world-size must be at least 5, for 3 workers from rank 2 on, got 4",
        ),
        (
            ["--first-rank", "0", "--world-size", "1", "--rdzv-endpoint", "127.0.0.1:1", "x.py"],
            "--first-rank is for agents that are told their place",
        ),
        (["-m", "--no-python", "x"], "--module needs python"),
        (["--grace", "-1", "x.py"], "--grace: expected seconds, 0 or more, got '-1'"),
        (["--stop-grace", "inf", "x.py"], "/--stop_grace: expected seconds, 0 or more, got 'inf'"),
        (["--start-timeout", "0", "x.py"], "--start-timeout must be above 0, got 0"),
        (["--command", "--no-python", "x"], "--command takes a command line as it is"),
        (
            ["--restart-on", "signal,rain", "x.py"],
            "expected some of signal, oom_kill, user_error, got 'rain'",
        ),
        (["--master-port", "70000", "x.py"], "expected a port from 0 to 65535, got '70000'"),
        (["--log-dir", "/dev/null/log", "x.py"], "--log-dir must be a folder that can be made"),
        (["--no-such", "x", "x.py"], "unrecognized arguments: --no-such"),
    ],
)
def test_a_wrong_command_line_is_explained(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(argv)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_number_of_workers_in_the_environment_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTESIAN_WORKERS", "two")
    with pytest.raises(SystemExit):
        main(["x.py"])
    assert "$ARTESIAN_WORKERS: expected a whole number of at least 1, got 'two'" in capsys.readouterr().err


def test_a_process_in_which_nothing_runs_is_told_from_a_busy_one() -> None:
    def runs(body: str) -> Iterator[WorkerProcess]:
        worker = execute(0, [sys.executable, "-c", body], dict(os.environ), None, kills_before=(0, 0))
        try:
            while True:
                yield worker
        finally:
            worker.kill()
            worker.reap()

    assert any(not worker.is_still for worker in runs("while True: pass"))
    assert any(worker.is_still for worker in runs("import signal; signal.pause()"))
    for worker in runs("while True: pass"):
        worker.send(signal.SIGSTOP)
        if worker.is_stopped:
            assert worker.is_still
            break


def test_only_sigkill_is_asked_of_the_out_of_memory_killer() -> None:
    def ended(command: str) -> WorkerProcess:
        # Counts from before anything was counted: whatever the machine has seen since could be the cause.
        worker = execute(0, ["sh", "-c", command], dict(os.environ), None, kills_before=(-1, -1))
        assert select.select([worker.pidfd], [], [], DEADLINE_S)[0]
        worker.reap()
        return worker

    assert ended("kill -9 $$").is_oom_kill()
    assert not ended("exit 137").is_oom_kill()
    assert not ended("kill -15 $$").is_oom_kill()


@pytest.mark.parametrize(
    ("line", "does"),
    [
        ("import torch", True),
        ("import os, sys, torch", True),
        ("import numpy as np, torch.distributed as dist", True),
        ("    from torch.nn import Linear", True),
        ("from artesian.train import Run", True),
        ("import torchless", False),
        ("import os, torchless", False),
        ("import os\n# torch", False),
        ("from os import torch", False),
        ("from . import torch", False),
        ("print('import torch')", False),
    ],
)
def test_a_script_that_imports_torch_anywhere_in_a_line_has_a_template(
    tmp_path: Path, line: str, does: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f'"""Trains."""\n{line}\n')
    assert uses_torch(script) is does
