"""Which nodes share a rack, as Slurm's topology has it: the leaf switch of a node, or its block."""

import re
from collections.abc import Iterator, Mapping

from artesian.engines.slurm.parse import ParseError

_MOST_NAMES = 1_000_000


def racks_of_text(text: str) -> dict[str, str]:
    """Return the rack of each node in ``scontrol show topology``; nothing where the site has configured none.

    With topology/tree that is the switch of level 0 that a node is on, with topology/block its block. A node that is
    on several leaf switches counts for the first, and a block for more than a switch: its links are shorter.
    """
    switches: dict[str, str] = {}
    blocks: dict[str, str] = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if fields.get("Level") == "0" and "SwitchName" in fields:
            _put(switches, fields["SwitchName"], fields)
        elif "BlockName" in fields:
            _put(blocks, fields["BlockName"], fields)
    return switches | blocks


def _put(racks: dict[str, str], rack: str, fields: Mapping[str, str]) -> None:
    nodes = fields.get("Nodes", "")
    if nodes == "(null)":
        return
    for node in hosts_of(nodes):
        racks.setdefault(node, rack)


def hosts_of(text: str) -> Iterator[str]:
    """Yield the names of a list of Slurm's, such as ``n[1-3,7],rack[0-1]-m[08-10]``. Raises ParseError."""
    for word in re.findall(r"(?:\[[^\]]*\]|[^,\[\]])+|\[|\]", text):
        yield from _expanded(word)


def _expanded(word: str) -> Iterator[str]:
    before, bracket, rest = word.partition("[")
    if not bracket:
        if "]" in word:
            raise ParseError(f"expected a list of nodes, got {word[:80]!r}")
        yield word
        return
    inside, bracket, after = rest.partition("]")
    if not bracket:
        raise ParseError(f"expected a list of nodes, got {word[:80]!r}")
    tails = list(_expanded(after)) if after else [""]
    for part in inside.split(","):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (last or first).isdigit()):
            raise ParseError(f"expected numbers or ranges of them, got {part[:80]!r}")
        if int(last or first) - int(first) > _MOST_NAMES:
            raise ParseError(f"expected at most {_MOST_NAMES:,} nodes, got {part[:80]!r}")
        for number in range(int(first), int(last or first) + 1):
            for tail in tails:
                yield f"{before}{number:0{len(first)}d}{tail}"
