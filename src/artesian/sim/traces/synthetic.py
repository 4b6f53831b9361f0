"""Made-up traces with the statistics of the public ones: seeded, of any size, without any data.

What is like the original: how many jobs come in each hour and on each day of the week, and in what bursts;
the mix of gangs, shares and teams; durations with their heavy tails, by the size of the gang. What is not: which job
follows which, and anything that one user does in particular. The same arguments give the same trace,
with one version of numpy.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from artesian.kernel.collector import collector_paused
from artesian.model.fields import MAX_DURATION_S
from artesian.model.fleet import Fleet, Node
from artesian.model.job import Job, JobKind
from artesian.model.resources import MILLI, DeviceRequest
from artesian.sim.jobs import SimJob
from artesian.sim.traces import gavel, profiles
from artesian.sim.traces.trace import COMMAND, NO_ENV, Requests, Trace, pools_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HOUR_S = 3600.0


class Rhythm(Struct, frozen=True, kw_only=True, gc=False):
    """When jobs come: relative rates by hour of the day and by day of the week, and gaps in their time."""

    hours: Sequence[float]
    weekdays: Sequence[float]
    gaps: Sequence[tuple[float, float]]

    def arrivals_s(self, random: np.random.Generator, count: int, span_s: float) -> FloatArray:
        """Return ``count`` sorted times from 0 to ``span_s``; 0 is a Monday, midnight.

        Gaps are hyper-exponential in a time that runs as fast as the rate is high. Raises ValueError for a
        span of more than 100 years: the load is a slip of the pen then.
        """
        if not span_s <= MAX_DURATION_S:
            raise ValueError(f"trace: expected jobs that arrive within 100 years, got {span_s:g} s")
        phase = random.choice(len(self.gaps), size=count, p=_normalised([share for share, _ in self.gaps]))
        gaps = np.array([mean for _, mean in self.gaps])[phase] * random.standard_exponential(count)
        hour = np.arange(math.ceil(span_s / HOUR_S) + 1)
        rate = np.array(self.hours)[hour % 24] * np.array(self.weekdays)[hour // 24 % 7]
        edges_s = np.append(hour, len(hour)) * HOUR_S
        elapsed = np.concatenate([[0.0], np.cumsum(rate)])
        last = float(np.interp(span_s, edges_s, elapsed))
        passed = np.cumsum(gaps) - gaps[:1]
        if count > 1:
            passed *= last / passed[-1]
        times: FloatArray = np.interp(passed, elapsed, edges_s)
        return np.minimum(times, span_s)


PHILLY = Rhythm(hours=profiles.PHILLY_HOURS, weekdays=profiles.PHILLY_WEEKDAYS, gaps=profiles.PHILLY_GAPS)
"""The rhythm of Philly's jobs, which the openb-like trace has as well: openb tells too few days for its own."""


def philly_like(seed: int, jobs: int, load: float, devices: int, *, devices_per_node: int = 8) -> Trace:
    """Return ``jobs`` jobs like Philly's on ``devices`` devices, arriving so as to be a load of ``load``.

    ``load`` is the device-seconds asked for over those of the fleet while jobs arrive. Gangs larger than the
    fleet do not occur. Raises ValueError unless all numbers are above 0 and the nodes are whole.
    """
    _check(jobs, load, devices)
    if devices_per_node < 1 or devices % devices_per_node:
        raise ValueError(f"trace: expected whole nodes of {devices_per_node} devices, got {devices}")
    random = np.random.default_rng(seed)
    mix = {gang: share for gang, share in profiles.PHILLY_GANGS.items() if gang <= devices}
    gangs = _drawn(random, mix, jobs)
    duration_s = np.empty(jobs)
    for least, parts in profiles.PHILLY_DURATIONS.items():  # by rising gang: the last one holds
        chosen = gangs >= least
        duration_s[chosen] = _log_normals(random, parts, int(chosen.sum()), profiles.PHILLY_LONGEST_S)
    teams = random.choice(len(profiles.PHILLY_TEAMS), size=jobs, p=_normalised(profiles.PHILLY_TEAMS))
    span_s = float((gangs * duration_s).sum()) / (load * devices)
    submit_s = PHILLY.arrivals_s(random, jobs, span_s)
    requests = Requests()
    with collector_paused():
        made = [
            _job(number, submit, duration, requests.devices(gang), team=f"team-{team}", kind=JobKind.TRAIN)
            for number, (submit, duration, gang, team) in enumerate(
                zip(submit_s.tolist(), duration_s.tolist(), gangs.tolist(), teams.tolist(), strict=True)
            )
        ]
    nodes = [
        Node(
            id=f"gpu-{number}",
            pool="gpu",
            accelerator="GPU",
            devices=devices_per_node,
            cpus=8 * devices_per_node,
            memory_bytes=devices_per_node * 64 * 10**9,
        )
        for number in range(devices // devices_per_node)
    ]
    return _trace(f"philly-like, seed {seed}", made, nodes)


def openb_like(seed: int, jobs: int, load: float, devices: int) -> Trace:
    """Return ``jobs`` jobs like openb's pods with a GPU on about ``devices`` devices, as a load of ``load``.

    Nodes have openb's mix of models and sizes, so that the number of devices is only met within a few nodes; no
    kind of node goes below one. Jobs ask for any device, with CPUs and memory. Raises ValueError unless all
    numbers are above 0, and at least 64 devices are asked for.
    """
    _check(jobs, load, devices)
    if devices < 64:
        raise ValueError(f"trace: expected at least 64 devices for openb's mix of nodes, got {devices}")
    random = np.random.default_rng(seed)
    nodes = _openb_nodes(devices)
    milli = _drawn(random, profiles.OPENB_MILLI, jobs)
    duration_s = _log_normals(random, profiles.OPENB_DURATIONS, jobs, profiles.OPENB_LONGEST_S)
    owned = sum(node.devices for node in nodes)
    span_s = float((milli / MILLI * duration_s).sum()) / (load * owned)
    submit_s = PHILLY.arrivals_s(random, jobs, span_s)
    requests = Requests()
    with collector_paused():
        made = [
            _job(number, submit, duration, requests.milli(asked), host=profiles.OPENB_HOST[asked // MILLI])
            for number, (submit, duration, asked) in enumerate(
                zip(submit_s.tolist(), duration_s.tolist(), milli.tolist(), strict=True)
            )
        ]
    return _trace(f"openb-like, seed {seed}", made, nodes)


def gavel_like(seed: int, jobs: int, per_hour: float, *, types: int = profiles.GAVEL_TYPES) -> Trace:
    """Return ``jobs`` single-device jobs as Gavel's generator draws them, on its 36 V100, 36 P100 and 36 K80.

    Arrivals are Poisson at ``per_hour``. Each of ``types`` job types has speeds of its own on the three devices,
    drawn log-normally as the measured ones are spread: what is faster on one need not be on another.
    Raises ValueError unless all numbers are above 0.
    """
    _check(jobs, per_hour, types)
    random = np.random.default_rng(seed)
    v100 = np.exp(_normal(random, profiles.GAVEL_V100_STEPS_PER_S, types))
    one, other = random.standard_normal((2, types))
    rho = profiles.GAVEL_SPEEDUP_CORRELATION
    over_p100 = np.exp(profiles.GAVEL_SPEEDUP_OVER_P100[0] + profiles.GAVEL_SPEEDUP_OVER_P100[1] * one)
    mixed = rho * one + math.sqrt(1 - rho**2) * other
    over_k80 = np.exp(profiles.GAVEL_SPEEDUP_OVER_K80[0] + profiles.GAVEL_SPEEDUP_OVER_K80[1] * mixed)
    speeds = [
        dict(zip(gavel.ACCELERATORS, rates, strict=True))
        for rates in np.stack([v100, v100 / over_p100, v100 / over_k80], axis=1).tolist()
    ]
    long = random.random(jobs) >= profiles.GAVEL_MINUTES_EXPONENTS[0][0]
    low, high = np.array([part[1:] for part in profiles.GAVEL_MINUTES_EXPONENTS]).T[:, long.astype(int)]
    duration_s = 60.0 * 10.0 ** random.uniform(low, high)
    type_of = random.integers(types, size=jobs).tolist()
    gaps_s = random.standard_exponential(jobs) * HOUR_S / per_hour
    submit_s = np.cumsum(gaps_s) - gaps_s[:1]
    requests = Requests()
    devices = tuple(request for name in gavel.ACCELERATORS for request in requests.devices(1, name))
    made = [
        SimJob(
            job=Job(
                id=f"job-{number}",
                name=f"job-{number}",
                command=COMMAND,
                devices=devices,
                workdir="/",
                kind=JobKind.TRAIN,
                env=NO_ENV,
                profile=f"type-{kind}",
                total_steps=duration * speeds[kind]["V100"],
            ),
            submit_s=submit,
            duration_s=duration,
            steps_per_s=speeds[kind],
        )
        for number, (submit, duration, kind) in enumerate(
            zip(submit_s.tolist(), duration_s.tolist(), type_of, strict=True)
        )
    ]
    return Trace(source=f"gavel-like, seed {seed}", jobs=tuple(made), fleet=gavel.fleet())


def _check(jobs: int, rate: float, count: int) -> None:
    if jobs < 1 or count < 1 or not 0 < rate < math.inf:
        raise ValueError(f"trace: expected numbers above 0, got {jobs}, {rate} and {count}")


def _normalised(shares: Sequence[float]) -> FloatArray:
    weights: FloatArray = np.array(shares) / sum(shares)
    return weights


def _drawn(random: np.random.Generator, mix: Mapping[int, float], count: int) -> IntArray:
    values = np.array(list(mix), dtype=np.int64)
    drawn: IntArray = values[random.choice(len(values), size=count, p=_normalised(list(mix.values())))]
    return drawn


def _normal(random: np.random.Generator, moments: tuple[float, float], count: int) -> FloatArray:
    mean, sigma = moments
    drawn: FloatArray = mean + sigma * random.standard_normal(count)
    return drawn


def _log_normals(
    random: np.random.Generator, parts: profiles.LogNormals, count: int, longest_s: float
) -> FloatArray:
    """Return durations of a mixture, from one second to the longest that the original has."""
    shares, means, sigmas = np.array(parts).T
    part = random.choice(len(parts), size=count, p=_normalised(shares.tolist()))
    drawn = np.exp(means[part] + sigmas[part] * random.standard_normal(count))
    clipped: FloatArray = np.clip(drawn, 1.0, longest_s)
    return clipped


def _job(
    number: int,
    submit_s: float,
    duration_s: float,
    devices: tuple[DeviceRequest, ...],
    *,
    team: str = "default",
    kind: JobKind = JobKind.BATCH,
    host: profiles.HostShare | None = None,
) -> SimJob:
    name = f"job-{number}"
    return SimJob(
        job=Job(
            id=name,
            name=name,
            command=COMMAND,
            devices=devices,
            workdir="/",
            kind=kind,
            team=team,
            env=NO_ENV,
            cpus_per_device=None if host is None else host.cpus,
            memory_bytes_per_device=None if host is None else int(host.memory_gib * 2**30),
        ),
        submit_s=submit_s,
        duration_s=duration_s,
    )


def _openb_nodes(devices: int) -> list[Node]:
    kinds = profiles.OPENB_NODES
    count = devices / sum(kind.share * kind.devices for kind in kinds) * sum(kind.share for kind in kinds)
    total = sum(kind.share for kind in kinds)
    return [
        Node(
            id=f"{kind.accelerator.lower()}-{position}-{number}",
            pool=kind.accelerator.lower(),
            accelerator=kind.accelerator,
            devices=kind.devices,
            cpus=kind.cpus,
            memory_bytes=kind.memory_gib * 2**30,
        )
        for position, kind in enumerate(kinds)
        for number in range(max(1, round(count * kind.share / total)))
    ]


def _trace(source: str, jobs: Sequence[SimJob], nodes: Sequence[Node]) -> Trace:
    pools, centers = pools_of(node.pool for node in nodes)
    fleet = Fleet(nodes=tuple(nodes), pools=pools, centers=centers)
    return Trace(source=source, jobs=tuple(jobs), fleet=fleet)
