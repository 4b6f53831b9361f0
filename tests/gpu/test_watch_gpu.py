"""What watches a real device: its faults, its compute time, its matrix product, its parameters' checksum."""

import torch

from artesian.train.divergence import checksum
from artesian.train.faults import FaultWatch
from artesian.train.preflight import check, judge
from artesian.train.stragglers import ComputeTimer

GPU = torch.device("cuda", 0)


def test_the_driver_tells_of_faults_and_a_good_device_has_none() -> None:
    faults = FaultWatch.of(GPU).read()
    assert faults.xids == ()
    assert faults.reasons == ()


def test_the_check_before_a_job_finds_the_device_fast_and_right() -> None:
    found = check(rank=0, world_size=1, device=GPU, control=None, size=4096, faults=FaultWatch.of(GPU).read())
    (rank,) = found.ranks
    assert rank.is_right
    assert rank.flops_per_s > 1e12
    assert judge(found) == []


def test_compute_time_is_that_of_the_device() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, device=GPU) for _ in range(4)))
    timer = ComputeTimer(model, GPU)
    inputs = torch.randn(4096, 4096, device=GPU)
    model(inputs).sum().backward()
    timer.begin()
    assert timer.read_s() is None
    model(inputs).sum().backward()
    seconds = timer.read_s()
    assert seconds is not None
    # Twelve products of 4096³: a device cannot do them in less than its peak allows.
    assert seconds > 12 * 2 * 4096**3 / 2e15


def test_the_checksum_is_the_same_on_the_device_and_on_the_host() -> None:
    tensors = [torch.randn(1000, 37), torch.randn(5).bfloat16()]
    on_device = [each.to(GPU) for each in tensors]
    assert checksum(on_device) == checksum(tensors)
    on_device[1][3] += 1
    assert checksum(on_device) != checksum(tensors)
    assert checksum([on_device[0], tensors[1]]) == checksum(tensors)
