"""The Helm charts: what they make of the values here, and what they refuse."""
import json
import shutil

import cairn as cairns
import chart_files
import configurations
import helm
import manifests
import pods
import references
import settings_arrive
from context import Context, Wrong, need

VALUES = "deploy/check/values"
OLD, NATIVE, NEW = "v1.28.0", "v1.29.0", "v1.37.0"
# Values by which rules of pods.py are broken on purpose.
WAIVED = {
    # Rather an app without evidence than none.
    "example no-readiness.yaml": ("is_probed_for_readiness",),
    # OpenShift says the user and the group.
    "cairn openshift.yaml": ("runs_as_its_own_user", "reads_secrets_and_claims_by_group"),
}
# What brings a manifest into being, among the values of each chart. The others are always there.
SWITCHES = {
    "PodMonitor": "podMonitor.enabled",
    "PrometheusRule": "prometheusRule.enabled",
    "NetworkPolicy": "networkPolicy.enabled",
    "PodDisruptionBudget": "podDisruptionBudget.enabled",
    "ServiceAccount": "serviceAccount.create",
}
ALWAYS = {"example": {"Deployment", "ConfigMap", "Pod"}, "cairn": {"StatefulSet", "ConfigMap", "Service", "Pod"}}
# What the chart, and so its Service, is called by the names of releases: notes and READMEs say so.
FULL_NAMES = {
    "demo": "demo-cairn",
    "cairn": "cairn",
    "cairn-central": "cairn-central",
    "b" * 53: "b" * 46 + "-cairn",
}
# Other pods than that of the example, by what is replaced in it.
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
# Where the example has the app's own pod.
POD = "templates/_pod.tpl"
KEYS = {"secrets": {"apiKeys": {"name": "callers"}}}


def run(context: Context):
    folder = helm.prepare(context)
    chart_files.run(context, folder)
    for chart in ("example", "cairn"):
        files = sorted((context.repository / VALUES / chart).glob("*.yaml"))
        context.item("charts", f"{chart} values", _count, files)
        for file in files:
            context.item("charts", f"{chart} {file.name}", _check_values, context, folder / chart, file)
    context.item("charts", "cairn-lib lint", _check_lint, folder / "cairn-lib", {}, NATIVE)
    context.item("charts", "Kubernetes 1.28", _check_old_kubernetes, folder)
    for release, full_name in FULL_NAMES.items():
        context.item("charts", f"cairn as {release[:20]}", _check_full_name, folder / "cairn", release, full_name)
    for name, edit in OTHER_PODS.items():
        context.item("charts", f"a pod with {name}", _check_other_pod, folder / "example", edit)
    context.item("charts", "notes with TLS", _check_notes_with_tls, folder / "cairn")
    accepted = manifests.load((context.repository / VALUES / "accepted.yaml").read_text())[0]
    for number, case in enumerate(accepted, 1):
        context.item("charts", f"accepted {number} ({case['chart']})", _check_accepted, folder, case)
    refusals = manifests.load((context.repository / VALUES / "refused.yaml").read_text())[0]
    for number, refusal in enumerate(refusals, 1):
        context.item("charts", f"refused {number} ({refusal['chart']})", _check_refused, folder, refusal)


def _count(files):
    need(files, "there are no values to render with")
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
    need(found, "no pod has a Cairn")
    for cairn in found:
        pods.check(cairn, WAIVED.get(item, ()))
        configurations.check(context, cairn)
        settings_arrive.check_cairn(cairn, settings, context.version())
    _check_kinds(chart.name, documents, settings)
    settings_arrive.check_manifests(documents, settings)
    settings_arrive.check_texts(values, rendered)
    _check_watching(context, documents, settings)
    _check_lint(chart, values, NATIVE, NEW)
    return f"{len(documents)} manifests"


def _check_kinds(chart, documents, settings):
    switched = {kind for kind, path in SWITCHES.items() if settings_arrive.at(settings, path)}
    wanted, given = ALWAYS[chart] | switched, {document["kind"] for document in documents}
    need(given == wanted, f"there has to be {', '.join(sorted(wanted))}, and there is {', '.join(sorted(given))}")
    dashboards = len(_dashboards(documents))
    need(dashboards == settings["dashboard"]["enabled"], f"there are {dashboards} dashboards")
    for pod in manifests.of_kind(documents, "Pod"):
        hook = pod["metadata"].get("annotations", {}).get("helm.sh/hook")
        need(hook == "test", f"{manifests.name(pod)}: it has to be a hook of helm test, or each installation runs it")
    for document in documents:
        given = document["metadata"].get("namespace")
        need(given == helm.NAMESPACE, f"{manifests.name(document)}: its namespace is {given}, not the release's")


def _dashboards(documents):
    return [document for document in documents if "cairn.json" in document.get("data", {})]


def _check_watching(context, documents, settings):
    """Rules and dashboard are those of deploy/monitoring, and links lead to where the user can read the runbooks."""
    monitoring = context.repository / "deploy/monitoring"
    for rule in manifests.of_kind(documents, "PrometheusRule"):
        groups = manifests.load((monitoring / "alerts.yaml").read_text())[0]["groups"]
        base = settings["prometheusRule"]["runbookBase"].rstrip("/")
        for alert in (alert for group in groups for alert in group["rules"] if base and "alert" in alert):
            alert["annotations"]["runbook_url"] = f"{base}/{alert['annotations']['runbook_url']}"
        is_same = rule["spec"]["groups"] == groups
        need(is_same, f"{manifests.name(rule)}: not the groups of alerts.yaml, with {base!r} in front of links")
    for document in _dashboards(documents):
        dashboard = json.loads((monitoring / "dashboard.json").read_text())
        is_same = json.loads(document["data"]["cairn.json"]) == dashboard
        need(is_same, f"{manifests.name(document)}: not the dashboard of dashboard.json")
        label = document["metadata"]["labels"].get("grafana_dashboard")
        need(label == "1", f"{manifests.name(document)}: Grafana's sidecar looks for the label grafana_dashboard: 1")


def _check_lint(chart, values, *kube_versions):
    complaints = helm.lint(chart, values, *kube_versions)
    need(not complaints, f"helm lint, with Kubernetes {' or '.join(kube_versions)}: {'; '.join(complaints)}")
    return "no complaints"


def _check_old_kubernetes(folder):
    """Before 1.29 an init container that does not end keeps the app from starting for ever."""
    complaints = helm.lint(folder / "example", {}, OLD)
    is_refused = any("sidecar.native: write false" in complaint for complaint in complaints)
    need(is_refused, f"a native sidecar is not refused: {complaints}")
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
    need(wanted <= names, f"there is no {', '.join(sorted(wanted - names))}")
    notes = next(text for file, text in rendered.items() if file.endswith("NOTES.txt"))
    for said in (f"http://{full_name}.{helm.NAMESPACE}:7600", f"{full_name}-0", f"service/{full_name}"):
        need(said in notes, f"the notes do not name {said}")
    return f"{len(documents)} manifests"


def _check_notes_with_tls(chart):
    """The certificate is for the name of the Service, and not for the loopback that kubectl listens on."""
    rendered = helm.render(chart, {"secrets": {"apiKeys": {"name": "callers"}, "tls": {"name": "certificate"}}})
    notes = next(text for file, text in rendered.items() if file.endswith("NOTES.txt"))
    host = f"demo-cairn.{helm.NAMESPACE}"
    for said in (f"--resolve {host}:7600:127.0.0.1 https://{host}:7600/v1/events", "$KEY is a key of the Secret callers"):
        need(said in notes, f"the notes do not say {said}")
    return "name the host of the certificate"


def _check_accepted(folder, case):
    """What looks like something that is refused, and is not."""
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
        need(refusal["says"] in str(refused), f"it has to say {refusal['says']!r}, and says {str(refused)!r}")
        return refusal["says"].split(":")[0]
    raise Wrong(f"{refusal['values']} is not refused")


def _check_other_pod(chart, edit):
    documents = helm.documents(helm.render(_edited(chart, *edit), {}))
    manifests.check(documents)
    references.check(documents)
    for cairn in cairns.of(documents):
        pods.check(cairn)
    return f"{len(documents)} manifests"


def _edited(chart, before, after, file=POD):
    """A copy of a chart with another text in one of its files."""
    copy = chart.parent / "edited"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(chart, copy)
    text = (copy / file).read_text()
    need(before in text, f"{before!r} is not in {file}")
    (copy / file).write_text(text.replace(before, after))
    return copy
