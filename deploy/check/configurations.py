"""Validates configurations with `cairn config validate`, in the environment that a pod has."""
import subprocess

from cairn import Cairn
from context import Context, require
from tools import run_tool

# Stand-ins for the user's Secrets, by the paths at which the manifests mount them.
SECRETS = {
    "secrets/org-id": "11111111-1111-4111-8111-111111111111\n",
    "secrets/api-keys": "first-key ingest\nsecond-key read\n",
    # Cairn creates the key at its first start.
    "secrets/log.key": "",
}
# Certificates, and their private keys.
CERTIFICATES = {"tls/tls.crt": "tls/tls.key", "tls/client-ca.crt": "tls/client-ca.key"}
# The values of the Downward API.
FIELDS = {"metadata.name": "cairn-0", "metadata.namespace": "agents", "spec.nodeName": "node-1"}


def check(context: Context, cairn: Cairn):
    """Validates the configuration of this pod, with its environment."""
    check_text(context, cairn.where, cairn.text, environment(cairn.container))


def check_text(context, where, text, variables):
    file = context.temp / "cairn.yaml"
    file.write_text(text.replace("/etc/cairn/", f"{_stand_ins(context)}/"))
    command = [context.binary, "config", "validate", "--config", file]
    run = subprocess.run(command, env=variables, capture_output=True, text=True)
    output = " ".join((run.stderr or run.stdout).split())
    require(run.returncode == 0, f"{where}: Cairn rejects its configuration: {output}")


def environment(container):
    """The environment of a container, as the kubelet would set it."""
    variables = {}
    for variable in container.get("env", []):
        value = variable.get("value", "")
        for name, defined in variables.items():
            value = value.replace(f"$({name})", defined)
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        variables[variable["name"]] = FIELDS.get(field, value)
    return variables


def _stand_ins(context):
    folder = context.temp / "etc"
    if not folder.exists():
        for path, text in SECRETS.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (folder / "tls").mkdir()
        for certificate, key in CERTIFICATES.items():
            command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=cairn", "-days", "2"]
            command += ["-keyout", folder / key, "-out", folder / certificate]
            run_tool(command)
    return folder
