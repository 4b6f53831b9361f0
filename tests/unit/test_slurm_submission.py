"""From an attempt to sbatch: quoting, options, and what ssh makes of words."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.engines.local.records import AttemptFolder
from artesian.engines.options import OptionsError
from artesian.engines.slurm import script
from artesian.engines.slurm.attempts import UserUnknown, make_folder
from artesian.engines.slurm.batch import environment_of
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.inventory import Offer, offers_of
from artesian.engines.slurm.parse import SlurmNode
from artesian.engines.slurm.runner import Done, LocalRunner, SshRunner, remote_line
from artesian.engines.slurm.settings import SlurmSettings
from artesian.engines.watching import Refused, Unreachable
from artesian.model.job import Job
from artesian.model.placement import Placement
from builders import GIB, a_job, a_placement
from limits import needs
from slurm_builders import a_slurm_node

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=6)
BASH = shutil.which("sh") or "/bin/sh"


def offers(*nodes: SlurmNode) -> dict[str, Offer]:
    return offers_of(list(nodes), {}, partition=None, pool="p", accelerators={})


def options(job: Job, placement: Placement, settings: SlurmSettings | None = None) -> list[str]:
    known = offers(a_slurm_node("h1"), a_slurm_node("h2"), a_slurm_node("c1", gres={}))
    groups = script.groups_of(job, placement, known)
    return script.options_of(job, groups, known, Path("/f"), "c", settings or SlurmSettings())


@settings(deadline=None, max_examples=60)
@given(
    python=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), name=WORDS
)
def test_a_shell_splits_the_batch_script_into_the_words_that_were_meant(python: str, name: list[str]) -> None:
    folder = Path("/shared", *(part.replace("/", "_") or "_" for part in name))
    text = script.batch_script(python, folder)
    assert text.startswith("#!/bin/sh\nexec ")
    shown = text.replace("exec ", "printf '%s\\0' ", 1)
    said = subprocess.run([BASH], input=shown.encode(), capture_output=True, check=True).stdout
    assert said.split(b"\0")[:-1] == [
        word.encode() for word in (python, "-I", "-m", "artesian.engines.slurm.batch", str(folder))
    ]


@settings(deadline=None, max_examples=60)
@given(words=WORDS)
def test_the_shell_at_the_other_end_of_ssh_sees_the_words_that_were_meant(words: list[str]) -> None:
    line = remote_line(["printf", "%s\\0", *words])
    said = subprocess.run([BASH, "-c", line], capture_output=True, check=True).stdout
    assert said.split(b"\0")[:-1] == [word.encode() for word in (words or [""])]


def test_options_say_what_the_plan_says() -> None:
    job = a_job(devices="h100:4", name="train", grace_s=2.5)
    said = options(
        job, a_placement(("h2", range(2)), ("h1", range(2))), SlurmSettings(partition="p", account="a")
    )
    assert {
        *("--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--nodelist=h2,h1", "--gres=gpu:h100:2"),
        *("--no-requeue", "--open-mode=append", "--signal=B:TERM@3", "--comment=c", "--job-name=train"),
        *("--partition=p", "--account=a", "--cpus-per-task=8", f"--mem={16 * 1024}M"),
    } <= set(said)


def test_a_job_gets_the_cpus_and_the_memory_that_it_asks_for() -> None:
    job = a_job(devices="h100:2", cpus_per_device=1.5, memory_bytes_per_device=GIB)
    said = options(job, a_placement(("h1", range(2))))
    assert {"--cpus-per-task=3", "--mem=2048M"} <= set(said)


def test_devices_of_a_node_without_any_are_its_cpus() -> None:
    said = options(a_job(devices="cpu:4"), a_placement(("c1", range(4))))
    assert "--cpus-per-task=4" in said
    assert not [word for word in said if word.startswith("--gres")]


def test_the_sites_own_arguments_go_last() -> None:
    said = options(
        a_job(devices="h100:1"), a_placement(("h1", [0])), SlurmSettings(sbatch_args=("--mem=0", "--qos=x"))
    )
    assert said[-2:] == ["--mem=0", "--qos=x"]


def test_nodes_that_are_not_alike_are_components_of_one_job() -> None:
    said = options(a_job(devices="h100:5"), a_placement(("h2", range(3)), ("h1", range(2))))
    border = said.index(":")
    assert {"--nodes=1", "--nodelist=h2", "--gres=gpu:h100:3", "--cpus-per-task=12"} <= set(said[:border])
    assert {"--nodes=1", "--nodelist=h1", "--gres=gpu:h100:2", "--cpus-per-task=8"} <= set(said[border:])
    assert said.count(":") == 1


def test_a_part_of_a_device_is_refused() -> None:
    with pytest.raises(script.Unsuitable):
        options(a_job(devices="h100:3"), a_placement(("h1", [0]), milli=500))


def test_a_node_that_is_not_on_offer_is_gone() -> None:
    with pytest.raises(script.NodesGone, match="x9"):
        options(a_job(), a_placement(("x9", [0])))


def test_the_file_for_the_nodes_is_for_its_user_only(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path / "attempt-1")
    folder.create()
    job = a_job(devices="h100:1", env={"MINE": "x"}, workers=0)
    place, known = a_placement(("h1", [0])), offers(a_slurm_node())
    script.write_attempt(
        job, 1, place, script.groups_of(job, place, known), known, folder, tmp_path, "python3"
    )
    path = folder.path / "attempt.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["env"]["MINE"] == "x"


def test_fewer_workers_than_nodes_are_refused(tmp_path: Path) -> None:
    folder, two = AttemptFolder(tmp_path), a_placement(("h1", [0]), ("h2", [0]))
    known = offers(a_slurm_node("h1"), a_slurm_node("h2"))
    job = a_job(workers=1)
    groups = script.groups_of(job, two, known)
    with pytest.raises(script.Unsuitable, match="1 workers"):
        script.write_attempt(job, 1, two, groups, known, folder, tmp_path, "python3")


def test_an_attempt_sees_its_devices_by_slurms_word_and_nothing_else_of_the_login_node() -> None:
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_GPUS": "3,4",
        "CUDA_VISIBLE_DEVICES": "3,4",
        "SLURM_CPUS_ON_NODE": "16",
        "A_SECRET": "x",
        "PATH": "/theirs",
    }
    attempt = {"env": {"PATH": "/mine", "ARTESIAN_WORKERS": "2", "ARTESIAN_DEVICES": "0,1"}}
    seen = environment_of(attempt, slurm, is_whole=False)
    assert seen == {
        "PATH": "/mine",
        "ARTESIAN_WORKERS": "2",
        "ARTESIAN_DEVICES": "3,4",
        "OMP_NUM_THREADS": "8",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_GPUS": "3,4",
        "CUDA_VISIBLE_DEVICES": "3,4",
        "SLURM_CPUS_ON_NODE": "16",
    }
    assert environment_of(attempt, slurm, is_whole=True)["SLURM_NTASKS"] == "2"


# -- where commands run -----------------------------------------------------------------------------


def test_ssh_never_asks_and_takes_the_users_configuration(tmp_path: Path) -> None:
    runner = SshRunner(host="login", root=tmp_path, options=("-p", "2222"))
    words = " ".join(runner.command(tmp_path))
    assert words.startswith("ssh -T -o BatchMode=yes ")
    assert words.endswith("-p 2222 -- login")
    assert "StrictHostKeyChecking" not in words
    assert "UserKnownHostsFile" not in words


def test_through_ssh_a_command_gets_its_words_its_input_and_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As sshd does it: the words after the host, joined by spaces, are one line for the user's shell.
    fake = tmp_path / "ssh"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift 2; exec sh -c "$*"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{'/usr/bin:/bin'}")
    runner = SshRunner(host="login", root=tmp_path, extra_env={"SLURM_CONF": "/a b"})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = ("sh", "-c", 'printf "%s|" "$SLURM_CONF" "$@"; cat', "sh", "$(id)", "a b", "'")
    done = asyncio.run(runner.run(words, stdin="in"))
    assert done == Done(code=0, stdout="/a b|$(id)|a b|'|in", stderr="")
    fake.write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2; exit 255\n")
    with pytest.raises(Unreachable, match="ssh login: Permission denied"):
        asyncio.run(runner.run(("true",)))


def test_a_command_that_does_not_answer_in_time_tells_nothing() -> None:
    with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s"):
        asyncio.run(LocalRunner(timeout_s=0.05).run(("sleep", "600")))
    with pytest.raises(Unreachable, match="no-such-program"):
        asyncio.run(LocalRunner().run(("no-such-program",)))


def test_commands_see_little_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    done = asyncio.run(
        LocalRunner(extra_env={"SLURM_CONF": "/c"}).run(
            (sys.executable, "-c", "import os; print(*os.environ)")
        )
    )
    assert "SLURM_CONF" in done.stdout
    assert "A_SECRET" not in done.stdout


@dataclass
class Script:
    """A runner that answers as it is told."""

    answers: list[Done]
    asked: list[Sequence[str]] = field(default_factory=list)

    async def run(self, words: Sequence[str], *, stdin: str = "", user: str | None = None) -> Done:
        self.asked.append(words)
        return self.answers.pop(0)


def test_a_refusal_is_told_from_a_slurm_that_is_away() -> None:
    away = Done(
        code=1, stdout="", stderr="sbatch: error: Unable to contact slurm controller (connect failure)"
    )
    no = Done(code=1, stdout="", stderr="sbatch: error: invalid partition specified: x")
    client = SlurmClient(
        Script([away, no, Done(code=0, stdout="17;east\n", stderr=""), Done(code=0, stdout="?", stderr="")])
    )
    with pytest.raises(Unreachable):
        asyncio.run(client.submit([], "", None))
    with pytest.raises(Refused, match="invalid partition"):
        asyncio.run(client.submit([], "", None))
    assert asyncio.run(client.submit([], "", None)) == 17
    with pytest.raises(Unreachable, match="expected a job id"):
        asyncio.run(client.submit([], "", None))


def test_a_version_without_json_is_asked_for_text() -> None:
    old = Done(code=0, stdout="slurm 20.11.9", stderr="")
    runner = Script(
        [old, Done(code=0, stdout="7|RUNNING|c|0|None|me|\n", stderr=""), Done(code=0, stdout="", stderr="")]
    )
    client = SlurmClient(runner)
    assert [job.id for job in asyncio.run(client.jobs())] == [7]
    assert asyncio.run(client.nodes()) == []
    assert [words[0] for words in runner.asked] == ["sinfo", "squeue", "scontrol"]
    assert not any("--json" in words for words in runner.asked)


# -- what a site says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said", "hint"),
    [
        ({"partitoin": "x"}, "partitoin is no key of an engine of kind slurm", "did you mean partition?"),
        ({"folder": "here"}, "folder: expected an absolute path", "/shared"),
        ({"poll_interval_s": 0}, "poll_interval_s: expected a number of seconds, at least 0.1, got 0", "2"),
        ({"poll_interval_s": "fast"}, "poll_interval_s: expected a number", ""),
        ({"sbatch_args": "--qos=x"}, "sbatch_args: expected a list of texts", ""),
        ({"sbatch_args": ["high"]}, "sbatch_args: expected options such as", ""),
        ({"sbatch_args": ["--nodelist=x"]}, "sbatch_args: expected nothing that artesian sets itself", ""),
        ({"ssh": "-oProxyCommand=evil"}, "ssh: expected a host", ""),
        ({"submit_as_user": "yes"}, "submit_as_user: expected true or false", ""),
        ({"accelerators": {"a": 1}}, "accelerators: expected a table of texts", ""),
        ({"account": ""}, "account: expected a text in quotes", ""),
    ],
)
def test_what_cannot_be_said_of_a_slurm_is_named_with_a_hint(
    table: dict[str, object], said: str, hint: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        SlurmSettings.of({"kind": "slurm", **table})
    assert said in str(caught.value)
    assert hint in (caught.value.hint or "")


# -- as the submitting user -------------------------------------------------------------------------


def test_the_folders_of_another_users_attempt_are_theirs(tmp_path: Path) -> None:
    needs(os.geteuid() == 0, "root, to give folders to another user")
    nobody = pwd.getpwnam("nobody")
    folder, checkpoints = (
        AttemptFolder(tmp_path / "jobs" / "j1" / "attempt-1"),
        tmp_path / "jobs" / "j1" / "checkpoints",
    )
    make_folder(folder, checkpoints, "nobody")
    for path in (folder.path, folder.progress, folder.logs, checkpoints):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (nobody.pw_uid, 0o700)
    assert (tmp_path / "jobs" / "j1").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "jobs" / "j1").stat().st_uid == 0


@pytest.mark.parametrize(
    ("user", "said"), [("root", "do not run as root"), ("no-such-user", "not known"), ("", "not known")]
)
def test_a_job_of_root_or_of_nobody_known_does_not_run(tmp_path: Path, user: str, said: str) -> None:
    with pytest.raises(UserUnknown, match=said):
        make_folder(AttemptFolder(tmp_path / "j1" / "attempt-1"), tmp_path / "j1" / "checkpoints", user)
