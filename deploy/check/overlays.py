"""What is rendered without Helm: kustomize, the examples to paste, and the compose file."""
import copy
import re
import shutil
import subprocess

import yaml

import cairn as cairns
import compose
import configurations
import helm
import manifests
import pods
import references
from context import Context, need

# The name of a ConfigMap that kustomize made ends with a hash of what is in it.
HASHED = re.compile(r".*-[a-z0-9]{10}")

# What the app of the examples has to end, in seconds.
APP = 30


def run(context: Context):
    sidecars = {}
    folder = context.temp / "kustomize"
    shutil.copytree(context.repository / "deploy/kustomize", folder)
    overlays = sorted(file.parent for file in folder.glob("overlays/*/kustomization.yaml"))
    components = sorted(file.parent for file in folder.glob("components/*/kustomization.yaml"))
    context.item("overlays", "kustomize base", _check_kustomize, context, folder / "base", sidecars)
    context.item("overlays", "kustomize/overlays", _count, overlays)
    for overlay in overlays:
        context.item("overlays", f"kustomize {overlay.name}", _check_kustomize, context, overlay, sidecars)
        for component in components:
            name = f"kustomize {overlay.name} with {component.name}"
            context.item("overlays", name, _check_component, context, overlay, component)
    context.item("overlays", "kustomize, a second app", _check_second_app, context, folder)
    examples = sorted((context.repository / "deploy/examples").glob("*.yaml"))
    context.item("overlays", "examples", _count, examples)
    for file in examples:
        context.item("overlays", f"examples/{file.name}", _check_example, context, file, sidecars)
    context.item("overlays", "one sidecar everywhere", _check_sidecars, context, sidecars)
    compose.run(context)


def _count(found):
    need(found, "there are none")
    return len(found)


def _check(context, documents, sidecars, item):
    manifests.check(documents)
    references.check(documents)
    _check_version_labels(documents, context.version())
    found = cairns.of(documents)
    for cairn in found:
        pods.check(cairn)
        wanted = f"cairn:{context.version()}"
        cairn.need(cairn.container["image"] == wanted, f"its image has to be {wanted}, not {cairn.container['image']}")
        configurations.check(context, cairn)
        if cairn.is_native:
            _check_time_of_app(cairn)
            sidecars[item] = _sidecar(documents)
    if not found:
        for document in manifests.of_kind(documents, "ConfigMap"):
            configurations.check_text(context, manifests.name(document), document["data"]["cairn.yaml"], {})
    return f"{len(documents)} manifests"


def _check_time_of_app(cairn):
    """A native sidecar has only what the app leaves of the pod's grace period."""
    needed = APP + manifests.seconds(cairn.setting("shutdown.grace", pods.GRACE)) + pods.SLACK
    given = cairn.pod.spec.get("terminationGracePeriodSeconds", 30)
    cairn.need(given >= needed, f"terminationGracePeriodSeconds is {given}, and with the app's {APP} s it needs {needed}")


def _check_version_labels(documents, version):
    for document in documents:
        given = document["metadata"].get("labels", {}).get("app.kubernetes.io/version", version)
        need(given == version, f"{manifests.name(document)}: its label says version {given}, not {version}")


def _check_kustomize(context, folder, sidecars):
    documents = _kustomize(context, folder)
    for document in manifests.of_kind(documents, "ConfigMap"):
        is_hashed = HASHED.fullmatch(document["metadata"]["name"])
        need(is_hashed, f"{manifests.name(document)}: without a hash in its name, new settings bring no new pods")
    if folder.parent.name == "overlays":
        need(cairns.of(documents), "no pod has a Cairn")
    return _check(context, documents, sidecars, f"overlays/{folder.name}")


def _kustomize(context, folder):
    run = subprocess.run([context.tools / "kubectl", "kustomize", folder], capture_output=True, text=True)
    need(run.returncode == 0, f"kubectl kustomize: {' '.join(run.stderr.split())}")
    need(not run.stderr, f"kubectl kustomize warns: {' '.join(run.stderr.split())}")
    return manifests.load(run.stdout)


def _check_component(context, overlay, component):
    """An overlay with the component, as its comment says how to add it."""
    file = overlay / "kustomization.yaml"
    before = file.read_text()
    try:
        file.write_text(f"{before}\ncomponents: [../../components/{component.name}]\n")
        documents = _kustomize(context, overlay)
    finally:
        file.write_text(before)
    added = len(documents) - len(_kustomize(context, overlay))
    need(added > 0, "the component adds nothing")
    _check(context, documents, {}, "")
    return f"{added} more"


def _check_second_app(context, folder):
    """A folder of one's own, as the comments of the sidecar's overlay say how to make it."""
    own = folder / "second"
    own.mkdir()
    for file in ("sidecar.yaml", "my-agent.yaml"):
        shutil.copy(folder / "overlays/sidecar" / file, own)
    text = (folder / "overlays/sidecar/kustomization.yaml").read_text()
    (own / "kustomization.yaml").write_text(text.replace("../../base", "../base") + "\nnameSuffix: -two\n")
    documents = _kustomize(context, own)
    names = sorted(manifests.name(document) for document in documents)
    are_apart = len(names) == 2 and names[0].startswith("ConfigMap cairn-two-") and names[1].endswith("-two")
    need(are_apart, f"with a suffix there are {', '.join(names)}")
    return _check(context, documents, {}, "")


def _check_example(context, file, sidecars):
    documents = manifests.load(file.read_text())
    need(cairns.of(documents), "no pod has a Cairn")
    return _check(context, documents, sidecars, f"examples/{file.name}")


def _sidecar(documents):
    """A sidecar and its volumes, without what may differ: how it is built in is the same everywhere."""
    cairn = next(cairn for cairn in cairns.of(documents) if cairn.is_native)
    container, volumes = copy.deepcopy(cairn.container), copy.deepcopy(cairn.pod.spec["volumes"])
    volumes = {volume["name"]: volume for volume in volumes if volume["name"].startswith("cairn-")}
    del container["image"]
    # The name of the ConfigMap, and which Secrets there are.
    configuration = volumes["cairn-config"]["projected"]
    configuration["sources"] = [source for source in configuration["sources"] if "configMap" in source]
    for source in configuration["sources"]:
        del source["configMap"]["name"]
    # A claim takes the place of an emptyDir, and the limit of ephemeral-storage has no room for the ledger then.
    if "persistentVolumeClaim" in volumes["cairn-data"]:
        del volumes["cairn-data"]
        for resources in container["resources"].values():
            del resources["ephemeral-storage"]
    return {"container": container, "volumes": volumes}


def _check_sidecars(context, sidecars):
    chart = helm.documents(helm.render(helm.prepare(context) / "example", {}))
    first_name, first = "helm/example", _sidecar(chart)
    for name, sidecar in sidecars.items():
        here, there = _shared(first, sidecar)
        for what in sorted({*here, *there}):
            given = f"{_short(there.get(what))} in {name}, and {_short(here.get(what))} in {first_name}"
            need(here.get(what) == there.get(what), f"{what} is {given}")
    need(len(sidecars) > 1, f"only {len(sidecars)} overlays and examples have a sidecar")
    return f"{len(sidecars)} as in {first_name}"


def _shared(first, other):
    """Both by their keys, without what one of them has not on purpose."""
    first, other = copy.deepcopy(first), copy.deepcopy(other)
    for sidecar, like in ((first, other), (other, first)):
        if "cairn-data" not in like["volumes"]:
            sidecar["volumes"].pop("cairn-data", None)
            for resources in sidecar["container"]["resources"].values():
                resources.pop("ephemeral-storage", None)
    return ({**sidecar["container"], **sidecar["volumes"]} for sidecar in (first, other))


def _short(value):
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip() if value else "missing"
