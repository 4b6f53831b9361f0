"""What Slurm's commands print, as plain data: JSON where the version has it, text where not.

Slurm 21.08 learned ``--json``; from 23.02 on ``scontrol`` has it too, states are lists, and numbers that
may be missing are objects. Both forms are read here, and nowhere else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON_SINCE = (21, 8)
SCONTROL_JSON_SINCE = (23, 2)

_MIB = 2**20
_SIGNAL_BITS = 0x7F
_FIELDS = ("JobID", "State", "Comment", "exit_code", "Reason", "UserName")
TEXT_FORMAT = ",".join(f"{name}:|" for name in _FIELDS)
"""The ``--Format`` of squeue that ``jobs_of_text`` reads; the comment is its only free text, and ours has no bar."""


class ParseError(ValueError):
    """Slurm printed what we do not understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """A job as the controller knows it. ``state`` is one of Slurm's base states, such as ``RUNNING``.

    ``exit_code`` and ``signal`` are of the batch script, None while it has not ended.
    """

    id: int
    state: str
    comment: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """A node as the controller knows it. ``states`` holds the base state and the flags, upper case.

    ``gres`` and ``gres_used`` are devices by type of the resource ``gpu`` (``""`` where it has no type).
    Memory is the host's; 0 where the site has not configured it.
    """

    name: str
    address: str
    states: frozenset[str]
    cpus: int
    cpus_used: int
    memory_bytes: int
    memory_used_bytes: int
    gres: Mapping[str, int]
    gres_used: Mapping[str, int]
    partitions: frozenset[str]
    features: frozenset[str]


def version_of(text: str) -> tuple[int, int]:
    """Return major and minor of ``sinfo --version``, such as (22, 5) of ``slurm-wlm 22.05.8``."""
    found = re.search(r"(\d+)\.(\d+)", text)
    if found is None:
        raise ParseError(f"expected a version such as slurm 23.02.6, got {text[:80]!r}")
    return int(found[1]), int(found[2])


# -- jobs -------------------------------------------------------------------------------------------


def jobs_of_json(text: str) -> list[SlurmJob]:
    """Return the jobs of ``squeue --json``."""
    return [_job_of_json(entry) for entry in _entries(text, "jobs")]


def _job_of_json(entry: Mapping[str, Any]) -> SlurmJob:
    state, flags = _states(entry["job_state"])
    is_over = state not in _ALIVE
    code, signal = _exit_of_json(entry.get("exit_code")) if is_over else (None, None)
    return SlurmJob(
        id=int(entry["job_id"]),
        state=state,
        comment=_text(entry.get("comment")),
        reason=_text(entry.get("state_reason")),
        exit_code=code,
        signal=signal,
        flags=flags,
    )


def _exit_of_json(value: Any) -> tuple[int | None, int | None]:
    """Return code and signal: of a wait status up to 22.05, of an object afterwards."""
    if isinstance(value, Mapping):
        signal = _number(_mapping(value.get("signal")).get("id", value.get("signal_id")))
        return _number(value.get("return_code")), signal or None
    status = _number(value)
    return (None, None) if status is None else _exit_of_status(status)


def _exit_of_status(status: int) -> tuple[int | None, int | None]:
    return status >> 8, (status & _SIGNAL_BITS) or None


def jobs_of_text(text: str) -> list[SlurmJob]:
    """Return the jobs of ``squeue --Format`` with TEXT_FORMAT."""
    jobs = []
    for line in text.splitlines():
        words = line.rstrip("|").split("|")
        if len(words) < len(_FIELDS):
            continue  # somebody else's comment has a line break in it
        id_, state, comment, status, reason = (word.strip() for word in words[:5])
        if not id_.isdigit() or not status.isdigit():
            continue  # as above, or an array that is not split up yet: none is ours
        is_over = state not in _ALIVE
        code, signal = _exit_of_status(int(status)) if is_over else (None, None)
        jobs.append(
            SlurmJob(id=int(id_), state=state, comment=comment, reason=reason, exit_code=code, signal=signal)
        )
    return jobs


_ALIVE = frozenset(
    {
        "CONFIGURING",
        "COMPLETING",
        "PENDING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    }
)
"""States of jobs that are not over."""


_NOT_GRANTED = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)


def is_granted(state: str) -> bool:
    """Return whether nodes count a job in this state as using them."""
    return state in _ALIVE and state not in _NOT_GRANTED


def is_over(state: str) -> bool:
    """Return whether nothing of a job in this state runs, or will run, any more."""
    return state not in _ALIVE


# -- nodes ------------------------------------------------------------------------------------------


def nodes_of_json(text: str) -> list[SlurmNode]:
    """Return the nodes of ``sinfo --json`` up to 22.05, and of ``scontrol show nodes --json`` afterwards."""
    return [
        _node(
            name=entry["name"],
            address=_text(entry.get("address")) or str(entry["name"]),
            states=_node_states(entry),
            cpus=_number(entry.get("cpus")) or 0,
            cpus_used=_number(entry.get("alloc_cpus")) or 0,
            memory_mib=_number(entry.get("real_memory")) or 0,
            memory_used_mib=_number(entry.get("alloc_memory")) or 0,
            gres=_text(entry.get("gres")),
            gres_used=_text(entry.get("gres_used")),
            partitions=_list(entry.get("partitions")),
            features=_list(entry.get("active_features")) or _list(entry.get("features")),
        )
        for entry in _entries(text, "nodes")
    ]


def _node_states(entry: Mapping[str, Any]) -> Iterable[str]:
    state = entry.get("state")
    states = [state] if isinstance(state, str) else list(state or ())
    return [*states, *entry.get("state_flags", ())]


def nodes_of_text(text: str) -> list[SlurmNode]:
    """Return the nodes of ``scontrol show nodes --details --oneliner``."""
    nodes = []
    for line in text.splitlines():
        if not line.startswith("NodeName="):
            continue
        # No value that is wanted here holds a space; those that do, such as OS and Reason, are not wanted.
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        nodes.append(
            _node(
                name=fields["NodeName"],
                address=fields.get("NodeAddr") or fields["NodeName"],
                states=re.split(r"[+]", fields["State"].replace("*", "+NOT_RESPONDING")),
                cpus=int(fields.get("CPUTot", 0)),
                cpus_used=int(fields.get("CPUAlloc", 0)),
                memory_mib=int(fields.get("RealMemory", 0)),
                memory_used_mib=int(fields.get("AllocMem", 0)),
                gres=fields.get("Gres", ""),
                gres_used=fields.get("GresUsed", ""),
                partitions=_list(fields.get("Partitions")),
                features=_list(fields.get("ActiveFeatures")),
            )
        )
    return nodes


def _node(
    *,
    name: str,
    address: str,
    states: Iterable[str],
    cpus: int,
    cpus_used: int,
    memory_mib: int,
    memory_used_mib: int,
    gres: str,
    gres_used: str,
    partitions: Sequence[str],
    features: Sequence[str],
) -> SlurmNode:
    is_memory_known = memory_mib > 1  # 1 is what Slurm takes where the site says nothing
    return SlurmNode(
        name=name,
        address=address,
        states=frozenset(state.upper() for state in states if state),
        cpus=cpus,
        cpus_used=cpus_used,
        memory_bytes=memory_mib * _MIB if is_memory_known else 0,
        memory_used_bytes=memory_used_mib * _MIB if is_memory_known else 0,
        gres=gpus_of(gres),
        gres_used=gpus_of(gres_used),
        partitions=frozenset(partitions),
        features=frozenset(features),
    )


def gpus_of(gres: str) -> dict[str, int]:
    """Return the devices by type of a GRES list such as ``gpu:h100:8(S:0-1),gpu:a30:2(IDX:0),license:1``."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, _, rest = entry.strip().partition(":")
        type_, _, count = rest.rpartition(":")
        if name == "gpu" and count.isdigit():
            found[type_] = found.get(type_, 0) + int(count)
        elif name == "gpu" and rest and not type_:  # ``gpu:h100`` is one of it
            found[rest] = found.get(rest, 0) + 1
    return found


# -- JSON of several versions -----------------------------------------------------------------------


def _entries(text: str, key: str) -> list[Mapping[str, Any]]:
    """Return a list of the document. Raises ParseError, also where Slurm reports an error inside of it.

    While the controller is down, 22.05 prints an empty list and ends with code 0: the error is the only sign.
    """
    try:
        document = json.loads(text)
        found, errors = document[key], document.get("errors")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParseError(f"expected JSON with {key}, got {text[:80]!r}") from error
    if errors:
        raise ParseError(f"expected {key}, got an error: {json.dumps(errors)[:200]}")
    if not isinstance(found, list):
        raise ParseError(f"expected a list of {key}, got {text[:80]!r}")
    return found


def _number(value: Any) -> int | None:
    """Return a number: bare, or as ``{"set": true, "infinite": false, "number": 8}``."""
    if isinstance(value, Mapping):
        is_set = value.get("set", True) and not value.get("infinite", False)
        return _number(value.get("number")) if is_set else None
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _states(value: Any) -> tuple[str, frozenset[str]]:
    """Return a job's base state and its flags, of a word or of a list."""
    words = [value] if isinstance(value, str) else list(value)
    if not words:
        raise ParseError("a job without a state")
    return words[0], frozenset(words[1:])


def _text(value: Any) -> str:
    if isinstance(
        value, Mapping
    ):  # ``{"job": …, "system": …}``: the comment of later versions, in some plugins
        return _text(value.get("job"))
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [word for word in value.split(",") if word and word != "(null)"]
    return [str(word) for word in value or ()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
