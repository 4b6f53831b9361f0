"""Job files: what is refused of YAML, and that any text gives a job or its error."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artesian.model.document import MAX_BYTES, Position
from artesian.model.jobfile import KEYS, JobFileError
from jobfiles import EVERYTHING, LEAST, mistakes, parse

# -- what is refused of YAML --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "subject", "words"),
    [
        ("", 1, "file", "expected a job, got an empty file"),
        ("# nothing\n\n", 1, "file", "expected a job, got an empty file"),
        ("---\n...\n", 2, "file", "expected a job, which is a mapping, got nothing"),
        ("just words", 1, "file", "expected a job, which is a mapping, got 'just words'"),
        ("- a\n- b", 1, "file", "expected a job, which is a mapping, got a list of 2"),
        (LEAST + "grace: [1\n", 5, "yaml", "flow sequence from line 4, expected ',' or ']'"),
        (LEAST + "\tgrace: 1s", 4, "yaml", "'\\t'"),
        (LEAST + "team: a: b", 4, "yaml", "mapping values are not allowed here"),
        (LEAST + "team: 'a", 4, "yaml", "found unexpected end of stream"),
        (LEAST + "---\n" + LEAST, 4, "yaml", "expected one document, got the start of a second one"),
        (LEAST + "team: &a x", 4, "yaml", "got the anchor &a"),
        (LEAST + "team: *a", 4, "yaml", "got the alias *a"),
        (LEAST + "<<: {team: x}", 4, "<<", "got a merge key"),
        (LEAST + "team: !!python/name:os.system x", 4, "yaml", "got the tag"),
        (LEAST + "team: a\x00b", 4, "yaml", "got the character '\\x00'"),
        (LEAST + 'team: "a\\0b"', 4, "yaml", "got the character '\\x00'"),
        (LEAST + 'team: "\\ud800"', 4, "yaml", "got the character '\\ud800'"),
        (LEAST + 'team: "\\UFFFFFFFF"', 4, "yaml", "out of range"),
        ("%YAML " + "9" * 5000 + ".1\n---\n" + LEAST, 1, "yaml", "out of range"),
        (LEAST + "? [a]\n: b", 4, "file", "expected a word as key, got a list of 1"),
        (LEAST + "env: " + "[" * 40, 4, "yaml", "expected at most 16 levels, got more"),
        (LEAST + "command: [" + "a," * 30_000 + "]", 4, "yaml", "expected at most 20000 keys and values"),
        ("#" * (MAX_BYTES + 1), 1, "file", f"at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"),
    ],
)
def test_what_is_no_single_plain_document_is_refused(text: str, line: int, subject: str, words: str) -> None:
    assert any(
        (line, subject) == (got_line, got_subject) and words in got_text
        for got_line, got_subject, got_text in mistakes(text)
    ), mistakes(text)


def test_a_billion_laughs_are_refused_at_the_first() -> None:
    laughs = "a0: &a0 [lol]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    assert (1, "yaml", "expected a value, got the anchor &a0") in mistakes(laughs)


def test_tabs_get_a_hint() -> None:
    with pytest.raises(JobFileError) as caught:
        parse(LEAST + "retry:\n\tlimit: 1")
    assert caught.value.hint == "indent with spaces: YAML does not take tabs there"


# -- whatever comes -----------------------------------------------------------------------------------


def gives_a_job_or_its_error(text: str) -> None:
    try:
        job = parse(text)
    except JobFileError as raised:
        error = raised
    else:
        assert job.command
        assert job.devices
        return
    assert error.mistakes
    assert str(error).startswith("job.yaml:")
    assert list(error.mistakes) == sorted(error.mistakes, key=lambda mistake: mistake.at)
    assert all(mistake.at >= Position(1, 1) for mistake in error.mistakes)


@given(st.text())
@example("'\ud800'")
@example(": ")
def test_any_text_gives_a_job_or_its_error(text: str) -> None:
    gives_a_job_or_its_error(text)


@given(
    st.lists(
        st.sampled_from(
            [*KEYS, *": \n-[]{}&*!|>'\"%@#?,~", "on", "\n  ", "- ", ": ", "9" * 50, "9" * 5000, "½", "٣s"]
        )
    )
)
def test_any_text_that_looks_like_yaml_gives_a_job_or_its_error(pieces: list[str]) -> None:
    gives_a_job_or_its_error("".join(pieces))


scalars = st.sampled_from(
    [
        "",
        "~",
        "0",
        "-1",
        "0.5",
        "1..2",
        "H100:8",
        "|",
        "true",
        "1s",
        "1GB",
        "9" * 400,
        "9" * 400 + "GB",
        "9" * 5000,
        "٣",
        "٣s",
        "²",
        "1e9",
        "'",
        "kill",
    ]
) | st.text(max_size=8)
values = st.recursive(
    scalars.map(lambda text: "'" + text.replace("'", "''") + "'") | scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(
            st.sampled_from([*KEYS, "limit", "on", "every", "step", "worker"]), inner, max_size=4
        ).map(lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}")
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS), values))
def test_any_value_of_any_key_gives_a_job_or_its_error(changes: dict[str, str]) -> None:
    lines = dict(line.split(": ", 1) for line in LEAST.splitlines())
    gives_a_job_or_its_error("".join(f"{key}: {value}\n" for key, value in {**lines, **changes}.items()))


@given(st.data())
def test_a_good_file_with_one_slip_gives_a_job_or_its_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(EVERYTHING)))
    end = data.draw(st.integers(start, min(start + 5, len(EVERYTHING))))
    gives_a_job_or_its_error(EVERYTHING[:start] + data.draw(st.text(max_size=3)) + EVERYTHING[end:])
