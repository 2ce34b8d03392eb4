"""Checks that the settings in the values of a chart are in the rendered manifests."""
import hashlib

import configurations
import manifests
from context import require

# Settings that are copied into a manifest unchanged: its kind, and the path in it. A number is an index of a list.
COPIED = {
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
    "runtimeClassName": ("StatefulSet", "spec.template.spec.runtimeClassName"),
    "schedulerName": ("StatefulSet", "spec.template.spec.schedulerName"),
    "hostAliases": ("StatefulSet", "spec.template.spec.hostAliases"),
    "dnsPolicy": ("StatefulSet", "spec.template.spec.dnsPolicy"),
    "dnsConfig": ("StatefulSet", "spec.template.spec.dnsConfig"),
    "initContainers": ("StatefulSet", "spec.template.spec.initContainers"),
    "storage.annotations": ("StatefulSet", "spec.volumeClaimTemplates.0.metadata.annotations"),
    "ingress.tls": ("Ingress", "spec.tls"),
    "ingress.className": ("Ingress", "spec.ingressClassName"),
    "httpRoute.parentRefs": ("HTTPRoute", "spec.parentRefs"),
    "httpRoute.hostnames": ("HTTPRoute", "spec.hostnames"),
    "httpRoute.filters": ("HTTPRoute", "spec.rules.0.filters"),
    "podMonitor.scrapeTimeout": ("PodMonitor", "spec.podMetricsEndpoints.0.scrapeTimeout"),
    "podMonitor.relabelings": ("PodMonitor", "spec.podMetricsEndpoints.0.relabelings"),
    "podMonitor.metricRelabelings": ("PodMonitor", "spec.podMetricsEndpoints.0.metricRelabelings"),
    "networkPolicy.from": ("NetworkPolicy", "spec.ingress.0.from"),
    "networkPolicy.metricsFrom": ("NetworkPolicy", "spec.ingress.1.from"),
    "networkPolicy.egress.rules": ("NetworkPolicy", "spec.egress"),
    "podDisruptionBudget.maxUnavailable": ("PodDisruptionBudget", "spec.maxUnavailable"),
    "podMonitor.interval": ("PodMonitor", "spec.podMetricsEndpoints.0.interval"),
}


def merged(under, over):
    """Merges values as Helm does: mappings key by key, and null removes a key."""
    result = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            value = merged(under[key], value)
        result[key] = value
    return {key: value for key, value in result.items() if value is not None}


def at(node, path):
    """The value at a path, or None."""
    for key in path.split("."):
        if isinstance(node, list):
            node = node[int(key)] if int(key) < len(node) else None
        else:
            node = node.get(key)
        if node is None:
            return None
    return node


# Settings that are merged into a mapping of a manifest.
MERGED = {
    "podSpec": ("StatefulSet", "spec.template.spec"),
    "podLabels": ("StatefulSet", "spec.template.metadata.labels"),
    "podAnnotations": ("StatefulSet", "spec.template.metadata.annotations"),
    "storage.labels": ("StatefulSet", "spec.volumeClaimTemplates.0.metadata.labels"),
    "service.spec": ("Service", "spec"),
    "service.labels": ("Service", "metadata.labels"),
    "service.annotations": ("Service", "metadata.annotations"),
    "serviceAccount.annotations": ("ServiceAccount", "metadata.annotations"),
    "ingress.annotations": ("Ingress", "metadata.annotations"),
    "httpRoute.annotations": ("HTTPRoute", "metadata.annotations"),
    "podMonitor.labels": ("PodMonitor", "metadata.labels"),
    "podMonitor.annotations": ("PodMonitor", "metadata.annotations"),
    "podMonitor.endpoint": ("PodMonitor", "spec.podMetricsEndpoints.0"),
    "podMonitor.spec": ("PodMonitor", "spec"),
    "prometheusRule.labels": ("PrometheusRule", "metadata.labels"),
}


def check_manifests(documents, settings):
    """Copied settings are in the first manifest of their kind, and absent there if they are empty; others are part of theirs."""
    for path, (kind, target) in MERGED.items():
        for document in manifests.of_kind(documents, kind)[:1]:
            wanted, given = at(settings, path) or {}, at(document, target) or {}
            has_all = merged(given, wanted) == given
            require(has_all, f"{manifests.name(document)}: {target} is {given}, without all of {path}: {wanted}")
    _check_common(documents, settings)
    for path, (kind, target) in COPIED.items():
        for document in manifests.of_kind(documents, kind)[:1]:
            wanted, given = at(settings, path), at(document, target)
            is_same = given == wanted or not wanted and given is None
            require(is_same, f"{manifests.name(document)}: {target} is {given}, but {path} is {wanted}")


def _check_common(documents, settings):
    """commonLabels and commonAnnotations are in every object of the chart; the labels of the chart stay."""
    for document in documents:
        metadata = document["metadata"]
        if document in settings.get("extraObjects", []) or not metadata.get("labels", {}).get("helm.sh/chart"):
            continue
        for setting, key in (("commonLabels", "labels"), ("commonAnnotations", "annotations")):
            wanted = {name: value for name, value in settings.get(setting, {}).items() if "kubernetes.io" not in name}
            given = metadata.get(key, {})
            require(merged(given, wanted) == given, f"{manifests.name(document)}: its {key} lack some of {wanted}")


def check_cairn(cairn, settings, version):
    """Cairn's configuration, environment and container have the settings of the values."""
    given, size = cairn.setting("storage.max_bytes"), settings["storage"]["size"]
    cairn.require(
        manifests.size(given) == manifests.size(size),
        f"storage.max_bytes is {given}, but storage.size is {size}",
    )
    config = settings["config"]
    cairn.require(merged(cairn.config, config) == cairn.config, f"its configuration does not contain all of {config}")
    if prefix := settings.get("logOriginPrefix"):
        variables = configurations.environment(cairn.container)
        origin = f"{prefix.rstrip('/')}/{configurations.FIELDS['metadata.name']}"
        cairn.require(variables.get("CAIRN_LOG__ORIGIN") == origin, f"the origin of its log must be {origin}")
    _check_container(cairn, settings, version)
    if cairn.is_server:
        _check_server(cairn, settings)


def _check_container(cairn, settings, version):
    container = cairn.container
    _check_image(cairn, settings["image"], version)
    given = container["securityContext"]
    cairn.require(given == settings["securityContext"], "its securityContext differs from the values")
    resources = container["resources"]
    has_all = merged(resources, settings["resources"]) == resources
    cairn.require(has_all, "its resources differ from the values")
    # The pod of `helm test` would wait for these claims.
    claims = [volume["name"] for volume in settings.get("extraVolumes", []) if "persistentVolumeClaim" in volume]
    given = container.get("envFrom", [])
    cairn.require(given == settings["envFrom"], f"envFrom is {given}, not {settings['envFrom']}")
    for key, target in (("extraEnv", "env"), ("extraVolumeMounts", "volumeMounts")):
        excluded = () if cairn.is_server else claims
        wanted = [element for element in settings[key] if element["name"] not in excluded]
        missing = [element for element in wanted if element not in container[target]]
        cairn.require(not missing, f"{target} lacks {missing} of {key}")


def _check_server(cairn, settings):
    port = next(port for port in cairn.container["ports"] if port["name"] == "cairn-admin")
    cairn.require(
        port["containerPort"] == settings["adminPort"],
        f"the port cairn-admin must be adminPort, {settings['adminPort']}",
    )
    probes = {key: probe for key, probe in cairn.container.items() if key.endswith("Probe")}
    wanted = {f"{kind}Probe": probe for kind, probe in settings["probes"].items()}
    cairn.require(probes == wanted, "its probes differ from the values")
    if not cairn.is_native:
        drain = cairn.container["lifecycle"]["preStop"]["exec"]["command"]
        wanted = settings.get("sidecar", settings)
        is_same = [drain[3], drain[5]] == [wanted["drainAfter"], wanted["drainWithin"]]
        cairn.require(is_same, f"{drain} does not have drainAfter and drainWithin of the values")
    # New settings must create new pods. The text of the ConfigMap ends with a newline, that of the template does not.
    checksum = hashlib.sha256(cairn.text.rstrip("\n").encode()).hexdigest()
    given = cairn.pod.annotations.get("checksum/cairn-config")
    cairn.require(given == checksum, f"checksum/cairn-config is {given}, but that of its configuration is {checksum}")


def _check_image(cairn, image, version):
    digest = f"@{image['digest']}" if image["digest"] else ""
    wanted = f"{image['repository']}:{image['tag'] or version}{digest}"
    cairn.require(cairn.container["image"] == wanted, f"its image must be {wanted}, not {cairn.container['image']}")
    policy = cairn.container.get("imagePullPolicy")
    cairn.require(policy == image["pullPolicy"], f"imagePullPolicy is {policy}, not {image['pullPolicy']}")


def check_texts(values, rendered):
    """Every text in the values occurs in the rendered manifests, so that no setting is ignored."""
    text = "\n".join(rendered.values())
    for path, value in _texts(values):
        # Quantities are converted, and templates are evaluated.
        if not path.endswith("storage.size") and "{{" not in value:
            require(value.rstrip("/") in text, f"no manifest contains {value} of {path}")


def _texts(node, path=""):
    if isinstance(node, dict):
        return [text for key, value in node.items() for text in _texts(value, f"{path}.{key}".strip("."))]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value, path)]
    return [(path, node)] if isinstance(node, str) else []
