"""What a checkpoint costs training: the stall of a step, what it slows down beside it, the way back.

Workers in one gloo group (NCCL where there are devices) train in step; every one keeps its state in shared memory, rank 0
persists it, as in data-parallel training. One cycle is a save and the steps after it; the peers save the
same state in the same run, cycle by cycle in turn:

``plain copy``       into a ready buffer, within the step
``torch.save``       to a file, within the step, flushed
``dcp.async_save``   torch.distributed.checkpoint in its thread, to files

The stall is the time that the step is held up: the call, and for artesian the wait before the optimizer. What a
cycle costs in all, is the time of its steps and calls, less that of as many undisturbed steps.

``--sharded``: each worker has a shard of the state (FSDP2) that takes so many GiB, and all of them write theirs. The peers are
the plain copy of a shard, and DCP's ``save`` and ``async_save`` by all workers.
``--peers`` leaves some out: with all of them, 1 GiB and two workers, it takes 12 GiB of memory.
``--script FILE``: measure your own training. FILE defines ``make_training(rank, world_size, device)``, which
returns a model, an optimizer and a function that computes the gradients of one step.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.fsdp import fully_shard

import harness
from artesian.train.checkpoint import Checkpointer
from artesian.train.interval import EverySteps
from artesian.train.manifest import folder_name
from artesian.train.membership import current
from artesian.train.persist import Report
from artesian.train.reporter import Reporter
from artesian.train.restorable import Restorable
from artesian.train.saver import Saver
from artesian.train.saves import Position
from artesian.train.sharded import ShardedCheckpointer
from artesian.train.sharded_back import Places
from artesian.train.sharded_saves import ShardedSaves
from artesian.train.shards import local_shards
from harness import Result, measured

Training = tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]
Samples = dict[str, list[float]]

PEERS = ("plain copy", "torch.save", "dcp.async_save")
SHARDED_PEERS = ("plain copy", "dcp.save", "dcp.async_save")
_SIDE = 1024
_STEP_S = 0.5
_STEPS_A_CYCLE = 6


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--script", type=Path, default=None)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--peers", nargs="*", choices=sorted({*PEERS, *SHARDED_PEERS}), default=None)
    options, sys.argv[1:] = parser.parse_known_args()
    known = SHARDED_PEERS if options.sharded else PEERS
    options.peers = [peer for peer in known if options.peers is None or peer in options.peers]
    harness.main("checkpoint", functools.partial(run, options))


def run(options: argparse.Namespace, is_quick: bool) -> Sequence[Result]:
    """Run the workers, and make results of what they have measured."""
    gib = min(options.gib, 0.25) if is_quick else options.gib
    cycles = 2 if is_quick else options.cycles
    workers = options.workers or (1 if torch.cuda.is_available() else 2)
    with tempfile.TemporaryDirectory(prefix="artesian-checkpoint-", dir=options.folder) as name:
        mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
            _worker,
            args=(workers, gib, cycles, Path(name), options.script, options.peers, options.sharded),
            nprocs=workers,
        )
        samples: Samples = defaultdict(list)
        for rank in range(workers):
            for key, values in json.loads((Path(name) / f"rank-{rank}.json").read_text()).items():
                samples[key] += values
    return _results(samples, gib, workers, "a shard" if options.sharded else "a worker")


def _results(samples: Samples, gib: float, workers: int, whose: str) -> list[Result]:
    step_s = statistics.median(samples["undisturbed"])
    size = f"{gib:g} GiB {whose}"
    known = dict.fromkeys((*PEERS, *SHARDED_PEERS))
    peers: list[str | None] = [peer for peer in known if samples[f"{peer} stall"]]
    peers = peers or [None]

    def ratio(key: str) -> list[float]:
        return [seconds / step_s for seconds in samples[key]]

    def ms(key: str) -> list[float]:
        return [seconds * 1000 for seconds in samples[key]]

    results = [
        measured(f"undisturbed step, {workers} workers", samples["undisturbed"], "s", "lower"),
        measured(f"stall of a step, {size}, cold", ms("artesian cold"), "ms", "lower"),
    ]
    results += [
        measured(
            f"stall of a step, {size}, warm",
            ms("artesian stall"),
            "ms",
            "lower",
            bar=20,
            peer=peer,
            peer_samples=ms(f"{peer} stall") if peer else (),
        )
        for peer in peers
    ]
    for case, key, bar in (
        ("the step beside the copy, of an undisturbed one", "beside copy", None),
        ("the other steps until it is durable", "while persisting", 1.05),
    ):
        if samples[f"artesian {key}"]:
            results.append(
                measured(
                    case,
                    ratio(f"artesian {key}"),
                    "x",
                    "lower",
                    bar=bar,
                    peer="dcp.async_save" if samples[f"dcp.async_save {key}"] else None,
                    peer_samples=ratio(f"dcp.async_save {key}"),
                )
            )
    results += [
        measured(
            "a save in all: what its cycle took longer",
            ms("artesian cycle"),
            "ms",
            "lower",
            peer=peer,
            peer_samples=ms(f"{peer} cycle") if peer else (),
        )
        for peer in peers
    ]
    results += [
        measured("from the save until it is durable", samples["artesian durable"], "s", "lower"),
    ]
    if samples["artesian recall"]:
        results.append(measured("load from memory", samples["artesian recall"], "s", "lower"))
    other = "dcp.load" if samples["dcp.load"] else "torch.load"
    results += [
        measured(
            "load from storage, verified",
            samples["artesian load"],
            "s",
            "lower",
            peer=f"{other}, not verified" if samples[other] else None,
            peer_samples=samples[other],
        ),
    ]
    return results


def _worker(
    rank: int,
    workers: int,
    gib: float,
    cycles: int,
    folder: Path,
    script: Path | None,
    peers: list[str],
    is_sharded: bool,
) -> None:
    is_cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank) if is_cuda else torch.device("cpu")
    if is_cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    backend = "cpu:gloo,cuda:nccl" if is_cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=workers)
    warnings.filterwarnings("ignore", module="torch.distributed.checkpoint")
    if script:
        training = _loaded(script, rank, workers, device)
    else:
        training = _training(gib * workers if is_sharded else gib, device, is_sharded=is_sharded)
    bench = _Bench(rank, training, device, folder)
    bench.undisturbed(_STEPS_A_CYCLE)
    bench.samples["undisturbed"].clear()  # torch's lazy starts are in them
    with _cases(bench, peers, is_sharded=is_sharded) as cases:
        for cycle in range(cycles + 1):
            bench.undisturbed(_STEPS_A_CYCLE)
            for name, save in cases.items():
                bench.cycle(name, save, is_cold=cycle == 0)
        if is_sharded:
            bench.sharded_loads()
    if not is_sharded:
        bench.loads()
    (folder / f"rank-{rank}.json").write_text(json.dumps(bench.samples))
    dist.barrier()
    dist.destroy_process_group()


def _training(gib: float, device: torch.device, *, is_sharded: bool) -> Training:
    """Return a model whose parameters and AdamW's moments take ``gib``, and a step that takes half a second."""
    count = max(1, round(gib * 2**30 / (3 * 4 * _SIDE * _SIDE)))
    model = torch.nn.ParameterList(torch.randn(_SIDE, _SIDE) * 0.01 for _ in range(count)).to(device)
    if is_sharded:
        fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for parameter in model:
        parameter.grad = torch.full_like(parameter, 1e-3)
    own = [local_shards(parameter).detach() for parameter in model.parameters()]
    operand = torch.randn(_SIDE, own[0].shape[0], device=device)
    message = torch.ones(1 << 18, device=device)

    def compute(repeats: int) -> None:
        for index in range(repeats):
            torch.mm(operand, own[index % count])

    def timed_s(repeats: int) -> float:
        start_s = time.perf_counter()
        compute(repeats)
        _synchronize(device)
        return time.perf_counter() - start_s

    timed_s(5)
    each_s = torch.tensor([timed_s(20) / 20])
    dist.all_reduce(each_s, op=dist.ReduceOp.MAX)
    repeats = max(1, int(_STEP_S / each_s.item()))

    def gradients() -> None:
        compute(repeats)
        dist.all_reduce(message)  # the workers are as slow as the slowest, as they are in training
        message.fill_(1)

    return model, optimizer, gradients


def _loaded(script: Path, rank: int, workers: int, device: torch.device) -> Training:
    spec = importlib.util.spec_from_file_location("training_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    training: Training = module.make_training(rank, workers, device)
    return training


class _Bench:
    """One worker: its steps, and the time they take."""

    def __init__(self, rank: int, training: Training, device: torch.device, folder: Path) -> None:
        self.rank = rank
        self.model, self.optimizer, self.gradients = training
        self.device = device
        self.folder = folder
        self.samples: Samples = defaultdict(list)
        self.step = 0

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def undisturbed(self, steps: int) -> None:
        dist.barrier()
        for _ in range(steps):
            self.samples["undisturbed"].append(self._step_s(lambda: None)[0])

    def cycle(self, name: str, save: "_Case", *, is_cold: bool) -> None:
        """Save after a step, and take the steps until it is durable, a few at least."""
        undisturbed_s = statistics.median(self.samples["undisturbed"])
        save.prepare()
        dist.barrier()
        start_s = time.perf_counter()
        save.begin()
        call_s = time.perf_counter() - start_s
        steps_s: list[float] = []
        stall_s = call_s
        was_durable = []
        while len(steps_s) < _STEPS_A_CYCLE or not self._all_durable(save):
            was_durable.append(save.is_durable())
            step_s, wait_s = self._step_s(save.wait if not steps_s else lambda: None, save.after_step)
            stall_s += wait_s
            steps_s.append(step_s)
        if is_cold:
            self.samples[f"{name} cold"].append(stall_s)
            return
        self.samples[f"{name} stall"].append(stall_s)
        self.samples[f"{name} beside copy"].append(steps_s[0])
        self.samples[f"{name} while persisting"] += [
            step_s for step_s, is_over in zip(steps_s[1:], was_durable[1:], strict=True) if not is_over
        ]
        self.samples[f"{name} cycle"].append(call_s + sum(steps_s) - len(steps_s) * undisturbed_s)
        if (duration_s := save.durable_s()) is not None:
            self.samples[f"{name} durable"].append(duration_s)

    def loads(self) -> None:
        if self.rank == 0:
            saver = Saver(None, job=f"bench-{os.getpid()}", rank=self.rank)
            assert saver.memory is not None
            saver.memory.begin(1, self.state())
            for _ in range(2):
                self._load("artesian recall", saver.memory.load)
                self._load("artesian load", Checkpointer(self.folder / "artesian").load_newest)
                if (self.folder / "torch.save").exists():
                    self._load(
                        "torch.load", lambda: torch.load(self.folder / "torch.save", map_location="cpu")
                    )
            saver.close()

    def _load(self, name: str, load: Callable[[], object]) -> None:
        start_s = time.perf_counter()
        assert load() is not None
        self.samples[name].append(time.perf_counter() - start_s)

    def sharded_loads(self) -> None:
        for _ in range(2):
            newest = ShardedCheckpointer(self.folder / "artesian").load_newest
            self._load("artesian load", lambda: newest(self.model, self.optimizer))  # noqa: B023
            if (self.folder / "dcp").exists():
                state = self.state()
                self._load("dcp.load", lambda: dcp_load(state, checkpoint_id=self.folder / "dcp") or True)  # noqa: B023

    def _step_s(
        self, wait: Callable[[], object], after_step: Callable[[], object] = lambda: None
    ) -> tuple[float, float]:
        """Return the seconds of a step, and how many of them it was held up before the optimizer."""
        start_s = time.perf_counter()
        self.gradients()
        wait_start_s = time.perf_counter()
        wait()
        wait_s = time.perf_counter() - wait_start_s
        self.optimizer.step()
        _synchronize(self.device)
        self.step += 1
        after_step()
        return time.perf_counter() - start_s, wait_s

    def _all_durable(self, save: "_Case") -> bool:
        """Agree, outside of the timed steps, so that all workers take as many."""
        flag = torch.tensor([int(save.is_durable())])
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag.item())


class _Case:
    """One way to save. What saves within the step is durable, or as good as it gets, when ``begin`` returns."""

    def prepare(self) -> None: ...
    def after_step(self) -> None: ...
    def begin(self) -> None: ...
    def wait(self) -> None: ...
    def is_durable(self) -> bool:
        return True

    def durable_s(self) -> float | None:
        return None


class _Artesian(_Case):
    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        where = bench.folder / "artesian" if bench.rank == 0 else None
        self.saver = Saver(
            where,
            job=f"bench-{bench.folder.name}",
            rank=bench.rank,
            interval=EverySteps(1),
            on_report=self._reported,
        )
        self._start_s = 0.0
        self._duration_s: float | None = None
        self._failure: str | None = None

    def begin(self) -> None:
        self._start_s, self._duration_s = time.perf_counter(), None
        self.saver.begin(self._bench.step, self._bench.state)

    def wait(self) -> None:
        self.saver.wait()

    def is_durable(self) -> bool:
        if self._failure is not None:
            raise RuntimeError(self._failure)
        return self._bench.rank != 0 or self._duration_s is not None

    def durable_s(self) -> float | None:
        return self._duration_s

    def close(self) -> None:
        self.saver.close()

    def _reported(self, report: Report) -> None:
        self._failure = report.failure
        self._duration_s = time.perf_counter() - self._start_s


class _ArtesianShards(_Case):
    """What ``Run`` does with sharded state: all workers vote after each step on whether to save after the next."""

    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        self._is_due = False
        self._saved: int | None = None
        self._start_s = 0.0
        self._duration_s: float | None = None
        job = f"bench-{bench.folder.name}"
        places = Places(
            folder=bench.folder / "artesian",
            interval=self,
            memory=job,
            memory_every=1 << 60,
            keep_last=2,
            keep_every=None,
            node=0,
            holder=None,
        )
        self._member = dataclasses.replace(current(bench.device), local_rank=bench.rank)
        what = Restorable(bench.model, bench.optimizer, None, bench.device)
        self.saves = ShardedSaves(places, what, self._member, Reporter(self._member, None, None))
        self.saves.restore()

    def is_due(self, *_: object) -> bool:
        return self._is_due

    def stalled(self, seconds: float) -> None: ...
    def prepare(self) -> None:
        self._is_due = True
        self.after_step()
        self._is_due = False

    def begin(self) -> None:
        self._start_s, self._duration_s, self._saved = time.perf_counter(), None, self._bench.step
        self.after_step()

    def wait(self) -> None:
        self.saves.settle()

    def after_step(self) -> None:
        self.saves.begin(Position(step=self._bench.step, samples=0))

    def is_durable(self) -> bool:
        if self.saves.failed:
            raise RuntimeError("a save has failed")
        is_there = (self._bench.folder / "artesian" / folder_name(self._saved or 0)).exists()
        if is_there and self._duration_s is None:
            self._duration_s = time.perf_counter() - self._start_s
        return is_there

    def durable_s(self) -> float | None:
        return self._duration_s

    def close(self) -> None:
        self.saves.save_now(Position(step=self._saved or 0, samples=0))
        self.saves.close(keep=False)


class _PlainCopy(_Case):
    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        self._ready: list[torch.Tensor] = []

    def begin(self) -> None:
        found = _tensors(local_shards(self._bench.state()))
        if not self._ready:
            is_cuda = self._bench.device.type == "cuda"
            self._ready = [torch.empty_like(tensor, device="cpu", pin_memory=is_cuda) for tensor in found]
        for ready, tensor in zip(self._ready, found, strict=True):
            ready.copy_(tensor)


class _TorchSave(_Case):
    def __init__(self, bench: _Bench) -> None:
        self._bench = bench

    def begin(self) -> None:
        if self._bench.rank == 0:
            with (self._bench.folder / "torch.save").open("wb") as file:
                torch.save(self._bench.state(), file)
                os.fsync(file.fileno())


class _DcpAsync(_Case):
    """``dcp.async_save``, whose future says when it is durable."""

    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        self._future: Future[Any] | None = None

    def is_durable(self) -> bool:
        if self._future is None or not self._future.done():
            return self._future is None
        self._future.result()
        return True

    def _save(self, folder: Path, group: dist.ProcessGroup) -> None:
        writer = FileSystemWriter(folder)
        future = async_save(self._bench.state(), storage_writer=writer, process_group=group)
        assert isinstance(future, Future)
        self._future = future


class _AsyncSave(_DcpAsync):
    def __init__(self, bench: _Bench) -> None:
        super().__init__(bench)
        self._alone = dist.new_group([0], backend="gloo")

    def begin(self) -> None:
        folder = self._bench.folder / "dcp"
        if self._bench.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            self._save(folder, self._alone)


class _DcpSave(_Case):
    """All workers write their shards to files, within the step."""

    def __init__(self, bench: _Bench) -> None:
        self._bench = bench

    def begin(self) -> None:
        folder = self._bench.folder / "dcp"
        if self._bench.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        dcp_save(self._bench.state(), checkpoint_id=folder)


class _AsyncShards(_DcpAsync):
    def __init__(self, bench: _Bench) -> None:
        super().__init__(bench)
        self._group = dist.new_group(backend="gloo")

    def prepare(self) -> None:
        if self._bench.rank == 0:
            shutil.rmtree(self._bench.folder / "dcp-async", ignore_errors=True)

    def begin(self) -> None:
        self._save(self._bench.folder / "dcp-async", self._group)


class _cases:  # noqa: N801 - used like a function
    """The ways to save, by name, closed at the end."""

    def __init__(self, bench: _Bench, peers: Sequence[str], *, is_sharded: bool) -> None:
        self._artesian = _ArtesianShards(bench) if is_sharded else _Artesian(bench)
        made: dict[str, Callable[[_Bench], _Case]] = {
            "plain copy": _PlainCopy,
            "torch.save": _TorchSave,
            "dcp.save": _DcpSave,
            "dcp.async_save": _AsyncShards if is_sharded else _AsyncSave,
        }
        self._cases: dict[str, _Case] = {
            "artesian": self._artesian,
            **{name: made[name](bench) for name in peers},
        }

    def __enter__(self) -> Mapping[str, _Case]:
        return self._cases

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else the other workers would be waited for, who wait elsewhere
            self._artesian.close()


def _tensors(value: Any) -> list[torch.Tensor]:
    match value:
        case torch.Tensor():
            return [value]
        case dict():
            return [tensor for item in value.values() for tensor in _tensors(item)]
        case list() | tuple():
            return [tensor for item in value for tensor in _tensors(item)]
        case _:
            return []


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
