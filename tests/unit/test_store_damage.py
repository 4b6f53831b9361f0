"""Damage: a torn end is mended and reported, anything else is refused with its position."""

import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.state import Record
from artesian.store import JournalCorrupt, JournalTooNew, SqliteJournal, journal_file
from artesian.store.chain import START, Row, _checksum, extend, fault
from artesian.store.layout import wal_file
from builders import a_job, cancelled, submitted, ticked

RECORDS: Sequence[Record] = [submitted(a_job(f"j{number}"), float(number)) for number in range(1, 11)]
LAST = len(RECORDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = journal_file(tmp_path)
    with SqliteJournal.open(path) as journal:
        for record in RECORDS:
            journal.append([record])
    return path


def tamper(path: Path, sql: str, *parameters: object) -> None:
    """Change the file behind the journal's back, as a fault of the disk would."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql, parameters).rowcount > 0
    connection.close()


def quarantined(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT seq, fault, type, body FROM quarantine ORDER BY id").fetchall()
    connection.close()
    return rows


DAMAGE = {
    "body changed": "UPDATE records SET body = replace(body, 'true', 'fals') WHERE seq = ?",
    "body truncated": "UPDATE records SET body = substr(body, 1, length(body) / 2) WHERE seq = ?",
    "body emptied": "UPDATE records SET body = x'' WHERE seq = ?",
    "body made text": "UPDATE records SET body = 'text' WHERE seq = ?",
    "time changed": "UPDATE records SET at_s = at_s + 1 WHERE seq = ?",
    "time made text": "UPDATE records SET at_s = 'noon' WHERE seq = ?",
    "type changed": "UPDATE records SET type = 'ClockTicked' WHERE seq = ?",
    "type made bytes": "UPDATE records SET type = x'ff00' WHERE seq = ?",
    "checksum changed": "UPDATE records SET crc = crc + 1 WHERE seq = ?",
    "checksum made text": "UPDATE records SET crc = 'x' WHERE seq = ?",
}


# -- the chain itself ---------------------------------------------------------------------------------


def is_sound(rows: Sequence[Row]) -> bool:
    link = START
    for row in rows:
        if fault(row, link) is not None:
            return False
        link = row.link
    return True


CHAIN = extend(START, RECORDS)


def test_a_chain_is_sound_as_it_is_made_whole_or_in_parts() -> None:
    assert is_sound(CHAIN)
    first = extend(START, RECORDS[:4])
    assert first + extend(first[-1].link, RECORDS[4:]) == CHAIN


@given(data=st.data())
@settings(deadline=None)
def test_a_changed_byte_anywhere_is_found(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, LAST - 1))
    body = bytearray(CHAIN[index].body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    assert fault(CHAIN[index]._replace(body=bytes(body)), CHAIN[index - 1].link if index else START)


@given(where=st.integers(0, LAST - 2), there=st.integers(0, LAST - 2))
@settings(deadline=None)
def test_a_missing_or_exchanged_record_is_found_even_if_the_rest_is_renumbered(
    where: int, there: int
) -> None:
    without = [row._replace(seq=seq) for seq, row in enumerate(CHAIN[:where] + CHAIN[where + 1 :], 1)]
    assert not is_sound(without)
    swapped = list(CHAIN)
    swapped[where], swapped[there] = swapped[there], swapped[where]
    assert is_sound([row._replace(seq=seq) for seq, row in enumerate(swapped, 1)]) == (where == there)


# -- the last record ----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_last_record_is_set_aside_and_reported(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    tamper(path, DAMAGE[damage], LAST)
    with SqliteJournal.open(path) as journal:
        (problem,) = journal.problems
        assert str(path) in problem
        assert f"record {LAST}, the last, is damaged" in problem
        assert problem in caplog.messages
        assert [record for _, record in journal.read()] == RECORDS[:-1]
        assert journal.append([cancelled()]) == LAST
        assert journal.verify() == LAST
    assert [row[0] for row in quarantined(path)] == [LAST]
    with SqliteJournal.open(path) as journal:
        assert journal.problems == [], "mended is mended"


def test_what_is_left_of_a_damaged_record_is_kept(path: Path) -> None:
    tamper(path, DAMAGE["body truncated"], LAST)
    SqliteJournal.open(path).close()
    ((_, fault_found, name, body),) = quarantined(path)
    assert "expected checksum" in str(fault_found)
    assert name == "JobSubmitted"
    assert isinstance(body, bytes)
    assert CHAIN[-1].body.startswith(body)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_reader_ends_before_a_damaged_last_record_and_leaves_it(path: Path, damage: str) -> None:
    tamper(path, DAMAGE[damage], LAST)
    with SqliteJournal.open(path, read_only=True) as reader:
        assert "is not read" in reader.problems[0]
        assert reader.last_seq == LAST - 1
        assert [record for _, record in reader.read()] == RECORDS[:-1]
        assert reader.load()[1] == LAST - 1
    assert quarantined(path) == []


def test_a_journal_of_one_damaged_record_is_empty_again(tmp_path: Path) -> None:
    path = journal_file(tmp_path)
    with SqliteJournal.open(path) as journal:
        journal.append([ticked()])
    tamper(path, DAMAGE["checksum changed"], 1)
    with SqliteJournal.open(path) as journal:
        assert journal.last_seq == 0
        assert journal.append([submitted()]) == 1


def test_nobody_appends_to_a_record_that_was_damaged_meanwhile(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        tamper(path, DAMAGE["body changed"], LAST)
        assert journal.append([cancelled()]) == LAST
        assert f"record {LAST}" in journal.problems[0]
        assert journal.verify() == LAST


def test_a_snapshot_that_knows_of_the_damaged_record_goes_with_it(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        state, seq = journal.load()
        journal.save_snapshot(state, seq)
    tamper(path, DAMAGE["body changed"], LAST)
    with SqliteJournal.open(path) as journal:
        state, seq = journal.load()
        assert seq == LAST - 1
        assert f"j{LAST}" not in state.jobs


# -- in the middle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [1, 2, 5, LAST - 1])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_the_middle_is_refused_with_its_position(path: Path, damage: str, seq: int) -> None:
    tamper(path, DAMAGE[damage], seq)
    for read_only in (False, True):
        with (
            pytest.raises(JournalCorrupt, match=f"record {seq} is damaged") as caught,
            SqliteJournal.open(path, read_only=read_only) as journal,
        ):
            journal.load()
        assert caught.value.seq == seq
        assert caught.value.path == path
        assert caught.value.hint
    assert quarantined(path) == []


@pytest.mark.parametrize("seq", [1, 5, LAST - 1])
def test_a_missing_record_is_refused_with_its_position(path: Path, seq: int) -> None:
    tamper(path, "DELETE FROM records WHERE seq = ?", seq)
    with pytest.raises(JournalCorrupt) as caught, SqliteJournal.open(path) as journal:
        journal.verify()
    assert caught.value.seq == seq


def test_missing_pages_of_records_are_refused(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.append(ticked(float(number)) for number in range(1000))
    tamper(path, "DELETE FROM records WHERE seq BETWEEN 20 AND 800")
    with SqliteJournal.open(path) as journal, pytest.raises(JournalCorrupt) as caught:
        journal.load()
    assert caught.value.seq == 20


def test_exchanged_records_are_refused(path: Path) -> None:
    tamper(path, "UPDATE records SET seq = -seq WHERE seq IN (4, 5)")
    tamper(path, "UPDATE records SET seq = 9 + seq WHERE seq < 0")
    with SqliteJournal.open(path) as journal, pytest.raises(JournalCorrupt) as caught:
        list(journal.read())
    assert caught.value.seq == 4


def test_the_records_before_the_damage_are_read(path: Path) -> None:
    tamper(path, DAMAGE["body changed"], 5)
    read: list[Record] = []
    with SqliteJournal.open(path) as journal, pytest.raises(JournalCorrupt, match="record 5"):
        read.extend(record for _, record in journal.read())  # keeps what came before the error
    assert read == RECORDS[:4]


def test_two_damaged_records_at_the_end_are_no_torn_end(path: Path) -> None:
    for seq in (LAST - 1, LAST):
        tamper(path, DAMAGE["checksum changed"], seq)
    with pytest.raises(JournalCorrupt) as caught:
        SqliteJournal.open(path)
    assert caught.value.seq == LAST - 1


def test_damage_before_a_snapshot_is_left_to_verify(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.save_snapshot(*journal.load())
    tamper(path, DAMAGE["body changed"], 3)
    with SqliteJournal.open(path) as journal:
        assert len(journal.load()[0].jobs) == LAST
        assert journal.problems == []
        with pytest.raises(JournalCorrupt) as caught:
            journal.verify()
    assert caught.value.seq == 3


def test_a_record_of_a_later_version_is_refused_with_its_position(path: Path) -> None:
    body = b'{"at_s":11.0,"job_id":"j1"}'
    row = CHAIN[-1]
    with SqliteJournal.open(path) as journal:
        journal.append([ticked(11.0)])
    later = SqliteJournal.open(path)
    with later.transaction():
        crc = _checksum(row.crc, LAST + 1, 11.0, "JobResized", body)
        later._file.execute(
            "UPDATE records SET type = 'JobResized', body = ?, crc = ? WHERE seq = ?", (body, crc, LAST + 1)
        )
    later.close()
    with SqliteJournal.open(path) as journal:
        assert journal.problems == [], "it is whole: nothing to set aside"
        with pytest.raises(JournalTooNew, match="JobResized") as caught:
            journal.load()
    assert caught.value.seq == LAST + 1
    assert caught.value.hint


# -- the file under the records -----------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_page_of_noise_in_the_file_is_refused_or_harmless(
    tmp_path: Path, seed: int, read_only: bool
) -> None:
    """Whatever page is hit: either our error, or every record unchanged. Never a wrong record."""
    path = journal_file(tmp_path)
    with SqliteJournal.open(path) as journal:
        journal.append(RECORDS)
        journal.append(submitted(a_job(f"more-{number}"), 20.0) for number in range(200))
        expected = list(journal.read())
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    page = rng.randrange(len(content) // 4096)
    content[page * 4096 : (page + 1) * 4096] = rng.randbytes(4096)
    path.write_bytes(content)
    refused: JournalCorrupt | None = None
    try:
        with SqliteJournal.open(path, read_only=read_only) as journal:
            got = list(journal.read())
    except JournalCorrupt as error:
        refused = error
    else:
        assert got == expected
    assert refused is None or (str(path) in str(refused) and refused.hint)


def test_a_torn_page_under_the_records_is_refused_with_a_position(tmp_path: Path) -> None:
    path = journal_file(tmp_path)
    with SqliteJournal.open(path) as journal:
        journal.append(submitted(a_job(f"j{number}"), 1.0) for number in range(500))
    content = bytearray(path.read_bytes())
    start = content.index(b'"j250"') // 4096 * 4096
    content[start : start + 4096] = b"\x55" * 4096
    path.write_bytes(content)
    read: list[int] = []
    with SqliteJournal.open(path) as journal, pytest.raises(JournalCorrupt) as caught:
        read.extend(seq for seq, _ in journal.read())
    assert caught.value.seq is not None
    assert 1 < caught.value.seq <= 251  # the record of j250 at the latest
    assert read == list(range(1, caught.value.seq)), "every record before the position was read"


def test_a_main_file_that_is_cut_off_is_refused(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with (
        pytest.raises(JournalCorrupt, match=r"journal .*journal\.sqlite3"),
        SqliteJournal.open(path) as journal,
    ):
        journal.verify()


def test_a_wal_without_its_file_is_refused(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    wal_file(path).write_bytes(b"committed transactions")
    with pytest.raises(JournalCorrupt, match="-wal is still there"):
        SqliteJournal.open(path)
    assert not path.exists()


# -- a crash of the machine: the -wal ends anywhere ---------------------------------------------------


def test_a_wal_cut_at_any_byte_leaves_a_prefix_of_what_was_committed(tmp_path: Path) -> None:
    live = journal_file(tmp_path / "live")
    SqliteJournal.open(live).close()
    batches = [[ticked(float(seq)) for seq in range(start, start + 3)] for start in range(1, 60, 3)]
    with SqliteJournal.open(live) as journal:
        journal.append(batches[0])
    rng = random.Random(7)
    lengths = set()
    with SqliteJournal.open(live) as journal:
        for batch in batches[1:]:
            journal.append(batch)
        size = wal_file(live).stat().st_size
        for number, cut in enumerate(
            [0, 1, 31, 32, size - 1, size, *(rng.randrange(size) for _ in range(60))]
        ):
            crashed = journal_file(tmp_path / f"crashed-{number}")
            crashed.parent.mkdir()
            shutil.copyfile(live, crashed)
            wal_file(crashed).write_bytes(wal_file(live).read_bytes()[:cut])
            with SqliteJournal.open(crashed) as after:
                records = [record for _, record in after.read()]
                assert after.problems == []
                assert records == [record for batch in batches for record in batch][: len(records)]
                assert len(records) % 3 == 0, "a batch is whole or absent"
                assert after.append([submitted()]) == after.verify() == len(records) + 1
            lengths.add(len(records))
    assert min(lengths) == 3, "what was in the main file stays"
    assert max(lengths) == 60
    assert len(lengths) > 10
