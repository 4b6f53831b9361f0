"""Leadership on PostgreSQL: one row says who leads, in which epoch, and until when.

An epoch is a fencing token: it grows with every change of the leader, and a journal opened with it
(``PostgresJournal.open(url, fence=epoch)``) writes only while it is the current one. The database's
clock alone judges when a lease is over. Two things end an epoch:

- Its time is over: the leader is cut off, paused or too busy to renew.
- Its session is over. While an epoch leads, its session holds an advisory lock of that number. A process
  that is killed loses its connection, and with it the lock, at once: nobody waits for the time then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from artesian.store.errors import LeaseLost
from artesian.store.migrations.postgres import migrate
from artesian.store.postgres_connection import PostgresConnection

DURATION_S = 3.0
"""How long a lease holds without being renewed."""

_LOCK_CLASS = 0x41525453
_LOCK = "%(class)s, (%(epoch)s %% 2147483648)::int"
"""The arguments of an advisory lock for an epoch: two numbers of 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who leads: the number of the epoch, and what the leader calls itself (its address, say)."""

    epoch: int
    holder: str


class PostgresLease:
    """A process's claim to lead, under the name ``holder``. Usable by one thread at a time."""

    def __init__(self, url: str, holder: str, *, duration_s: float = DURATION_S) -> None:
        # Who takes over waits for a transaction of the old leader: no longer than that may stand still.
        self._connection = PostgresConnection(url, busy_timeout_s=duration_s)
        self._holder = holder
        self._duration_s = duration_s
        self._epoch: int | None = None
        self._safe_until_s = 0.0
        migrate(self._connection)

    @property
    def epoch(self) -> int | None:
        """The epoch in which this process leads, or led until it heard otherwise; None where it does not."""
        return self._epoch

    @property
    def is_held(self) -> bool:
        """Whether this process leads for sure: by its own clock, which began to count before the database's."""
        return self._epoch is not None and time.monotonic() < self._safe_until_s

    def leader(self) -> Leader | None:
        """Return who leads; None where nobody does. Raises StoreUnavailable."""
        rows = self._connection.execute(
            "SELECT epoch, holder FROM lease WHERE expires_at > clock_timestamp()"
        )
        return Leader(epoch=rows[0][0], holder=rows[0][1]) if rows else None

    def acquire(self) -> int | None:
        """Lead, if nobody does; return the new epoch, None where another leads. Raises StoreUnavailable."""
        ((before, is_over),) = self._connection.execute(
            "SELECT epoch, expires_at <= clock_timestamp() FROM lease"
        )
        if not is_over and not self._is_abandoned(before):
            return None
        asked_s = time.monotonic()
        values = {
            "before": before,
            "epoch": before + 1,
            "holder": self._holder,
            "duration_s": self._duration_s,
            "class": _LOCK_CLASS,
        }
        with self._connection.transaction("SELECT"):
            taken = self._connection.execute(
                "UPDATE lease SET epoch = %(epoch)s, holder = %(holder)s,"
                " expires_at = clock_timestamp() + %(duration_s)s * interval '1 second'"
                " WHERE epoch = %(before)s RETURNING epoch",
                values,
            )
            if not taken:
                return None  # another one was quicker
            # Before anybody can see the epoch: a lock that is free means that its holder is gone.
            self._connection.execute(f"SELECT pg_advisory_lock({_LOCK})", values)
        self._epoch, self._safe_until_s = before + 1, asked_s + self._duration_s
        return self._epoch

    def renew(self) -> None:
        """Lead for another while. Raises LeaseLost when another leads by now, StoreUnavailable."""
        assert self._epoch is not None
        asked_s = time.monotonic()
        values = {"duration_s": self._duration_s, "epoch": self._epoch, "class": _LOCK_CLASS}
        rows = self._connection.execute(
            "UPDATE lease SET expires_at = clock_timestamp() + %(duration_s)s * interval '1 second'"
            " WHERE epoch = %(epoch)s RETURNING epoch",
            values,
        )
        if not rows:
            epoch = self._epoch
            self._forget()
            raise LeaseLost(self._connection.place, f"epoch {epoch} is over")
        # Every time: a connection that was made anew does not have it.
        self._connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})", values)
        self._safe_until_s = asked_s + self._duration_s

    def release(self) -> None:
        """Give leadership back, for another one to take at once; do nothing without. Raises StoreUnavailable."""
        if self._epoch is None:
            return
        epoch = self._epoch
        self._forget()
        self._connection.execute("UPDATE lease SET expires_at = '-infinity' WHERE epoch = %s", (epoch,))
        self._connection.execute("SELECT pg_advisory_unlock_all(); NOTIFY artesian_lease")

    def close(self) -> None:
        """Let go of the connection, and with it of leadership. Calling it again does nothing."""
        self._forget()
        self._connection.close()

    def _is_abandoned(self, epoch: int) -> bool:
        """Return whether the session that leads in this epoch is gone."""
        values = {"class": _LOCK_CLASS, "epoch": epoch}
        ((is_free,),) = self._connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})", values)
        if is_free:
            self._connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", values)
        return bool(is_free)

    def _forget(self) -> None:
        self._epoch, self._safe_until_s = None, 0.0
