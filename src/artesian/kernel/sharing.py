"""Equal parts of jobs and nodes, kept once.

Most of what 100,000 waiting jobs say they say in the same words: the same environment, the same kinds of
devices, the same folder. Read from a journal, each has a copy of its own.
"""

from collections.abc import Hashable
from typing import Any

from msgspec.structs import force_setattr

from artesian.kernel.lifecycle import Change, JobRecord
from artesian.model.fleet import Node
from artesian.model.job import Job

_MOST = 4096
"""Parts that are remembered. What is common is soon remembered again; what is unique must not pile up."""

_MOST_ENVIRONMENTS = 256

_JOB_WORDS = ("name", "workdir", "team", "user")
_JOB_PARTS = ("command", "devices", "retry")
_NODE_PARTS = ("accelerator", "pool", "vendor", "device_memory_bytes", "memory_bytes", "peak_flops")

# The classes are frozen for those who use them. An equal value in the place of another is no change.
_set = force_setattr


class Sharing:
    """Remembers the parts that it has seen, and puts them in the place of equal ones."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._parts: dict[Hashable, Any] = {}
        self._latest: dict[str, Any] = {}
        self._environments: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        self._queued: tuple[Change, ...] = ()

    def record(self, record: JobRecord) -> None:
        """Let the job share its parts with others, and when it was submitted with those of the same moment."""
        self.job(record.job)
        first = record.history[0]
        if first.at_s == record.submitted_s:
            first.at_s = record.submitted_s  # one object for both, of 24 bytes
        if len(record.history) > 1:
            return
        if record.history != self._queued:  # those of a bulk submit come one after the other
            self._queued = record.history
        elif record.submitted_s == self._queued[0].at_s:
            record.history, record.submitted_s = self._queued, self._queued[0].at_s

    def job(self, job: Job) -> None:
        """Let the job share its parts with others. It stays equal to what it was."""
        same_word, same_part = self._words.setdefault, self._parts.setdefault
        for name in _JOB_WORDS:
            word = getattr(job, name)
            if (known := same_word(word, word)) is not word:
                _set(job, name, known)
        if job.command not in self._parts:
            _set(job, "command", tuple([same_word(word, word) for word in job.command]))
        for name in _JOB_PARTS:
            part = getattr(job, name)
            if part is self._latest.get(name):
                continue  # to look it up it would be hashed, which takes longer
            known = self._latest[name] = same_part(part, part)
            if known is not part:
                _set(job, name, known)
        if isinstance(job.env, dict):
            _set(job, "env", self._environment(job.env))
        self._forget()

    def node(self, node: Node) -> None:
        """Let the node share its parts with others. It stays equal to what it was."""
        for name in _NODE_PARTS:
            part = getattr(node, name)
            # By type as well: 1 and 1.0 are equal, and are written differently.
            _set(node, name, self._parts.setdefault((type(part), part), part))
        self._forget()

    def _environment(self, own: dict[str, str]) -> dict[str, str]:
        key = frozenset(own.items())
        known = self._environments.get(key)
        if known is None:
            same_word = self._words.setdefault
            known = {same_word(name, name): same_word(value, value) for name, value in own.items()}
            self._environments[key] = known
        return known

    def _forget(self) -> None:
        if len(self._words) > _MOST:
            self._words.clear()
        if len(self._parts) > _MOST:
            self._parts.clear()
        if len(self._environments) > _MOST_ENVIRONMENTS:
            self._environments.clear()
