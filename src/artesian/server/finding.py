"""Finding the job or the node that a user means; what is said where there is none."""

import secrets
from collections.abc import Container, Sequence

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.nodes import NodeRecord
from artesian.kernel.state import State
from artesian.model.capacity import Capacity
from artesian.model.errors import (
    AlreadyOver,
    AttemptUnknown,
    JobImpossible,
    NotExcluded,
    UnknownJob,
    UnknownNode,
)
from artesian.model.job import Job
from artesian.policy import explain

LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_NAMED = 5


def no_such_job(text: str, beginning: Sequence[str], count: int) -> UnknownJob:
    """Return the error where not exactly one job is meant; ``beginning``: the first of ``count`` that begin so."""
    if count == 0:
        return UnknownJob(f"job {text!r} is not known here", hint="artesian jobs lists the jobs")
    ids = ", ".join(sorted(beginning)[:_NAMED])
    return UnknownJob(
        f"job {text!r}: expected one job, got {count} that begin so",
        hint=f"name one of them: {ids}{', …' if count > _NAMED else ''}",
    )


def new_job_id(name: str, taken: Container[str], letters: int) -> str:
    """Return an id that is not taken."""
    while True:
        suffix = "".join(secrets.choice(LETTERS) for _ in range(letters))
        if (job_id := f"{name}-{suffix}") not in taken:
            return job_id


def check_possible(job: Job, capacity: Capacity) -> None:
    """Raise JobImpossible where the fleet could never hold the job."""
    if (reason := explain.impossible(job, capacity)) is not None:
        raise JobImpossible(f"job {job.name} cannot run here: {reason.text}", hint=reason.unblock)


def check_not_over(record: JobRecord) -> None:
    """Raise AlreadyOver where nothing is left to be cancelled."""
    if record.state.is_final:
        id_ = record.job.id
        raise AlreadyOver(f"job {id_} is over already: {record.state.value}", hint=f"artesian show {id_}")


def known_attempt(record: JobRecord, asked: int | None) -> int:
    """Return the attempt asked for, the latest where none is. Raises AttemptUnknown."""
    id_ = record.job.id
    if not record.attempts:
        raise AttemptUnknown(
            f"job {id_} has not started: it is {record.state.value}", hint=f"artesian why {id_}"
        )
    if asked is not None and asked > record.epoch:
        raise AttemptUnknown(f"job {id_}: expected an attempt up to {record.epoch}, got {asked}")
    return asked or record.epoch


def known_node(state: State, node: str) -> NodeRecord:
    """Return the node with this id. Raises UnknownNode."""
    found = state.nodes.get(node)
    if found is None:
        raise UnknownNode.among(node, state.nodes)
    return found


def check_excluded(record: NodeRecord) -> None:
    """Raise NotExcluded where nobody keeps the node out of use."""
    if record.exclusion is None:
        raise NotExcluded(
            f"node {record.node.id}: expected one that is excluded, got one that is {'up' if record.is_up else 'gone'}",
            hint="artesian nodes shows which are excluded",
        )
