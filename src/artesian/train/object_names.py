"""What the folders of an object store are called: a name tells whose it is, so no attempt touches a later one's.

``step-00000040``                a checkpoint; ``step-00000040-1f9c`` the parts of a save, of any number
``step-00000040.2.train-x7``     the same of attempt 2 of the job ``train-x7``
``writers/2.train-x7.json``      that this attempt has come, and which checkpoints counted then

Needs the standard library only.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote, unquote

from artesian.train.fence import Writer
from artesian.train.manifest import folder_name

_NAME = re.compile(r"step-([0-9]+)(-[^.]+)?(?:\.([0-9]+)\.(.+))?")
_MARK = re.compile(r"([0-9]+)\.(.+)\.json")

Before = Callable[[Writer], Collection[str] | None]
"""The names of the checkpoints that counted when an attempt came; None where that is not written down."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a folder: of a checkpoint, or of the parts of a save, which has a ``number``."""

    step: int
    number: str = ""
    writer: Writer | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what the name says; None where it is none of these."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        step, number, epoch, job = match.groups()
        writer = None if epoch is None else Writer(job=unquote(job), epoch=int(epoch))
        return cls(int(step), (number or "").removeprefix("-"), writer)

    def __str__(self) -> str:
        number = f"-{self.number}" if self.number else ""
        whose = "" if self.writer is None else f".{_whose(self.writer)}"
        return f"{folder_name(self.step)}{number}{whose}"

    def of(self, writer: Writer | None) -> "Name":
        """Return the name of the same of another writer's."""
        return replace(self, writer=writer)

    def is_later_than(self, writer: Writer | None) -> bool:
        """Whether it is of an attempt that has followed ``writer``."""
        mine, theirs = writer, self.writer
        return (
            mine is not None and theirs is not None and mine.job == theirs.job and theirs.epoch > mine.epoch
        )


def mark_of(writer: Writer) -> str:
    """Return the name of what says that an attempt has come."""
    return f"{_whose(writer)}.json"


def writer_of(mark: str) -> Writer | None:
    """Return whose mark this is; None where it is none."""
    match = _MARK.fullmatch(mark)
    return None if match is None else Writer(job=unquote(match[2]), epoch=int(match[1]))


def newest_of(writers: Iterable[Writer]) -> dict[str, int]:
    """Return the highest epoch of each job."""
    return {writer.job: writer.epoch for writer in sorted(writers, key=lambda each: each.epoch)}


def counting(
    checkpoints: Collection[Name], writers: Collection[Writer], before: Before
) -> Mapping[int, Name]:
    """Return which checkpoint counts, by step.

    Of attempts that were followed only those count that did so when the next one came: whatever they publish later is
    as if it were not there. ``writers`` are those that have come, and ``before`` is asked for few of them.
    """
    bounds: dict[str, tuple[int, Collection[str]]] = {}
    for job, oldest in _oldest_of(checkpoints).items():
        followers = [writer for writer in writers if writer.job == job and writer.epoch > oldest]
        for writer in sorted(followers, key=lambda each: each.epoch, reverse=True):
            if (known := before(writer)) is not None:
                bounds[job] = (writer.epoch, known)
                break
    of_steps: dict[int, list[Name]] = {}
    for name in checkpoints:
        epoch, known = bounds.get(name.writer.job, (0, ())) if name.writer is not None else (0, ())
        if name.writer is None or name.writer.epoch >= epoch or str(name) in known:
            of_steps.setdefault(name.step, []).append(name)
    return {step: names[0] if len(names) == 1 else _last(names, before) for step, names in of_steps.items()}


def _last(names: Collection[Name], before: Before) -> Name:
    """Return the one that came last of several of one step: those that were there when its writer came are older."""
    older = {old for name in names if name.writer is not None for old in before(name.writer) or ()}
    rest = [name for name in names if str(name) not in older] or names
    return max(rest, key=lambda name: (0 if name.writer is None else name.writer.epoch, str(name)))


def _oldest_of(checkpoints: Iterable[Name]) -> dict[str, int]:
    writers = [name.writer for name in checkpoints if name.writer is not None]
    return {writer.job: writer.epoch for writer in sorted(writers, key=lambda each: -each.epoch)}


def _whose(writer: Writer) -> str:
    return f"{writer.epoch}.{quote(writer.job, safe='')}"
