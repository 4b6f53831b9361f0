"""What every policy tells those who wait is true: the reason, the nearest start, and what would let them start now.

The worlds are made from seeds, through a real kernel (``worlds``). Each sentence is read as a user reads it, and
checked against the snapshot by other code than what made it; each "would start now" is carried out.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import pytest
from msgspec.structs import replace

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import HoldCode, Plan, Reason
from artesian.model.quota import Teams
from artesian.model.resources import MILLI, DeviceRequest, parse_devices
from artesian.model.snapshot import Snapshot
from artesian.model.units import format_duration, parse_duration_s
from artesian.policy.base import Policy
from artesian.policy.fairshare import FairShare
from artesian.policy.moves import adopt
from artesian.policy.outlook import Outlook, outlook
from artesian.policy.pools import Pools
from artesian.policy.rounds import Rounds
from world_policies import POLICIES, SEEDS, TEAMS
from worlds import World, rebuilt

PLACE = r"\S+?\[[\d,]*\]"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_reason_to_wait_is_true(name: str, seed: int) -> None:
    policy = POLICIES[name]()
    snapshot = rebuilt(World(seed, policy).snapshot())
    plan = policy.plan(snapshot)
    starts = {start.job_id for start in plan.starts}
    for job_id in sorted(snapshot.waiting):
        reason = policy.explain(snapshot, job_id)
        assert (reason is None) == (job_id in starts), job_id
        if reason is not None:
            Waits(policy, snapshot, plan, job_id, reason).check()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_what_would_let_a_job_start_now_does(name: str, seed: int) -> None:
    policy = POLICIES[name]()
    snapshot = rebuilt(World(seed, policy).snapshot())
    starts = {start.job_id for start in policy.plan(snapshot).starts}
    most = (
        2 if isinstance(policy, Rounds) else 4
    )  # a nearest start takes hundreds of plans, and these solve programs
    for job_id in sorted(snapshot.waiting)[:most]:
        told = outlook(policy, snapshot, job_id, TEAMS)
        check_nearest_start(policy, snapshot, job_id, told, starts_now=job_id in starts)
        for text in told.would_start:
            assert starts_if(policy, snapshot, job_id, text), (job_id, text)


def check_nearest_start(
    policy: Policy, snapshot: Snapshot, job_id: str, told: Outlook, *, starts_now: bool
) -> None:
    """Check that the nearest start is not in the past, and not made up."""
    if starts_now:
        assert told.start_s == snapshot.at_s
        return
    assert told.start_s is None or told.start_s >= snapshot.at_s
    reason = policy.explain(snapshot, job_id)
    assert reason is not None
    if reason.code in (HoldCode.LARGER_THAN_FLEET, HoldCode.NO_SUCH_DEVICES):
        assert told.start_s is None, "it will not start for anything that ends"


# -- what would let it start now ----------------------------------------------------------------------


def starts_if(policy: Policy, snapshot: Snapshot, job_id: str, text: str) -> bool:
    """Return whether the job starts once the world is as the words have it."""
    job = snapshot.waiting[job_id].job
    if found := re.fullmatch(r"with (\d+) instead of (at least )?(\d+) devices", text):
        devices, least = int(found[1]), int(found[3])
        assert devices < least == job.devices[0].min_devices
        fewer = replace(job.devices[0], min_milli=devices * MILLI, max_milli=devices * MILLI)
        return starts_as(policy, snapshot, replace(job, devices=(fewer, *job.devices[1:])))
    if text == "with less CPU and memory for each device":
        return starts_as(policy, snapshot, replace(job, cpus_per_device=None, memory_bytes_per_device=None))
    if found := re.fullmatch(r"with an estimated duration of (\S+): (.+)", text):
        own_s = job.estimated_duration_s
        said = (
            "it does not say how long it takes" if own_s is None else f"instead of {format_duration(own_s)}"
        )
        assert found[2] == said
        return starts_as(policy, snapshot, replace(job, estimated_duration_s=parse_duration_s(found[1])))
    if found := re.fullmatch(r"if nodes? (.+) came back", text):
        back = found[1].split(", ")
        assert not any(snapshot.capacity.is_up[snapshot.capacity.row[node]] for node in back)
        return starts(policy, rebuilt(snapshot, back=back), job_id)
    if found := re.fullmatch(
        r"if team (\S+) returned (\d+)( borrowed)? devices?(?:, (\S+) of them borrowed)?", text
    ):
        assert not (found[3] and found[4])
        assert found[4] is None or 0 < float(found[4]) < int(found[2])
        return any(starts(policy, left, job_id) for left in without(snapshot, found[1], int(found[2])))
    if found := re.fullmatch(r"if (.+) moved, at a cost of (.+) of a device", text):
        return starts(policy, moved(snapshot, found[1]), job_id)
    found = re.fullmatch(r"with (\S+)", text)
    assert found, f"nobody knows what to make of {text!r}"
    other = parse_devices(found[1])
    assert (other[0].min_milli, other[0].max_milli) == (job.devices[0].min_milli, job.devices[0].max_milli)
    return starts_as(policy, snapshot, replace(job, devices=other))


def starts(policy: Policy, snapshot: Snapshot, job_id: str) -> bool:
    return any(start.job_id == job_id for start in policy.plan(snapshot).starts)


def starts_as(policy: Policy, snapshot: Snapshot, job: Job) -> bool:
    entries = [
        replace(entry, job=job, claim=None) if entry.job.id == job.id else entry
        for entry in snapshot.waiting.values()
    ]
    return starts(policy, rebuilt(snapshot, waiting=entries), job.id)


def without(snapshot: Snapshot, team: str, devices: int) -> Iterator[Snapshot]:
    """Yield the view without jobs of the team that hold so many devices, for each choice of them."""
    theirs = [entry for entry in snapshot.running.values() if entry.job.team == team]
    for count in range(1, len(theirs) + 1):
        for gone in combinations(theirs, count):
            if sum(entry.placement.devices for entry in gone) == devices:
                left = [entry for entry in snapshot.running.values() if entry not in gone]
                yield rebuilt(snapshot, running=left)


def moved(snapshot: Snapshot, moves: str) -> Snapshot:
    """Return the view in which jobs are where the words have them."""
    running = {entry.job.name: entry for entry in snapshot.running.values()}
    for name, to in re.findall(rf"(\S+) to ({PLACE}(?: \+ {PLACE})*)", moves):
        milli = running[name].placement.shares[0].milli
        shares = [
            NodeShare(node_id=node, devices=tuple(int(d) for d in devices.split(",") if d), milli=milli)
            for node, devices in re.findall(r"(\S+?)\[([\d,]*)\]", to)
        ]
        running[name] = replace(running[name], placement=Placement(shares=tuple(shares)))
    return rebuilt(snapshot, running=running.values())


# -- why it waits -------------------------------------------------------------------------------------


class Waits:
    """A job that waits, and what it was told: each kind of sentence has a method that checks it."""

    def __init__(self, policy: Policy, snapshot: Snapshot, plan: Plan, job_id: str, reason: Reason) -> None:
        self.policy, self.snapshot, self.plan, self.reason = policy, snapshot, plan, reason
        self.job = snapshot.waiting[job_id].job
        self.is_limited = not limits_of(policy).is_plain
        self.starting = {start.job_id for start in plan.starts}

    def check(self) -> None:
        """Check code and words."""
        text = self.reason.text
        if found := re.fullmatch(r"(.*); by (.+) others go before it(; its steps/s are not known .+)?", text):
            assert isinstance(self.policy, Rounds)
            assert found[2] == self.policy.ranking.name
            text = found[1]
        elif found := re.fullmatch(r"(.*)(; its steps/s are not known .+)", text):
            assert self.reason.code in (HoldCode.OVER_QUOTA, HoldCode.KEPT_FOR_TEAMS), (
                "of others it says who goes first"
            )
            text = found[1]
        assert self.check_sentence(text) is self.reason.code, self.reason

    def check_sentence(self, text: str) -> HoldCode:
        """Check the words, and return the code that goes with them."""
        for pattern, (code, check) in SENTENCES.items():
            if found := re.fullmatch(pattern, text):
                check(self, **found.groupdict())
                return code
        raise AssertionError(f"nobody knows what to make of {text!r}")

    # -- it could never start -------------------------------------------------------------------------

    def no_such_devices(self, wish: str, has: str) -> None:
        assert wish == self.wish
        up = [node for node in self.snapshot.capacity.nodes if self.is_up(node)]
        assert has == (", ".join(sorted({node.accelerator for node in up})) or "no nodes")
        assert not any(request.suits(node) for node in up for request in self.job.devices)

    def no_such_host(self, each: str | None) -> None:
        assert (each is None) == all(request.is_host_only for request in self.job.devices)
        assert max(self.room_empty(request, area) for request, area in self.choices()) == 0
        assert any(request.suits(node) for node in self.nodes() for request in self.job.devices)

    def too_large(self, wish: str, most: str) -> None:
        assert wish == self.wish
        rooms = [(self.room_empty(request, area), request) for request, area in self.choices()]
        assert max(room for room, _ in rooms) == int(most)
        assert all(room < max(1, request.min_devices) for room, request in rooms)
        assert self.reason.unblock.startswith(f"ask for at most {count_of(int(most))}")

    # -- what it wants is not free --------------------------------------------------------------------

    def too_few_free(
        self, least: str | None, needs: str, wish: str, host: str | None, there: str, by: str | None
    ) -> None:
        assert wish == self.wish
        assert (host is not None) == self.wants_host
        missing = int(needs) - int(there)
        assert missing > 0, "it is not devices that it waits for"
        with self.decided() as free:
            assert any(
                request.min_devices == int(needs)
                and (request.max_devices > request.min_devices) == (least is not None)
                and self.room(request, free, area) == int(there)
                and self.are_holders(by, request, area)
                for request, area in self.choices()
            )
        verb = "becomes" if missing == 1 else "become"
        more = "" if missing == 1 else "s"
        if self.reason.code is HoldCode.DEVICES_BUSY:
            assert self.reason.unblock.startswith(f"{missing} more device{more} {verb} free")

    def no_share_free(self, share: str, host: str | None, by: str | None) -> None:
        assert (host is not None) == self.wants_host
        with self.decided() as free:
            assert any(
                request.is_fraction
                and request.max_milli == round(float(share) * MILLI)
                and not self.has_share(request, free, area)
                and self.are_holders(by, request, area)
                for request, area in self.choices()
            )

    def no_host_free(self) -> None:
        with self.decided() as free:
            assert any(
                request.is_host_only and not self.room(request, free, area)
                for request, area in self.choices()
            )

    def kept_for_others(self) -> None:
        assert self.plan.stops or any(entry.is_stopping for entry in self.snapshot.running.values())
        with self.decided() as free:
            assert any(
                self.has_share(request, free, area)
                if request.is_fraction
                else self.room(request, free, area) >= max(1, request.min_devices)
                for request, area in self.choices()
            )

    def room_is_made(self, who: str, more: str | None) -> None:
        leaving = {id_ for id_, entry in self.snapshot.running.items() if entry.is_stopping}
        leaving |= {stop.job_id for stop in self.plan.stops}
        named = who.split(", ")
        assert set(named) <= leaving, "its name is its id"
        assert len(named) + int(more or 0) <= len(leaving)

    # -- others go before it --------------------------------------------------------------------------

    def behind(self, name: str, id: str, lacks: str | None, gap: str | None) -> None:
        waits = self.snapshot.waiting.keys() - self.starting - {self.job.id}
        assert id in waits, "it is no more in the way than who has started"
        ahead = self.snapshot.waiting[id].job
        assert name == ahead.name
        assert lacks is None or self.check_sentence(lacks) is HoldCode.DEVICES_BUSY
        assert gap is None or (gap == "it has no estimated duration") == (
            self.job.estimated_duration_s is None
        )
        assert any(suits_any(ahead, node) and suits_any(self.job, node) for node in self.nodes())
        assert self.reason.unblock.startswith(f"{ahead.name} starts or is cancelled")
        if found := re.search(r"this job has a priority above (-?\d+)", self.reason.unblock):
            higher = replace(self.job, priority=int(found[1]) + 1)
            assert higher.priority > self.job.priority
            assert not self.is_behind(id, higher)
        if found := re.search(
            r"it fits into a gap of (\S+(?: s)?) \(estimated_duration\)", self.reason.unblock
        ):
            short_s = parse_duration_s(found[1].replace(" ", ""))
            assert self.job.estimated_duration_s is None or self.job.estimated_duration_s > short_s
            assert starts_as(self.policy, self.snapshot, replace(self.job, estimated_duration_s=short_s))

    def over_limit(self, team: str, held: str, limit: str) -> None:
        found = next(each for each in TEAMS.path(self.job.team) if each.name == team)
        assert found.borrow_limit == int(limit)
        guaranteed = MILLI * sum(count for _, count in found.guaranteed)
        with self.decided() as free:
            theirs = sum(
                sum(used[: free.kinds]) for (name, _), used in free.used.items() if found in TEAMS.path(name)
            )
        assert MILLI * float(held) >= theirs - guaranteed
        there = [request for request in self.job.devices if any(map(request.suits, self.nodes()))]
        least = min(request.min_milli for request in there)
        assert theirs + least > guaranteed + MILLI * int(limit) or len(found.guaranteed) > 1

    def kept_for_teams(self, teams: str) -> None:
        named = teams.split(", ")
        assert named
        assert all(not team.lends for name in named for team in TEAMS.path(name)[-1:])
        assert self.job.team not in named

    # -- what there is --------------------------------------------------------------------------------

    @property
    def wish(self) -> str:
        return " | ".join(str(request) for request in self.job.devices)

    @property
    def wants_host(self) -> bool:
        return self.job.cpus_per_device is not None or self.job.memory_bytes_per_device is not None

    def is_behind(self, ahead: str, job: Job) -> bool:
        entries = [
            replace(entry, job=job) if entry.job.id == job.id else entry
            for entry in self.snapshot.waiting.values()
        ]
        reason = self.policy.explain(rebuilt(self.snapshot, waiting=entries), job.id)
        return reason is not None and f"({ahead}) is ahead of it" in reason.text

    def is_up(self, node: Node) -> bool:
        return bool(self.snapshot.capacity.is_up[self.snapshot.capacity.row[node.id]])

    def nodes(self) -> list[Node]:
        return [node for node in self.snapshot.capacity.nodes if self.is_up(node)]

    def choices(self) -> list[tuple[DeviceRequest, list[Node]]]:
        """Each alternative on the nodes of each pool with a policy of its own: a gang stays within one of them.

        Teams may be limited to some of the models of device: then on those of each choice of models, too.
        """
        areas = [self.nodes()]
        if isinstance(self.policy, Pools):
            named = self.policy.by_pool.keys()
            areas = [[node for node in self.nodes() if node.pool == pool] for pool in named]
            areas.append([node for node in self.nodes() if node.pool not in named])
        models = sorted({node.accelerator for node in self.nodes()})
        for count in range(1, len(models) if self.is_limited else 0):
            for some in combinations(models, count):
                areas += [[node for node in area if node.accelerator in some] for area in areas]
        return [(request, area) for request in self.job.devices for area in areas]

    @contextmanager
    def decided(self) -> Iterator[Capacity]:
        """What is free when all that was decided has been carried out, and what is kept is taken."""
        with self.snapshot.capacity.trial() as trial:
            adopt(self.plan, self.snapshot, trial)
            yield trial.capacity

    def room_empty(self, request: DeviceRequest, area: list[Node]) -> int:
        """The most devices of one model that the request could ever have there; 1 for room on a host."""
        return self._most(request, area, lambda node: (node.devices, node.cpus, node.memory_bytes))

    def room(self, request: DeviceRequest, free: Capacity, area: list[Node]) -> int:
        """The same of what is free."""

        def left(node: Node) -> tuple[int, float, float]:
            row = free.row[node.id]
            whole = int((free.free_milli[row] == MILLI).sum())
            return whole, int(free.free_cpu_milli[row]) / MILLI, int(free.free_memory_bytes[row])

        return self._most(request, area, left)

    def has_share(self, request: DeviceRequest, free: Capacity, area: list[Node]) -> bool:
        return any(
            request.suits(node)
            and (free.free_milli[free.row[node.id]] >= request.max_milli).any()
            and self._hosted(
                free.free_cpu_milli[free.row[node.id]] / MILLI, free.free_memory_bytes[free.row[node.id]]
            )
            >= 1
            for node in area
        )

    def _most(
        self,
        request: DeviceRequest,
        area: list[Node],
        left: Callable[[Node], tuple[int, float, float]],
    ) -> int:
        by_model: dict[tuple[str | None, str], int] = {}
        for node in area:
            if request.suits(node):
                devices, cpus, memory_bytes = left(node)
                most = 1 if request.is_host_only else devices
                model = (node.vendor, node.accelerator)
                by_model[model] = by_model.get(model, 0) + int(min(most, self._hosted(cpus, memory_bytes)))
        return max(by_model.values(), default=0)

    def _hosted(self, cpus: float, memory_bytes: float) -> float:
        by_cpu = math.inf if self.job.cpus_per_device is None else cpus // self.job.cpus_per_device
        each_bytes = self.job.memory_bytes_per_device
        by_memory = math.inf if each_bytes is None else memory_bytes // each_bytes
        return max(0, min(by_cpu, by_memory))

    def are_holders(self, by: str | None, request: DeviceRequest, area: list[Node]) -> bool:
        """Whether those named hold what they are said to, on nodes that the request could be met on."""
        if by is None and self.reason.code is HoldCode.BEHIND_ANOTHER:
            return True  # that is told to the one ahead
        wanted = {node.id for node in area if request.suits(node)}
        held = [(entry.job.name, entry.placement) for entry in self.snapshot.running.values()]
        held += [(self.snapshot.waiting[s.job_id].job.name, s.placement) for s in self.plan.starts]
        counts = {
            name: sum(len(share.devices) for share in placement.shares if share.node_id in wanted)
            for name, placement in held
        }
        counts["others outside of artesian"] = sum(len(node.occupied) for node in area if node.id in wanted)
        counts = {name: count for name, count in counts.items() if count}
        named = dict(re.findall(r"(?:^; held by |, )(.+?) \((\d+)\)", by or ""))
        more = re.search(r" and (\d+) more$", by or "")
        return len(counts) == len(named) + int(more[1] if more else 0) and all(
            counts.get(name) == int(count) for name, count in named.items()
        )


HOST = "(?P<host> with CPUs and memory for each)?"
BY = "(?P<by>; held by .+)?"
SENTENCES: dict[str, tuple[HoldCode, Callable[..., None]]] = {
    r"no node that is up has devices for (?P<wish>.+); the fleet has (?P<has>.+)": (
        HoldCode.NO_SUCH_DEVICES,
        Waits.no_such_devices,
    ),
    r"no node has the CPUs and the memory that the job wants(?P<each> with each device of .+)?": (
        HoldCode.LARGER_THAN_FLEET,
        Waits.no_such_host,
    ),
    r"the job asks for (?P<wish>.+), and (?:the whole fleet|no pool) could give it (?:more than )?(?P<most>\d+) devices?": (
        HoldCode.LARGER_THAN_FLEET,
        Waits.too_large,
    ),
    rf"needs (?P<least>at least )?(?P<needs>\d+) devices? \((?P<wish>.+?)\){HOST}, (?P<there>\d+) can be had now{BY}": (
        HoldCode.DEVICES_BUSY,
        Waits.too_few_free,
    ),
    rf"no device has (?P<share>[\d.]+) of itself free{HOST}{BY}": (
        HoldCode.DEVICES_BUSY,
        Waits.no_share_free,
    ),
    "no node has the CPUs and the memory free that the job wants": (
        HoldCode.DEVICES_BUSY,
        Waits.no_host_free,
    ),
    "the devices that are free are kept for jobs that go before it, and that start when the stopped ones have gone": (
        HoldCode.DEVICES_BUSY,
        Waits.kept_for_others,
    ),
    r"room is being made for it: (?P<who>.+?)(?: and (?P<more>\d+) more)? (?:is|are) being stopped, .+": (
        HoldCode.DEVICES_BUSY,
        Waits.room_is_made,
    ),
    r"(?P<name>\S+) \((?P<id>\S+)\) is ahead of it and waits for the same devices(?:; (?P<lacks>(?:needs|no) .+)|; (?P<gap>it has no estimated duration|its estimated duration is .+))?": (
        HoldCode.BEHIND_ANOTHER,
        Waits.behind,
    ),
    r"team (?P<team>\S+) may not have as many devices now: it holds (?P<held>[\d.]+) beyond its guarantee, of at most (?P<limit>\d+)": (
        HoldCode.OVER_QUOTA,
        Waits.over_limit,
    ),
    r"what is free is not enough beside what teams keep that do not lend: (?P<teams>.+)": (
        HoldCode.KEPT_FOR_TEAMS,
        Waits.kept_for_teams,
    ),
}
"""What a policy may say, with its code and what checks it."""


def limits_of(policy: Policy) -> Teams:
    """Return the teams that the policy goes by, if any."""
    if isinstance(policy, Pools):
        return next(
            (found for each in policy.by_pool.values() if not (found := limits_of(each)).is_plain),
            limits_of(policy.other),
        )
    if isinstance(policy, Rounds):
        return policy.teams
    order = getattr(getattr(policy, "inner", None), "order", None)
    return order.teams if isinstance(order, FairShare) else Teams()


def suits_any(job: Job, node: Node) -> bool:
    return any(request.suits(node) for request in job.devices)


def count_of(devices: int) -> str:
    return "1 device" if devices == 1 else f"{devices} devices"
