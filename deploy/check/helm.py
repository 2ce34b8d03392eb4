"""Renders the charts with Helm's engine, without a cluster."""
import json
import shutil
import subprocess
import sys

from helm_python.chart import Chart
from helm_python.errors import HelmError

import manifests
from context import Context, CheckFailed

NAMES = ("cairn-lib", "example", "cairn")
NAMESPACE = "agents"
# A separate process, because Helm's engine prints the message of `fail` to stderr instead of reporting it.
LINT = """
import json, sys
from helm_python.chart import lint
json.dump([lint(**options) for options in json.load(sys.stdin)], sys.stdout)
"""
WARNING = 2
REFUSAL = 'message="\\n\\nCairn: '


class Refused(CheckFailed):
    """Helm or a template refuses the values."""


def prepare(context: Context):
    """A copy of the charts, each with the library in charts/, where `helm dependency build` would copy it."""
    folder = context.temp / "helm"
    if not folder.exists():
        for chart in NAMES:
            shutil.copytree(context.repository / "deploy/helm" / chart, folder / chart)
        for chart in NAMES[1:]:
            shutil.rmtree(folder / chart / "charts", ignore_errors=True)
            shutil.copytree(folder / "cairn-lib", folder / chart / "charts/cairn-lib")
    return folder


def render(chart, values, release="demo"):
    """Renders the templates with values; returns the text by the name of the template file."""
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
    """The complaints of `helm lint --strict`, for each version of Kubernetes."""
    options = {"path": str(chart), "values": values, "strict": True, "namespace": NAMESPACE}
    runs = json.dumps([{**options, "kube_version": version} for version in kube_versions])
    run = subprocess.run([sys.executable, "-c", LINT], input=runs, capture_output=True, text=True, check=True)
    complaints = [line for line in run.stderr.splitlines() if REFUSAL in line]
    for report in json.loads(run.stdout):
        complaints += report["errors"]
        complaints += [message["error"] for message in report["messages"] if message["severity"] >= WARNING]
    return complaints
