"""Version 2: snapshots of the state, and a place for records that were found damaged."""

import sqlite3


def upgrade(connection: sqlite3.Connection) -> None:
    """Make both tables. The quarantine takes whatever a damaged record has become, hence no types."""
    connection.execute(
        """
        CREATE TABLE snapshots (
            seq        INTEGER PRIMARY KEY,
            record_crc INTEGER NOT NULL,
            version    TEXT    NOT NULL,
            body       BLOB    NOT NULL,
            crc        INTEGER NOT NULL
        )
        """
    )
    connection.execute(
        """
        CREATE TABLE quarantine (
            id      INTEGER PRIMARY KEY,
            found_s REAL NOT NULL,
            fault   TEXT NOT NULL,
            seq, at_s, type, body, crc
        )
        """
    )
