"""Checks what is rendered without Helm: kustomize, the plain examples, and the compose file."""
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
from context import Context, require

# Kustomize appends a hash of the content to the name of a ConfigMap.
HASHED = re.compile(r".*-[a-z0-9]{10}")

# The time that the app of the examples needs to end, in seconds.
APP_SECONDS = 30


def run(context: Context):
    sidecars = {}
    folder = context.temp / "kustomize"
    shutil.copytree(context.repository / "deploy/kustomize", folder)
    overlays = sorted(file.parent for file in folder.glob("overlays/*/kustomization.yaml"))
    components = sorted(file.parent for file in folder.glob("components/*/kustomization.yaml"))
    context.run_check("overlays", "kustomize base", _check_kustomize, context, folder / "base", sidecars)
    context.run_check("overlays", "kustomize/overlays", _count, overlays)
    for overlay in overlays:
        context.run_check("overlays", f"kustomize {overlay.name}", _check_kustomize, context, overlay, sidecars)
        for component in components:
            name = f"kustomize {overlay.name} with {component.name}"
            context.run_check("overlays", name, _check_component, context, overlay, component)
    context.run_check("overlays", "kustomize, a second app", _check_second_app, context, folder)
    examples = sorted((context.repository / "deploy/examples").glob("*.yaml"))
    context.run_check("overlays", "examples", _count, examples)
    for file in examples:
        context.run_check("overlays", f"examples/{file.name}", _check_example, context, file, sidecars)
    context.run_check("overlays", "same sidecar everywhere", _check_sidecars, context, sidecars)
    compose.run(context)


def _count(found):
    require(found, "there are none")
    return len(found)


def _check(context, documents, sidecars, item):
    manifests.check(documents)
    references.check(documents)
    _check_version_labels(documents, context.version())
    found = cairns.of(documents)
    for cairn in found:
        pods.check(cairn)
        wanted = f"cairn:{context.version()}"
        cairn.require(cairn.container["image"] == wanted, f"its image must be {wanted}, not {cairn.container['image']}")
        configurations.check(context, cairn)
        if cairn.is_native:
            _check_app_time(cairn)
            sidecars[item] = _sidecar(documents)
    if not found:
        for document in manifests.of_kind(documents, "ConfigMap"):
            configurations.check_text(context, manifests.name(document), document["data"]["cairn.yaml"], {})
    return f"{len(documents)} manifests"


def _check_app_time(cairn):
    """A native sidecar only has the time that the app leaves of the pod's grace period."""
    needed = APP_SECONDS + manifests.seconds(cairn.setting("shutdown.grace", pods.GRACE)) + pods.SLACK
    given = cairn.pod.spec.get("terminationGracePeriodSeconds", 30)
    cairn.require(
        given >= needed,
        f"terminationGracePeriodSeconds is {given}, but with the app's {APP_SECONDS} s it needs {needed}",
    )


def _check_version_labels(documents, version):
    for document in documents:
        given = document["metadata"].get("labels", {}).get("app.kubernetes.io/version", version)
        require(given == version, f"{manifests.name(document)}: its version label is {given}, not {version}")


def _check_kustomize(context, folder, sidecars):
    documents = _kustomize(context, folder)
    for document in manifests.of_kind(documents, "ConfigMap"):
        is_hashed = HASHED.fullmatch(document["metadata"]["name"])
        require(
            is_hashed,
            f"{manifests.name(document)}: without a hash in its name, new settings do not create new pods",
        )
    if folder.parent.name == "overlays":
        require(cairns.of(documents), "no pod runs Cairn")
    return _check(context, documents, sidecars, f"overlays/{folder.name}")


def _kustomize(context, folder):
    run = subprocess.run([context.tools / "kubectl", "kustomize", folder], capture_output=True, text=True)
    require(run.returncode == 0, f"kubectl kustomize: {' '.join(run.stderr.split())}")
    require(not run.stderr, f"kubectl kustomize warns: {' '.join(run.stderr.split())}")
    return manifests.load(run.stdout)


def _check_component(context, overlay, component):
    """Adds the component to an overlay, as its comment describes."""
    file = overlay / "kustomization.yaml"
    before = file.read_text()
    try:
        file.write_text(f"{before}\ncomponents: [../../components/{component.name}]\n")
        documents = _kustomize(context, overlay)
    finally:
        file.write_text(before)
    added = len(documents) - len(_kustomize(context, overlay))
    require(added > 0, "the component adds no manifests")
    _check(context, documents, {}, "")
    return f"{added} manifests added"


def _check_second_app(context, folder):
    """Creates another overlay, as the comments of the sidecar's overlay describe."""
    own = folder / "second"
    own.mkdir()
    for file in ("sidecar.yaml", "my-agent.yaml"):
        shutil.copy(folder / "overlays/sidecar" / file, own)
    text = (folder / "overlays/sidecar/kustomization.yaml").read_text()
    (own / "kustomization.yaml").write_text(text.replace("../../base", "../base") + "\nnameSuffix: -two\n")
    documents = _kustomize(context, own)
    names = sorted(manifests.name(document) for document in documents)
    are_distinct = len(names) == 2 and names[0].startswith("ConfigMap cairn-two-") and names[1].endswith("-two")
    require(are_distinct, f"with a suffix the names are {', '.join(names)}")
    return _check(context, documents, {}, "")


def _check_example(context, file, sidecars):
    documents = manifests.load(file.read_text())
    require(cairns.of(documents), "no pod runs Cairn")
    return _check(context, documents, sidecars, f"examples/{file.name}")


def _sidecar(documents):
    """A sidecar and its volumes, without the parts that may differ between charts, overlays and examples."""
    cairn = next(cairn for cairn in cairns.of(documents) if cairn.is_native)
    container, volumes = copy.deepcopy(cairn.container), copy.deepcopy(cairn.pod.spec["volumes"])
    volumes = {volume["name"]: volume for volume in volumes if volume["name"].startswith("cairn-")}
    del container["image"]
    # The name of the ConfigMap and the Secrets differ on purpose.
    configuration = volumes["cairn-config"]["projected"]
    configuration["sources"] = [source for source in configuration["sources"] if "configMap" in source]
    for source in configuration["sources"]:
        del source["configMap"]["name"]
    # With a claim instead of an emptyDir, the limit of ephemeral-storage does not include the ledger.
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
            require(here.get(what) == there.get(what), f"{what} is {given}")
    require(len(sidecars) > 1, f"only {len(sidecars)} overlays and examples have a sidecar")
    return f"{len(sidecars)} sidecars as in {first_name}"


def _shared(first, other):
    """Both sidecars as mappings, without parts that one of them lacks on purpose."""
    first, other = copy.deepcopy(first), copy.deepcopy(other)
    for sidecar, like in ((first, other), (other, first)):
        if "cairn-data" not in like["volumes"]:
            sidecar["volumes"].pop("cairn-data", None)
            for resources in sidecar["container"]["resources"].values():
                resources.pop("ephemeral-storage", None)
    return ({**sidecar["container"], **sidecar["volumes"]} for sidecar in (first, other))


def _short(value):
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip() if value else "missing"
