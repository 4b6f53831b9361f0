"""What a real Prometheus makes of the metrics, the alert rules, and the queries of the dashboard."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from api_harness import RealServer, a_server
from artesian.engines.local.engine import attempt_folder
from artesian.model.job import JobKind
from artesian.wire.channel import ProgressWriter, worker_file
from builders import Kernel, a_job, a_node, ended, joined, started, submitted
from cli_harness import Cli, until
from limits import needs
from ports import free_port
from worker_messages import apart, began, slow, step

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "artesian.json"


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    needs(shutil.which("prometheus") is not None, "Prometheus (apt-get install prometheus)")
    config = folder / "prometheus.yml"
    job = {"job_name": "artesian", "static_configs": [{"targets": [target]}]}
    config.write_text(
        json.dumps(
            {
                # It is as long as a scrape may take: after one that took longer there is nothing to ask for.
                "global": {"scrape_interval": "10s", "evaluation_interval": "1s"},
                "scrape_configs": [job],
                "rule_files": [str(RULES)],
            }
        )
    )
    port = free_port()
    words = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        process.kill()
        process.wait()


def ask(http: httpx.Client, query: str) -> list[Any]:
    try:
        answer = http.get("/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    if answer.status_code == 503:
        return []  # it is still starting
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["data"]["result"]
    return found


def test_prometheus_scrapes_a_server_and_takes_the_rules_and_the_dashboards_queries(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure('[pools.default]\ncenter = "north"\n')
    server = RealServer(cli)
    try:
        id_ = cli.submit()
        cli.until_in(id_, "succeeded")
        with prometheus(tmp_path, server.url.removeprefix("http://")) as http:
            until(lambda: ask(http, 'artesian_jobs{state="succeeded"} == 1'))
            assert ask(http, 'up{job="artesian"}')[0]["value"][1] == "1"
            assert ask(http, 'artesian_attempts_ended_total{cause="completed"}')[0]["value"][1] == "1"
            by_center = ask(http, "sum by (center) (artesian_devices)")
            assert [one["metric"]["center"] for one in by_center] == ["north"]
            assert float(by_center[0]["value"][1]) > 0
            cycles = "artesian_scheduling_cycle_duration_seconds"
            assert float(ask(http, f"{cycles}_count")[0]["value"][1]) >= 1, "it planned the start"
            assert ask(http, f"histogram_quantile(0.99, sum by (le) ({cycles}_bucket)) < 30")
            assert ask(http, "artesian_scheduling_cycles_noticed_total")[0]["value"][1] == "0"
            assert ask(http, "artesian_event_loop_delay_seconds_count")
            assert ask(http, 'artesian_append_duration_seconds_count{stage="commit"}')
            stages = {one["metric"]["stage"] for one in ask(http, "artesian_waterfall_device_seconds")}
            assert {"nameplate", "healthy", "allocated"} <= stages
            rules = http.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
            assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
            for panel in json.loads(DASHBOARD.read_text())["panels"]:
                for target in panel["targets"]:
                    found = ask(http, target["expr"])
                    assert found or "artesian_devices" not in target["expr"], target
    finally:
        server.stop()
        cli.end()


def test_the_alert_rules_are_sound() -> None:
    needs(shutil.which("promtool") is not None, "promtool (apt-get install prometheus)")
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 rules found" in done.stdout


def test_long_cycles_raise_their_alert_and_short_ones_do_not(tmp_path: Path) -> None:
    needs(shutil.which("promtool") is not None, "promtool (apt-get install prometheus)")
    name = "artesian_scheduling_cycle_duration_seconds_bucket"

    def series(instance: str, fast: int) -> list[dict[str, str]]:
        """Twenty cycles a minute, of which so many take less than 2.5 s and the others up to 5 s."""
        labels = f'instance="{instance}"'
        return [
            {"series": f'{name}{{{labels},le="{bound}"}}', "values": f"0+{count}x60"}
            for bound, count in (("1.0", fast), ("2.5", fast), ("5.0", 20), ("+Inf", 20))
        ]

    test = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [*series("slow:8230", 10), *series("quick:8230", 20)],
                "promql_expr_test": [
                    {
                        "expr": 'ALERTS{alertname="ArtesianCyclesAreLong",alertstate="firing"}',
                        "eval_time": "40m",
                        "exp_samples": [
                            {
                                "labels": 'ALERTS{alertname="ArtesianCyclesAreLong",alertstate="firing",'
                                'instance="slow:8230",severity="warning"}',
                                "value": 1,
                            }
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_device_time_lost_to_stragglers_raises_its_alert_and_a_little_of_it_does_not(tmp_path: Path) -> None:
    needs(shutil.which("promtool") is not None, "promtool (apt-get install prometheus)")

    def series(instance: str, lost: int) -> list[dict[str, str]]:
        """A hundred device-seconds a minute, of which so many were lost to stragglers."""
        labels = f'instance="{instance}"'
        lost_to = "artesian_waterfall_lost_device_seconds"
        return [
            {
                "series": f'{lost_to}{{{labels},stage="productive",cause="straggler"}}',
                "values": f"0+{lost}x90",
            },
            {"series": f'{lost_to}{{{labels},stage="productive",cause="start_up"}}', "values": "0+50x90"},
            {
                "series": f'artesian_waterfall_device_seconds{{{labels},stage="allocated"}}',
                "values": "0+100x90",
            },
        ]

    firing = 'ALERTS{alertname="ArtesianStragglers",alertstate="firing"}'
    found = firing.replace("}", ',instance="slow:8230",severity="warning"}')
    test = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [*series("slow:8230", 10), *series("quick:8230", 2)],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": "80m", "exp_samples": [{"labels": found, "value": 1}]}
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_devices_that_are_lost_raise_an_alert_of_their_center_and_pool_alone(tmp_path: Path) -> None:
    needs(shutil.which("promtool") is not None, "promtool (apt-get install prometheus)")

    def series(center: str, pool: str, state: str, count: int) -> dict[str, str]:
        labels = f'accelerator="H100",center="{center}",pool="{pool}",state="{state}"'
        return {"series": f"artesian_devices{{{labels}}}", "values": f"{count}x30"}

    firing = 'ALERTS{alertname="ArtesianDevicesLost",alertstate="firing"}'
    found = firing.replace("}", ',accelerator="H100",center="south",pool="b",severity="warning"}')
    test = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    series("north", "a", "held", 990),
                    series("north", "a", "lost", 10),
                    series("south", "b", "held", 90),
                    series("south", "b", "lost", 10),
                ],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": "20m", "exp_samples": [{"labels": found, "value": 1}]}
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(test))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_devices_are_counted_by_model_center_and_pool_and_not_by_node(tmp_path: Path) -> None:
    pools = {"train": "H100-SXM5-80GB", "serve": "L4", "spare": "H100-SXM5-80GB"}
    fleet = [
        a_node(f"{pool}-{number}", accelerator=model, pool=pool)
        for pool, model in pools.items()
        for number in range(30)
    ]
    with a_server(tmp_path, fleet=fleet, centers={"train": "north", "serve": "south"}) as served:
        found = {
            tuple(sample.labels[name] for name in ("accelerator", "center", "pool", "state")): sample.value
            for family in text_string_to_metric_families(served.http.get("/metrics").text)  # type: ignore[no-untyped-call]
            for sample in family.samples
            if sample.name == "artesian_devices"
        }
        free = {key[:3]: value for key, value in found.items() if key[3] == "free"}
        assert free == {
            ("H100-SXM5-80GB", "north", "train"): 240.0,
            ("L4", "south", "serve"): 240.0,
            ("H100-SXM5-80GB", "default", "spare"): 240.0,
        }
        assert len(found) == len(free) * 4, "each has its four states, however many nodes there are"


def test_the_dashboard_is_what_its_script_writes() -> None:
    done = subprocess.run(["python3", str(ROOT / "scripts" / "grafana.py"), "--check"])
    assert done.returncode == 0


def test_no_series_grows_with_the_number_of_jobs(tmp_path: Path) -> None:
    with a_server(tmp_path) as served:

        def names() -> set[str]:
            page = served.http.get("/metrics")
            assert page.headers["content-type"].startswith("application/openmetrics-text")
            assert page.text.endswith("# EOF\n")
            return {line.rpartition(" ")[0] for line in page.text.splitlines() if not line.startswith("#")}

        served.tell(submitted(a_job("j0"), 2.0))
        names()
        before = names()
        served.tell(*(submitted(a_job(f"j{number}"), 3.0) for number in range(1, 200)))
        for number in range(1, 50):
            served.http.get(f"/api/v1/jobs/j{number}")
            served.http.get(f"/{number}")
            served.http.request(f"VERB{number}", "/api/v1/jobs")
        grown = names() - before
        assert len(grown) < 100
        assert not any("j1" in name for name in grown | before)


def test_a_job_has_a_page_of_its_own_with_its_goodput(tmp_path: Path) -> None:
    with a_server(tmp_path) as served:
        kernel = Kernel()
        kernel.step(joined(a_node(devices=1)))
        kernel.step(submitted(a_job(kind=JobKind.TRAIN), 2.0))
        kernel.step(started(at_s=2.0))
        kernel.step(ended(at_s=6.0))
        served.tell(*kernel.journal)
        folder = attempt_folder(served.state.jobs, "j1", 1)
        folder.create()
        writer = ProgressWriter(worker_file(folder.progress, 0))
        writer.send(began(0, 2.0, world=1))
        writer.send(step(0, 1, 3.0, 5.0))
        writer.close()
        page = served.http.get("/api/v1/jobs/j1/metrics")
        assert page.headers["content-type"].startswith("application/openmetrics-text")
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(page.text)  # type: ignore[no-untyped-call]
            for sample in family.samples
        }
        assert found["artesian_job_device_seconds", "j1", "productive"] == 2.0
        assert found["artesian_job_goodput_ratio", "j1", "all"] == 0.5
        assert served.http.get("/api/v1/jobs/none/metrics").status_code == 404


def held_up(folder: Path) -> None:
    """Let the workers of attempt 1 of job ``j1`` say that rank 1 was slow in steps 1 and 2, of 2 s each."""
    place = attempt_folder(folder, "j1", 1)
    place.create()
    for rank in (0, 1):
        writer = ProgressWriter(worker_file(place.progress, rank))
        writer.send(replace(began(rank, 2.0), seeks_stragglers=True, checks_replicas=True))
        for number in (1, 2):
            writer.send(step(rank, number, 2.0 * number, 2.0 * number + 2))
        if rank == 0:
            writer.send(slow(1, 2, 6.5, window=2, excess_s=2.0))
            writer.send(apart((0, 1), 2, 6.5, is_certain=False))
        writer.close()


def test_stragglers_are_on_the_jobs_page_in_why_and_in_the_servers_losses(tmp_path: Path) -> None:
    with a_server(tmp_path, fleet=()) as served:
        kernel = Kernel()
        for name in ("n1", "n2"):
            kernel.step(joined(a_node(name, devices=1), at_s=1.0))
        kernel.step(submitted(a_job(devices="cpu:2", kind=JobKind.TRAIN), 2.0))
        kernel.step(started(at_s=2.0))
        served.tell(*kernel.journal)
        held_up(served.state.jobs)
        page = served.http.get("/api/v1/jobs/j1/metrics").text
        assert 'artesian_job_stragglers{job_id="j1"} 1\n' in page
        assert 'artesian_job_straggler_ratio{job_id="j1",worker="1"} 2.0\n' in page
        assert 'artesian_job_device_seconds{job_id="j1",cause="straggler"} 2.0\n' in page
        assert 'artesian_job_diverged_replicas{job_id="j1"} 2\n' in page
        [differ] = served.client().decision("j1").divergences or ()
        assert (differ.workers, differ.step, differ.is_now) == ((0, 1), 2, True)
        [one] = served.client().decision("j1").stragglers or ()
        assert (one.worker, one.place, one.wait_s, one.since_s, one.is_now) == (1, "n2[0]", 2.0, 2.0, True)
        assert "artesian nodes exclude n2" in one.remedy
        whole = served.http.get("/metrics").text
        lost = 'artesian_waterfall_lost_device_seconds{cause="straggler",stage="productive"} 2.0'
        assert lost in whole.splitlines()

        after = len(kernel.journal)
        kernel.step(ended(at_s=9.0))
        served.tell(*kernel.journal[after:])
        assert served.client().decision("j1").stragglers is None, "it does not run any more"
        assert "artesian_job_stragglers{" not in served.http.get("/api/v1/jobs/j1/metrics").text
        [one] = served.client().training("j1").stragglers or ()
        assert (one.worker, one.is_now) == (1, False)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(tmp_path: Path, path: str) -> None:
    with a_server(tmp_path, is_open=False) as served:
        assert served.http.get(path).json() == {"status": "ok"}
        served.app.state.streams.close()
        assert served.http.get("/readyz").status_code == 503
