"""Rendering the charts as Helm does, without a cluster."""
import json
import shutil
import subprocess
import sys

from helm_python.chart import Chart
from helm_python.errors import HelmError

import manifests
from context import Context, Wrong

NAMES = ("cairn-lib", "example", "cairn")
NAMESPACE = "agents"
# In a process of its own: the words of `fail` are no part of the report, Helm's engine only prints them.
LINT = """
import json, sys
from helm_python.chart import lint
json.dump([lint(**told) for told in json.load(sys.stdin)], sys.stdout)
"""
WARNING = 2
REFUSAL = 'message="\\n\\nCairn: '


class Refused(Wrong):
    """Helm, or a template, does not take the values."""


def prepare(context: Context):
    """A copy of the charts, each with the library in charts/ as `helm dependency build` would put it there."""
    folder = context.temp / "helm"
    if not folder.exists():
        for chart in NAMES:
            shutil.copytree(context.repository / "deploy/helm" / chart, folder / chart)
        for chart in NAMES[1:]:
            shutil.rmtree(folder / chart / "charts", ignore_errors=True)
            shutil.copytree(folder / "cairn-lib", folder / chart / "charts/cairn-lib")
    return folder


def render(chart, values, release="demo"):
    """What the templates make of the values: by the files of the templates."""
    try:
        with Chart.load(chart) as loaded:
            return loaded.render(values=values, name=release, namespace=NAMESPACE)
    except HelmError as error:
        raise Refused(" ".join(str(error).split())) from error


def documents(rendered):
    return [
        document
        for file, text in rendered.items()
        if file.endswith(".yaml")
        for document in manifests.load(text)
    ]


def lint(chart, values, *kube_versions):
    """What `helm lint --strict` complains of, for each version of Kubernetes."""
    options = {"path": str(chart), "values": values, "strict": True, "namespace": NAMESPACE}
    told = json.dumps([{**options, "kube_version": version} for version in kube_versions])
    run = subprocess.run([sys.executable, "-c", LINT], input=told, capture_output=True, text=True, check=True)
    complaints = [line for line in run.stderr.splitlines() if REFUSAL in line]
    for report in json.loads(run.stdout):
        complaints += report["errors"]
        complaints += [message["error"] for message in report["messages"] if message["severity"] >= WARNING]
    return complaints
