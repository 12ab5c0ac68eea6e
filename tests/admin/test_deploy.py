"""docs/metrics.md, the alerts and the dashboard speak of metrics that there are, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from truba.admin.metrics import METRICS, series
from truba.errors import OPERATION_ERRORS
from truba.types import Cause, Phase

ROOT = Path(__file__).parents[2]
SERIES = {name: metric for metric in METRICS for name in series(metric)}
BY_PROMETHEUS = {"instance", "job", "le"}
VALUES = {
    "phase": {phase.value for phase in Phase},
    "outcome": {cause.value for cause in Cause} | {"deleted"},
    "code": set(OPERATION_ERRORS),
}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "deploy/grafana/truba.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(truba_\w+)` \| (\w+) \| ([\w-]*) ?\| (.*?) ?\| (.*) \|$", page, re.MULTILINE)
    told = [
        (name, sort, unit, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, sort, unit, labels, meaning in rows
    ]
    assert told == [tuple(metric) for metric in METRICS]


@pytest.mark.parametrize(("where", "text"), list(expressions()))
def test_expressions_name_what_there_is(where: str, text: str) -> None:
    plain = re.sub(r"\$\w+", "", text)
    names = re.findall(r"truba_\w+", plain)
    assert names, where
    assert set(names) <= SERIES.keys(), where
    promql_parser.parse(text.replace("$__rate_interval", "5m"))
    for name, selector in re.findall(r"(truba_\w+)\{(.*?)\}", text):
        for label, values in re.findall(r'(\w+)=~?"(.*?)"', selector):
            assert label in {*SERIES[name].labels, *BY_PROMETHEUS}, (where, label)
            if label in VALUES:
                assert set(values.split("|")) <= VALUES[label], (where, values)
    for labels in re.findall(r"by \((.*?)\)", text):
        known = {label for name in names for label in SERIES[name].labels} | BY_PROMETHEUS
        assert set(re.split(r",\s*", labels)) <= known, where


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        name for panel in panels() for t in panel.get("targets", ()) for name in re.findall(r"truba_\w+", t["expr"])
    }
    assert {metric.name for metric in METRICS} <= {SERIES[name].name for name in shown}


def test_every_alert_says_what_to_do_and_the_page_has_it() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    headings = {heading.strip().lower() for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"]
        target, _, heading = rule["annotations"]["next"].partition(": ")
        assert target == "docs/operations.md"
        assert heading in headings, rule["alert"]


def test_the_scrape_job() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/scrape.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/v1/metrics"


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
