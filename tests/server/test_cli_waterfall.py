"""The waterfall and the training summary of workers that say exactly what a test wants them to say."""

import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from artesian.census import Census, Figure, Measurement, discover
from artesian.model.ledger import Loss, to_us
from artesian.server.fleet import nodes_of
from cli_harness import Cli

CEILING_FLOPS = 1e9
STEP_FLOPS = 2e7
"""A fiftieth of a second at the ceiling, in steps of an eighth: an MFU of 16%."""

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
from artesian.wire import *
from artesian.wire.channel import worker_file

epoch = int(os.environ["ARTESIAN_EPOCH"])
progress = Path(os.environ["ARTESIAN_PROGRESS_DIR"])
writer = ProgressWriter(worker_file(progress, 0))
t = int(time.time() * 1024) / 1024  # and all lengths are binary fractions: sums are exact
said = []

def say(message):
    writer.send(message)

def step(number, start):
    start_s, end_s = t + start, t + start + 0.125
    said.append((number, start_s, end_s))
    say(StepCommitted(rank=0, step=number, start_s=start_s, end_s=end_s, loss=5.0 - number, tokens=64,
                      model_flops=FLOPS))

say(WorkerStarted(rank=0, at_s=t, world_size=1, pid=os.getpid(), device="cpu", dtype="fp32"))
if epoch == 1:
    step(1, 0.0)
    step(2, 0.125)
    say(PhaseEnded(rank=0, phase=Phase.CHECKPOINT_STALL, start_s=t + 0.25, end_s=t + 0.3125))
    say(CheckpointCommitted(rank=0, at_s=t + 0.3125, step=2, size_bytes=1))
    step(3, 0.3125)
else:
    say(Restored(rank=0, at_s=t, step=2))
    step(3, 0.0)
    step(4, 0.125)
Path(f"said-{epoch}.json").write_text(json.dumps(said))
time.sleep(max(0.0, t + 0.5 - time.time()))
if epoch == 1:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def measured(flops: float) -> Census:
    """A census of this machine whose first device computes so fast in fp32."""
    machine = discover()
    device = machine.accelerators[0] if machine.accelerators else None
    count = 1 if device else machine.host.usable_cores
    figure = Figure(
        kernel="fp32",
        best=flops * count,
        median=flops * count,
        runs=3,
        valid_runs=3,
        is_correct=True,
        worst_error=0.1,
    )
    measurement = Measurement(
        accelerator=device.name if device else "cpu",
        index=device.index if device else None,
        uuid=device.uuid if device else None,
        devices=count,
        fp32_flops=figure,
    )
    return Census(machine=machine, measurements=(measurement,), at_s=time.time())


def train(cli: Cli, *, census: Census | None) -> dict[str, Any]:
    """Run the trainer, and return its job as JSON."""
    cli.run("first")  # so that the node has joined before the trainer is submitted
    if census is not None:
        census.save(cli.state.census)
    (cli.folder / "trainer.py").write_text(TRAINER.replace("FLOPS", str(STEP_FLOPS)))
    cli.run(
        "trainer",
        kind="train",
        workers=1,
        command=[sys.executable, "trainer.py"],
        retry={"limit": 1, "backoff": "0s", "in_place": False},  # its story has two attempts
    )
    found: dict[str, Any] = cli.json("show", "trainer")
    return found


def length_us(cli: Cli, epoch: int, number: int) -> int:
    """Return how long a step took, by the trainer's own words."""
    said = json.loads((cli.folder / f"said-{epoch}.json").read_text())
    [(start_s, end_s)] = [(start_s, end_s) for step, start_s, end_s in said if step == number]
    return to_us(end_s) - to_us(start_s)


def seconds(us: int) -> Decimal:
    return Decimal(us) / 1_000_000


def waterfall(cli: Cli, *options: str) -> dict[str, Any]:
    """Return the waterfall as JSON whose numbers are exact."""
    text = cli("waterfall", "-o", "json", *options).stdout
    found: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return found


def check_form(found: dict[str, Any]) -> None:
    """Check the keys, and that all losses and what is left add up to nameplate without a rest."""
    assert list(found) == ["unit", "simulated", "nameplate", "stages", "notes"]
    assert (found["unit"], found["simulated"]) == ("device_seconds", False)
    assert [stage["name"] for stage in found["stages"]] == [
        "healthy",
        "allocated",
        "productive",
        "model_flops",
    ]
    came_in = found["nameplate"]
    for stage in found["stages"]:
        assert list(stage) == ["name", "left", "lost"]
        assert all(list(loss) == ["cause", "device_s"] for loss in stage["lost"])
        assert all(loss["cause"] in set(Loss) and loss["device_s"] > 0 for loss in stage["lost"])
        if stage["left"] is None:
            assert stage["lost"] == []
            continue
        assert came_in == stage["left"] + sum(loss["device_s"] for loss in stage["lost"])
        came_in = stage["left"]


def lost(found: dict[str, Any], stage: str) -> dict[str, Decimal]:
    [entry] = [entry for entry in found["stages"] if entry["name"] == stage]
    return {loss["cause"]: loss["device_s"] for loss in entry["lost"]}


def left(found: dict[str, Any], stage: str) -> Decimal | None:
    [amount] = [entry["left"] for entry in found["stages"] if entry["name"] == stage]
    assert amount is None or isinstance(amount, Decimal)
    return amount


@pytest.fixture
def trained(cli: Cli) -> dict[str, Any]:
    return train(cli, census=measured(CEILING_FLOPS))


def test_the_waterfall_of_a_job_is_what_its_worker_said_to_the_microsecond(
    cli: Cli, trained: dict[str, Any]
) -> None:
    found = waterfall(cli, "--job", trained["id"])
    check_form(found)
    devices = sum(entry.node.devices for entry in nodes_of(discover()))
    window_us = to_us(trained["ended_s"]) - to_us(trained["submitted_s"])
    assert found["nameplate"] == seconds(devices * window_us)
    held_us = sum(to_us(a["ended_s"]) - to_us(a["decided_s"]) for a in trained["attempts"])
    assert left(found, "allocated") == seconds(held_us)
    kept = [(1, 1), (1, 2), (2, 3), (2, 4)]
    productive_us = sum(length_us(cli, epoch, number) for epoch, number in kept)
    assert left(found, "productive") == seconds(productive_us)
    assert left(found, "model_flops") == Decimal("0.08")
    assert lost(found, "model_flops") == {"below_ceiling": seconds(productive_us) - Decimal("0.08")}
    losses = lost(found, "productive")
    assert losses.keys() == {"start_up", "checkpoint_stall", "lost_work", "recovery", "wind_down"}
    assert abs(losses["checkpoint_stall"] - Decimal("0.0625")) <= Decimal("0.000001")
    assert losses["lost_work"] >= seconds(length_us(cli, 1, 3))


def test_the_summary_has_each_step_once_and_the_recovery(cli: Cli, trained: dict[str, Any]) -> None:
    training = trained["training"]
    assert (training["steps"], training["tokens"]) == (4, 256)
    assert training["losses"] == [[1, 4.0], [2, 3.0], [3, 2.0], [4, 1.0]]
    assert (training["first_loss"], training["final_loss"]) == (4.0, 1.0)
    assert training["tokens_per_s"] == pytest.approx(256 / 0.5, rel=1e-5)
    life_s = trained["ended_s"] - trained["submitted_s"]
    assert training["tokens_per_s_overall"] == pytest.approx(256 / life_s)
    assert training["mfu"] == pytest.approx(0.16)
    assert training["mfu_basis"] == "measured fp32, 1 GFLOP/s per device"
    [recovery] = training["recoveries"]
    assert (recovery["cause"], recovery["worker"], recovery["resumed_from_step"]) == ("signal", 0, 2)
    text = cli("show", "trainer").stdout
    assert "1.0000, from 4.0000" in text
    assert "16.0% of measured fp32, 1 GFLOP/s per device" in text
    assert "worker 0: signal" in text


def test_run_shows_the_same_as_show_and_waterfall(cli: Cli) -> None:
    train(cli, census=measured(CEILING_FLOPS))
    ran = cli.json("run", "--no-census", "trainer.yaml")
    id_ = ran["job"]["id"]
    shown = cli.json("show", id_)
    assert shown == {**ran["job"], "training": ran["training"], "goodput": ran["goodput"]}
    assert cli.json("waterfall", "--job", id_) == ran["waterfall"]
    assert ran["waterfall"]["notes"][-1].startswith(f"goodput of {id_}: ")
    share = ran["goodput"]["cumulative"]["share"]
    assert f"{share:.1%} of " in cli("show", id_).stdout


def test_without_a_census_mfu_is_unknown_and_never_0(cli: Cli) -> None:
    training = train(cli, census=None)["training"]
    has_nameplate = discover().accelerators and any(d.accelerator for d in discover().accelerators)
    assert training["steps"] == 4
    assert has_nameplate or (training["mfu"], training["mfu_basis"]) == (None, None)
    found = waterfall(cli, "--job", "trainer")
    check_form(found)
    assert left(found, "model_flops") is None
    assert any("model FLOPs are unknown" in note for note in found["notes"])
    text = cli("waterfall", "--job", "trainer").stdout
    assert "unknown" in next(line for line in text.splitlines() if line.startswith("model FLOPs"))


def test_a_job_that_reports_nothing_leaves_productive_unknown(cli: Cli) -> None:
    cli.run()
    found = waterfall(cli)
    check_form(found)
    assert left(found, "allocated") is not None
    assert left(found, "productive") is None
    assert left(found, "model_flops") is None


def test_before_the_first_job_there_is_no_waterfall(cli: Cli) -> None:
    done = cli("waterfall")
    assert done.stdout == ""
    assert "nothing is known yet: artesian run FILE" in done.stderr
    found = waterfall(cli)
    check_form(found)
    assert found["nameplate"] == 0


def test_since_chooses_the_last_while(cli: Cli) -> None:
    cli.run()
    devices = sum(entry.node.devices for entry in nodes_of(discover()))
    found = waterfall(cli, "--since", "1ms")
    check_form(found)
    assert abs(found["nameplate"] - devices * Decimal("0.001")) <= devices * Decimal("0.000001")
    before = waterfall(cli)["nameplate"]
    all_of_it = waterfall(cli, "--since", "36500d")
    check_form(all_of_it)
    assert all_of_it["nameplate"] >= before


@pytest.mark.parametrize(("name", "start"), [("w.svg", b"<?xml"), ("w.PNG", b"\x89PNG")])
def test_a_plot_is_written_beside_the_figures(cli: Cli, name: str, start: bytes) -> None:
    cli.run()
    picture: Path = cli.folder / name
    assert cli("waterfall", "--plot", picture).stdout.startswith("Waterfall")
    assert picture.read_bytes().startswith(start)
    first = picture.read_bytes()
    cli("run", "--no-census", "tiny.yaml", "--plot", picture)
    assert picture.read_bytes() != first


def test_where_a_plot_cannot_be_written_the_figures_are_there_nevertheless(cli: Cli) -> None:
    (cli.folder / "w.svg").mkdir()
    done = cli("waterfall", "--plot", "w.svg", "-o", "json", code=1)
    assert json.loads(done.stdout)["unit"] == "device_seconds"
    assert "cannot write w.svg: Is a directory" in done.stderr
