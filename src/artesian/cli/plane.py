"""The control plane as the commands see it: embedded in this machine, or a server's. The same questions to both."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from artesian.model.ledger import Waterfall
from artesian.model.views import (
    Decision,
    Happening,
    JobFile,
    JobList,
    JobView,
    MovesView,
    NewToken,
    NodeView,
    TokenView,
)

if TYPE_CHECKING:  # numpy comes with them; most commands do not need them
    from artesian.kernel.training import JobReport, TrainingSummary


class Plane(Protocol):
    """What ``server.embedded.ControlPlane`` and ``client.Client`` both are.

    A job is named by its id, the beginning of it, or its name; UnknownJob where that is not exactly one.
    """

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""
        ...

    def __enter__(self) -> Plane: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def jobs(self, *, is_all: bool = False) -> JobList:
        """Return the latest jobs, or all."""
        ...

    def job(self, job: str) -> JobView:
        """Return a job, with why it waits."""
        ...

    def decision(self, job: str) -> Decision:
        """Return what was last decided about it."""
        ...

    def moves(self) -> MovesView:
        """Return the moves of running jobs with which waiting ones can start."""
        ...

    def training(self, job: str) -> TrainingSummary:
        """Return what it has trained."""
        ...

    def report(self, job: str) -> JobReport:
        """Return all that is told when a job is over."""
        ...

    def waterfall(self, *, job: str | None = None, since_s: float | None = None) -> Waterfall:
        """Return where the compute went."""
        ...

    def check(self, file: JobFile) -> None:
        """Raise JobFileError or JobImpossible where the file cannot be submitted."""
        ...

    def submit(self, file: JobFile) -> JobView:
        """Submit it."""
        ...

    def cancel(self, job: str) -> JobView:
        """Have it stopped; AlreadyOver where it is over. Returns it as it was."""
        ...

    def output(
        self, job: str, *, attempt: int | None = None, worker: int | None = None, is_err: bool = False
    ) -> Iterator[bytes]:
        """Yield what an attempt has printed; AttemptUnknown where there is none."""
        ...

    def follow(self, job: str) -> Iterator[Happening]:
        """Yield what happens to it until it is over."""
        ...

    def iter_nodes(self, *, pool: str | None = None) -> Iterator[NodeView]:
        """Yield the nodes in the order of their ids."""
        ...

    def exclude(self, node: str, *, reason: str, is_stopping: bool = False) -> NodeView:
        """Have nothing more start on a node; UnknownNode where there is none."""
        ...

    def return_node(self, node: str) -> NodeView:
        """Have an excluded node used again; NotExcluded where it is in use."""
        ...

    def ids(self, beginning: str) -> list[str]:
        """Return ids that begin so, the latest first."""
        ...


class TokenOffice(Protocol):
    """Where tokens are made: this machine's state folder, or a server."""

    def __enter__(self) -> TokenOffice: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def create_token(
        self, *, user: str, role: str, team: str | None = None, lasts_s: float | None = None, note: str = ""
    ) -> NewToken:
        """Make one."""
        ...

    def tokens(self) -> tuple[TokenView, ...]:
        """Return all."""
        ...

    def revoke_token(self, id_: str) -> TokenView:
        """Make one worthless."""
        ...
