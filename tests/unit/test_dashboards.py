"""Alerts and panels ask for metrics that exist, by labels that they have, and no metric is left unseen."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from server import telemetry
from tests.fetch_servers import promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
BOARD = json.loads((DEPLOY / "grafana" / "shopkeeper.json").read_text(encoding="utf-8"))
NAME = re.compile(r"\b(shopkeeper_\w+)(\{[^}]*\})?")
SUFFIXES: dict[type, tuple[str, ...]] = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
GIVEN = {"instance", "job", "machine"}
"""Labels that Prometheus adds."""


def series() -> dict[str, set[str]]:
    """Return the labels of every time series by name."""
    found = {}
    for metric in vars(telemetry).values():
        for suffix in SUFFIXES.get(type(metric), ()):
            labels = set(metric._labelnames) | ({"le"} if suffix == "_bucket" else set())
            found[f"{metric._name}{suffix}"] = labels
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


def test_series_are_those_that_are_exposed():
    assert "shopkeeper_rpc_errors_total" in series()
    assert series()["shopkeeper_rpc_duration_seconds_bucket"] == {"method", "le"}
    assert len(series()) > 30


@pytest.mark.parametrize("query", queries())
def test_query_names_metrics_and_labels_that_exist(query):
    known = series()
    named = NAME.findall(query)
    assert named or query.startswith("up{")
    labels = set(GIVEN)
    for name, selector in named:
        assert name in known
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known[name] | GIVEN
        labels |= known[name]
    for grouping in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(re.split(r",\s*", grouping)) <= labels


def test_legends_and_texts_name_labels_that_their_query_keeps():
    shown = [(target["expr"], target["legendFormat"]) for panel in panels() for target in panel["targets"]]
    told = [(rule["expr"], " ".join(rule["annotations"].values())) for rule in rules()]
    for query, text in [*shown, *told]:
        kept = re.findall(r"\bby \(([^)]*)\)", query)
        wanted = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text))
        names = set(re.split(r",\s*", kept[0])) if kept else set().union(*series().values()) | GIVEN
        assert wanted <= names, query


def test_every_metric_is_on_the_dashboard():
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    roots = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in series()}
    assert {root for root in roots if root not in asked} == set()


def test_every_alert_says_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "action"}
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_every_alert_is_tested_to_come_and_to_keep_quiet():
    tests = yaml.safe_load((RULES.parent / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    told = [one for test in tests for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {one["alertname"] for one in told if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in told if not one.get("exp_alerts")} == names


def test_panels_have_ids_and_places_of_their_own():
    ids = [panel["id"] for panel in BOARD["panels"]]
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(arguments):
    tool = promtool()
    assert tool is not None, "promtool is missing; run `make servers`"
    done = subprocess.run([tool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
