"""The schema on PostgreSQL: Alembic's revisions, applied at opening under a lock.

One file per revision in ``versions``; one that was released is never changed. Alembic and SQLAlchemy take
half a second and tens of megabytes to import: whoever finds the latest revision does without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artesian.store.errors import JournalTooNew, NotAJournal
from artesian.store.postgres_connection import SCHEMA

if TYPE_CHECKING:
    from artesian.store.postgres_connection import PostgresConnection

REVISIONS = ("0001", "0002")
"""All revisions, in order."""

_LOCK_KEY = 0x41525453_0001
"""The advisory lock of whoever migrates."""


def migrate(connection: PostgresConnection) -> None:
    """Bring the schema to the latest revision. Raises JournalTooNew, NotAJournal and other StoreErrors."""
    if _revision(connection) == REVISIONS[-1]:
        return
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
    try:
        if _revision(connection) != REVISIONS[-1]:  # others may have been first
            _upgrade(connection)
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))


def _revision(connection: PostgresConnection) -> str | None:
    """Return the schema's revision; None where there is no schema yet."""
    ((schema, table),) = connection.execute(
        "SELECT to_regnamespace(%s)::text, to_regclass(%s)::text", (SCHEMA, f"{SCHEMA}.alembic_version")
    )
    if schema is None:
        return None
    if table is None:
        raise NotAJournal(connection.place, f"a schema {SCHEMA} that something else made")
    found = connection.execute("SELECT version_num FROM alembic_version")
    revision = str(found[0][0]) if found else None
    if revision is not None and revision not in REVISIONS:
        raise JournalTooNew(
            connection.place, f"its schema has revision {revision}, known are {', '.join(REVISIONS)}"
        )
    return revision


def _upgrade(connection: PostgresConnection) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", "artesian.store:migrations/postgres")
    engine = create_engine("postgresql+psycopg://", creator=connection.another, poolclass=NullPool)
    with connection.translated():
        try:
            with engine.begin() as bound:
                bound.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
                config.attributes["connection"] = bound
                command.upgrade(config, "head")
        except DBAPIError as error:
            raise error.orig or error from error
