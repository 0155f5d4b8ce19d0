"""Kong's chart with our values, as Helm renders it.

The chart is not part of this repository. With ``KONG_PDK_TEST_CHART=/path/to/charts/kong`` these
run, where there is ``helm`` or, from PyPI, ``helm-python-sdk``; they are skipped otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from typing import Any

import pytest
import yaml
from recipes import CHART_CONTAINER, CHART_PORTS, CHART_PREFIX, DEPLOY, ROOT, helm_pod

CHART = os.environ.get("KONG_PDK_TEST_CHART", "")
VALUES = DEPLOY / "helm" / "values.yaml"

pytestmark = pytest.mark.skipif(not CHART, reason="KONG_PDK_TEST_CHART names no chart")


def render(values: str) -> str:
    """All manifests of the chart."""
    if shutil.which("helm"):
        command = ["helm", "template", "kong", CHART, "-n", "kong", "-f", "-"]
        done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
    sdk = pytest.importorskip("helm_python", reason="no helm: pip install helm-python-sdk")
    made = sdk.Chart.load(CHART).render(yaml.safe_load(values), name="kong", namespace="kong")
    return "\n---\n".join(text for name, text in made.items() if name.endswith(".yaml"))


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """What the chart makes."""
    return [one for one in yaml.safe_load_all(render(VALUES.read_text("utf-8"))) if one]


def find(kind: str, rendered: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one for one in rendered if one["kind"] == kind]
    return found


def validate(resources: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        validator = pytest.importorskip("kubernetes_validate").validate
    for one in resources:
        validator(one, "1.33", strict=True)


def test_the_guides_values_make_pods() -> None:
    text = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(# values.yaml.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        made = [one for one in yaml.safe_load_all(render(block)) if one]
        validate([one for one in made if one["kind"] != "CustomResourceDefinition"])
        pod = find("Deployment", made)["spec"]["template"]["spec"]
        (kong,) = [one for one in pod["containers"] if one["name"] == CHART_CONTAINER]
        environment = {one["name"]: one.get("value") for one in kong["env"]}
        assert environment["KONG_PLUGINS"] == "bundled,greeter"
        assert "KONG_PLUGINSERVER_GREETER_QUERY_CMD" in environment


def test_kubernetes_takes_all_of_it(rendered: list[dict[str, Any]]) -> None:
    validate(rendered)
    kinds = {one["kind"] for one in rendered}
    assert kinds >= {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
    }
    assert [one["spec"]["type"] for one in rendered if one["kind"] == "Service"] == ["LoadBalancer"]


def test_the_chart_does_what_the_other_tests_take_for_granted(
    rendered: list[dict[str, Any]],
) -> None:
    pod = find("Deployment", rendered)["spec"]["template"]["spec"]
    (kong,) = pod["containers"]
    assert kong["name"] == CHART_CONTAINER
    assert {one["name"]: one["containerPort"] for one in kong["ports"]} == CHART_PORTS
    environment = {one["name"]: one.get("value") for one in kong["env"]}
    assert environment["KONG_PREFIX"] == CHART_PREFIX
    ours = helm_pod()
    assert {**environment, **ours.env} == environment
    assert kong["resources"] == ours.kong["resources"]
    for mount in ours.kong["volumeMounts"]:
        assert mount in kong["volumeMounts"]
    for volume in ours.spec["volumes"]:
        assert volume in pod["volumes"]
    # Ours are the last ones, as they are.
    initial = ours.spec["initContainers"]
    assert pod["initContainers"][-len(initial) :] == initial
    assert pod["securityContext"]["fsGroup"] == ours.spec["securityContext"]["fsGroup"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] == ours.spec["terminationGracePeriodSeconds"]


def test_what_selects_the_pods_meets_their_labels(rendered: list[dict[str, Any]]) -> None:
    deployment = find("Deployment", rendered)["spec"]["template"]
    labels = deployment["metadata"]["labels"].items()
    (spread,) = deployment["spec"]["topologySpreadConstraints"]
    policy = find("NetworkPolicy", rendered)["spec"]["podSelector"]
    budget = find("PodDisruptionBudget", rendered)["spec"]["selector"]
    for selector in (spread["labelSelector"], policy, budget):
        assert selector["matchLabels"].items() <= labels
