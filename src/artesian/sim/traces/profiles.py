"""The statistics of public traces, as ``scripts/fit_traces.py`` fits and prints them; no line of a trace.

A log-normal part is (share, mean of the logarithm of seconds, its standard deviation); a phase of the
gaps between arrivals is (share, mean), the mean of all gaps being 1.
"""

from msgspec import Struct

LogNormals = tuple[tuple[float, float, float], ...]


class NodeKind(Struct, frozen=True, kw_only=True, gc=False):
    """Nodes of one kind and their share of all nodes."""

    share: float
    accelerator: str
    devices: int
    cpus: int
    memory_gib: int


class HostShare(Struct, frozen=True, kw_only=True, gc=False):
    """CPUs and GiB of memory that come with each device (with the whole share of one, below 1000 milli)."""

    cpus: float
    memory_gib: float


# -- Philly: 82,247 jobs, 2017-09-04 to 2017-12-22 (Jeon et al., USENIX ATC 2019) -----------------------

PHILLY_HOURS = (
    *(1.237, 0.8369, 1.287, 1.082, 0.8191, 1.019, 1.466, 1.813, 0.8981, 0.9669, 1.512, 1.068),
    *(0.6812, 0.7407, 0.6456, 0.6362, 0.826, 0.7596, 0.8918, 0.7721, 0.9139, 0.9312, 1.017, 1.179),
)
"""Arrivals in each hour of the day, the mean being 1: the mean over days of each day's own profile."""
PHILLY_WEEKDAYS = (0.941, 1.077, 1.632, 1.106, 1.168, 0.6157, 0.4612)
"""Arrivals on each day from Monday, the mean being 1: medians over the weeks."""
PHILLY_GAPS = ((0.3196, 0.02753), (0.4197, 0.1351), (0.2607, 3.585))
"""Hyper-exponential gaps in the time of the rhythm: what comes in bursts, by maximum likelihood. The
squared variation of the trace itself (222) is far above that of the fit (6): it has weeks with next to no jobs."""
PHILLY_GANGS = {
    1: 0.9317,
    4: 0.02274,
    2: 0.0221,
    8: 0.01998,
    16: 0.00242,
    32: 0.0008146,
    12: 8.511e-05,
    24: 8.511e-05,
    64: 7.295e-05,
    128: 3.648e-05,
}
PHILLY_TEAMS = (
    *(0.5012, 0.1956, 0.121, 0.09025, 0.02351, 0.01837, 0.01745, 0.01382, 0.008791, 0.005131),
    *(0.004547, 9.727e-05, 4.863e-05, 3.648e-05, 3.648e-05),
)
"""Shares of the virtual clusters in the jobs."""
PHILLY_DURATIONS: dict[int, LogNormals] = {
    1: ((0.1752, 4.169, 0.1617), (0.1435, 5.092, 0.9748), (0.3996, 7.578, 0.7427), (0.2816, 7.914, 2.157)),
    2: ((0.3006, 2.89, 0.3344), (0.2629, 4.759, 1.612), (0.3417, 10.57, 1.552), (0.09479, 11.76, 0.4574)),
    8: ((0.3604, 6.342, 1.809), (0.1964, 9.694, 0.7894), (0.3754, 12.08, 0.9704), (0.06783, 12.15, 0.1607)),
}
"""By the smallest gang that they are for: large gangs run longer by orders of magnitude."""
PHILLY_LONGEST_S = 4.628e6

# -- openb: 8,152 pods on 1,213 nodes with GPUs (Weng et al., USENIX ATC 2023); pods with a GPU only ----

OPENB_MILLI = {
    1000: 0.5733,
    800: 0.164,
    450: 0.09431,
    300: 0.04659,
    650: 0.03514,
    250: 0.0158,
    550: 0.01145,
    150: 0.01145,
    600: 0.009995,
    200: 0.009673,
    350: 0.00935,
    8000: 0.007093,
    500: 0.003063,
    100: 0.002902,
    2000: 0.002418,
    4000: 0.002418,
    50: 0.001128,
}
"""Thousandths of a device that a job asks for, shares rounded to 5%; those rarer than 0.1% are left out."""
OPENB_HOST = {
    0: HostShare(cpus=4, memory_gib=12),
    1: HostShare(cpus=11.3, memory_gib=47),
    2: HostShare(cpus=8.1, memory_gib=32.5),
    4: HostShare(cpus=8.05, memory_gib=32.25),
    8: HostShare(cpus=11, memory_gib=40),
}
"""By whole devices, 0 for a share of one: medians."""
OPENB_DURATIONS: LogNormals = ((0.1961, 4.676, 0.8174), (0.7694, 6.868, 1.579), (0.03452, 10.58, 2.812))
OPENB_LONGEST_S = 1.254e7
OPENB_NODES = (
    NodeKind(share=0.4526, accelerator="G2", devices=8, cpus=96, memory_gib=384),
    NodeKind(share=0.319, accelerator="T4", devices=2, cpus=104, memory_gib=512),
    NodeKind(share=0.08821, accelerator="P100", devices=2, cpus=16, memory_gib=120),
    NodeKind(share=0.03215, accelerator="G3", devices=8, cpus=128, memory_gib=768),
    NodeKind(share=0.02308, accelerator="V100M16", devices=4, cpus=32, memory_gib=128),
    NodeKind(share=0.01814, accelerator="P100", devices=2, cpus=64, memory_gib=256),
    NodeKind(share=0.01731, accelerator="V100M32", devices=8, cpus=96, memory_gib=768),
    NodeKind(share=0.01566, accelerator="V100M16", devices=1, cpus=8, memory_gib=32),
    NodeKind(share=0.01401, accelerator="T4", devices=4, cpus=96, memory_gib=384),
    NodeKind(share=0.00742, accelerator="V100M32", devices=4, cpus=48, memory_gib=368),
    NodeKind(share=0.005771, accelerator="V100M16", devices=8, cpus=64, memory_gib=256),
)
"""Kinds of at least 0.4% of the nodes."""

# -- Gavel: 26 single-device job types on V100, P100, K80 (Narayanan et al., OSDI 2020) ------------------

GAVEL_V100_STEPS_PER_S = (2.511, 1.076)
"""Mean and standard deviation of the logarithm over job types; so, too, of the speed-ups."""
GAVEL_SPEEDUP_OVER_P100 = (0.05871, 0.4524)
GAVEL_SPEEDUP_OVER_K80 = (1.213, 0.8333)
GAVEL_SPEEDUP_CORRELATION = 0.8824
GAVEL_TYPES = 26
GAVEL_MINUTES_EXPONENTS = ((0.8, 1.5, 3.0), (0.2, 3.0, 4.0))
"""A duration on a V100 is 10**U(low, high) minutes with that probability: Gavel's own generator."""
