"""The launch agent: starts the workers of one node, watches them, and leaves none behind.

``python -m artesian.train.launch [OPTIONS] SCRIPT [ARGS]`` takes torchrun's options and gives every
worker torchrun's environment, so that a script written for torchrun runs unchanged. It imports the
standard library and the wire only, and so is up in a twentieth of a second.

What it promises:

- The death of a worker is seen at once, through its pidfd. The first to fail is reported, on stderr and
  to the control plane; the others, which now wait for it in a collective, get SIGTERM, then SIGKILL.
- SIGTERM and SIGUSR1 are passed on to the workers, which may still save; the agent leaves when they have.
  SIGINT reaches them as SIGTERM; a second one ends them at once. Who is still there after the grace of a stop gets SIGKILL, which ends a stopped process, too.
- When the agent itself is killed the kernel kills the workers (PR_SET_PDEATHSIG). Processes that a worker
  started are killed with it in every other case; in this one they are still found by their session,
  which is the agent's.
- Exit code: 0 when all workers ended with 0, otherwise the code of the first to fail, or 128 + its signal.

A worker reads nothing from stdin. The first worker of the node writes to the agent's stdout and stderr,
the others to ``rank-N.out`` in ARTESIAN_LOG_DIR where that is set.
"""

import argparse
import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from artesian.train import option_values
from artesian.train.agent import Agent
from artesian.train.agent_signals import on_notice
from artesian.train.budget import MAX_REPLACEMENTS
from artesian.train.errors import CheckpointError
from artesian.train.gang import Gang
from artesian.train.holder_process import holding
from artesian.train.last_save import last_save
from artesian.train.python_command import python_command
from artesian.train.recovery import CAUSES
from artesian.train.saying import say
from artesian.train.segment import JobFolder, sweep
from artesian.train.standby import TORCH_MODULES, uses_torch
from artesian.train.terms import Terms
from artesian.train.torchrun_options import add_options, take_environment, take_options
from artesian.wire import environment

_STOP_GRACE_S = 30.0
"""What torchrun, Slurm and Kubernetes leave between SIGTERM and SIGKILL where nobody says otherwise."""
_SHARE_OF_GRACE = 0.9
"""Of an engine's grace: the agent still has to tell who hung, before the engine's SIGKILL ends it as well."""


def main(argv: Sequence[str]) -> int:
    """Run the workers that ``argv`` asks for to their end, and return the exit code.

    Raises SystemExit with code 2 for a wrong command line, as argparse does.
    """
    parser = _parser()
    take_environment(parser, os.environ)
    args = parser.parse_args(argv)
    take_options(parser, args)
    _read_command(parser, args)
    gang = _gang(parser, args)
    terms = _terms(parser, args, gang)
    if gang.script and not (args.module or os.path.exists(args.script)):
        parser.error(f"SCRIPT: expected a Python file, found nothing at {args.script}")
    meeting = terms.endpoints[0] if terms is not None and terms.max_nodes > 1 else None
    with (
        _memory(os.environ, is_wanted=gang.max_restarts > 0) as with_memory,
        holding(with_memory, meeting) as (environ, problem),
        last_save(environ.get(environment.MEMORY), gang.stop_grace_s) as save_in_time,
        on_notice(save_in_time),
    ):
        if problem is not None:
            say(str(problem))
        return Agent(gang, environ, terms).run()


@contextmanager
def _memory(environ: Mapping[str, str], *, is_wanted: bool) -> Iterator[Mapping[str, str]]:
    """Hold the shared memory in which workers keep their state from one restart to the next, and give its name.

    Nothing of it is left in the end. Where there is no room for the folder, storage has to do.
    """
    name = environ.get(environment.MEMORY) or f"{environ.get(environment.JOB_ID, 'launch')}-{os.getpid()}"
    try:
        folder = JobFolder(name) if is_wanted else None
    except (CheckpointError, ValueError) as error:
        say(f"no shared memory for restarts: {error}")
        folder = None
    if folder is None:
        yield environ
        return
    try:
        sweep()
        yield {**environ, environment.MEMORY: name}
    finally:
        folder.leave(keep=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="artesian launch",
        usage="artesian launch [OPTIONS] SCRIPT [ARGS]",
        description="Start the workers of one node with torchrun's environment, and watch them.",
        allow_abbrev=False,
    )

    def add(name: str, text: str, **kwargs: object) -> None:
        flags = [f"--{name}"] + ([f"--{name.replace('-', '_')}"] if "-" in name else [])
        parser.add_argument(*flags, help=text, **kwargs)  # type: ignore[arg-type]

    add(
        "nproc-per-node",
        f"workers on this node, or gpu, cpu, auto: as many as there are (default: ${environment.WORKERS}, else 1)",
        type=option_values.workers,
        metavar="N",
    )
    add(
        "max-restarts",
        "how often to form the gang anew after a failure (default: 0)",
        type=option_values.whole,
        default=0,
        metavar="N",
    )
    add(
        "max-replacements",
        "how often to replace a worker that is slow, where the script asks for it: counted apart from "
        f"--max-restarts, which must be above 0 (default: {MAX_REPLACEMENTS})",
        type=option_values.whole,
        default=MAX_REPLACEMENTS,
        metavar="N",
    )
    add(
        "preload",
        "modules, separated by commas, that workers are forked with; none: start each from nothing "
        "(default: torch, where SCRIPT imports it)",
        metavar="MODULES",
    )
    add(
        "nnodes",
        "nodes of the gang, or MIN:MAX (default: 1)",
        type=option_values.span,
        default=(1, 1),
        metavar="N",
    )
    add(
        "rdzv-endpoint",
        "where the agents of several nodes meet: HOST:PORT, more separated by commas; any number of nodes "
        "may come, those beyond --nnodes are spares",
        type=option_values.endpoints,
        default=(),
        metavar="HOST:PORT",
    )
    add(
        "join-timeout",
        "seconds that an agent waits for others while there are too few, before it leaves (default: 600)",
        type=option_values.seconds,
        default=600.0,
        metavar="S",
    )
    add("rdzv-id", "TORCHELASTIC_RUN_ID of the workers, as torchrun's", metavar="ID")
    add("role", "ROLE_NAME of the workers, as torchrun's", default="default", metavar="NAME")
    add_options(add, parser)
    add("node-rank", "which of them this is, from 0", type=int, default=0, metavar="N")
    add(
        "first-rank",
        "where nodes have different numbers of workers: rank of this one's first",
        type=option_values.whole,
        metavar="N",
    )
    add(
        "world-size",
        "where nodes have different numbers of workers: how many there are in all",
        type=option_values.count,
        metavar="N",
    )
    add("master-addr", "host of rank 0 (default: 127.0.0.1)", metavar="HOST")
    add("master-port", "port of rank 0 (default: a free one)", type=option_values.port, metavar="PORT")
    add("standalone", "accepted: one node is the default", action="store_true")
    add(
        "start-timeout",
        "seconds that a worker may take to its first step, before it is taken for hung (default: 1800 with "
        "Run, from when it begins; without it any time)",
        type=option_values.seconds,
        metavar="S",
    )
    add(
        "grace",
        "seconds between SIGTERM and SIGKILL for the others when a worker has failed (default: 2)",
        type=option_values.seconds,
        default=2.0,
        metavar="S",
    )
    add(
        "stop-grace",
        "seconds that all workers have to save and leave when the agent is told to stop; then SIGKILL "
        f"(default: nine tenths of ${environment.STOP_GRACE}, which engines set, else 30)",
        type=option_values.seconds,
        metavar="S",
    )
    parser.add_argument("-m", "--module", action="store_true", help="SCRIPT is a module, as for python -m")
    add("no-python", "run SCRIPT as it is, found through PATH", action="store_true")
    add(
        "command",
        "SCRIPT and ARGS are a whole command line: one of this very Python is taken apart, and run like a "
        "script; any other as with --no-python, and without restarts",
        action="store_true",
    )
    add(
        "restart-on",
        "what a restart is for, separated by commas: " + ", ".join(CAUSES) + " (default: all)",
        type=option_values.causes,
        default=frozenset(CAUSES),
        metavar="CAUSES",
    )
    parser.add_argument("script", metavar="SCRIPT", help="what every worker runs")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="its arguments")
    return parser


def _read_command(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Bring what a whole command line says into the form that it has for a script, or a program."""
    if not args.command:
        return
    if args.module or args.no_python:
        parser.error("--command takes a command line as it is: without --module and --no-python")
    found = python_command((args.script, *args.args), os.environ)
    if found is None:
        args.no_python, args.max_restarts = True, 0
        return
    args.script, args.args, args.module = found.script, found.args, found.is_module
    if args.preload is None and not uses_torch(found.file):
        args.preload = "none"


def _gang(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Gang:
    workers = args.nproc_per_node
    if workers is None:
        try:
            workers = option_values.count(os.environ.get(environment.WORKERS, "1"))
        except argparse.ArgumentTypeError as error:
            parser.error(f"${environment.WORKERS}: {error}")
    least, most = args.nnodes
    if not 0 <= args.node_rank < most:
        parser.error(f"--node-rank must lie between 0 and --nnodes - 1 = {most - 1}, got {args.node_rank}")
    if not args.rdzv_endpoint:
        if least != most:
            parser.error(f"--nnodes {least}:{most} needs --rdzv-endpoint, where the agents meet")
        if most > 1 and (args.master_addr is None or args.master_port is None):
            parser.error(
                f"--nnodes {most} needs --rdzv-endpoint, or --master-addr and --master-port, "
                "the same on every node"
            )
    if (args.first_rank is None) is not (args.world_size is None):
        parser.error("--first-rank and --world-size belong together")
    if args.first_rank is not None:
        if args.rdzv_endpoint:
            parser.error("--first-rank is for agents that are told their place, without --rdzv-endpoint")
        if args.first_rank + workers > args.world_size:
            parser.error(
                f"--world-size must be at least {args.first_rank + workers}, for {workers} workers from rank "
                f"{args.first_rank} on, got {args.world_size}"
            )
    if args.module and args.no_python:
        parser.error("--module needs python, and --no-python asks for none")
    if args.start_timeout == 0:
        parser.error("--start-timeout must be above 0, got 0")
    progress = os.environ.get(environment.PROGRESS_DIR)
    log = args.log_dir or os.environ.get(environment.LOG_DIR)
    if args.log_dir:
        try:
            Path(args.log_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(
                f"--log-dir must be a folder that can be made, got {args.log_dir!r}: {error.strerror}"
            )
    return Gang(
        command=_command(args),
        script=() if args.no_python else (args.script, *args.args),
        is_module=args.module,
        preload=_preload(args, workers),
        max_restarts=args.max_restarts,
        max_replacements=args.max_replacements,
        restart_on=args.restart_on,
        local_workers=workers,
        nodes=most,
        node_rank=args.node_rank,
        master_host=args.master_addr or "127.0.0.1",
        master_port=args.master_port,
        start_limit_s=args.start_timeout,
        grace_s=args.grace,
        stop_grace_s=_stop_grace_s(parser, args),
        progress_dir=Path(progress) if progress else None,
        log_dir=Path(log) if log else None,
        first_rank=args.first_rank,
        world_size=args.world_size,
        role=args.role,
        run_id=args.rdzv_id,
        logs_first=args.redirects == "3",
    )


def _stop_grace_s(parser: argparse.ArgumentParser, args: argparse.Namespace) -> float:
    if args.stop_grace is not None:
        return float(args.stop_grace)
    text = os.environ.get(environment.STOP_GRACE)
    if not text:
        return _STOP_GRACE_S
    try:
        return _SHARE_OF_GRACE * option_values.seconds(text)
    except argparse.ArgumentTypeError as error:
        parser.error(f"${environment.STOP_GRACE}: {error}")


def _terms(parser: argparse.ArgumentParser, args: argparse.Namespace, gang: Gang) -> Terms | None:
    """Return on what terms the agents of several nodes meet; None where they do not.

    Told their places, they need not; but only together can they restart a gang, and see to it that all may save.
    """
    token = os.environ.get(environment.RDZV_TOKEN, "")
    is_placed = not args.rdzv_endpoint and gang.nodes > 1
    if not args.rdzv_endpoint and not (is_placed and (token or args.max_restarts)):
        return None
    if not is_placed and "torch" not in gang.preload:
        parser.error("--rdzv-endpoint needs a Python script that imports torch (or --preload torch)")
    endpoints = ((args.master_addr, args.master_port),) if is_placed else args.rdzv_endpoint
    if not token and any(not _is_loopback(host) for host, _ in endpoints):
        parser.error(
            f"agents that meet over a network need a shared secret in ${environment.RDZV_TOKEN}, "
            "such as the output of `openssl rand -hex 32`"
        )
    least, most = args.nnodes
    return Terms(
        endpoints=endpoints,
        token=token,
        min_nodes=least,
        max_nodes=most,
        max_restarts=args.max_restarts,
        max_replacements=args.max_replacements,
        restart_on=args.restart_on,
        place=args.node_rank if is_placed else None,
        join_timeout_s=args.join_timeout,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _preload(args: argparse.Namespace, workers: int) -> tuple[str, ...]:
    """Return what the template imports. One worker that is never restarted gains nothing from one."""
    if args.no_python:
        return ()
    if args.preload is not None:
        return tuple(name for name in args.preload.split(",") if name not in ("", "none"))
    is_worth_it = workers > 1 or args.max_restarts > 0 or bool(args.rdzv_endpoint)
    return TORCH_MODULES if is_worth_it and (args.module or uses_torch(Path(args.script))) else ()


def _command(args: argparse.Namespace) -> tuple[str, ...]:
    if args.no_python:
        return (args.script, *args.args)
    # Unbuffered, so that what a killed worker printed last is there to be read.
    return (sys.executable, "-u", *(["-m"] if args.module else []), args.script, *args.args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
