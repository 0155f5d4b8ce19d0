"""Kubernetes manifests and Helm values: valid for Kubernetes, and both say the same of the pod."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from typing import Any

import pytest
import yaml
from recipes import (
    CHART_KEYS,
    DEPLOY,
    PODS,
    image_environment,
    leaves,
    load,
    load_all,
    missing,
    read_dockerfile,
)

BASE, MONITORED = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "prometheus"
SOCKET = "/run/kong-python/python_pluginserver.sock"


@pytest.fixture(params=PODS)
def pod(request: pytest.FixtureRequest) -> Any:
    """The pod of each recipe."""
    return PODS[request.param]()


def resources() -> list[dict[str, Any]]:
    """What the manifests hold, and what our values make of the chart."""
    found = []
    for path in sorted([*BASE.glob("*.yaml"), *MONITORED.glob("*.yaml")]):
        found += [one for one in load_all(path) if isinstance(one, dict) and "kind" in one]
    scaling = load("helm/values.yaml")["autoscaling"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "kong"}
    found.append({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "helm"},
        "spec": {
            "scaleTargetRef": target,
            **{key: scaling[key] for key in ("minReplicas", "maxReplicas", "metrics")},
        },
    })  # fmt: skip
    found += load("helm/values.yaml")["extraObjects"]
    found.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helm"},
                  "spec": PODS["helm"]().spec})  # fmt: skip
    return found


#: Kinds that Kubernetes itself does not know.
NOT_KUBERNETES = ("kustomize.config.k8s.io", "monitoring.coreos.com")


#: The oldest with sidecars, and one of today.
@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_kubernetes_takes_the_resources(version: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            import kubernetes_validate
    except ImportError:
        missing("kubernetes-validate: pip install -r tests/deploy/requirements.txt")
    checked = []
    for resource in resources():
        if resource["apiVersion"].split("/")[0] in NOT_KUBERNETES:
            continue
        kubernetes_validate.validate(resource, version, strict=True)
        checked.append(resource["kind"])
    assert sorted(checked) == [
        "Deployment", "HorizontalPodAutoscaler", "HorizontalPodAutoscaler", "Namespace",
        "NetworkPolicy", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service",
    ]  # fmt: skip


def test_kustomize_builds_them() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(MONITORED)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    made = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert made.keys() >= {"Deployment", "ConfigMap", "PodMonitor", "HorizontalPodAutoscaler"}
    metrics = made["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert [one["type"] for one in metrics] == ["ContainerResource"] * 2 + ["Pods"] * 2
    (kong,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert kong["image"] == "kong:3.9"


@pytest.mark.parametrize("folder", [BASE, MONITORED], ids=["base", "prometheus"])
def test_a_kustomization_names_all_files_of_its_folder(folder: Any) -> None:
    (made,) = load_all(folder / "kustomization.yaml")
    named = {*made["resources"], *(one["path"] for one in made.get("patches", ()))}
    named |= {file for one in made.get("configMapGenerator", ()) for file in one["files"]}
    assert {path.name for path in folder.iterdir()} - {"kustomization.yaml"} == named - {"../base"}


# --- the pod --------------------------------------------------------------------------------------


def test_the_sockets_are_not_where_kong_deletes_them(pod: Any) -> None:
    socket, prefix = pod.env["KONG_PLUGINSERVER_GREETING_SOCKET"], pod.env["KONG_PREFIX"]
    assert socket == SOCKET
    assert not socket.startswith(prefix.rstrip("/") + "/")
    server = pod.container("plugins")
    assert "--kong-prefix=/run/kong-python" in server["args"]


def test_kong_does_not_start_the_server_and_asks_for_what_is_written(pod: Any) -> None:
    assert not [name for name in pod.env if name.endswith("_START_CMD")]
    query = pod.env["KONG_PLUGINSERVER_GREETING_QUERY_CMD"]
    script = pod.container("describe-plugins")["command"][-1]
    assert script.endswith(f"> {query.split()[-1]}")
    order = [one["name"] for one in pod.spec["initContainers"]]
    assert order == ["describe-plugins", "plugins"]
    assert "restartPolicy" not in pod.container("describe-plugins")
    assert pod.container("plugins")["restartPolicy"] == "Always"
    assert pod.container("plugins")["image"] == pod.container("describe-plugins")["image"]


def test_only_the_groups_members_reach_the_sockets(pod: Any) -> None:
    arguments = pod.container("plugins")["args"]
    group = pod.spec["securityContext"]["fsGroup"]
    assert f"--socket-group={group}" in arguments and "--socket-mode=660" in arguments
    user, of_image = pod.container("plugins")["securityContext"], "10001:2000"
    assert dict(read_dockerfile("docker/Dockerfile.sidecar"))["USER"] == of_image
    assert user["runAsUser"] == int(of_image.split(":")[0])


def test_volumes_are_shared(pod: Any) -> None:
    volumes = {one["name"] for one in pod.spec["volumes"]}
    mounted = {}
    for container in [*pod.spec["initContainers"], pod.kong]:
        for mount in container["volumeMounts"]:
            assert mount["name"] in volumes
            mounted.setdefault(mount["mountPath"], []).append((container["name"], mount["name"]))
    assert len({volume for _, volume in mounted["/run/kong-python"]}) == 1
    assert len(mounted["/run/kong-python"]) == 3
    (kongs,) = (m for m in pod.kong["volumeMounts"] if m["mountPath"] == "/run/kong-python")
    assert kongs["readOnly"] is True


def test_what_our_containers_may_do(pod: Any) -> None:
    for container in pod.spec["initContainers"]:
        may = container["securityContext"]
        assert may["readOnlyRootFilesystem"] is True
        assert may["allowPrivilegeEscalation"] is False
        assert may["capabilities"] == {"drop": ["ALL"]}
    for container in [*pod.spec["initContainers"], pod.kong]:
        for kind in ("requests", "limits"):
            assert container["resources"][kind].keys() == {"cpu", "memory"}


def test_probes_ask_the_servers_socket_and_have_the_time(pod: Any) -> None:
    server = pod.container("plugins")
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = server[name]["exec"]["command"]
        assert f"--socket={SOCKET}" in command
        (limit,) = (float(word.split("=")[1]) for word in command if word.startswith("--timeout="))
        assert limit < server[name]["timeoutSeconds"]


def test_workers_are_as_many_as_the_cores_that_it_may_use(pod: Any) -> None:
    server = pod.container("plugins")
    assert f"--workers={server['resources']['limits']['cpu']}" in server["args"]


def test_the_container_has_room_while_a_worker_is_replaced(pod: Any) -> None:
    server = pod.container("plugins")
    numbers = dict(one[2:].split("=") for one in server["args"] if one.startswith("--worker"))
    workers, most = int(numbers["workers"]), int(numbers["worker-memory"])
    limit = server["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    assert (workers + 1) * most + 40 < 0.8 * int(limit[:-2])


def test_the_metrics_port_is_the_servers(pod: Any) -> None:
    (port,) = pod.container("plugins")["ports"]
    assert f"--metrics=0.0.0.0:{port['containerPort']}" in pod.container("plugins")["args"]
    (endpoint,) = load("kubernetes/prometheus/pod-monitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]


def test_both_recipes_run_the_same_server() -> None:
    one, other = (make().container("plugins") for make in PODS.values())
    for key in ("args", "ports", "startupProbe", "readinessProbe", "livenessProbe", "resources"):
        assert one[key] == other[key], key


def test_kong_ends_within_its_time() -> None:
    pod = PODS["kubernetes"]()
    command = pod.kong["lifecycle"]["preStop"]["exec"]["command"]
    seconds = sum(int(word.split("=")[1]) for word in command if "=" in word)
    assert seconds < pod.spec["terminationGracePeriodSeconds"]


# --- what is around it ----------------------------------------------------------------------------


def test_selectors_meet_the_pods_labels() -> None:
    deployment = load("kubernetes/base/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = load("kubernetes/base/disruption-budget.yaml")
    monitor = load("kubernetes/prometheus/pod-monitor.yaml")
    assert load("kubernetes/base/service.yaml")["spec"]["selector"] == labels
    policy = load("kubernetes/base/network-policy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    for resource in (deployment, budget, monitor):
        assert resource["spec"]["selector"]["matchLabels"] == labels
    target = load("kubernetes/base/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # they are the autoscaler's


@pytest.mark.parametrize("recipe", PODS)
def test_who_may_connect_to_which_port(recipe: str) -> None:
    pod = PODS[recipe]()
    policy = load("kubernetes/base/network-policy.yaml")["spec"]
    if recipe == "helm":
        (made,) = load("helm/values.yaml")["extraObjects"]
        assert made["spec"]["ingress"] == policy["ingress"]
        labels = made["spec"]["podSelector"]["matchLabels"]
        spread = load("helm/values.yaml")["topologySpreadConstraints"][0]["labelSelector"]
        assert labels == spread["matchLabels"]
    both = (pod.kong, pod.container("plugins"))
    ports = {one["name"]: one["containerPort"] for each in both for one in each["ports"]}
    everybody, some = policy["ingress"]
    assert "from" not in everybody and some["from"]
    opened = [{port["port"] for port in one["ports"]} for one in (everybody, some)]
    assert opened == [{ports["proxy"], ports["proxy-tls"]}, {ports["metrics"], ports["status"]}]


def test_the_service_leads_to_ports_of_kongs() -> None:
    ports = {one["name"] for one in PODS["kubernetes"]().kong["ports"]}
    for one in load("kubernetes/base/service.yaml")["spec"]["ports"]:
        assert one["targetPort"] in ports


@pytest.mark.parametrize("recipe", PODS)
def test_the_autoscaler_knows_the_containers(recipe: str) -> None:
    scaler = (
        load("kubernetes/base/autoscaler.yaml")["spec"]
        if recipe == "kubernetes"
        else load("helm/values.yaml")["autoscaling"]
    )
    pod = PODS[recipe]()
    scaled = [one["containerResource"]["container"] for one in scaler["metrics"]]
    assert scaled == ["plugins", pod.kong["name"]]
    assert scaler["minReplicas"] > 1  # the chart refuses its disruption budget otherwise


def test_the_adapter_makes_the_metrics_that_the_autoscaler_wants() -> None:
    patches = load("kubernetes/prometheus/autoscaler.yaml")
    rules = load("prometheus/adapter-values.yml")["rules"]["custom"]
    wanted = {one["value"]["pods"]["metric"]["name"] for one in patches}
    assert {one["name"]["as"] for one in rules} == wanted


def test_the_chart_knows_our_values() -> None:
    used = {path for path, _ in leaves(load("helm/values.yaml"))}
    patterns = [re.escape(key).replace(r"\*", ".+") for key in CHART_KEYS]
    assert {path for path in used if not any(re.fullmatch(one, path) for one in patterns)} == set()


def test_what_the_chart_sets_itself_is_left_to_it() -> None:
    env = load("helm/values.yaml")["env"]
    assert not [key for key in env if key.endswith("_listen") or key == "prefix"]
    assert env["plugins"] == image_environment("docker/Dockerfile.ubuntu")["KONG_PLUGINS"]
