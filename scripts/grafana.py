"""Writes deploy/grafana/artesian.json: ``python scripts/grafana.py [--check]``. A dashboard is a table of queries."""

import json
import sys
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent.parent / "deploy" / "grafana" / "artesian.json"
_READS = 'artesian_http_request_duration_seconds_bucket{method="GET",route!~".*/(follow|events)"}'
_WRITES = 'artesian_http_request_duration_seconds_bucket{method="POST"}'
_CYCLES = "artesian_scheduling_cycle_duration_seconds"
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Waterfall: device-seconds left", "s", [("artesian_waterfall_device_seconds", "{{stage}}")]),
    (
        "Losses in device-seconds, the largest first",
        "s",
        [("topk(8, artesian_waterfall_lost_device_seconds)", "{{stage}}: {{cause}}")],
    ),
    ("Devices", "short", [("sum by (state) (artesian_devices)", "{{state}}")]),
    (
        "Share held, by model",
        "percentunit",
        [
            (
                'sum by (accelerator) (artesian_devices{state="held"}) / sum by (accelerator) (artesian_devices)',
                "{{accelerator}}",
            )
        ],
    ),
    (
        "Share held, by center",
        "percentunit",
        [
            (
                'sum by (center) (artesian_devices{state="held"}) / sum by (center) (artesian_devices)',
                "{{center}}",
            )
        ],
    ),
    (
        "Devices lost or excluded, by center and pool",
        "short",
        [
            (
                'sum by (center, pool, state) (artesian_devices{state=~"lost|excluded"})',
                "{{center}} {{pool}}: {{state}}",
            )
        ],
    ),
    ("Jobs", "short", [('artesian_jobs{state!~"succeeded|failed|cancelled"}', "{{state}}")]),
    ("The oldest job waits since", "s", [("artesian_queue_oldest_wait_seconds", "wait")]),
    (
        "Attempts ended per minute",
        "short",
        [("sum by (cause) (rate(artesian_attempts_ended_total[5m])) * 60", "{{cause}}")],
    ),
    (
        "From an event to its plan",
        "s",
        [
            ("histogram_quantile(0.5, sum by (le) (rate(artesian_plan_delay_seconds_bucket[5m])))", "p50"),
            ("histogram_quantile(0.99, sum by (le) (rate(artesian_plan_delay_seconds_bucket[5m])))", "p99"),
        ],
    ),
    (
        "Scheduling cycles",
        "s",
        [
            (f"histogram_quantile(0.5, sum by (le) (rate({_CYCLES}_bucket[5m])))", "p50"),
            (f"histogram_quantile(0.99, sum by (le) (rate({_CYCLES}_bucket[5m])))", "p99"),
            (f"sum(rate({_CYCLES}_sum[5m])) / sum(rate({_CYCLES}_count[5m]))", "mean"),
        ],
    ),
    (
        "How late the server's event loop is, p99",
        "s",
        [
            (
                "histogram_quantile(0.99, sum by (le, instance) (rate(artesian_event_loop_delay_seconds_bucket[5m])))",
                "{{instance}}",
            )
        ],
    ),
    (
        "Requests per second",
        "reqps",
        [
            (
                "sum by (method, status) (rate(artesian_http_request_duration_seconds_count[5m]))",
                "{{method}} {{status}}",
            )
        ],
    ),
    (
        "Latency, p99",
        "s",
        [
            (f"histogram_quantile(0.99, sum by (le) (rate({_READS}[5m])))", "reads"),
            (f"histogram_quantile(0.99, sum by (le) (rate({_WRITES}[5m])))", "writes"),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": {"type": "prometheus", "uid": "${source}"},
            "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend}
                for place, (query, legend) in enumerate(queries)
            ],
        }
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "title": "artesian",
        "uid": "artesian",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def main(arguments: list[str]) -> int:
    """Write the file, or check that it is what would be written."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if arguments == ["--check"]:
        return 0 if PATH.exists() and PATH.read_text() == text else 1
    PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
