"""The cluster of up.sh: kubectl and helm in its namespaces, and what the checks need of pods."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
LAB = pathlib.Path(os.environ.get("KUBE_LAB", pathlib.Path.home() / ".cache/cairn/kube"))
# The address of the node, at which pods reach what runs beside the cluster.
NODE = "10.200.1.1"


class Failed(Exception):
    """A check failed. The message says what is wrong."""


def require(condition, message):
    if not condition:
        raise Failed(message)


def inside(*words):
    return ["bash", str(HERE / "in.sh"), *map(str, words)]


def run(*words, text=None, timeout=300):
    """Runs a program in the cluster's namespaces, and returns its standard output."""
    try:
        done = subprocess.run(inside(*words), input=text, capture_output=True, text=True, timeout=timeout, cwd=REPOSITORY)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(map(str, words))[:300]} does not end within {timeout} s: {late.stderr} {late.stdout}") from None
    require(done.returncode == 0, f"{' '.join(map(str, words))[:300]} exits with {done.returncode}: {(done.stderr + done.stdout)[-1500:]}")
    return done.stdout


def kubectl(*words, text=None, timeout=300):
    return run("kubectl", *words, text=text, timeout=timeout)


def eventually(what, condition, seconds=90):
    """Waits until the condition holds, and returns what it returned."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if result := condition():
                return result
        except Failed as failure:
            last = failure
        time.sleep(0.5)
    raise Failed(f"not within {seconds} s: {what}{f' ({last})' if last else ''}")


class Namespace:
    """A namespace in which Kubernetes enforces the security standard `restricted`."""

    def __init__(self, name):
        self.name = name
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # The controller creates it a moment later.
        eventually("the default service account", lambda: self.kubectl("get", "serviceaccount", "default", "-o", "name"))

    def kubectl(self, *words, text=None, timeout=300):
        return kubectl("-n", self.name, *words, text=text, timeout=timeout)

    def apply(self, *documents):
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def delete(self):
        kubectl("delete", "namespace", self.name, "--wait=true", "--timeout=120s")

    def secret(self, name, **values):
        self.kubectl("create", "secret", "generic", name, *[f"--from-literal={key.replace('_', '-')}={value}" for key, value in values.items()])

    def pods(self, selector):
        """The pods that are not about to end."""
        items = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def pod(self, name):
        return json.loads(self.kubectl("get", "pod", name, "-o", "json"))

    def ready(self, selector, seconds=90):
        """The name of the one pod that matches, when it is ready."""

        def find():
            pods = self.pods(selector)
            return len(pods) == 1 and is_ready(pods[0]) and pods[0]["metadata"]["name"]

        return eventually(f"a ready pod {selector}", find, seconds)

    def cairn(self, pod, *words, text=None):
        return self.kubectl("exec", "-i", pod, "-c", "cairn", "--", "/cairn", *words, text=text)

    def ids(self, pod):
        """The ids of all events in the ledger of a pod, except for those of its recorder."""
        lines = self.cairn(pod, "events", "--last", "10000000", "--json").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return {event["id"] for event in events if not event["agent_id"].startswith("cairn/")}

    def acknowledged(self, pod):
        """The ids that the agent of a pod says were acknowledged, until now."""
        return acknowledged_in(self.kubectl("logs", pod, "-c", "my-agent"))

    def follow(self, pod):
        """Reads the log of the agent of a pod until it has ended, beside the checks."""
        return subprocess.Popen(
            inside("kubectl", "-n", self.name, "logs", "-f", pod, "-c", "my-agent"), stdout=subprocess.PIPE, text=True
        )

    def key(self, pod):
        """The verifier keys of the log of a pod."""
        return self.cairn(pod, "key", "show").split()

    def kill(self, pod):
        """Kills the process of Cairn, as a lack of memory does."""
        uid = self.pod(pod)["metadata"]["uid"]
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                is_cairn = (process / "cmdline").read_bytes().startswith(b"/cairn\0serve")
                if is_cairn and uid in (process / "cgroup").read_text():
                    os.kill(int(process.name), signal.SIGKILL)
                    return
            except OSError:
                continue
        raise Failed(f"no process of Cairn in {pod}")


def acknowledged_in(log):
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line["acknowledged"] for line in lines if "acknowledged" in line and "what" not in line]


def is_ready(pod):
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def status_of(pod, container):
    """The status of a container, which may be an init container."""
    statuses = pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
    return next(status for status in statuses if status["name"] == container)


def example(name):
    """The manifests of an example, parsed, with one pod."""
    documents = list(yaml.safe_load_all((REPOSITORY / "deploy" / name).read_text()))
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 1
    return documents


def of_kind(documents, kind):
    return next(document for document in documents if document["kind"] == kind)


def configure(documents, **sections):
    """Merges settings into the cairn.yaml of an example."""
    data = of_kind(documents, "ConfigMap")["data"]
    config = yaml.safe_load(data["cairn.yaml"])
    for name, section in sections.items():
        config[name] = {**config.get(name, {}), **section}
    data["cairn.yaml"] = yaml.safe_dump(config)


def agent_environment(documents, **variables):
    """Sets variables of the agent in an example's workload."""
    workload = next(document for document in documents if document["kind"] in ("Deployment", "Job"))
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["env"] += [{"name": name, "value": str(value)} for name, value in variables.items()]


def volume(name, size="20Gi"):
    """An empty persistent volume on the node, which every user may write: the kubelet sets no group there."""
    path = LAB / "var/volumes" / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    kubectl("delete", "persistentvolume", name, "--ignore-not-found", "--wait=true")
    path.chmod(0o777)
    kubectl("apply", "-f", "-", text=yaml.safe_dump({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(path)},
        },
    }))


def documented(path, contains):
    """The commands of the console block that contains a text, joined to one script."""
    blocks = re.findall(r"^ *```console[^\n]*\n(.*?)^ *```$", (REPOSITORY / path).read_text(), re.M | re.S)
    block = next(block for block in blocks if contains in block)
    lines = [re.sub(r"^\$ ", "", line.strip()) for line in block.splitlines()]
    return "\n".join(lines)


class Upstream:
    """The stand-in for Agnost on the node. It runs while it is used in a `with` statement."""

    def __init__(self, file):
        self.file = file
        self.process = None

    def __enter__(self):
        command = inside(sys.executable, HERE / "upstream.py", NODE, 8099, self.file)
        self.process = subprocess.Popen(command)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def received(self):
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0
