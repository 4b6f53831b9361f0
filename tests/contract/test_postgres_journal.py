"""What is PostgreSQL's own about the journal: its schema, connections, passwords, damage, and the bell."""

import logging
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from artesian.store import (
    JournalCorrupt,
    JournalTooNew,
    NotAJournal,
    StoreError,
    StoreUnavailable,
    is_url,
    open_journal,
)
from artesian.store.migrations import postgres as migrations
from artesian.store.postgres_bell import PostgresBell
from artesian.store.postgres_journal import PostgresJournal
from artesian.store.postgres_lease import PostgresLease
from builders import a_job, submitted, ticked
from postgres_server import LOCKED_USER, PostgresServer

SECRET = "correct-horse-battery"  # noqa: S105 - of a server that lives as long as the tests


@pytest.fixture
def journal(postgres_url: str) -> Iterator[PostgresJournal]:
    with PostgresJournal.open(postgres_url) as journal:
        yield journal


def run_sql(url: str, *statements: str) -> None:
    """Change the database behind the journal's back."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


# -- the schema ---------------------------------------------------------------------------------------


def test_the_known_revisions_are_those_that_alembic_finds() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "artesian.store:migrations/postgres")
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == migrations.REVISIONS


def test_many_may_open_a_new_database_at_once(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    errors: list[BaseException] = []

    def come() -> None:
        try:
            with PostgresJournal.open(url, busy_timeout_s=30) as journal:
                journal.append([ticked()])
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with PostgresJournal.open(url) as journal:
        assert journal.verify() == 4


def test_a_schema_of_a_newer_artesian_is_refused_and_left_alone(postgres_url: str) -> None:
    run_sql(postgres_url, "UPDATE artesian.alembic_version SET version_num = '9999'")
    with pytest.raises(JournalTooNew, match="revision 9999, known are 0001") as caught:
        PostgresJournal.open(postgres_url)
    assert caught.value.hint


def test_a_schema_that_something_else_made_is_refused(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    run_sql(url, "CREATE SCHEMA artesian", "CREATE TABLE artesian.recipes (name text)")
    with pytest.raises(NotAJournal) as caught:
        PostgresJournal.open(url)
    assert caught.value.hint
    assert "database" in caught.value.hint


def test_other_tables_of_the_database_are_nobodys_business(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    run_sql(url, "CREATE TABLE records (x int)", "CREATE TABLE alembic_version (version_num text)")
    with PostgresJournal.open(url) as journal:
        assert journal.append([ticked()]) == 1
    run_sql(url, "SELECT x FROM public.records")


def test_heavy_libraries_are_imported_where_they_are_needed(postgres_url: str) -> None:
    code = (
        "import sys, artesian.store\n"
        "assert 'psycopg' not in sys.modules\n"
        "artesian.store.open_journal(sys.argv[1]).close()\n"
        "assert 'psycopg' in sys.modules and 'sqlalchemy' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, postgres_url], check=True)


def test_a_place_is_a_url_or_a_file(tmp_path: Path) -> None:
    assert is_url("postgresql://host/name")
    assert not is_url(tmp_path / "journal.sqlite3")


# -- passwords ----------------------------------------------------------------------------------------


@pytest.fixture
def locked_url(postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL for a user who needs a password."""
    run_sql(
        postgres_url,
        # Users belong to the whole server: an earlier test may have made it.
        f"DROP ROLE IF EXISTS {LOCKED_USER}",
        f"CREATE ROLE {LOCKED_USER} LOGIN PASSWORD '{SECRET}'",
        "GRANT USAGE ON SCHEMA artesian TO PUBLIC",
        "GRANT ALL ON ALL TABLES IN SCHEMA artesian TO PUBLIC",
    )
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    return postgres.url(postgres_url.rpartition("/")[2], user=LOCKED_USER)


def test_a_password_comes_from_the_environment(locked_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        PostgresJournal.open(locked_url)
    assert caught.value.hint
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with PostgresJournal.open(locked_url) as journal:
        assert journal.append([ticked()]) == 1


def test_a_password_comes_from_a_file_that_nobody_else_can_read(locked_url: str, tmp_path: Path) -> None:
    passfile = tmp_path / "password"
    url = f"{locked_url}?passfile={passfile}"
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        PostgresJournal.open(url)
    passfile.write_text(f"*:*:*:*:{SECRET}\n")
    passfile.chmod(0o640)
    with pytest.raises(StoreError, match="expected mode 0600, got 0640") as caught:
        PostgresJournal.open(url)
    assert caught.value.hint
    passfile.chmod(0o600)
    with PostgresJournal.open(url) as journal:
        assert journal.append([ticked()]) == 1
        assert str(passfile) not in journal.place


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/name",
        f"postgresql://user@127.0.0.1:1/name?password={SECRET}",
        f"postgresql://user:{SECRET}@127.0.0.1:1/name?no_such_setting=1",
        f"postgresql://user:{SECRET}@[::1/name",
    ],
)
def test_a_url_with_a_password_is_refused_without_saying_it(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError) as caught:
        PostgresJournal.open(url)
    assert caught.value.hint
    assert SECRET not in f"{caught.value} {caught.value.hint} {caplog.text}"


def test_a_wrong_password_is_in_no_error(
    locked_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PGPASSWORD", "wrong-horse")
    with pytest.raises(StoreUnavailable) as caught:
        PostgresJournal.open(locked_url)
    assert "wrong-horse" not in f"{caught.value} {caught.value.__cause__} {caught.value.hint} {caplog.text}"


# -- connections --------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as caught:
        PostgresJournal.open("postgresql://user@127.0.0.1:1/name")
    assert caught.value.hint


def test_a_database_that_is_not_there_is_unavailable(postgres: PostgresServer) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere") as caught:
        PostgresJournal.open(postgres.url("nowhere"))
    assert caught.value.hint is not None
    assert "createdb" in caught.value.hint


def test_a_lost_connection_is_made_again(journal: PostgresJournal, postgres_url: str) -> None:
    journal.append([ticked(1.0)])
    run_sql(postgres_url, _END_OTHERS)
    with pytest.raises(StoreUnavailable):
        journal.append([ticked(2.0)])
    assert journal.append([ticked(3.0)]) == 2
    assert [record.at_s for _, record in journal.read()] == [1.0, 3.0]


_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_a_connection_lost_in_a_transaction_writes_nothing(
    journal: PostgresJournal, postgres_url: str
) -> None:
    def loses_it() -> None:
        with journal.transaction() as transaction:
            transaction.append([ticked(1.0)])
            run_sql(postgres_url, _END_OTHERS)

    with pytest.raises(StoreUnavailable):
        loses_it()
    assert journal.last_seq == 0
    assert journal.append([ticked(2.0)]) == 1


def test_a_writer_that_stands_still_in_a_transaction_does_not_keep_the_others_waiting(
    journal: PostgresJournal, postgres_url: str
) -> None:
    def stands_still() -> None:
        with journal.transaction() as transaction:
            # Not before: it could stand still on its way here, and nobody would have waited for it.
            journal._connection.execute("SET LOCAL idle_in_transaction_session_timeout TO 20")
            with PostgresJournal.open(postgres_url, busy_timeout_s=120) as other:
                assert other.append([ticked(1.0)]) == 1
            transaction.append([ticked(2.0)])

    with pytest.raises(StoreUnavailable):
        stands_still()
    assert journal.append([ticked(3.0)]) == 2


def test_commits_wait_for_the_disk_whatever_the_servers_default(postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    run_sql(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit TO off")
    with PostgresJournal.open(postgres_url) as journal:
        assert journal._connection.execute("SHOW synchronous_commit") == [("on",)]


# -- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE artesian.records SET body = body || '!'::bytea WHERE seq = 3",
        "UPDATE artesian.records SET crc = crc + 1 WHERE seq = 3",
        "UPDATE artesian.records SET at_s = at_s + 1 WHERE seq = 3",
        "DELETE FROM artesian.records WHERE seq = 3",
        "DELETE FROM artesian.records WHERE seq >= 3",
    ],
)
def test_damage_is_refused_with_its_position(
    journal: PostgresJournal, postgres_url: str, damage: str
) -> None:
    journal.append(submitted(a_job(f"j{number}")) for number in range(5))
    run_sql(postgres_url, damage)
    with pytest.raises(JournalCorrupt, match="record 3 is damaged") as caught:
        journal.verify()
    assert caught.value.seq == 3
    assert caught.value.hint is not None
    assert "database aside" in caught.value.hint


def test_a_record_behind_the_end_is_found(journal: PostgresJournal, postgres_url: str) -> None:
    journal.append([ticked()])
    run_sql(postgres_url, "INSERT INTO artesian.records VALUES (2, 0, 'ClockTicked', '{}', 0)")
    with pytest.raises(JournalCorrupt, match="behind the end"):
        journal.verify()


# -- the bell -----------------------------------------------------------------------------------------


def is_rung(bell: PostgresBell) -> bool:
    return bool(select.select([bell.fd], [], [], 120)[0])


def test_an_append_rings_the_bell_and_reading_does_not(journal: PostgresJournal, postgres_url: str) -> None:
    with closing(PostgresBell(postgres_url)) as bell:
        journal.append([ticked()])
        assert is_rung(bell)
        assert bell.answer() is False
        list(journal.read())
        with journal.transaction():
            pass
        journal.append([])
        assert not select.select([bell.fd], [], [], 0.05)[0]


def test_the_bell_tells_that_leadership_was_given_back(postgres_url: str) -> None:
    with (
        closing(PostgresBell(postgres_url)) as bell,
        closing(PostgresLease(postgres_url, "first")) as lease,
    ):
        lease.acquire()
        lease.release()
        deadline_s = time.monotonic() + 120
        while not bell.answer():
            assert time.monotonic() < deadline_s


def test_a_bell_whose_connection_is_lost_says_so(postgres_url: str) -> None:
    with closing(PostgresBell(postgres_url)) as bell:
        run_sql(postgres_url, _END_OTHERS)
        assert is_rung(bell)
        with pytest.raises(StoreUnavailable):
            bell.answer()


def test_opening_by_url_gives_a_journal_on_postgresql(postgres_url: str) -> None:
    with closing(open_journal(postgres_url)) as journal:
        assert isinstance(journal, PostgresJournal)
