"""Loads manifests, validates them against Kubernetes' schemas and further rules, and finds their pods."""
import re
from dataclasses import dataclass, field
from decimal import Decimal

import kubernetes_validate
import yaml

from context import CheckFailed, require

# The oldest version with native sidecars, and the newest version with schemas.
VERSIONS = ("1.29", kubernetes_validate.latest_version())

# Where each kind contains its pod template.
TEMPLATES = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}

# Values that the API accepts where the schemas only require a string, by the key and its parent, without list indices.
CHOICES = {
    "containers.imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "initContainers.imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "initContainers.restartPolicy": {"Always"},
    "spec.restartPolicy": {"Always", "OnFailure", "Never"},
    "spec.type": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
    "spec.sessionAffinity": {"None", "ClientIP"},
    "spec.policyTypes": {"Ingress", "Egress"},
    "spec.podManagementPolicy": {"OrderedReady", "Parallel"},
    "spec.accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "spec.dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
    "ports.protocol": {"TCP", "UDP", "SCTP"},
    "httpGet.scheme": {"HTTP", "HTTPS"},
    "securityContext.fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "seccompProfile.type": {"RuntimeDefault", "Localhost", "Unconfined"},
    "updateStrategy.type": {"RollingUpdate", "OnDelete"},
    "strategy.type": {"RollingUpdate", "Recreate"},
    "persistentVolumeClaimRetentionPolicy.whenDeleted": {"Retain", "Delete"},
    "persistentVolumeClaimRetentionPolicy.whenScaled": {"Retain", "Delete"},
    "matchExpressions.operator": {"In", "NotIn", "Exists", "DoesNotExist"},
}

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9](-?[a-z0-9])*")
QUANTITY = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)([KMGTPE]i|[kMGTPE])?B?")
TIME = re.compile(r"(\d+)(ms|s|m|h)")
INTERVAL = re.compile(r"\d+(ms|s|m|h)")


class UniqueKeyLoader(yaml.CSafeLoader):
    """Rejects duplicate keys, like YAML and the API's strict decoding. PyYAML would use the last one."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise CheckFailed(f"duplicate key {key} in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Pod:
    """A pod or pod template, and the manifest that owns it."""

    owner: dict
    labels: dict
    annotations: dict
    spec: dict
    # The claims that a StatefulSet creates for each pod: names, and sizes in bytes.
    claims: dict = field(default_factory=dict)

    @property
    def name(self):
        return name(self.owner)


def name(document):
    return f"{document['kind']} {document['metadata']['name']}"


def load(text):
    """The documents of a YAML text, without empty ones."""
    try:
        return [document for document in yaml.load_all(text, Loader=UniqueKeyLoader) if document]
    except yaml.YAMLError as error:
        raise CheckFailed(f"invalid YAML: {error}") from error


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def pods(documents):
    """The pods and pod templates in these manifests."""
    return [_pod(document) for document in of_kind(documents, *TEMPLATES)]


def _pod(owner):
    template = owner
    for key in TEMPLATES[owner["kind"]]:
        template = template[key]
    claims = owner["spec"].get("volumeClaimTemplates", []) if owner["kind"] == "StatefulSet" else []
    metadata = template.get("metadata", {})
    return Pod(
        owner=owner,
        labels=metadata.get("labels", {}),
        annotations=metadata.get("annotations", {}),
        spec=template["spec"],
        claims={claim["metadata"]["name"]: claim_size(claim) for claim in claims},
    )


def claim_size(claim):
    return size(claim["spec"]["resources"]["requests"]["storage"])


def size(text):
    """A size in bytes, from the notation of Kubernetes (2Gi, 1.5T, 2e9) or Cairn (2GiB)."""
    match = QUANTITY.fullmatch(str(text))
    require(match, f"{text} is not a size")
    number, unit = Decimal(match[1]), match[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    return int(number * base ** ("_KMGTPE".index(unit[0].upper()) if unit else 0))


def seconds(text):
    """A time in seconds, from Cairn's notation: 20s, or 1m 30s."""
    parts = TIME.findall(text)
    require(parts and "".join(map("".join, parts)) == text.replace(" ", ""), f"{text} is not a time such as 20s")
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def check(documents):
    """An API server of each of VERSIONS would accept all manifests."""
    require(documents, "there are no manifests")
    names = [name(document) for document in documents]
    for document in documents:
        require(names.count(name(document)) == 1, f"{name(document)} exists twice")
        _check_names(document)
        _check_choices(document, document, "")
        if document["kind"] in CUSTOM:
            CUSTOM[document["kind"]](document)
        else:
            _check_schemas(document)


def _check_schemas(document):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            raise CheckFailed(f"{name(document)}: Kubernetes {version} has no {document['apiVersion']}") from error
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            raise CheckFailed(f"{name(document)}: Kubernetes {version} rejects {path}: {error.message}") from error


def _check_names(document):
    """Labels and DNS names have a smaller maximum length and character set than the schemas permit."""
    metadata = document["metadata"]
    require(NAME.fullmatch(metadata["name"]), f"{name(document)}: the name is invalid")
    longest = 63 if document["kind"] == "Service" else 253
    require(len(metadata["name"]) <= longest, f"{name(document)}: the name is longer than {longest} characters")
    # The pods of a StatefulSet have a label that consists of its name and a hash of eleven characters.
    is_short = document["kind"] != "StatefulSet" or len(metadata["name"]) <= 52
    require(is_short, f"{name(document)}: with its hash, the name is too long for a label")
    for key, value in _labels(document):
        is_label = isinstance(value, str) and len(value) <= 63 and LABEL.fullmatch(value)
        require(is_label, f"{name(document)}: label {key} has the invalid value {value!r}")
    for key, value in _under(document, "ports"):
        if key == "name":
            is_port = len(value) <= 15 and PORT_NAME.fullmatch(value)
            require(is_port, f"{name(document)}: {value} is not a valid name of a port")


def _labels(document):
    return [label for key in ("labels", "matchLabels", "selector") for label in _under(document, key)]


def _under(node, wanted, inside=""):
    """The keys and scalar values of all mappings below the key `wanted`, anywhere in the document."""
    if isinstance(node, list):
        for element in node:
            yield from _under(element, wanted, inside)
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, (dict, list)):
                yield from _under(value, wanted, key)
            elif inside == wanted:
                yield key, value


def _check_choices(document, node, inside):
    if isinstance(node, dict):
        for key, value in node.items():
            for chosen in value if isinstance(value, list) else [value]:
                choices = CHOICES.get(f"{inside}.{key}")
                require(
                    choices is None or chosen in choices,
                    f"{name(document)}: {inside}.{key} has the invalid value {chosen!r}",
                )
                _check_choices(document, chosen, key)


def _only(document, where, node, needed, allowed=()):
    """A mapping has all of the required keys, and no others except the allowed ones."""
    require(isinstance(node, dict), f"{name(document)}: {where} is not a mapping")
    missing, unknown = set(needed) - set(node), set(node) - set(needed) - set(allowed)
    require(not missing, f"{name(document)}: {where} has no {', '.join(sorted(missing))}")
    require(not unknown, f"{name(document)}: {where} has the unknown {', '.join(sorted(unknown))}")


def _check_monitoring(document):
    require(
        document["apiVersion"] == "monitoring.coreos.com/v1",
        f"{name(document)}: apiVersion {document['apiVersion']}",
    )
    _only(document, "the manifest", document, ("apiVersion", "kind", "metadata", "spec"))


def _check_pod_monitor(document):
    """The fields of the Prometheus Operator that the files here may use."""
    _check_monitoring(document)
    spec = document["spec"]
    _only(document, "spec", spec, ("selector", "podMetricsEndpoints"), ("namespaceSelector", "jobLabel"))
    _only(document, "spec.selector", spec["selector"], (), ("matchLabels", "matchExpressions"))
    require(spec["selector"], f"{name(document)}: the selector is empty and matches every pod")
    for endpoint in spec["podMetricsEndpoints"]:
        optional = ("scrapeTimeout", "honorLabels", "relabelings", "metricRelabelings")
        _only(document, "an endpoint", endpoint, ("port", "path", "interval"), optional)
        require(
            INTERVAL.fullmatch(endpoint["interval"]),
            f"{name(document)}: {endpoint['interval']} is not an interval",
        )


def _check_prometheus_rule(document):
    _check_monitoring(document)
    _only(document, "spec", document["spec"], ("groups",))
    for group in document["spec"]["groups"]:
        _only(document, "a group", group, ("name", "rules"), ("interval", "limit"))
        for rule in group["rules"]:
            is_alert = "alert" in rule
            needed = ("alert", "expr", "annotations", "labels") if is_alert else ("record", "expr")
            _only(document, "a rule", rule, needed, ("for", "keep_firing_for") if is_alert else ("labels",))


def _check_http_route(document):
    """The fields of the Gateway API that the files here may use."""
    version = document["apiVersion"]
    require(version == "gateway.networking.k8s.io/v1", f"{name(document)}: apiVersion {version}")
    _only(document, "spec", document["spec"], ("parentRefs", "rules"), ("hostnames",))
    for rule in document["spec"]["rules"]:
        _only(document, "a rule", rule, ("backendRefs",), ("filters", "matches"))
        for backend in rule["backendRefs"]:
            _only(document, "a backend", backend, ("name", "port"))


CUSTOM = {
    "HTTPRoute": _check_http_route,
    "PodMonitor": _check_pod_monitor,
    "PrometheusRule": _check_prometheus_rule,
}
