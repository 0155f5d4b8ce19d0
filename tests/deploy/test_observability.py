"""Dashboard, rules, alerts and the adapter's rules: they ask for what a server tells."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.registry import CollectorRegistry
from recipes import DEPLOY, ROOT, leaves, load, tool

from kong_pdk.config import ServerConfig
from kong_pdk.metrics import Numbers
from kong_pdk.processes.memory import allocate, attach
from kong_pdk.runtime.tally import Table, size_of

PROMETHEUS = DEPLOY / "prometheus"
#: What Prometheus adds to what a server tells: labels of the target, and series of its own.
TARGET_LABELS = {"job", "instance", "namespace", "pod"}
OWN_SERIES = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
#: Names in an expression that are no labels and no metrics.
WORDS = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
METRIC = re.compile(
    r"(?<![\w:$\"])([a-zA-Z_][\w]*:[\w:]+|kong_pdk_\w+|up|ALERTS)\b(?:\{([^}]*)\})?"
)

Told = dict[str, set[str]]


@pytest.fixture(scope="module")
def told() -> Told:
    """The series of a server with a plugin and a worker, with their labels."""
    fd = allocate(size_of(1))
    table = Table(attach(fd))
    os.close(fd)
    table.note_process(0, 1, True)
    registry = CollectorRegistry()
    registry.register(
        Numbers(ServerConfig(), table, {"p": ("access",)}, lambda: {"p": 1}, lambda: None)
    )
    found: Told = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def recorded() -> dict[str, str]:
    """The expressions of the rules that record, by the names that they give."""
    (group,) = load("prometheus/rules.yml")["groups"]
    return {rule["record"]: rule["expr"] for rule in group["rules"]}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in load("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return load("grafana/dashboard.json")["panels"]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"{panel['id']} {panel['title']}", target["expr"]
    dashboard = load("grafana/dashboard.json")
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["definition"] == variable["query"]["query"]
            yield variable["name"], variable["definition"]


def expressions() -> dict[str, list[tuple[str, str]]]:
    adapter = [
        (rule["name"]["as"],
         rule["metricsQuery"]
         .replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
         .replace("<<.LabelMatchers>>", 'namespace="n"').replace("<<.GroupBy>>", "pod"))
        for rule in load("prometheus/adapter-values.yml")["rules"]["custom"]
    ]  # fmt: skip
    return {
        "dashboard": list(dashboard_expressions()),
        "rules": list(recorded().items()),
        "alerts": [(rule["alert"], rule["expr"]) for rule in alerts()],
        "adapter": adapter,
    }


EXPRESSIONS = expressions()
ALL = [(kind, name, text) for kind, some in EXPRESSIONS.items() for name, text in some]


def labels_of(name: str, told: Told) -> set[str]:
    """The labels of a series; a KeyError if nobody makes it."""
    if name in recorded():
        found = re.search(r"by \(([^)]*)\)", recorded()[name])
        assert found is not None, name
        return {label.strip() for label in found[1].split(",")} - {"le"}
    return (OWN_SERIES[name] if name in OWN_SERIES else told[name]) | TARGET_LABELS


@pytest.mark.parametrize("kind, name, text", ALL, ids=[f"{kind}-{name}" for kind, name, _ in ALL])
def test_it_asks_for_what_is_told(kind: str, name: str, text: str, told: Told) -> None:
    found = METRIC.findall(WORDS.sub("", text))
    assert found, "it asks for something"
    known: set[str] = set()
    for metric, matchers in found:
        assert metric in told or metric in recorded() or metric in OWN_SERIES, metric
        labels = labels_of(metric, told)
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert asked <= labels, f"{metric} has the labels {sorted(labels)}"
        known |= labels
    grouped = {label.strip() for part in WORDS.findall(text) for label in part.split(",")}
    assert grouped <= known, f"labels that no metric of it has: {sorted(grouped - known)}"


def test_a_wrong_name_or_label_would_be_found(told: Told) -> None:
    for text in (
        "kong_pdk_event_total > 0",
        'kong_pdk_events_total{plugins="a"}',
        "sum by (worker) (kong_pdk_events_total)",
        "plugin_phase:kong_pdk_events:rate1m",
    ):
        with pytest.raises(AssertionError):
            test_it_asks_for_what_is_told("", "", text, told)


def test_the_dashboard_shows_all_that_is_told(told: Told) -> None:
    text = " ".join(expression for _, expression in EXPRESSIONS["dashboard"])
    unseen = {name for name in told if not re.search(rf"\b{name}\b", text)}
    assert unseen == set()


def test_rules_are_used() -> None:
    used = " ".join(rule["expr"] for rule in alerts())
    shown = {name for name in recorded() if name not in used}
    # These are for people, who look at them over weeks.
    assert shown == {
        "plugin_phase:kong_pdk_pdk_calls:per_event5m",
        "plugin_phase:kong_pdk_event_duration_seconds:busy5m",
        "plugin_phase:kong_pdk_event_duration_seconds:p50_5m",
    }


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        for other in re.findall(r"KongPython\w+", str(rule["annotations"])):
            assert other in names, other


def test_alerts_find_the_jobs_of_the_recipes() -> None:
    (job,) = (one["job_name"] for one in load("prometheus/prometheus.yml")["scrape_configs"])
    monitor = load("kubernetes/prometheus/pod-monitor.yaml")["metadata"]["name"]
    for rule in alerts():
        for pattern in re.findall(r'job=~"([^"]*)"', rule["expr"]):
            assert re.fullmatch(pattern, job) and re.fullmatch(pattern, f"namespace/{monitor}")


# --- promtool -------------------------------------------------------------------------------------


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = tool("promtool", "apt-get install prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=100)


def test_promtool_takes_rules_and_configuration() -> None:
    done = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout
    assert f"{len(recorded())} rules found" in done.stdout


def test_promtool_understands_dashboard_and_adapter(tmp_path: Path) -> None:
    """As rules, for it looks at nothing else."""
    rules = []
    for kind in ("dashboard", "adapter"):
        for name, text in EXPRESSIONS[kind]:
            if not text.startswith("label_values("):
                text = text.replace("$__rate_interval", "5m")
                rules.append({"record": f"r{len(rules)}", "expr": text, "labels": {"of": name}})
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", str(PROMETHEUS / "tests.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_made_to_fire() -> None:
    fired = {
        sample["labels"].split('alertname="')[1].split('"')[0]
        for test in load("prometheus/tests.yml")["tests"]
        for one in test["promql_expr_test"]
        for sample in one["exp_samples"]
        if "ALERTS{" in sample["labels"]
    }
    assert fired == {rule["alert"] for rule in alerts()}


def test_the_tests_use_what_is_told(told: Told) -> None:
    for test in load("prometheus/tests.yml")["tests"]:
        for series in test["input_series"]:
            name, labels = re.fullmatch(r"(\w+)\{(.*)\}", series["series"]).groups()  # type: ignore
            asked = set(re.findall(r"(\w+)=", labels))
            assert asked <= labels_of(name, told), series["series"]


def test_the_readme_makes_a_resource_of_the_rules() -> None:
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    kubectl create .*?^    END$", readme, re.DOTALL | re.MULTILINE)
    script = re.sub("^    ", "", block, flags=re.MULTILINE)
    script = re.sub(r"kubectl create .* -f -", "cat", script)
    done = subprocess.run(
        ["/bin/sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    made = yaml.safe_load(done.stdout)
    assert made["kind"] == "PrometheusRule"
    both = (load("prometheus/rules.yml"), load("prometheus/alerts.yml"))
    assert made["spec"]["groups"] == [group for one in both for group in one["groups"]]


# --- the dashboard --------------------------------------------------------------------------------


def test_panels_have_their_places() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert all(panel["type"] == "row" or panel["description"] for panel in panels())


def test_the_dashboards_variables_are_there() -> None:
    dashboard = load("grafana/dashboard.json")
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - {"__rate_interval", "__all"}
    assert used == defined
    sources = {value for path, value in leaves(dashboard) if path.endswith("datasource.uid")}
    assert sources == {"${datasource}"}
