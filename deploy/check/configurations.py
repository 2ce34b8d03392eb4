"""Whether Cairn itself would start with a configuration, and the environment that a pod gives it."""
import subprocess

from cairn import Cairn
from context import Context, need
from tools import run_tool

# What stands in for the Secrets of a user, by the paths that the manifests give them.
SECRETS = {
    "secrets/org-id": "11111111-1111-4111-8111-111111111111\n",
    "secrets/api-keys": "first-key ingest\nsecond-key read\n",
    # Cairn makes it at its first start.
    "secrets/log.key": "",
}
# Certificates, and the keys that belong to them.
CERTIFICATES = {"tls/tls.crt": "tls/tls.key", "tls/client-ca.crt": "tls/client-ca.key"}
# What the Downward API would say.
FIELDS = {"metadata.name": "cairn-0", "metadata.namespace": "agents", "spec.nodeName": "node-1"}


def check(context: Context, cairn: Cairn):
    """Cairn takes the file of this pod, with its environment."""
    check_text(context, cairn.where, cairn.text, environment(cairn.container))


def check_text(context, where, text, variables):
    file = context.temp / "cairn.yaml"
    file.write_text(text.replace("/etc/cairn/", f"{_stand_ins(context)}/"))
    command = [context.binary, "config", "validate", "--config", file]
    run = subprocess.run(command, env=variables, capture_output=True, text=True)
    said = " ".join((run.stderr or run.stdout).split())
    need(run.returncode == 0, f"{where}: Cairn does not take its configuration: {said}")


def environment(container):
    """The variables of a container, as the kubelet would make them."""
    variables = {}
    for variable in container.get("env", []):
        value = variable.get("value", "")
        for name, known in variables.items():
            value = value.replace(f"$({name})", known)
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
