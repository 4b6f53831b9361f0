"""A PostgreSQL of the tests' own: on a free port of loopback, in a folder of its own, gone at the end.

It starts when the first test asks for it, and each test gets a database that nobody else has. It does not
wait for the disk (``fsync = off``): that a machine's crash loses nothing is PostgreSQL's promise, not ours.
"""

import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import guardian
from artesian.store.postgres_journal import PostgresJournal
from limits import needs
from ports import free_port

_SETTINGS = {"listen_addresses": "127.0.0.1", "max_connections": "60", "shared_buffers": "16MB"}
_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
_TIMEOUT_S = "180"
LOCKED_USER = "locked"
"""The one user whom the server asks for a password. Who wants it makes it."""

_numbers = itertools.count(1)


def programs() -> Path | None:
    """Return the folder with PostgreSQL's programs, which Debian keeps off the PATH; None where it is not installed."""
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresServer:
    """A running server. ``is_durable``: it waits for the disk, as one that is for more than tests would."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self._folder = folder
        self._settings = _SETTINGS if is_durable else {**_SETTINGS, **_FORGETFUL}
        found = programs()
        assert found is not None
        self._programs = found
        self.port = free_port()
        if os.geteuid() == 0:  # initdb refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
        self._run(
            "initdb", "-D", self._data, "-U", "artesian", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"
        )
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {LOCKED_USER} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str = "postgres", user: str = "artesian") -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """Make a database, empty or a copy, and return its name."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template))
            )
        return name

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._watch = guardian.watch(
            pid_file=self._folder / "data" / "postmaster.pid", first=signal.SIGQUIT, folder=self._folder
        )
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        options += f" -c port={self.port} -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-t", _TIMEOUT_S, "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate``: as a crash would."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "-t", _TIMEOUT_S, "stop")
        guardian.forget(self._watch)

    def _run(self, program: str, *arguments: str) -> None:
        words: Sequence[str] = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:
            words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *words]
        done = subprocess.run(
            words,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@functools.cache
def _can_run() -> bool:
    if programs() is None:
        return False
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return os.geteuid() != 0
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server; skips where PostgreSQL is not installed, and fails there in CI."""
    needs(_can_run(), "PostgreSQL's server programs")
    with tempfile.TemporaryDirectory(prefix="artesian-postgres-") as name:
        server = PostgresServer(Path(name))
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database with the schema in it: copying it is quicker than migrating again."""
    name = postgres.new_database()
    PostgresJournal.open(postgres.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> str:
    """The URL of a database of the test's own, with an empty journal."""
    return postgres.url(postgres.new_database(postgres_template))
