"""The public traces: what their readers make of them, and the known totals of the real files."""

import json
from collections import Counter
from pathlib import Path

import pytest

from artesian.model.fleet import Fleet
from artesian.model.job import JobKind
from artesian.sim.traces import (
    BadCell,
    BadRows,
    TooLarge,
    TraceError,
    UnreadableTrace,
    alibaba_spot,
    azure,
    fleet_for_load,
    gavel,
    load_of,
    philly,
    philly_deadlines,
    with_estimates,
)
from trace_files import lines, place, real, written

# -- Philly -------------------------------------------------------------------------------------------

PHILLY = lines(
    "timestamp,duration,num_gpus,gpu_time,cluster",
    "2017-10-09 07:01:55,66.0,1,66.0,11cb48",
    "2017-10-09 06:01:55,100.0,16,1600.0,6214e9",
    "2017-10-09 08:01:55,50.0,1,50.0,11cb48",
)


def test_philly_starts_its_clock_at_the_first_arrival_wherever_that_stands(tmp_path: Path) -> None:
    trace = philly.read(written(tmp_path, PHILLY))
    assert [(job.job.id, job.submit_s) for job in trace.jobs] == [
        ("philly-3", 0.0),
        ("philly-2", 3600.0),
        ("philly-4", 7200.0),
    ]
    assert trace.fleet is None
    assert trace.jobs[1].job.devices is trace.jobs[2].job.devices
    assert {job.job.kind for job in trace.jobs} == {JobKind.TRAIN}


def test_a_fleet_has_as_many_devices_as_the_load_asks_for(tmp_path: Path) -> None:
    jobs = philly.read(written(tmp_path, PHILLY)).jobs
    offered = 66 + 1600 + 50
    assert load_of(jobs, fleet_for_load(jobs, 0.01, 1)) == pytest.approx(offered / 7200 / 24)
    # A whole gang has to fit, however small the load.
    assert fleet_for_load(jobs, 5.0, 8).devices == 16


@pytest.mark.parametrize(("load", "nodes"), [(0.0, 8), (float("nan"), 8), (1.0, 0)])
def test_a_fleet_for_no_load_is_refused(tmp_path: Path, load: float, nodes: int) -> None:
    jobs = philly.read(written(tmp_path, PHILLY)).jobs
    with pytest.raises(ValueError, match="above 0"):
        fleet_for_load(jobs, load, nodes)
    with pytest.raises(ValueError, match="arrive over some time"):
        fleet_for_load(jobs[:1], 1.0)


def test_a_gang_that_no_fleet_could_hold_is_counted_with_its_row(tmp_path: Path) -> None:
    trace = philly.read(written(tmp_path, PHILLY))
    small = Fleet(nodes=fleet_for_load(trace.jobs, 5.0, 8).nodes[:1])
    cut = trace.on(small)
    assert [job.job.id for job in cut.jobs] == ["philly-2", "philly-4"]
    assert cut.rows == (2, 4)
    (skipped,) = cut.skipped
    assert (skipped.reason, skipped.count, skipped.row) == ("the gang fits no devices of the fleet", 1, 3)
    assert skipped.actual == "philly-3: 16"
    assert cut.fleet is small


def test_estimates_are_made_up_with_a_seed_and_an_error(tmp_path: Path) -> None:
    trace = philly.read(written(tmp_path, PHILLY))
    exact = with_estimates(trace, error=0.0, seed=1)
    assert [job.job.estimated_duration_s for job in exact.jobs] == [100.0, 66.0, 50.0]
    off = with_estimates(trace, error=1.0, seed=1)
    assert off == with_estimates(trace, error=1.0, seed=1)
    assert off != with_estimates(trace, error=1.0, seed=2)
    assert "made up" in off.notes[0]
    with pytest.raises(ValueError, match="error of at least 0"):
        with_estimates(trace, error=-1.0, seed=1)


def test_the_real_philly_has_its_known_totals() -> None:
    trace = philly.read(real("philly/philly.csv"))
    assert len(trace.jobs) == 82_247
    assert trace.skipped == ()
    assert len({job.job.team for job in trace.jobs}) == 15
    gangs = Counter(job.job.devices[0].min_devices for job in trace.jobs)
    assert (gangs[1], gangs[8], max(gangs), gangs[128]) == (76_627, 1_643, 128, 3)
    assert len({id(job.job.devices) for job in trace.jobs}) == len(gangs)
    assert sum(job.duration_s for job in trace.jobs) / 82_247 == pytest.approx(13_135.93, abs=0.01)
    assert trace.jobs[-1].submit_s == 9_408_690  # 2017-09-04 10:30:41 to 2017-12-22 08:02:11
    fleet = fleet_for_load(trace.jobs, 0.9)
    assert load_of(trace.jobs, fleet) == pytest.approx(0.9, rel=0.02)
    assert trace.on(fleet).skipped == ()


# -- deadlines ----------------------------------------------------------------------------------------

DEADLINES = lines(
    "job_id,user,num_gpu,submit_time,iterations,model_name,duration,interval,expect_time_list,"
    "expect_value_list,best_effort,job_type",
    "0,vc_a,1,100,5049,vgg16,10,14,25,10,0,strict",
    "2,vc_b,0,50,10,vgg16,10,14,25,10,0,strict",
    "1,vc_b,8,50,10,alexnet,20,14,50,10,1,best",
)


def test_deadlines_count_from_the_submission_in_minutes(tmp_path: Path) -> None:
    best, strict = philly_deadlines.read(written(tmp_path, DEADLINES)).jobs
    assert (strict.submit_s, strict.duration_s, strict.deadline_s) == (6000, 600, 7500)
    assert (strict.job.profile, strict.job.total_steps, strict.job.team) == ("vgg16", 5049, "vc_a")
    assert (best.deadline_s, best.job.devices[0].min_devices) == (None, 8)


def test_a_job_for_no_gpu_is_counted_and_a_second_one_of_an_id_refused(tmp_path: Path) -> None:
    (skipped,) = philly_deadlines.read(written(tmp_path, DEADLINES)).skipped
    assert (skipped.reason, skipped.row) == ("the job asks for no device", 3)
    twice = DEADLINES + DEADLINES.splitlines()[1] + "\n"
    with pytest.raises(BadCell) as caught:
        philly_deadlines.read(written(tmp_path, twice))
    assert place(caught.value) == ("trace.csv", 5, "job_id")


@pytest.mark.parametrize(
    ("name", "jobs", "strict", "none"), [("SLO", 30_735, 30_735, 205), ("MIX1", 30_756, 21_600, 184)]
)
def test_the_real_deadlines_have_their_known_totals(name: str, jobs: int, strict: int, none: int) -> None:
    trace = philly_deadlines.read(real(f"philly/deadlines_{name}.csv"))
    assert len(trace.jobs) == jobs
    assert trace.skipped_rows == none
    late = [job for job in trace.jobs if job.deadline_s is not None]
    assert len(late) == strict
    assert all(job.deadline_s and job.deadline_s >= job.submit_s + job.duration_s for job in late)
    assert {job.job.profile for job in trace.jobs} == {
        *("alexnet", "inception_v3", "mobilenet_v2", "resnet101", "vgg16")
    }


# -- Gavel --------------------------------------------------------------------------------------------

LM = "('LM (batch size 5)', 1)"
SPEEDS: dict[str, dict[str, dict[str, object]]] = {
    "v100": {LM: {"null": 10.0, "('A3C', 1)": [6.0, 3.0]}, "('A3C', 1)": {"null": 4}},
    "v100_unconsolidated": {LM: {"null": 9.0}},
    "p100": {LM: {"null": 12.0}, "('A3C', 1)": {"null": 0.0}},
    "k80": {LM: {"null": 1.0}},
}
STREAM = lines(
    "job_id,arrival_s,job_type,scale_factor,duration_on_v100_s,total_steps",
    "0,0.000,LM (batch size 5),1,100,1000",
    "1,5.500,A3C,1,100,400",
)


def speeds_file(folder: Path, speeds: object = SPEEDS) -> Path:
    return written(folder, json.dumps(speeds), "throughputs.json")


def test_gavels_measurements_are_found_by_type_gang_and_device(tmp_path: Path) -> None:
    speeds = gavel.read_throughputs(speeds_file(tmp_path))
    lm, a3c = ("LM (batch size 5)", 1), ("A3C", 1)
    assert speeds.steps_per_s(*lm, "V100") == 10
    assert speeds.steps_per_s(*lm, "V100", is_consolidated=False) == 9
    assert speeds.steps_per_s(*a3c, "P100") == 0
    assert speeds.steps_per_s(*a3c, "K80") is None
    assert speeds.together(lm, a3c, "V100") == (6, 3)
    assert speeds.together(a3c, lm, "V100") is None
    assert speeds.models == ("A3C", "LM (batch size 5)")


def test_a_job_of_gavel_may_run_where_its_type_runs(tmp_path: Path) -> None:
    speeds_file(tmp_path)
    lm, a3c = gavel.read(written(tmp_path, STREAM)).jobs
    assert [str(request) for request in lm.job.devices] == ["V100:1", "P100:1", "K80:1"]
    assert [str(request) for request in a3c.job.devices] == ["V100:1"]
    assert (lm.steps_per_s, lm.duration_s) == ({"V100": 10, "P100": 12, "K80": 1}, 100)
    assert (a3c.job.id, a3c.submit_s, a3c.job.total_steps, a3c.job.profile) == ("job-1", 5.5, 400, "A3C")


def test_a_job_type_that_was_not_measured_is_refused_with_its_row(tmp_path: Path) -> None:
    speeds = gavel.read_throughputs(speeds_file(tmp_path))
    with pytest.raises(BadCell) as caught:
        gavel.read(written(tmp_path, STREAM.replace("A3C,1", "A3C,2")), throughputs=speeds)
    assert place(caught.value) == ("trace.csv", 3, "job_type")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON, got: Expecting value"),
        ("{", "row 1, column 2: expected JSON"),
        ("[" * 100_000, "expected JSON in UTF-8, got something else"),
        ("[]", "column file: expected a mapping, got []"),
        ('{"v100": {"LM": {}}}', "column v100: expected a job type such as"),
        ('{"v100": {"(\'LM\', 1)": 1}}', "column v100.('LM', 1): expected a mapping, got 1"),
        (
            '{"v100": {"(\'LM\', 1)": {"null": -1}}}',
            "('LM', 1).null: expected steps per second of at least 0",
        ),
        ('{"v100": {"(\'LM\', 1)": {"null": NaN}}}', "got nan"),
        ('{"v100": {"(\'LM\', 1)": {"null": true}}}', "got True"),
        ('{"v100": {"(\'LM\', 1)": {"null": 1' + "0" * 400 + "}}}", "expected steps per second"),
        ('{"v100": {"(\'LM\', 1)": {"null": 1' + "0" * 5000 + "}}}", "expected JSON in UTF-8"),
        ('{"v100": {"(\'LM\', 1)": {"(\'LM\', 1)": [1]}}}', "expected a pair of steps per second, got [1]"),
    ],
)
def test_throughputs_that_are_none_are_refused_with_their_place(
    tmp_path: Path, text: str, words: str
) -> None:
    path = written(tmp_path, text, "throughputs.json")
    with pytest.raises(TraceError) as caught:
        gavel.read_throughputs(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_stream_without_its_throughputs_names_the_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace, match=r"throughputs\.json"):
        gavel.read(written(tmp_path, STREAM))


def test_gavels_fleet_has_whole_nodes() -> None:
    assert Counter(node.accelerator for node in gavel.fleet().nodes) == {"V100": 9, "P100": 9, "K80": 9}
    with pytest.raises(ValueError, match="whole nodes of 4 P100, got 6"):
        gavel.fleet(p100=6)


def test_the_real_gavel_has_its_known_totals() -> None:
    speeds = gavel.read_throughputs(real("gavel/throughputs.json"))
    assert len(speeds.models) == 26
    assert speeds.steps_per_s("ResNet-18 (batch size 16)", 1, "K80") == pytest.approx(4.795294551566172)
    trace = gavel.read(real("gavel/jobs_seed0_4_per_hour.csv"), throughputs=speeds)
    assert len(trace.jobs) == 2_000
    assert trace.jobs[0].duration_s == pytest.approx(68_344.35, abs=0.01)  # the file's own figure on a V100
    assert all(len(job.steps_per_s) == 3 for job in trace.jobs)
    assert trace.on(gavel.fleet()).skipped == ()


# -- Alibaba's nodes ----------------------------------------------------------------------------------

NODES = lines("gpu_model,gpu_capacity_num,cpu_num,node_name", "A10,1,128,0", "GPU-series-1,4,192,x")


def test_spot_nodes_of_one_model_are_a_pool(tmp_path: Path) -> None:
    trace = alibaba_spot.read(written(tmp_path, NODES))
    assert trace.fleet is not None
    assert [(node.id, node.pool, node.devices) for node in trace.fleet.nodes] == [
        ("node-0", "a10", 1),
        ("node-x", "gpu-series-1", 4),
    ]
    known, hidden = trace.fleet.nodes
    assert (known.vendor, known.peak_flops) == ("nvidia", 125e12)
    assert (hidden.vendor, hidden.peak_flops) == (None, None)
    assert "does not tell the nodes' memory" in trace.notes[0]
    assert alibaba_spot.read(written(tmp_path, NODES), memory_bytes=10**12).notes == ()


def test_a_spot_node_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCell) as caught:
        alibaba_spot.read(written(tmp_path, NODES + "A10,1,128,0\n"))
    assert place(caught.value) == ("trace.csv", 4, "node_name")


def test_the_real_spot_nodes_have_their_known_totals() -> None:
    fleet = alibaba_spot.read(real("hardware/alibaba_spot_nodes.csv")).fleet
    assert fleet is not None
    assert (len(fleet.nodes), fleet.devices, len(fleet.pools)) == (4_278, 10_412, 6)


# -- Azure's requests ---------------------------------------------------------------------------------

REQUESTS = lines(
    "TIMESTAMP,ContextTokens,GeneratedTokens",
    "2023-11-16 18:16:46.0,300,30",
    "2023-11-16 18:15:46.6805900,1000,100",
    "2023-11-16 18:15:50.0,1000,100",
    "2023-11-16 18:18:46.5,10,1",
)
REPLICA = azure.Replica(prefill_tokens_per_s=100.0, decode_tokens_per_s=10.0, devices=2)


def test_requests_are_added_up_by_interval_from_the_first_one(tmp_path: Path) -> None:
    load = azure.read_load(written(tmp_path, REQUESTS), interval_s=30)
    assert load.requests == (2, 1, 0, 0, 0, 1)
    assert load.context_tokens == (2000, 300, 0, 0, 0, 10)
    minutes = azure.read_load(written(tmp_path, REQUESTS))
    assert sum(minutes.requests) == 4
    assert sum(minutes.context_tokens) == 2310
    assert sum(minutes.generated_tokens) == 231


def test_replicas_are_as_many_as_the_tokens_keep_busy() -> None:
    load = azure.ServiceLoad(
        source="s",
        interval_s=10,
        requests=(1, 3, 2, 0, 1),
        context_tokens=(100, 2500, 1000, 0, 1),
        generated_tokens=(10, 0, 100, 0, 0),
    )
    assert load.replicas(REPLICA) == (1, 3, 2, 0, 1)
    half = azure.Replica(prefill_tokens_per_s=100, decode_tokens_per_s=10, busy_share=0.5)
    assert load.replicas(half) == (1, 5, 4, 0, 1)
    jobs = azure.service_jobs(load, REPLICA, name="chat")
    assert [(job.job.id, job.submit_s, job.duration_s) for job in jobs] == [
        ("chat-1-0", 0, 30),
        ("chat-2-1", 10, 20),
        ("chat-3-1", 10, 10),
        ("chat-1-4", 40, 10),
    ]
    assert {(job.job.kind, job.job.devices[0].min_devices) for job in jobs} == {(JobKind.SERVICE, 2)}


def test_a_date_that_is_far_off_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(TooLarge) as caught:
        azure.read_load(written(tmp_path, REQUESTS + "2123-11-16 18:18:46,1,1\n"))
    assert place(caught.value) == ("trace.csv", 6, "TIMESTAMP")


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_replica_that_does_nothing_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="tokens per second above 0"):
        azure.Replica(prefill_tokens_per_s=speed, decode_tokens_per_s=1.0)


def test_no_requests_are_no_load(tmp_path: Path) -> None:
    path = written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n")
    load = azure.read_load(path, bad_rows=BadRows.SKIP)
    assert load.requests == ()
    assert [entry.column for entry in load.skipped] == ["TIMESTAMP"]
    assert azure.service_jobs(load, REPLICA) == ()


def test_the_real_requests_have_their_known_totals() -> None:
    path = real("services/azure_llm_conv.csv")
    load = azure.read_load(path)
    assert sum(load.requests) == 19_366
    assert len(load.requests) == 59  # 18:15:46 to 19:14:08
    replica = azure.Replica(prefill_tokens_per_s=8000, decode_tokens_per_s=1000)
    trace = azure.read(path, replica=replica)
    device_s = sum(job.duration_s for job in trace.jobs)
    assert device_s == 60 * sum(load.replicas(replica))
