"""The documents: what they say of the code is compared with the code, and their links with what is there."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import Struct
from msgspec.structs import fields, replace

from artesian.census import Census, Figure, Measurement, discover
from artesian.cli import exits
from artesian.cli.jobfile import _KEPT, submitters_environment
from artesian.cli.main import COMMANDS, cli
from artesian.cli.state import job_json
from artesian.kernel.lifecycle import ALLOWED, JobState, ended, start, submit
from artesian.kernel.told import job_view
from artesian.kernel.training import Recovery, TrainingSummary
from artesian.model import jobfile
from artesian.model.job import Cause, Job, Outcome, RetryPolicy
from artesian.model.ledger import Loss, Stage
from artesian.model.plan import HoldCode, Reason
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker
from artesian.model.units import parse_duration_s
from artesian.model.views import Decision, MovesView, MoveView
from artesian.policy.registry import BUILT_IN
from artesian.server.config import StateDir
from artesian.sim.fleet import POOL_KEYS
from artesian.sim.traces import FORMATS, own, own_yaml
from artesian.wire import Fault, environment
from builders import a_job, a_placement
from pages import (
    DOCS,
    GUIDES,
    LINK,
    PAGES,
    ROOT,
    anchor,
    blocks,
    coded,
    commands,
    first_column,
    headings,
    prose,
    rows,
    text,
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- every page ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_something_that_is_there(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if fragment:
            assert fragment in {anchor(title) for _, title in headings(path)}, link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_folder_of_somebodys_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|Users|work|mnt)/\S*", text(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_example_is_python(page: Path) -> None:
    if page.name == "api.md":
        return  # signatures, which are no statements
    for block in blocks(page, "python"):
        compile(block, name_of(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_in_an_example_is_a_command_with_these_options(page: Path) -> None:
    for words in commands(page):
        if words[0].rpartition("/")[2] == "artesian" and len(words) > 1:
            assert words[1] in COMMANDS, words
            described = {title for _, title in headings(DOCS / "reference" / "cli.md")}
            name = " ".join(words[1:3])
            if f"artesian {name}" not in described:
                name = words[1]
            cells = [coded(row[0]) for row in rows(DOCS / "reference" / "cli.md", f"artesian {name}")]
            known = {option.split()[0] for cell in cells for option in cell}
            options = [] if words[1] == "launch" else [word for word in words[2:] if word.startswith("-")]
            assert set(options) <= known, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_job_in_an_example_is_accepted(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert parse(block).command, block


def parse(block: str) -> Job:
    return jobfile.parse_job(block, source="a page", job_id="j", base_dir="/base")


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(text(DOCS / "README.md"))}
    assert {page for page in DOCS.rglob("*.md") if page.name != "README.md"} <= linked


def test_decisions_are_numbered_without_a_gap() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert text(page).startswith(f"# {page.name[:4]}: ")
        assert "## Decision" in text(page)


# -- the two READMEs ----------------------------------------------------------------------------------


def test_the_chinese_readme_has_the_same_headings_commands_and_links() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh.md"
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert list(commands(english)) == list(commands(chinese))
    other = {"README.md": "README.zh.md", "README.zh.md": "README.md"}
    links = LINK.findall(text(english))
    assert [other.get(link, link) for link in links] == LINK.findall(text(chinese))
    tables = [first_column(page, heading) for page in (english, chinese) for _, heading in headings(page)[1:]]
    assert tables[: len(tables) // 2] == tables[len(tables) // 2 :]
    assert code_only(english) == code_only(chinese)


def code_only(page: Path) -> list[str]:
    """The lines of the Python examples, without their comments."""
    return [re.sub(r"  # .*", "", line) for block in blocks(page, "python") for line in block.splitlines()]


def test_the_readme_has_every_command_and_every_floor() -> None:
    named = [name.split()[1] for name in first_column(ROOT / "README.md", "Commands")]
    assert named == list(COMMANDS)
    packages = {path.parent.name for path in (ROOT / "src" / "artesian").glob("*/__init__.py")}
    assert set(first_column(ROOT / "README.md", "Where things are")) == packages


# -- job files ----------------------------------------------------------------------------------------

JOB_FILE = GUIDES / "job-file.md"


def test_the_guide_has_every_key_of_a_job_file_and_no_other() -> None:
    assert sorted(first_column(JOB_FILE, "Keys")) == sorted(jobfile.KEYS)
    assert tuple(first_column(JOB_FILE, "Retry")) == jobfile.RETRY_KEYS
    assert tuple(first_column(JOB_FILE, "Faults")) == jobfile.FAULT_KEYS
    checkpoint = next(row for row in rows(JOB_FILE, "Keys") if row[0] == "`checkpoint`")
    assert set(jobfile.CHECKPOINT_KEYS) <= set(coded(checkpoint[3]))


def test_the_guide_has_the_defaults_of_the_code() -> None:
    default = {coded(row[0])[0]: row[2].strip("`") for row in rows(JOB_FILE, "Keys")}
    job = parse("{name: x, devices: 1, command: [true]}")
    assert {key for key, value in default.items() if value == "required"} == {"name", "devices", "command"}
    assert (default["kind"], default["team"], default["priority"]) == (job.kind, job.team, str(job.priority))
    assert parse_duration_s(default["grace"]) == job.grace_s
    assert (default["env"], default["faults"]) == ("{}", "[]")
    assert not job.env
    assert not job.faults
    unset = (job.dataset, job.checkpoint_every_steps, job.cpus_per_device, job.memory_bytes_per_device)
    assert {default[key] for key in ("data", "checkpoint", "cpus_per_device", "memory_per_device")} == {
        "none"
    }
    assert set(unset) == {None}
    retry = {coded(row[0])[0]: row[2].strip("`") for row in rows(JOB_FILE, "Retry")}
    usual = RetryPolicy()
    assert int(retry["limit"]) == usual.limit
    assert parse_duration_s(retry["backoff"]) == usual.backoff_s
    assert parse_duration_s(retry["max_backoff"]) == usual.max_backoff_s
    assert set(retry["on"].strip("[]").split(", ")) == usual.causes
    faults = {coded(row[0])[0]: row[2].strip("`") for row in rows(JOB_FILE, "Faults")}
    assert int(faults["epoch"]) == Fault.__dataclass_fields__["epoch"].default


def test_every_device_request_in_the_guide_is_one() -> None:
    for row in rows(JOB_FILE, "Devices"):
        request = coded(row[0])[0].replace("\\|", "|")
        assert parse(
            f"{{name: x, command: [true], devices: {request}}}"
            if "{" in request
            else f"name: x\ncommand: [a]\ndevices: '{request}'"
        ).devices


def test_the_guide_has_every_cause_that_a_retry_may_name() -> None:
    sentence = next(line for line in text(JOB_FILE).splitlines() if line.startswith("Causes are "))
    assert coded(sentence) == [cause.value for cause in jobfile.RETRIABLE]


def test_the_first_run_guide_tells_the_story_of_the_example() -> None:
    job = parse(text(ROOT / "examples" / "first-run.yaml"))
    story = text(GUIDES / "first-run.md")
    (fault,) = job.faults
    every = job.checkpoint_every_steps
    assert every is not None
    assert f"worker {fault.worker} commits step {fault.step}" in story
    assert f"the checkpoint of step {(fault.step - 1) // every * every}" in story
    assert job.retry.delay_s(Cause.SIGNAL, 0) == 0


# -- concepts -----------------------------------------------------------------------------------------


def test_the_waterfall_page_has_every_stage_and_every_cause_under_its_stage() -> None:
    page = DOCS / "concepts" / "waterfall.md"
    assert first_column(page, "The waterfall") == [stage.value for stage in Stage]
    table = {coded(row[0])[0]: coded(row[1])[0] for row in rows(page, "Every cause")}
    assert list(table) == [loss.value for loss in Loss]
    assert set(table.values()) == {stage.value for stage in Stage}
    order = list(table.values())
    assert order == sorted(order, key=[stage.value for stage in Stage].index)


def test_the_lifecycle_page_has_every_state_change_and_cause() -> None:
    page = DOCS / "concepts" / "lifecycle.md"
    assert first_column(page, "The life of a job") == [state.value for state in JobState]
    changes = {coded(row[0])[0]: set(coded(row[1])) for row in rows(page, "What leads where")}
    assert changes == {state.value: {to.value for to in tos} for state, tos in ALLOWED.items() if tos}
    table = rows(page, "Why an attempt ends")
    assert [coded(row[0])[0] for row in table] == [cause.value for cause in Cause]
    retried = {coded(row[0])[0] for row in table if row[2].startswith("yes")}
    assert retried == {cause.value for cause in RetryPolicy().causes}
    without_limit = {coded(row[0])[0] for row in table if "without limit" in row[2]}
    assert without_limit == {c.value for c in RetryPolicy().causes if not RetryPolicy.counts(c)}


def test_the_policies_page_has_every_built_in_policy_and_no_other() -> None:
    page = DOCS / "concepts" / "policies.md"
    named = [name for _, heading in headings(page) for name in first_column(page, heading)]
    assert sorted(named) == sorted(BUILT_IN)


# -- simulating ---------------------------------------------------------------------------------------

SIMULATE = GUIDES / "simulate.md"


def test_the_guide_has_every_column_and_every_key_of_our_own_formats() -> None:
    named = first_column(SIMULATE, "Jobs")
    columns = (*own.COLUMNS, *own.MORE_COLUMNS)
    assert tuple(named[: len(columns)]) == columns
    assert sorted(named[len(columns) :]) == sorted(own_yaml.KEYS)
    assert tuple(first_column(SIMULATE, "Fleets")) == POOL_KEYS
    assert set(POOL_KEYS) == {*own.FLEET_COLUMNS, *own.MORE_FLEET_COLUMNS}


def test_the_guide_has_every_format_of_a_trace() -> None:
    assert sorted(first_column(SIMULATE, "Other traces")) == sorted(known.name for known in FORMATS)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files of the guide's example."""
    for name, block in zip(("jobs.csv", "fleet.csv"), blocks(SIMULATE, "csv"), strict=True):
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("example")
def test_the_example_of_the_guide_prints_what_the_guide_says() -> None:
    command = next(words for words in commands(SIMULATE) if words[0] == "artesian")
    table = lines(CliRunner().invoke(cli, command[1:], catch_exceptions=False).stdout)
    assert table == lines(blocks(SIMULATE, "text")[0])
    assert table[1].split("  ")[0] == "policy"
    columns = {name for name in re.split(r" {2,}", table[1]) if name != "policy"}
    assert columns == set(first_column(SIMULATE, "Reading the table"))


def lines(printed: str) -> list[str]:
    return [line.rstrip() for line in printed.splitlines() if line.strip()]


def test_every_example_of_our_own_files_in_the_guide_is_read(example: Path) -> None:
    found = [block for block in blocks(SIMULATE, "text") if block.startswith(("jobs:", "pools:"))]
    assert len(found) == 2
    for name, block in zip(("jobs.yaml", "fleet.yaml"), found, strict=True):
        (example / name).write_text(block, encoding="utf-8")
    words = ["simulate", "--jobs", "jobs.yaml", "--fleet", "fleet.yaml", "-o", "json"]
    assert json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)["jobs"] == 2


@pytest.mark.usefixtures("example")
def test_the_json_page_has_every_key_of_a_simulation() -> None:
    words = ["simulate", "--jobs", "jobs.csv", "--fleet", "fleet.csv", "-o", "json"]
    document = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)
    for outcome in document["policies"]:
        del outcome["waterfall"]  # it has a section of its own
        for groups in ("by_team", "by_accelerator"):
            outcome[groups] = list(outcome[groups].values())  # their keys are names from the files
    page = DOCS / "reference" / "json.md"
    assert keys_of(document) <= {n for row in rows(page, "Simulation") for n in coded(" ".join(row))}


# -- operating ----------------------------------------------------------------------------------------


def test_the_guide_has_every_extra() -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    assert set(first_column(GUIDES / "operate.md", "Extras")) == set(project["optional-dependencies"])


def test_the_guide_has_every_exit_code() -> None:
    codes = {int(row[0]) for row in rows(GUIDES / "operate.md", "Exit codes")}
    assert codes == {0, *(code for name, code in vars(exits).items() if name.isupper())}


def test_the_guide_has_every_variable_of_the_submitter_that_a_job_gets() -> None:
    sentence = next(line for line in text(GUIDES / "operate.md").splitlines() if line.startswith("`PATH`, "))
    *names, prefix = coded(sentence)
    given = {**dict.fromkeys(names, "x"), f"{prefix}ALL": "x", "A_SECRET": "x"}
    assert set(submitters_environment(given)) == {*names, f"{prefix}ALL"}
    assert set(names) == _KEPT


def test_the_guide_has_every_file_of_the_state_folder() -> None:
    state = StateDir(Path("state"))
    files = (state.journal, state.census, state.lock, state.bell, state.daemon_log)
    named = first_column(GUIDES / "operate.md", "The state folder")
    assert {path.name for path in files} <= set(named)
    assert f"{state.jobs.name}/JOB/checkpoints/" in named


def test_the_guide_has_every_variable_that_artesian_sets() -> None:
    names = {value for value in vars(environment).values() if str(value).startswith("ARTESIAN_")}
    assert set(first_column(GUIDES / "operate.md", "What a job sees")) == names


# -- the reference ------------------------------------------------------------------------------------


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_reference_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    code: int = reference().main(["--check"])
    assert code == 0, capsys.readouterr().err


def keys_of(value: Any) -> set[str]:
    """All keys of a JSON document, of mappings in it too."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set()


def test_the_json_page_has_every_key_of_a_job() -> None:
    record = submit(a_job(), 0.0)
    start(record, 1, a_placement(("n1", [0])), 1.0, "a test")
    ended(record, Outcome(cause=Cause.SIGNAL), 2.0)
    reason = Reason(code=HoldCode.DEVICES_BUSY, text="", unblock="")
    page = DOCS / "reference" / "json.md"
    named = {name for row in rows(page, "Job") for cell in row for name in coded(cell)}
    assert keys_of(job_json(replace(job_view(record), waits_for=reason))) <= named
    assert {code.value for code in HoldCode} <= set(coded(text(page)))


@pytest.mark.parametrize(
    ("section", "records"),
    [
        ("Training summary", (TrainingSummary, Recovery)),
        ("Straggler", (SlowWorker,)),
        ("Diverged replicas", (DivergedReplicas,)),
        ("Decision", (Decision,)),
        ("Moves", (MovesView, MoveView)),
    ],
)
def test_the_json_page_has_every_key_of_a_record(section: str, records: tuple[type[Struct], ...]) -> None:
    page = DOCS / "reference" / "json.md"
    named = {name for row in rows(page, section) for name in coded(" ".join(row))}
    assert {field.name for record in records for field in fields(record)} <= named


def test_the_json_page_has_every_key_of_a_census() -> None:
    figure = Figure(
        kernel="matmul", best=1.0, median=1.0, runs=5, valid_runs=5, is_correct=True, worst_error=0.1
    )
    measured = Measurement(accelerator="cpu", index=None, uuid=None, devices=1, fp32_flops=figure)
    summary = Census(machine=discover(), measurements=(measured,), at_s=0.0).summary()
    summary["host"]["numa_nodes"], summary["devices"] = [], {}
    named = {name for row in rows(DOCS / "reference" / "json.md", "Census") for name in coded(" ".join(row))}
    assert keys_of(summary) <= named
