"""How long a job waits for artesian on Ray: from the submit to its first process, beside Ray's own time.

It needs a Ray that runs, with artesian in its Python, on this machine or with a shared folder::

    python benchmarks/engines_ray.py [--quick]                     # a cluster of its own, emulated here
    RAY_DASHBOARD=http://head:8265 ARTESIAN_SHARED=/shared python benchmarks/engines_ray.py

Two peers, in turn with artesian: a Ray job that does nothing but to stamp the time, which is Ray's own
time for a job, and one whose driver takes a placement group and stamps the time in an actor in it, which
is Ray's own time for what the engine asks of it.
"""

import asyncio
import itertools
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import harness
from artesian.engines.ray.client import RayClient
from artesian.engines.ray.engine import RayEngine
from artesian.engines.ray.settings import RaySettings
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Start
from artesian.model.resources import parse_devices
from harness import Result, measured

_TIMEOUT_S = 120.0
_BARE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(time.time()))"
_ACTOR = """
import pathlib, sys, time
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
class Stamp:
    def set(self, path): pathlib.Path(path).write_text(str(time.time()))
ray.init(log_to_driver=False)
group = placement_group([{"CPU": 1}])
group.wait(60)
where = PlacementGroupSchedulingStrategy(placement_group=group)
ray.get(ray.remote(Stamp).options(num_cpus=1, scheduling_strategy=where).remote().set.remote(sys.argv[1]))
"""


def run(is_quick: bool) -> Sequence[Result]:
    """Measure on the Ray that the environment names, else on one of its own."""
    samples = 3 if is_quick else 15
    with ExitStack() as stack:
        shared = os.environ.get("ARTESIAN_SHARED")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="artesian-ray-", dir=shared)))
        address = os.environ.get("RAY_DASHBOARD")
        if address is None:
            sys.path.append(str(Path(__file__).parents[1] / "tests"))
            from ray_cluster import ray_cluster

            harness.say("starting a Ray with four emulated nodes")
            address = stack.enter_context(ray_cluster()).address
        return asyncio.run(_measure(RaySettings(address=address), folder, samples))


async def _measure(settings: RaySettings, folder: Path, samples: int) -> list[Result]:
    client = RayClient(settings)
    engine = RayEngine(folder / "jobs", settings, client, time.time)
    events: list[Event] = []
    nodes = await engine.open(events.append)
    node = next(node for node in nodes if node.accelerator == "cpu")
    numbers = itertools.count()
    bare: list[float] = []
    actor: list[float] = []
    started: list[float] = []
    told: list[float] = []
    ended: list[float] = []
    for number in range(samples + 1):
        harness.say(f"round {number + 1} of {samples + 1}; the first is not counted")
        round_ = (
            await _by_ray(client, settings, folder, next(numbers), _BARE),
            await _by_ray(client, settings, folder, next(numbers), _ACTOR),
            *await _by_artesian(engine, events, node.id, f"bench{number}"),
        )
        if number > 0:
            for samples_of, value_s in zip((bare, actor, started, told, ended), round_, strict=True):
                samples_of.append(value_s)
    await engine.close()
    above = [ours - theirs for ours, theirs in zip(started, bare, strict=True)]
    beyond = [ours - theirs for ours, theirs in zip(started, actor, strict=True)]
    return [
        measured("submit -> process of the job", started, "s", "lower", peer="a Ray job", peer_samples=bare),
        measured("the same, above Ray's own job", above, "s", "lower", bar=2.0),
        measured(
            "submit -> process of the job",
            started,
            "s",
            "lower",
            peer="a Ray job with a placement group and an actor",
            peer_samples=actor,
        ),
        measured("the same, above Ray's own job with an actor", beyond, "s", "lower"),
        measured("process of the job -> AttemptStarted", told, "s", "lower"),
        measured("process of the job -> AttemptEnded, of one that does nothing", ended, "s", "lower"),
    ]


async def _by_ray(client: RayClient, settings: RaySettings, folder: Path, number: int, script: str) -> float:
    """Return the seconds to the first act of a job that is submitted without artesian."""
    stamp, id_ = folder / f"stamp-{number}", f"{folder.name}-{number}"
    line = "exec " + shlex.join([settings.python, "-c", script, str(stamp)])
    began_s = time.time()
    await asyncio.to_thread(client.submit, id_, line, {}, {})
    await _until(lambda: stamp.exists() and stamp.read_text() != "")
    acted_s = float(stamp.read_text())
    while (job := await asyncio.to_thread(client.job, id_)) is not None and not job.is_over:
        await asyncio.sleep(0.1)
    return acted_s - began_s


async def _by_artesian(
    engine: RayEngine, events: list[Event], node_id: str, job_id: str
) -> tuple[float, float, float]:
    """Return the seconds to the start of the process, from there to being told, and to being told of its end."""
    events.clear()
    job = Job(id=job_id, name=job_id, command=("true",), devices=parse_devices("cpu:1"), workdir="/")
    placement = Placement(shares=(NodeShare(node_id=node_id, devices=(0,)),))
    began_s = time.time()
    engine.start(Start(job_id=job_id, epoch=1, placement=placement, reason="a benchmark"), job)
    await _until(lambda: any(isinstance(event, AttemptStarted) for event in events))
    told_s = time.time()
    await _until(lambda: any(isinstance(event, AttemptEnded) for event in events))
    ended_s = time.time()
    (started_s,) = (event.at_s for event in events if isinstance(event, AttemptStarted))
    await asyncio.sleep(1.0)  # Ray is still busy with its end
    return started_s - began_s, told_s - started_s, ended_s - started_s


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_TIMEOUT_S):
        while not holds():
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    harness.main("engines_ray", run)
