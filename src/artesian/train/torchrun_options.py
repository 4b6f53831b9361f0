"""torchrun's options beyond the launch agent's own: same meaning, told to be without effect, or refused.

torchrun's parser (``torch.distributed.run.get_args_parser``) is the source; a test walks over its options, and
over the variables ``PET_…`` that stand for those that are not given.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from artesian.train.saying import say
from artesian.wire import environment

_WITHOUT_EFFECT = {
    "rdzv-backend": "the agents meet by themselves",
    "monitor-interval": "the end of a worker is seen at once",
    "start-method": "workers are forked from a process that has their imports ready, see --preload",
    "event-log-handler": "recoveries are reported on stderr, and to the control plane",
    "local-addr": "--rdzv-endpoint or --master-addr says where nodes meet",
    "signals-to-handle": "SIGTERM, SIGINT and SIGUSR1 always are",
}
_MEANT = {"rdzv-backend": ("c10d", "static")}
"""Values that name what is done here anyway, so that nothing needs to be said of them."""
_REFUSED = {
    "tee": "use --log-dir DIR with -r 3, and tail -f the files",
    "local-ranks-filter": "use --log-dir DIR: then a node's first worker alone prints",
    "duplicate-stdout-filters": "use --log-dir DIR, and grep in the files",
    "duplicate-stderr-filters": "use --log-dir DIR, and grep in the files",
    "logs-specs": "use --log-dir DIR",
    "numa-binding": "bind the workers in the script, or start numactl with --no-python",
}
_HERE_AS_THERE = (
    "nnodes",
    "nproc-per-node",
    "rdzv-endpoint",
    "rdzv-id",
    "rdzv-conf",
    "standalone",
    "max-restarts",
    "role",
    "module",
    "no-python",
    "run-path",
    "log-dir",
    "redirects",
    "node-rank",
    "master-addr",
    "master-port",
    "shutdown-timeout",
    "virtual-local-rank",
)
_WITHOUT_VARIABLE = ("logs-specs", "numa-binding")
VARIABLES = {
    name.replace("-", "_"): f"PET_{name.replace('-', '_').upper()}"
    for name in (*_HERE_AS_THERE, *_WITHOUT_EFFECT, *_REFUSED)
    if name not in _WITHOUT_VARIABLE
}
"""The variable that gives an option's value where the command line does not, by the option's name in the results."""
_COUNT = {
    "gpu": "import torch; print(torch.cuda.device_count())",
    "auto": "import os, torch; a = torch.accelerator; print(a.device_count() or os.cpu_count())",
}
Add = Callable[..., None]


def add_options(add: Add, parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``; ``add`` adds one with dashes, and with underscores."""
    for name, why in _WITHOUT_EFFECT.items():
        add(name, f"torchrun's, without effect: {why}", metavar="X")
    for name, instead in _REFUSED.items():
        short = ["-t"] if name == "tee" else []
        parser.add_argument(
            *short,
            f"--{name}",
            f"--{name.replace('-', '_')}",
            help=f"torchrun's, refused: {instead}",
            metavar="X",
        )
    add("virtual-local-rank", "torchrun's, refused: take the device of LOCAL_RANK", action="store_true")
    add(
        "rdzv-conf",
        "torchrun's: join_timeout=S is --join-timeout; the rest is without effect",
        metavar="CONF",
    )
    add("run-path", "torchrun's: SCRIPT is a Python file, as it is anyway", action="store_true")
    add("shutdown-timeout", "torchrun's: sets --grace and --stop-grace", type=float, metavar="S")
    add("log-dir", "folder for the output of all workers but the node's first: rank-N.out", metavar="DIR")
    parser.add_argument(
        "-r",
        "--redirects",
        help="torchrun's: 0, or 3 for the first worker's output, too, in --log-dir",
        default="0",
    )


def take_environment(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Have torchrun's variables in ``environ`` be the defaults of ``parser``; an empty one is none.

    Within a job they are not read: what engine has started it says how many workers there are, and where.
    Raises SystemExit with code 2 for a flag's that is no number.
    """
    if environment.JOB_ID in environ:
        return
    for action in parser._actions:
        name = VARIABLES.get(action.dest, "")
        text = environ.get(name)
        if not text:
            continue
        if action.nargs != 0:
            action.default = _Given(text)
            action.type = _naming(name, action.type)
        elif text.isascii() and text.isdigit():
            action.default = int(text) != 0
        else:
            parser.error(f"${name}: expected 1 or 0, got {text!r}")


class _Given(str):
    """A value that a variable gives, and not the command line."""

    __slots__ = ()


def _naming(name: str, read: Any) -> Callable[[str], Any]:
    """Return ``read``, of an option's value, so that it names the variable where the fault lies with that."""

    def read_or_name(text: str) -> Any:
        try:
            return text if read is None else read(text)
        except (argparse.ArgumentTypeError, ValueError) as error:
            if not isinstance(text, _Given):
                raise
            raise argparse.ArgumentTypeError(f"${name}: {error}") from None

    return read_or_name


def take_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Act on the options, on ``args``. Raises SystemExit with code 2 for what is refused."""
    for name, instead in _REFUSED.items():
        if getattr(args, name.replace("-", "_")) not in (None, "0", ""):
            parser.error(f"--{name} of torchrun is not supported here: {instead}")
    if args.virtual_local_rank:
        parser.error("--virtual-local-rank of torchrun is not supported here: take the device of LOCAL_RANK")
    if args.redirects not in ("0", "3") or (args.redirects == "3" and args.log_dir is None):
        parser.error(f"--redirects: expected 0, or 3 with --log-dir DIR, got {args.redirects!r}")
    if args.run_path:
        if args.module:
            parser.error("--run-path needs a file, and --module names a module")
        args.no_python = False
    _take_rendezvous(parser, args)
    if args.shutdown_timeout is not None:
        if not 0 <= args.shutdown_timeout < float("inf"):
            parser.error(f"--shutdown-timeout: expected seconds, 0 or more, got {args.shutdown_timeout}")
        args.grace = args.stop_grace = args.shutdown_timeout
    for name, why in _WITHOUT_EFFECT.items():
        value = getattr(args, name.replace("-", "_"))
        if value is not None and value not in _MEANT.get(name, ()):
            say(f"--{name} is without effect: {why}")


def _take_rendezvous(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for item in filter(None, (args.rdzv_conf or "").split(",")):
        key, _, value = item.partition("=")
        if key.strip() != "join_timeout":
            say(f"--rdzv-conf {key.strip()} is without effect: --join-timeout is what there is to set")
            continue
        if not value.strip().isdigit():
            parser.error(f"--rdzv-conf join_timeout: expected whole seconds, got {value!r}")
        args.join_timeout = float(value)


def counted(text: str) -> int:
    """Return how many workers ``gpu``, ``cpu`` or ``auto`` stand for here, asked of torch in another process.

    Raises argparse.ArgumentTypeError where there are none.
    """
    if text == "cpu":
        return os.cpu_count() or 1
    asked = subprocess.run([sys.executable, "-c", _COUNT[text]], check=False, capture_output=True, text=True)  # nosec B603
    found = asked.stdout.strip()
    if asked.returncode or not found.isdigit() or int(found) < 1:
        why = (asked.stderr.strip().splitlines() or ["torch sees no device"])[-1]
        raise argparse.ArgumentTypeError(
            f"{text}: expected a device of torch's, found none ({why}); give a number"
        )
    return int(found)
