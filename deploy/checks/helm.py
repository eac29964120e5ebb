"""Renders the chart as Helm does, and looks at the manifests: python3 helm.py CHART KUBERNETES_VERSION

Needs helm-python-sdk (Helm's own library) and kubernetes-validate (the schemas of Kubernetes), both of PyPI.
"""

import sys
from pathlib import Path

import kubernetes_validate
import yaml
from helm_python import Chart, chart

# Values that somebody might have: what has to be there, and what must not.
CASES = {
    "as it is": {},
    "keys, tokens and a monitor": {
        "existingConfigurationSecret": "edge",
        "keysSecret": "keys",
        "tokenSecret": "operator",
        "ports": {"http": 80, "https": 443, "admin": 9901},
        "serviceMonitor": {"enabled": True, "tokenSecret": "prometheus", "labels": {"release": "kps"}},
        "nodeSelector": {"littoral": "yes"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "podLabels": {"pop": "fra"},
        "podAnnotations": {"who": "us"},
        "priorityClassName": "system-node-critical",
        "image": {"repository": "registry.example.net/littoral", "tag": "1", "pullSecrets": [{"name": "registry"}]},
    },
    "volumes": {
        "storage": {"hostPath": "", "cacheVolume": {"emptyDir": {"sizeLimit": "20Gi"}}, "dataVolume": {"emptyDir": {}}}
    },
}
REFUSED = {
    "a key that is not there": {"imageTag": "1"},
    "a port that is none": {"ports": {"http": 70000}},
    "nowhere to store": {"storage": {"hostPath": ""}},
}


def rendered(path, values):
    texts = Chart.load(path).render(values, name="edge", namespace="cdn")
    manifests = [text for name, text in texts.items() if name.endswith(".yaml")]
    documents = [document for text in manifests for document in yaml.safe_load_all(text) if document]
    return {document["kind"]: document for document in documents}


def look(case, kinds, version):
    for kind, document in kinds.items():
        if kind != "ServiceMonitor":  # not one of Kubernetes's own
            kubernetes_validate.validate(document, version, strict=True)
    pod = kinds["DaemonSet"]["spec"]["template"]["spec"]
    node = pod["containers"][0]
    assert pod["hostNetwork"] and pod["securityContext"]["runAsNonRoot"], case
    assert node["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, case
    assert node["livenessProbe"]["httpGet"]["path"] == "/livez", case
    assert node["readinessProbe"]["httpGet"]["path"] == "/readyz", case
    assert node["lifecycle"]["preStop"]["exec"]["command"][:2] == ["/usr/bin/littoral", "drain"], case
    # Behind drain_grace and drain_timeout, which are 40 s together.
    assert pod["terminationGracePeriodSeconds"] > 40, case
    assert kinds["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1, case
    names = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"] + pod["initContainers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= names, case
    secrets = {volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}
    assert ("ConfigMap" in kinds) == ("edge" not in secrets), case


def main(path, version):
    report = chart.lint(path, CASES["as it is"], strict=True)
    # Severity 1 is information, such as an icon that is not there.
    worse = [message for message in report["messages"] if message["severity"] > 1]
    assert not worse and not report["errors"], (worse, report["errors"])
    for case, values in CASES.items():
        kinds = rendered(path, values)
        look(case, kinds, version)
        if case == "as it is" and len(sys.argv) > 3:
            Path(sys.argv[3]).write_text(kinds["ConfigMap"]["data"]["edge.toml"])
        if case == "keys, tokens and a monitor":
            assert kinds["ServiceMonitor"]["spec"]["endpoints"][0]["authorization"]["credentials"]["name"] == "prometheus"
            assert kinds["DaemonSet"]["spec"]["template"]["metadata"]["labels"]["pop"] == "fra"
    for case, values in REFUSED.items():
        try:
            loaded = Chart.load(path)
            loaded.validate_schema(values)
            loaded.render(values, name="edge", namespace="cdn")
        except Exception:
            continue
        raise AssertionError(f"{case}: it is not refused")


main(sys.argv[1], sys.argv[2])
