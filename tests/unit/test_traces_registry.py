"""Formats: by name and by header; and whatever a file holds, a trace or a TraceError comes of it."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.sim.traces import (
    FORMATS,
    BadRows,
    MissingOption,
    ReadOptions,
    Trace,
    TraceError,
    UnknownFormat,
    azure,
    read_trace,
    sniff,
)
from trace_files import lines, real, written

REPLICA = azure.Replica(prefill_tokens_per_s=1000, decode_tokens_per_s=100)


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_a_file_is_known_by_its_header_or_its_first_key(tmp_path: Path, known: object) -> None:
    assert known in FORMATS
    for entry in FORMATS:
        if entry is not known:
            continue
        texts = [
            entry.delimiter.join((*entry.columns, "more")),
            "\ufeff" + entry.delimiter.join(entry.columns),
        ]
        if entry.key is not None:
            texts = [f"# of ours\n\n{entry.key}:\n  - a", f"{{{entry.key}: []}}", f'"{entry.key}": []']
        for text in texts:
            assert sniff(written(tmp_path, text)).name == entry.name


@pytest.mark.parametrize("text", ["", "a,b\n", "{}", "pool: 1", b"\x00\xff", '"'])
def test_an_unknown_file_lists_the_formats_that_there_are(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UnknownFormat) as caught:
        read_trace(written(tmp_path, text))
    assert caught.value.known == tuple(known.name for known in FORMATS)
    assert caught.value.hint is not None
    assert "known formats: jobs-csv, jobs-yaml" in caught.value.hint


def test_an_unknown_name_lists_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="expected the name of a format, got 'phily'") as caught:
        read_trace(written(tmp_path, ""), format="phily")
    assert "philly" in caught.value.known


def test_names_of_formats_are_distinct_and_no_header_is_another_ones() -> None:
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    headers = [(known.delimiter, frozenset(known.columns)) for known in FORMATS if known.columns]
    assert len(set(headers)) == len(headers)


def test_requests_need_the_speed_of_a_replica(tmp_path: Path) -> None:
    path = written(tmp_path, lines(",".join(azure.COLUMNS), "2023-11-16 18:15:46,1,1"))
    with pytest.raises(MissingOption, match="expected the speed of a replica"):
        read_trace(path)
    assert len(read_trace(path, options=ReadOptions(replica=REPLICA)).jobs) == 1


def test_options_reach_the_reader(tmp_path: Path) -> None:
    path = written(tmp_path, lines("timestamp,duration,num_gpus,cluster", "x", "2017-10-09,1,1,a"))
    options = ReadOptions(bad_rows=BadRows.SKIP, limit=1, accelerator="V100")
    (job,) = read_trace(path, options=options).jobs
    assert job.job.devices[0].accelerator == "V100"


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("philly/philly.csv", "philly"),
        ("philly/deadlines_SLO.csv", "philly-deadlines"),
        ("gavel/jobs_seed0_4_per_hour.csv", "gavel"),
        ("hardware/alibaba_spot_nodes.csv", "alibaba-spot"),
        ("services/azure_llm_conv.csv", "azure"),
    ],
)
def test_the_real_files_are_known(name: str, format: str) -> None:
    assert sniff(real(name)).name == format


# -- garbage ------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(
        [
            *(
                "0",
                "1",
                "8",
                "-1",
                "1.5",
                "nan",
                "inf",
                "-inf",
                "1e308",
                "1e400",
                "",
                " ",
                "'",
                '"',
                "x",
                "²",
                "٣",
            ),
            *(
                "2017-10-09 07:01:55",
                "2023-11-16T18:15:46",
                "9999-12-31",
                "0001-01-01T00:00+23:59",
                "Unknown",
            ),
            *(
                "7",
                "7_1",
                "7.batch",
                "COMPLETED",
                "RUNNING",
                "01:00:00",
                "1-02:03:04",
                "gres/gpu=4,mem=1G",
                "cpu=1",
            ),
            *(
                "H100:8",
                "0.5",
                "A100:4..8",
                "64GB",
                "train",
                "V100=1",
                "LM (batch size 5)",
                "0.0",
                "9" * 400,
                "\x00",
            ),
        ]
    ),
    st.text(max_size=8),
    st.integers(-10, 10**12).map(str),
    st.floats().map(str),
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A format, and a file that has its header, or one that is nearly it, and any cells under it."""
    known = draw(st.sampled_from(FORMATS))
    if known.key is not None:
        word = st.sampled_from(
            ["submit", "duration", "devices", "name", "nodes", "memory", "cpus", "accelerator"]
        )
        value = st.sampled_from(
            ["0s", "1h", "H100:8", "1TB", "-1", "[1]", "{a: b}", "~", "3", "'", "&a", "*a"]
        )
        items = draw(st.lists(st.dictionaries(word, value, max_size=8), max_size=3))
        rows = "".join("  - {" + ", ".join(f"{k}: {v}" for k, v in item.items()) + "}\n" for item in items)
        return known.name, f"{known.key}:\n{rows}".encode()
    header = list(known.columns)
    more = ["Elapsed", "AllocTRES", "Start", "End", "Priority", "name", "steps_per_s", "vendor"]
    header += draw(st.lists(st.sampled_from(more), max_size=3, unique=True))
    rows_of_cells = draw(
        st.lists(st.lists(CELLS, min_size=len(header) - 1, max_size=len(header) + 1), max_size=5)
    )
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    text = end.join(known.delimiter.join(cells) for cells in [header, *rows_of_cells])
    return known.name, text.encode("utf-8", "surrogatepass")


@given(
    file=files() | st.tuples(st.sampled_from([known.name for known in FORMATS]), st.binary(max_size=200)),
    is_sniffed=st.booleans(),
    bad_rows=st.sampled_from(BadRows),
)
def test_any_file_gives_a_trace_or_an_error_of_traces(
    file: tuple[str, bytes], is_sniffed: bool, bad_rows: BadRows
) -> None:
    format, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), content)
        written(
            Path(folder),
            """{"v100": {"('LM (batch size 5)', 1)": {"null": 3.0}, "('x', 1)": {"null": 1e-300}}}""",
            "throughputs.json",
        )
        options = ReadOptions(bad_rows=bad_rows, replica=REPLICA)
        try:
            trace = read_trace(path, format=None if is_sniffed else format, options=options)
        except TraceError as raised:
            error = raised
        else:
            check(trace)
            return
        assert str(path) in str(error)


def check(trace: Trace) -> None:
    """Check what holds for every trace."""
    assert len({job.job.id for job in trace.jobs}) == len(trace.jobs)
    times = [job.submit_s for job in trace.jobs]
    assert times == sorted(times)
    assert all(entry.count >= 1 and entry.row >= 1 for entry in trace.skipped)
    if trace.fleet is not None:
        assert len({node.id for node in trace.fleet.nodes}) == len(trace.fleet.nodes)
        assert {node.pool for node in trace.fleet.nodes} == {pool.name for pool in trace.fleet.pools}
