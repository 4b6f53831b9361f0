"""Membership: alone, joined, or in a group that the script made. Joining with others is in the gang's test."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from artesian.train import Membership, Run, alone, join
from artesian.train.membership import current
from recovery_harness import STEPS, Job


def test_without_torchruns_variables_a_worker_is_alone() -> None:
    member = join({})
    assert (member.rank, member.world_size, member.local_rank, member.control) == (0, 1, 0, None)
    assert not dist.is_initialized()
    member.leave()


def test_a_single_worker_that_was_launched_has_a_group_of_its_own_as_ddp_wants_it() -> None:
    environ = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    for _ in range(2):  # one after the other
        member = join(environ)
        try:
            assert replace(member, is_joined=False) == alone()
            assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
            model = DistributedDataParallel(torch.nn.Linear(2, 1).to(member.device))
            model(torch.ones(3, 2, device=member.device)).square().mean().backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
        finally:
            member.leave()
        assert not dist.is_initialized()


@pytest.mark.usefixtures("own_group")
def test_a_single_worker_with_a_group_of_its_scripts_own_gets_no_other() -> None:
    member = join({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    assert member == alone()
    member.leave()
    assert dist.is_initialized()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK must be a whole number, as torchrun sets it, got None"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "x"},
            "LOCAL_RANK must be a whole number, .* got 'x'",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "MASTER_ADDR must be set"),
    ],
)
def test_variables_that_are_incomplete_are_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join(environ)


def test_after_an_init_that_failed_a_worker_meets_peers_that_start_anew() -> None:
    """The name of the group is part of the keys under which peers look for each other: it has to be the first."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        dist.init_process_group("gloo", store=store, rank=0, world_size=2, timeout=timedelta(milliseconds=50))
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    environ = {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(server.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    member = join(environ)
    try:
        assert dist.group.WORLD is not None
        assert dist.group.WORLD.group_name == "0"
    finally:
        member.leave()


@pytest.fixture
def own_group() -> Iterator[None]:
    store = dist.HashStore()  # type: ignore[attr-defined]  # exported, but not in __all__
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("own_group")
def test_a_group_that_the_script_made_is_used_and_left_alone(tmp_path: Path) -> None:
    member = current(torch.device("cpu"))
    assert member.control is not None
    model = torch.nn.Linear(2, 1)
    run = Run.from_env(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        checkpoint_dir=tmp_path,
        environ={},
    )
    with run:
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            run.commit()
    assert os.listdir(tmp_path) == ["step-00000003"]
    assert dist.is_initialized()


def test_in_a_thread_a_run_leaves_sigterm_as_it_is() -> None:
    model = torch.nn.Linear(2, 1)
    steps: list[int] = []

    def train() -> None:
        with Run.from_env(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), environ={}
        ) as run:
            run.commit()
            steps.append(run.step)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert steps == [1]


def test_a_membership_says_where_it_stands() -> None:
    member = alone("cpu")
    assert isinstance(member, Membership)
    assert member.device == torch.device("cpu")


@pytest.mark.slow
def test_a_script_that_always_uses_ddp_runs_with_one_worker_that_is_not_restarted(tmp_path: Path) -> None:
    job = Job(tmp_path)
    try:
        job.run("--nproc-per-node", "1")
        assert max(step for _, step in job.losses()) == STEPS
    finally:
        job.end()
