"""Version 1: the records."""

import sqlite3

APPLICATION_ID = 0x41525453
"""``ARTS``: tells a journal from any other SQLite database."""


def upgrade(connection: sqlite3.Connection) -> None:
    """Make the table of records, one row each; ``artesian.store.chain`` says what ``crc`` covers."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(
        """
        CREATE TABLE records (
            seq  INTEGER PRIMARY KEY,
            at_s REAL    NOT NULL,
            type TEXT    NOT NULL,
            body BLOB    NOT NULL,
            crc  INTEGER NOT NULL
        )
        """
    )
