"""Checks the Helm charts: the manifests that they render from values, and the values that they refuse."""
import json
import re
import shutil

import cairn as cairns
import chart_files
import configurations
import helm
import manifests
import pods
import references
import settings_arrive
from context import Context, CheckFailed, require

VALUES = "deploy/check/values"
OLD, NATIVE, NEW = "v1.28.0", "v1.29.0", "v1.37.0"
# Values that break rules of pods.py on purpose.
WAIVED = {
    # An app without evidence is preferred to no app.
    "example no-readiness.yaml": ("has_readiness_probe",),
    # OpenShift sets the user and the group.
    "cairn openshift.yaml": ("runs_as_dedicated_user", "has_group_for_secrets_and_claims"),
}
# The value that switches each kind of manifest on. All other kinds are always rendered.
SWITCHES = {
    "PodMonitor": "podMonitor.enabled",
    "PrometheusRule": "prometheusRule.enabled",
    "NetworkPolicy": "networkPolicy.enabled",
    "PodDisruptionBudget": "podDisruptionBudget.enabled",
    "ServiceAccount": "serviceAccount.create",
    "Ingress": "ingress.enabled",
    "HTTPRoute": "httpRoute.enabled",
}
ALWAYS = {"example": {"Deployment", "ConfigMap", "Pod"}, "cairn": {"StatefulSet", "ConfigMap", "Service", "Pod"}}
# The full name of the chart, and so of its Service, for each release name. Notes and documents use these names.
FULL_NAMES = {
    "demo": "demo-cairn",
    "cairn": "cairn",
    "cairn-central": "cairn-central",
    "b" * 53: "b" * 46 + "-cairn",
}
# Variants of the example's pod: the text that is replaced, and its replacement.
OTHER_PODS = {
    "init containers": (
        "  containers:\n",
        "  initContainers: [{name: first, image: my-agent:1.0, volumeMounts: [{name: own, mountPath: /own}]}]\n"
        "  volumes: [{name: own, emptyDir: {}}]\n"
        "  containers:\n",
    ),
    "no fsGroup": ("    fsGroup: 10001\n    fsGroupChangePolicy: OnRootMismatch\n", ""),
    "no grace period": ("  terminationGracePeriodSeconds: 55\n", ""),
}
# The file of the example that defines the app's own pod.
POD = "templates/_pod.tpl"
KEYS = {"secrets": {"apiKeys": {"name": "callers"}}}


def run(context: Context):
    folder = helm.prepare(context)
    chart_files.run(context, folder)
    for chart in ("example", "cairn"):
        files = sorted((context.repository / VALUES / chart).glob("*.yaml"))
        context.run_check("charts", f"{chart} values", _count, files)
        for file in files:
            context.run_check("charts", f"{chart} {file.name}", _check_values, context, folder / chart, file)
    context.run_check("charts", "cairn-lib lint", _check_lint, folder / "cairn-lib", {}, NATIVE)
    context.run_check("charts", "Kubernetes 1.28", _check_old_kubernetes, folder)
    for release, full_name in FULL_NAMES.items():
        context.run_check("charts", f"cairn as {release[:20]}", _check_full_name, folder / "cairn", release, full_name)
    for name, edit in OTHER_PODS.items():
        context.run_check("charts", f"a pod with {name}", _check_other_pod, folder / "example", edit)
    context.run_check("charts", "a new version of the chart alone", _check_chart_version, folder / "cairn")
    context.run_check("charts", "notes with TLS", _check_notes_with_tls, folder / "cairn")
    accepted = manifests.load((context.repository / VALUES / "accepted.yaml").read_text())[0]
    for number, case in enumerate(accepted, 1):
        context.run_check("charts", f"accepted {number} ({case['chart']})", _check_accepted, folder, case)
    refusals = manifests.load((context.repository / VALUES / "refused.yaml").read_text())[0]
    for number, refusal in enumerate(refusals, 1):
        context.run_check("charts", f"refused {number} ({refusal['chart']})", _check_refused, folder, refusal)


def _count(files):
    require(files, "there are no values files")
    return f"{len(files)} files"


def _check_values(context, chart, file):
    item = f"{chart.name} {file.name}"
    values = manifests.load(file.read_text())
    values = values[0] if values else {}
    rendered = helm.render(chart, values)
    documents = helm.documents(rendered)
    manifests.check(documents)
    references.check(documents)
    settings = settings_arrive.merged(manifests.load((chart / "values.yaml").read_text())[0], values)
    if chart.name == "example":
        library = manifests.load((chart / "charts/cairn-lib/values.yaml").read_text())[0]
        settings = settings_arrive.merged(library, settings["cairn"])
    found = cairns.of(documents)
    require(found, "no pod has a Cairn")
    for cairn in found:
        pods.check(cairn, WAIVED.get(item, ()))
        configurations.check(context, cairn)
        settings_arrive.check_cairn(cairn, settings, context.version())
    _check_kinds(chart.name, documents, settings)
    settings_arrive.check_manifests(documents, settings)
    settings_arrive.check_texts(values, rendered)
    _check_monitoring(context, documents, settings)
    _check_lint(chart, values, NATIVE, NEW)
    return f"{len(documents)} manifests"


def _check_kinds(chart, documents, settings):
    switched = {kind for kind, path in SWITCHES.items() if settings_arrive.at(settings, path)}
    # A text may contain templates, so it is no YAML yet.
    extra = [object if isinstance(object, str) else json.dumps(object) for object in settings.get("extraObjects", [])]
    switched |= {re.search(r"""kind"?: "?(\w+)""", text)[1] for text in extra}
    wanted, given = ALWAYS[chart] | switched, {document["kind"] for document in documents}
    require(given == wanted, f"the kinds must be {', '.join(sorted(wanted))}, not {', '.join(sorted(given))}")
    dashboards = len(_dashboards(documents))
    require(dashboards == settings["dashboard"]["enabled"], f"there are {dashboards} dashboards")
    for pod in manifests.of_kind(documents, "Pod"):
        hook = pod["metadata"].get("annotations", {}).get("helm.sh/hook")
        require(hook == "test", f"{manifests.name(pod)}: it must be a hook of helm test, or each installation runs it")
    for document in documents:
        given = document["metadata"].get("namespace")
        require(given == helm.NAMESPACE, f"{manifests.name(document)}: its namespace is {given}, not the release's")


def _dashboards(documents):
    return [document for document in documents if "cairn.json" in document.get("data", {})]


def _check_monitoring(context, documents, settings):
    """Rules and dashboard are those of deploy/monitoring, and links begin with the URL that the user sets."""
    monitoring = context.repository / "deploy/monitoring"
    for rule in manifests.of_kind(documents, "PrometheusRule"):
        groups = manifests.load((monitoring / "alerts.yaml").read_text())[0]["groups"]
        base = settings["prometheusRule"]["runbookBase"].rstrip("/")
        for alert in (alert for group in groups for alert in group["rules"] if base and "alert" in alert):
            alert["annotations"]["runbook_url"] = f"{base}/{alert['annotations']['runbook_url']}"
        is_same = rule["spec"]["groups"] == groups
        require(
            is_same,
            f"{manifests.name(rule)}: its groups are not those of alerts.yaml with {base!r} as the base of links",
        )
    for document in _dashboards(documents):
        dashboard = json.loads((monitoring / "dashboard.json").read_text())
        is_same = json.loads(document["data"]["cairn.json"]) == dashboard
        require(is_same, f"{manifests.name(document)}: the dashboard is not that of dashboard.json")
        label = document["metadata"]["labels"].get("grafana_dashboard")
        require(label == "1", f"{manifests.name(document)}: Grafana's sidecar selects the label grafana_dashboard: 1")


def _check_lint(chart, values, *kube_versions):
    complaints = helm.lint(chart, values, *kube_versions)
    require(not complaints, f"helm lint, with Kubernetes {' or '.join(kube_versions)}: {'; '.join(complaints)}")
    return "no complaints"


def _check_old_kubernetes(folder):
    """Before 1.29 an init container that does not end prevents the app from starting."""
    complaints = helm.lint(folder / "example", {}, OLD)
    is_refused = any("sidecar.native: set it to false" in complaint for complaint in complaints)
    require(is_refused, f"a native sidecar is not refused: {complaints}")
    _check_lint(folder / "example", {"cairn": {"sidecar": {"native": False}}}, OLD)
    _check_lint(folder / "cairn", KEYS, OLD)
    return "refuses native sidecars"


def _check_full_name(chart, release, full_name):
    rendered = helm.render(chart, KEYS, release)
    documents = helm.documents(rendered)
    manifests.check(documents)
    references.check(documents)
    names = {manifests.name(document) for document in documents}
    wanted = {f"StatefulSet {full_name}", f"Service {full_name}", f"Service {full_name}-headless"}
    require(wanted <= names, f"{', '.join(sorted(wanted - names))} is missing")
    notes = next(text for file, text in rendered.items() if file.endswith("NOTES.txt"))
    for text in (f"http://{full_name}.{helm.NAMESPACE}:7600", f"{full_name}-0", f"service/{full_name}"):
        require(text in notes, f"the notes do not contain {text}")
    return f"{len(documents)} manifests"


def _check_chart_version(chart):
    """A new version of the chart restarts no pod whose configuration and image stay."""
    def template(chart):
        (owner,) = manifests.of_kind(helm.documents(helm.render(chart, KEYS)), "StatefulSet")
        return owner["metadata"]["labels"]["helm.sh/chart"], owner["spec"]

    version = "\nversion: "
    before, after = template(chart), template(_edited(chart, version, f"{version}9", "Chart.yaml"))
    require(before[0] != after[0], f"the version of the chart is {before[0]} in both cases")
    require(before[1] == after[1], "the spec of the StatefulSet differs")
    return "the same pods"


def _check_notes_with_tls(chart):
    """The certificate is for the name of the Service, not for the loopback address that kubectl listens on."""
    rendered = helm.render(chart, {"secrets": {"apiKeys": {"name": "callers"}, "tls": {"name": "certificate"}}})
    notes = next(text for file, text in rendered.items() if file.endswith("NOTES.txt"))
    host = f"demo-cairn.{helm.NAMESPACE}"
    call = f"--resolve {host}:7600:127.0.0.1 https://{host}:7600/v1/events"
    for text in (call, "$KEY is a key of the Secret callers"):
        require(text in notes, f"the notes do not contain {text}")
    return "the notes use the host name of the certificate"


def _check_accepted(folder, case):
    """Values that resemble refused ones are accepted."""
    documents = helm.documents(helm.render(_chart(folder, case), case["values"]))
    manifests.check(documents)
    references.check(documents)
    return f"{len(documents)} manifests"


def _chart(folder, case):
    chart, edit = folder / case["chart"], case.get("edit")
    return _edited(chart, edit["from"], edit["to"], edit.get("file", POD)) if edit else chart


def _check_refused(folder, refusal):
    try:
        helm.render(_chart(folder, refusal), refusal["values"])
    except helm.Refused as refused:
        expected = refusal["message"]
        require(expected in str(refused), f"the message must contain {expected!r}, but is {str(refused)!r}")
        return expected.split(":")[0]
    raise CheckFailed(f"{refusal['values']} is not refused")


def _check_other_pod(chart, edit):
    documents = helm.documents(helm.render(_edited(chart, *edit), {}))
    manifests.check(documents)
    references.check(documents)
    for cairn in cairns.of(documents):
        pods.check(cairn)
    return f"{len(documents)} manifests"


def _edited(chart, before, after, file=POD):
    """A copy of a chart in which a text of one file is replaced."""
    copy = chart.parent / "edited"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(chart, copy)
    text = (copy / file).read_text()
    require(before in text, f"{before!r} is not in {file}")
    (copy / file).write_text(text.replace(before, after))
    return copy
