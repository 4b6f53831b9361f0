"""What others say to an agent, seen to before it acts on it: whether it has the form that ``council`` and ``link`` give it.

A worker's script may write into a file that is not its own, an agent on another node may be of another version, and who
has not proved yet that it knows the token is anybody. None of them is to end this agent, and the gang with it.
"""

import json
from collections.abc import Mapping
from typing import Any

from artesian.train.recovery import Failure
from artesian.train.roster import read_form

Message = dict[str, Any]

_LAST_CODE = 255
_WORKER: dict[str, type] = {
    "round": int,
    "offers": str,
    "failed": str,
    "trace": str,
    "slow": str,
    "unfit": str,
    "ahead": int,
    "against": list,
    "device": str,
    "rejoined": int,
    "code": int,
}
_AGENT: dict[str, type] = {
    "failed": dict,
    "aside": dict,
    "said": dict,
    "form": dict,
    "members": list,
    "nodes": list,
    "address": list,
    "id": str,
    **dict.fromkeys(("number", "place", "hangs", "done", "yielded", "warm", "beat", "left"), int),
    **dict.fromkeys(("heard", "stacks", "yield", "end", "bye"), int),
}
_OPTIONAL = {"done", "said", "place"}
"""What an agent has nothing to say of is None."""


def parsed(data: bytes) -> Message | None:
    """Return the JSON object that ``data`` is; None where it is something else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):  # the latter of thousands of brackets
        return None
    return found if isinstance(found, dict) else None


def of_worker(data: bytes) -> Message | None:
    """Return what a worker says, in the form that ``link`` has; None where it is nothing of the kind."""
    told = parsed(data)
    if told is None or "round" not in told or not _has_kinds(told, _WORKER):
        return None
    if not all(isinstance(reason, str) for reason in told.get("against", [])):
        return None
    return told if 0 <= told.get("code", 1) <= _LAST_CODE else None


def is_of_agent(told: Message) -> bool:
    """Return whether ``told`` has the form that agents give to what they say, an introduction included."""
    if not _has_kinds(
        {key: it for key, it in told.items() if key not in _OPTIONAL or it is not None}, _AGENT
    ):
        return False
    try:
        for key in told.keys() & {"failed", "aside"}:
            Failure(**told[key])
            if not _has_kinds(told[key], {"rank": int, "text": str}):
                return False
        if "failed" in told and "number" not in told:
            return False
        for address in [told["address"]] if "address" in told else []:
            _ = str(address[0]), int(address[1])
        for _name, _host, port in told.get("members", []):
            int(port)
        if (form := told.get("form")) is not None:
            read_form(form)
            _ = [int(form[key]) for key in ("number", "restarts", "replacements")], form["is_served"]
            _ = tuple(form["nodes"])
    except (IndexError, KeyError, TypeError, ValueError):
        return False
    return told.get("said") is None or is_of_agent(told["said"])


def is_introduction(told: Message) -> bool:
    """Return whether an agent that comes has said who it is, where, and of which formation."""
    return {"id", "address", "number", "nodes"} <= told.keys() and is_of_agent(told)


def _has_kinds(told: Message, kinds: Mapping[str, type]) -> bool:
    return all(isinstance(it, kinds[key]) for key, it in told.items() if key in kinds)
