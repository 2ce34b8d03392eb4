"""Whether what the values of a chart say is what the manifests have."""
import hashlib

import configurations
import manifests
from context import need

# Settings that are passed on as they are, and where to. A number is a place in a list.
PASSED_ON = {
    "replicas": ("StatefulSet", "spec.replicas"),
    "updateStrategy": ("StatefulSet", "spec.updateStrategy"),
    "persistentVolumeClaimRetentionPolicy": ("StatefulSet", "spec.persistentVolumeClaimRetentionPolicy"),
    "storage.accessModes": ("StatefulSet", "spec.volumeClaimTemplates.0.spec.accessModes"),
    "storage.storageClass": ("StatefulSet", "spec.volumeClaimTemplates.0.spec.storageClassName"),
    "terminationGracePeriodSeconds": ("StatefulSet", "spec.template.spec.terminationGracePeriodSeconds"),
    "podSecurityContext": ("StatefulSet", "spec.template.spec.securityContext"),
    "imagePullSecrets": ("StatefulSet", "spec.template.spec.imagePullSecrets"),
    "nodeSelector": ("StatefulSet", "spec.template.spec.nodeSelector"),
    "tolerations": ("StatefulSet", "spec.template.spec.tolerations"),
    "affinity": ("StatefulSet", "spec.template.spec.affinity"),
    "topologySpreadConstraints": ("StatefulSet", "spec.template.spec.topologySpreadConstraints"),
    "priorityClassName": ("StatefulSet", "spec.template.spec.priorityClassName"),
    "service.type": ("Service", "spec.type"),
    "service.port": ("Service", "spec.ports.0.port"),
    "service.annotations": ("Service", "metadata.annotations"),
    "networkPolicy.from": ("NetworkPolicy", "spec.ingress.0.from"),
    "networkPolicy.metricsFrom": ("NetworkPolicy", "spec.ingress.1.from"),
    "networkPolicy.egress.rules": ("NetworkPolicy", "spec.egress"),
    "podDisruptionBudget.maxUnavailable": ("PodDisruptionBudget", "spec.maxUnavailable"),
    "serviceAccount.annotations": ("ServiceAccount", "metadata.annotations"),
    "podMonitor.interval": ("PodMonitor", "spec.podMetricsEndpoints.0.interval"),
}


def merged(under, over):
    """As Helm does: mappings key by key, and null takes a key away."""
    result = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            value = merged(under[key], value)
        result[key] = value
    return {key: value for key, value in result.items() if value is not None}


def at(node, path):
    """What is at a path, or nothing."""
    for key in path.split("."):
        if isinstance(node, list):
            node = node[int(key)] if int(key) < len(node) else None
        else:
            node = node.get(key)
        if node is None:
            return None
    return node


def check_manifests(documents, settings):
    """Nothing is where a setting is empty. Of several of a kind, the first is meant."""
    for path, (kind, place) in PASSED_ON.items():
        for document in manifests.of_kind(documents, kind)[:1]:
            wanted, given = at(settings, path), at(document, place)
            is_same = given == wanted or not wanted and given is None
            need(is_same, f"{manifests.name(document)}: {place} is {given}, and {path} says {wanted}")


def check_cairn(cairn, settings, version):
    """What the values say of Cairn itself is what it is told."""
    given, size = cairn.setting("storage.max_bytes"), settings["storage"]["size"]
    cairn.need(manifests.size(given) == manifests.size(size), f"storage.max_bytes is {given}, and storage.size {size}")
    config = settings["config"]
    cairn.need(merged(cairn.config, config) == cairn.config, f"its configuration has not all of {config}")
    if prefix := settings.get("logOriginPrefix"):
        variables = configurations.environment(cairn.container)
        origin = f"{prefix.rstrip('/')}/{configurations.FIELDS['metadata.name']}"
        cairn.need(variables.get("CAIRN_LOG__ORIGIN") == origin, f"its log has to be called {origin}")
    _check_container(cairn, settings, version)
    if cairn.is_server:
        _check_server(cairn, settings)


def _check_container(cairn, settings, version):
    container = cairn.container
    _check_image(cairn, settings["image"], version)
    given = container["securityContext"]
    cairn.need(given == settings["securityContext"], "its securityContext is another than that of the values")
    resources = container["resources"]
    has_all = merged(resources, settings["resources"]) == resources
    cairn.need(has_all, "its resources are others than those of the values")
    # The pod of `helm test` would wait for them.
    claims = [volume["name"] for volume in settings.get("extraVolumes", []) if "persistentVolumeClaim" in volume]
    for key, place in (("extraEnv", "env"), ("extraVolumeMounts", "volumeMounts")):
        left_out = () if cairn.is_server else claims
        wanted = [element for element in settings[key] if element["name"] not in left_out]
        missing = [element for element in wanted if element not in container[place]]
        cairn.need(not missing, f"{place} has not {missing} of {key}")


def _check_server(cairn, settings):
    port = next(port for port in cairn.container["ports"] if port["name"] == "cairn-admin")
    cairn.need(port["containerPort"] == settings["adminPort"], f"adminPort is {settings['adminPort']}")
    probes = {key: probe for key, probe in cairn.container.items() if key.endswith("Probe")}
    wanted = {f"{kind}Probe": probe for kind, probe in settings["probes"].items()}
    cairn.need(probes == wanted, "its probes are others than those of the values")
    if not cairn.is_native:
        drain = cairn.container["lifecycle"]["preStop"]["exec"]["command"]
        wanted = settings.get("sidecar", settings)
        is_same = [drain[3], drain[5]] == [wanted["drainAfter"], wanted["drainWithin"]]
        cairn.need(is_same, f"{drain} has not drainAfter and drainWithin of the values")
    # So that new settings bring new pods. The last line of a ConfigMap's text has its end, the template's has not.
    checksum = hashlib.sha256(cairn.text.rstrip("\n").encode()).hexdigest()
    given = cairn.pod.annotations.get("checksum/cairn-config")
    cairn.need(given == checksum, f"checksum/cairn-config is {given}, and its configuration has {checksum}")


def _check_image(cairn, image, version):
    digest = f"@{image['digest']}" if image["digest"] else ""
    wanted = f"{image['repository']}:{image['tag'] or version}{digest}"
    cairn.need(cairn.container["image"] == wanted, f"its image has to be {wanted}, not {cairn.container['image']}")
    policy = cairn.container.get("imagePullPolicy")
    cairn.need(policy == image["pullPolicy"], f"imagePullPolicy is {policy}, not {image['pullPolicy']}")


def check_texts(values, rendered):
    """A setting that nothing reads would be one that a user believes in."""
    text = "\n".join(rendered.values())
    for path, value in _texts(values):
        if not path.endswith("storage.size"):
            need(value.rstrip("/") in text, f"nothing has the {value} of {path}")


def _texts(node, path=""):
    if isinstance(node, dict):
        return [text for key, value in node.items() for text in _texts(value, f"{path}.{key}".strip("."))]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value, path)]
    return [(path, node)] if isinstance(node, str) else []
