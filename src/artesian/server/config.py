"""Where the embedded control plane keeps its state."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artesian.model.errors import ArtesianError
from artesian.store import journal_file
from artesian.wire import environment as names

IDLE_EXIT_S = 30.0
"""How long the daemon stays when there is nothing to do: the next job starts at once meanwhile."""

_HINT = f"set {names.STATE_DIR} to a folder of yours"


class StateUnavailable(ArtesianError):  # noqa: N818 - reads as what it is
    """The folder of the state cannot be made or written."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """The folder of the state, readable by its user only, and what lies in it."""

    path: Path

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "StateDir":
        """Return the folder that ``ARTESIAN_STATE`` names, else ``artesian`` in the XDG state folder.

        Raises StateUnavailable where it lies in a home folder that nobody knows.
        """
        named = environ.get(names.STATE_DIR)
        path = Path(named or environ.get("XDG_STATE_HOME") or "~/.local/state")
        try:
            path = path.expanduser().absolute()
        except RuntimeError as error:
            raise StateUnavailable(f"state folder {path}: no home folder is known", hint=_HINT) from error
        return cls(path if named else path / "artesian")

    def create(self) -> None:
        """Make the folders. Raises StateUnavailable."""
        for folder in (self.path, self.jobs):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except FileExistsError as error:
                raise self._unavailable(folder, "a file") from error
            except OSError as error:
                raise self._unavailable(folder, error.strerror or str(error)) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self._unavailable(self.path, "a read-only one")

    @staticmethod
    def _unavailable(folder: Path, actual: str) -> StateUnavailable:
        return StateUnavailable(
            f"state folder {folder}: expected a folder that can be written, got: {actual}", hint=_HINT
        )

    @property
    def journal(self) -> Path:
        """The journal: everything that happened and was decided."""
        return journal_file(self.path)

    @property
    def jobs(self) -> Path:
        """One folder per job: attempts, logs, checkpoints."""
        return self.path / "jobs"

    @property
    def census(self) -> Path:
        """The latest census of this machine."""
        return self.path / "census.json"

    @property
    def node_censuses(self) -> Path:
        """The latest census of each node of the engines."""
        return self.census.with_suffix("")

    @property
    def surveys(self) -> Path:
        """What the jobs of a census have on their nodes, for as long as it lasts."""
        return self.path / "surveys"

    @property
    def tokens(self) -> Path:
        """The tokens by which the server knows who calls."""
        return self.path / "tokens.sqlite3"

    @property
    def session_key(self) -> Path:
        """The key that signs the sessions of the dashboard."""
        return self.path / "session.key"

    @property
    def lock(self) -> Path:
        """Held by the daemon for as long as it lives; holds its pid."""
        return self.path / "daemon.lock"

    @property
    def bell(self) -> Path:
        """A FIFO: a byte in it wakes the daemon. Without a daemon nobody reads it, and a writer hears so."""
        return self.path / "daemon.bell"

    @property
    def cycles(self) -> Path:
        """How long the scheduling cycles of the last driver took (``server.cycles``)."""
        return self.path / "cycles"

    @property
    def daemon_log(self) -> Path:
        """What the daemon had to say."""
        return self.path / "daemon.log"


def database_of(argument: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the place of a journal that a process is told to use: ``-`` stands for ``ARTESIAN_DATABASE``.

    A URL may have a password in it, and every user of the machine can read the arguments of a process.
    """
    return environ[names.DATABASE] if argument == "-" else argument


def private(path: str, flags: int) -> int:
    """Open a file that is made for its user only: an ``opener`` for ``open``."""
    return os.open(path, flags, 0o600)
