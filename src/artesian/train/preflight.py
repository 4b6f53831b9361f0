"""A check of every node before a job, pair by pair: slow or wrong devices, slow links, known faults.

Each rank multiplies matrices, checks the result, and sums a buffer with one partner after the other, all pairs of
a round at the same time. All ranks get all figures, ``judge`` says who to leave out, with the reason, and
``leave_out`` has a spare node take its place, or the others go on without it.
"""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from artesian.train.faults import DeviceFaults
from artesian.train.link import link
from artesian.train.membership import gathered
from artesian.train.reporter import say

_SEED = 20_240_229
_RUNS = 3
_FIGURES = 2
"""Of each rank, before those of its pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCheck:
    """Figures of one rank: the rate of its matrix product in FLOP/s, and whether the product is right."""

    rank: int
    flops_per_s: float
    is_right: bool
    faults: tuple[str, ...] | None = None
    """What the device says against itself; None where this process was not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCheck:
    """Figures of two ranks that have summed a buffer, in bytes of the buffer per second.

    ``bytes_per_s`` is None where it failed or came out wrong.
    """

    ranks: tuple[int, int]
    bytes_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What all ranks have found."""

    ranks: tuple[RankCheck, ...]
    pairs: tuple[PairCheck, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rank to leave out, and why."""

    rank: int
    reason: str


def rounds(world_size: int) -> Iterator[list[tuple[int, int]]]:
    """Yield rounds of disjoint pairs until each has met each; of an odd number one rests in each round.

    The circle method of tournaments: the last one stays, the others move on by one place.
    """
    seats = list(range(world_size + world_size % 2))
    for _ in range(len(seats) - 1):
        pairs = zip(seats[: len(seats) // 2], reversed(seats[len(seats) // 2 :]), strict=True)
        yield [(min(a, b), max(a, b)) for a, b in pairs if max(a, b) < world_size]
        seats = [seats[0], seats[-1], *seats[1:-1]]


def check(
    *,
    rank: int,
    world_size: int,
    device: torch.device,
    control: dist.ProcessGroup | None,
    group: dist.ProcessGroup | None = None,
    faults: DeviceFaults | None = None,
    size: int = 1024,
    buffer_bytes: int = 4 * 2**20,
    most_rounds: int | None = None,
    timeout_s: float = 30.0,
) -> Preflight:
    """Check this rank's device and its links, with all others at the same time; the same result on all.

    ``group`` carries the buffers (None: the default group), ``control`` is another one, of CPUs, for the figures; a
    rank that is alone has none, and only its device is checked. Links are compared with one another: where those
    within a node are of another kind than those between nodes, let one rank of each node take part. ``size`` is that of the square matrices.
    ``most_rounds`` bounds the pairs that are tried: 2 to 3 rounds find a bad node of a large gang.
    """
    flops_per_s, is_right, works = 0.0, False, True
    try:
        flops_per_s, is_right = _multiply(device, size)
    except RuntimeError as error:  # of torch: it is to be found, and not to end who looks
        say(f"rank {rank} cannot multiply on {device}: {error}")
        works = False
    row = torch.full((_FIGURES + world_size,), math.nan, dtype=torch.float64)
    row[0], row[1] = flops_per_s, float(is_right)
    # Who would wait for one whose device does not work would look bad as well.
    able = {at for at, its in enumerate(gathered(works, control)) if its}
    found = [] if control is None else list(rounds(world_size))[:most_rounds]
    tried = [[pair for pair in pairs if able.issuperset(pair)] for pairs in found]
    for pairs in tried:
        assert control is not None
        dist.barrier(control)  # all pairs at once, so that shared links show
        partner = next((sum(pair) - rank for pair in pairs if rank in pair), None)
        if partner is not None:
            row[_FIGURES + partner] = _sum_with(partner, device, group, buffer_bytes, timeout_s)
    rows = [torch.empty_like(row) for _ in range(world_size)]
    if control is None:
        rows[0].copy_(row)
    else:
        dist.all_gather(rows, row, group=control)
    # Where all is unknown nothing was told: that is not the same as a device with nothing against it.
    own = None if faults is None or faults == DeviceFaults() else faults.reasons
    reasons = gathered(own, control)
    return _result(rows, reasons, [pair for pairs in tried for pair in pairs])


def judge(found: Preflight, *, least_share: float = 0.7) -> list[Finding]:
    """Return the ranks to leave out: wrong, faulty, or slower than ``least_share`` of the middle one.

    A slow or failed link is held against the rank whose links are slow with most of its partners: one bad link
    between two good ranks excludes neither.

    Raises ValueError unless 0 < least_share < 1.
    """
    if not 0 < least_share < 1:
        raise ValueError(f"least_share must lie between 0 and 1, got {least_share}")
    findings: list[Finding] = []
    middle = statistics.median_high(each.flops_per_s for each in found.ranks)
    for each in found.ranks:
        if not each.is_right:
            findings.append(Finding(rank=each.rank, reason="its matrix product is wrong, or fails"))
        elif each.faults:
            findings.append(Finding(rank=each.rank, reason="; ".join(each.faults)))
        elif each.flops_per_s < least_share * middle:
            share = each.flops_per_s / middle
            findings.append(
                Finding(rank=each.rank, reason=f"it multiplies at {share:.0%} of the middle rank's rate")
            )
    out = {finding.rank for finding in findings}
    findings += _slow_links([pair for pair in found.pairs if not out & set(pair.ranks)], least_share)
    return sorted(findings, key=lambda finding: finding.rank)


def leave_out(findings: Sequence[Finding], *, rank: int, ranks_per_node: int = 1) -> None:
    """Say who is to be left out, and have this ``rank``'s node left out where it is among them.

    Its launch agent lets a spare node take its place, and this process is killed. Where there is no spare the gang goes
    on without the node, if it may be as small as that; of several, the first ones go. Else, and where there is no agent
    of artesian's, training goes on with it, which is said. All ranks call it; ``ranks_per_node`` ranks on one node count
    as one to leave.
    """
    agent = link()
    for finding in findings:
        if rank == 0:
            goes_on = (
                ""
                if agent is not None
                else "; no launch agent of artesian's is there, so training goes on with it"
            )
            say(f"rank {finding.rank} should be left out: {finding.reason}{goes_on}")
        if finding.rank == rank and agent is not None:
            node = rank // ranks_per_node
            before = {each.rank // ranks_per_node for each in findings}
            agent.is_unfit(finding.reason, ahead=sum(each < node for each in before))


def _slow_links(pairs: Sequence[PairCheck], least_share: float) -> Iterator[Finding]:
    """Name one rank after the other until no rank has a majority of slow links any more, the worst first."""
    rates = sorted(pair.bytes_per_s for pair in pairs if pair.bytes_per_s is not None)
    # The upper quartile: with a third of the ranks bad, more than half of the links are.
    usual = rates[3 * len(rates) // 4] if rates else 0.0
    slow = {
        pair.ranks for pair in pairs if pair.bytes_per_s is None or pair.bytes_per_s < least_share * usual
    }
    left = {pair.ranks for pair in pairs}
    while True:
        shares = {}
        for rank in sorted({rank for pair in left for rank in pair}):
            own = [pair for pair in left if rank in pair]
            shares[rank] = (sum(pair in slow for pair in own), len(own))
        worst = max(shares, key=lambda rank: shares[rank][0] / shares[rank][1], default=None)
        # Of two ranks with one link, neither can be told to be the bad one.
        if worst is None or shares[worst][1] < 2 or 2 * shares[worst][0] <= shares[worst][1]:
            return
        yield Finding(
            rank=worst, reason=f"{shares[worst][0]} of its {shares[worst][1]} links are slow or fail"
        )
        left = {pair for pair in left if worst not in pair}


def _multiply(device: torch.device, size: int) -> tuple[float, bool]:
    """Return the rate of a matrix product, and whether it is right and the same in every run."""
    generator = torch.Generator().manual_seed(_SEED)
    left, right = (torch.rand(size, size, generator=generator) for _ in range(2))
    a, b = left.to(device), right.to(device)
    product = a @ b
    # All terms are positive, so that rounding in tf32 stays far below this.
    is_right = torch.allclose(product.cpu(), left @ right, rtol=5e-3)
    times_s = []
    for _ in range(_RUNS):
        _wait(device)
        start_s = time.perf_counter()
        again = a @ b
        _wait(device)
        times_s.append(time.perf_counter() - start_s)
        is_right = is_right and torch.equal(again, product)
    return 2.0 * size**3 / statistics.median(times_s), is_right


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _sum_with(
    partner: int, device: torch.device, group: dist.ProcessGroup | None, buffer_bytes: int, timeout_s: float
) -> float:
    """Sum a buffer with the partner's, and return bytes per second; NaN where it fails or is wrong."""
    rank = dist.get_rank(group)
    own = torch.full((max(1, buffer_bytes // 4),), float(rank + 1), device=device)
    times_s = []
    is_right = True
    try:
        for _ in range(_RUNS):  # all of them, whatever comes out: the partner counts on it
            theirs = torch.empty_like(own)
            _wait(device)
            start_s = time.perf_counter()
            total = _exchanged(own, theirs, partner, group, timeout_s)
            _wait(device)
            times_s.append(time.perf_counter() - start_s)
            is_right = is_right and bool((total == rank + partner + 2).all())
    except RuntimeError:  # of torch.distributed: the partner is gone, or does not answer
        return math.nan
    return own.numel() * 4 / statistics.median(times_s) if is_right else math.nan


def _exchanged(
    own: Tensor, theirs: Tensor, partner: int, group: dist.ProcessGroup | None, timeout_s: float
) -> Tensor:
    peer = partner if group is None else dist.get_global_rank(group, partner)
    work = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, own, peer, group),
            dist.P2POp(dist.irecv, theirs, peer, group),
        ]
    )
    for each in work:
        each.wait(timedelta(seconds=timeout_s))
    return own + theirs


def _result(
    rows: list[Tensor], reasons: list[tuple[str, ...] | None], pairs: list[tuple[int, int]]
) -> Preflight:
    ranks = tuple(
        RankCheck(rank=rank, flops_per_s=float(row[0]), is_right=bool(row[1]), faults=reasons[rank])
        for rank, row in enumerate(rows)
    )
    found = []
    for low, high in sorted(pairs):
        rates = [float(rows[low][_FIGURES + high]), float(rows[high][_FIGURES + low])]
        is_known = not any(map(math.isnan, rates))
        found.append(PairCheck(ranks=(low, high), bytes_per_s=min(rates) if is_known else None))
    return Preflight(ranks=ranks, pairs=tuple(found))
