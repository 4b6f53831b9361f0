"""The template: a process that has imported what workers need, and becomes workers by forking.

``python -u -m artesian.train.template SOCKET AGENT_PID MODULES``, started by ``Standby``. It has one thread and
touches no accelerator: both come after the fork, in the worker. A worker is forked twice, so that it becomes
the agent's own child, which reaps it and with which it dies, as if the agent had started it; the template is
only where its memory comes from.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import types
from typing import Any, NoReturn

from artesian.train.ending import end
from artesian.train.finality import USAGE, is_final
from artesian.train.link import link, tell_elsewhere
from artesian.train.worker_process import STOPS, die_with, ignore_stops
from artesian.wire import environment

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Has torch ask the driver's library whether there is a device, and not CUDA, which a fork would break."""
_MESSAGE_BYTES = 1 << 20


def main(control: int, agent: int, modules: list[str]) -> None:
    """Import ``modules``, then fork what the agent asks for until it hangs up."""
    die_with(agent)
    ignore_stops()  # so that the store, which is forked from here, goes on as well
    requests = socket.socket(fileno=control)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the workers share these pages; a collector that visited them would copy each
    requests.send(b"{}")
    while True:
        data, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 8)
        if not data:
            return
        request = json.loads(data)
        middle = os.fork()
        if middle == 0:
            try:
                if os.fork() != 0:
                    os._exit(0)
            except OSError:  # no room for another process
                traceback.print_exc()
                os._exit(1)
            _become(request, fds, requests, agent)
        _, status = os.waitpid(middle, 0)
        for fd in fds:
            os.close(fd)
        if status:  # the agent waits for a worker that is not to come: that the template has ended tells it
            sys.exit(f"artesian: a {request['kind']} could not be forked")


def _become(request: dict[str, Any], fds: list[int], requests: socket.socket, agent: int) -> NoReturn:
    """Turn the forked process into what ``request`` describes; it ends as ``end`` has it."""
    try:
        _wait_for_adoption(agent)
        # Workers of one session share one autogroup of the kernel's scheduler, and wait for each other's ticks: a gang
        # on as many cores took 1.5% longer for a step of 50 ms.
        os.setsid()
        die_with(agent)
        if request["kind"] != "store":
            _hear_stops()  # before the agent knows of it, and may have it stop
        requests.send(json.dumps({"id": request["id"], "pid": os.getpid()}).encode())
        requests.close()
    except BaseException:
        traceback.print_exc()
        os._exit(126)
    if request["kind"] == "store":
        _serve_store(fds[0])
    _run_worker(request, fds)


def _hear_stops() -> None:
    for stop in STOPS:
        signal.signal(stop, signal.default_int_handler if stop == signal.SIGINT else signal.SIG_DFL)


def _wait_for_adoption(agent: int) -> None:
    middle = os.getppid()
    if middle != agent:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(middle)
            select.select([fd], [], [])
            os.close(fd)


def _serve_store(listener: int) -> NoReturn:
    """Host one round's store, outside of every worker, until the agent ends it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with socket.socket(fileno=os.dup(listener)) as bound:
        host, port = bound.getsockname()[:2]
    store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener)
    while store is not None:
        signal.pause()
    os._exit(0)


def _run_worker(request: dict[str, Any], fds: list[int]) -> NoReturn:
    os.environ.pop(NVML_CHECK, None)  # the template's own
    os.environ.update(request["env"])
    os.environ[environment.AGENT_FDS] = f"{fds[0]},{fds[1]}"
    if (log := request["log"]) is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # else all workers would draw the same: Python's own generator sees to itself
    _take_name(request)
    tell_elsewhere()
    _beat_with_every_optimizer()
    sys.argv = [request["script"], *request["args"]]
    try:
        if request["is_module"]:
            sys.path[0] = os.getcwd()
            runpy.run_module(request["script"], run_name="__main__", alter_sys=True)
        else:
            _run_script(request["script"])
    except SystemExit as asked:
        _tell_of_usage(asked)
        end(asked.code)
    except BaseException as error:
        _report(error)
        end(130 if isinstance(error, KeyboardInterrupt) else 1)
    end(0)


def _take_name(request: dict[str, Any]) -> None:
    """Have ``ps`` and ``top`` show rank and script: at most 15 bytes, the kernel's limit for a name."""
    name = f"{request['env'].get('RANK', '')}:{os.path.basename(request['script'])}"
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:
        file.write(name.encode()[:15])


def _run_script(script: str) -> None:
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    main_module = types.ModuleType("__main__")
    main_module.__file__ = path = os.path.abspath(script)  # as Python has it
    sys.modules["__main__"] = main_module
    with open(script, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, main_module.__dict__)  # noqa: S102  the user's script is what a worker is for  # nosec B102


def _beat_with_every_optimizer() -> None:
    """Have every step of any optimizer be a sign of life, in a script that knows nothing of artesian."""
    if "torch" not in sys.modules:
        return
    from torch.optim.optimizer import register_optimizer_step_post_hook

    found = link()
    if found is not None:
        register_optimizer_step_post_hook(lambda *_: found.heart.beat())


def _report(error: BaseException) -> None:
    """Show the error as Python does, without the frames of this file, and tell the agent at once."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__):
        trace = trace.tb_next
    sys.excepthook(type(error), error, trace)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if (found := link()) is not None:
        found.failed_of(error)


def _tell_of_usage(asked: SystemExit) -> None:
    """Tell the agent where the script does not take its command line: a number alone would not say so."""
    if (
        asked.code == USAGE
        and (found := link()) is not None
        and is_final(asked, is_first_start=found.is_first_start)
    ):
        found.failed("its command line is wrong", is_final=True, code=USAGE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",") if sys.argv[3] else [])
