"""A central Cairn: the chart and the overlay."""
import base64
import json
import subprocess
import tarfile

import yaml

from cluster import (
    Failed,
    REPOSITORY,
    documented,
    eventually,
    inside,
    is_ready,
    require,
    run,
    volume,
)

SEND, READ, ALL = "send-" + "a" * 30, "read-" + "b" * 30, "all-" + "c" * 30


def _install(namespace, *options):
    """As the README of the chart says."""
    keys = f"{SEND} ingest\n{READ} read\n{ALL}\n"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cairn-keys"}, "stringData": {"api-keys": keys}}
    namespace.apply(secret)
    run("helm", "dependency", "update", "deploy/helm/cairn")
    _helm(namespace, "install", *options)
    return namespace.ready("cairn=standalone")


def _helm(namespace, action, *options):
    settings = ["--set", "image.repository=cairn", "--set", "secrets.apiKeys.name=cairn-keys", *options]
    return run("helm", action, "cairn", "deploy/helm/cairn", "-n", namespace.name, "--wait", "--timeout", "120s", *settings)


def _post(namespace, pod, count=1):
    address = namespace.pod(pod)["status"]["podIP"]
    body = json.dumps([{"agent_id": "central"} for _ in range(count)])
    answer = run("curl", "-sf", "-H", f"Authorization: Bearer {SEND}", "-H", "Content-Type: application/json", "-d", body, f"http://{address}:7600/v1/batch")
    require(answer.count('"sequence"') == count, f"a batch of {count} was answered with {answer[:300]}")


def _settled(namespace, pod):
    """Waits until a checkpoint covers every event."""
    eventually("a checkpoint", lambda: "not yet signed:   0 events" in namespace.cairn(pod, "status"))


def the_chart_installs_tests_and_upgrades(namespace, _):
    """`helm test`, keys, an upgrade of the chart alone that restarts nothing, and one of the configuration that does."""
    volume("chart")
    pod = _install(namespace)
    run("helm", "test", "cairn", "-n", namespace.name, "--timeout", "120s")
    _post(namespace, pod, 10)
    address = namespace.pod(pod)["status"]["podIP"]
    refused = run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:7600/v1/events")
    require(refused == "401", f"without a key the answer is {refused}")
    uid = namespace.pod(pod)["metadata"]["uid"]
    _helm(namespace, "upgrade", "--set", "podMonitor.interval=15s", "--set", "service.annotations.a=b")
    require(namespace.pod(pod)["metadata"]["uid"] == uid, "an upgrade of other objects restarted the pod")
    for setting, reason in (("storage.size=16Gi", "storage.size: Kubernetes cannot"), ("nameOverride=other", "would begin new, empty")):
        try:
            _helm(namespace, "upgrade", "--set", setting)
        except Failed as error:
            message = str(error)
        else:
            message = "success"
        require(reason in message, f"an upgrade with {setting} ended with {message}")
    key = namespace.key(pod)
    _helm(namespace, "upgrade", "--set", "config.log.level=debug")
    eventually("a new pod", lambda: namespace.pod(pod)["metadata"]["uid"] != uid and is_ready(namespace.pod(pod)))
    require(namespace.key(pod) == key, "the new pod has another log")
    require(len(namespace.ids(pod)) == 10, "events are missing after the upgrade")
    namespace.cairn(pod, "verify", "--all")
    return "tested, upgraded, the same log"


def a_key_is_rotated_in_the_cluster(namespace, _):
    """`cairn key rotate` with the server stopped, in a pod that mounts the claim; the next checkpoint has both signatures."""
    volume("rotate")
    pod = _install(namespace)
    _post(namespace, pod)
    before = namespace.key(pod)
    script = documented("deploy/README.md", '"new-log"').replace('"new-log"', '"rotate"').replace("cairn-new-log", "cairn-rotate")
    _shell(namespace, script)
    pod = namespace.ready("cairn=standalone", 120)
    after = namespace.key(pod)
    require(len(after) == len(before) + 1 and set(before) < set(after), f"the keys are {after}, before {before}")
    _post(namespace, pod)
    _settled(namespace, pod)
    return f"{len(after)} keys sign"


def _shell(namespace, script):
    """Runs documented commands with a namespace as the default one."""
    context = f"kubectl config set-context --current --namespace={namespace.name} >/dev/null"
    restore = "kubectl config set-context --current --namespace=default >/dev/null"
    return run("bash", "-euo", "pipefail", "-c", f"trap '{restore}' EXIT; {context}\n{script}")


def a_rolled_back_volume_begins_a_new_log(namespace, _):
    """The documented steps of deploy/README.md for a restored snapshot: all events remain, in a log with another name and key."""
    volume("snapshot")
    pod = _install(namespace)
    _post(namespace, pod, 5)
    before = namespace.key(pod)
    _shell(namespace, documented("deploy/README.md", '"new-log"'))
    pod = namespace.ready("cairn=standalone", 120)
    after = namespace.key(pod)
    require(not set(before) & set(after), "the log goes on under the old key")
    require(len(namespace.ids(pod)) == 5, "events are missing")
    _settled(namespace, pod)
    namespace.cairn(pod, "verify", "--all")
    return "a new name and key over the same events"


# What a platform team adds: the last checkpoint on a volume of its own, and a second container.
_ADDED = {
    "extraVolumes": [{"name": "checkpoints", "persistentVolumeClaim": {"claimName": "checkpoints"}}],
    "extraVolumeMounts": [{"name": "checkpoints", "mountPath": "/checkpoints"}],
    "extraEnv": [{"name": "CAIRN_LOG__CHECKPOINT_FILE", "value": "/checkpoints/$(POD_NAME)"}],
    "extraContainers": [{
        "name": "second",
        "image": "docker.io/library/pause:lab",
        "securityContext": {"runAsUser": 10002, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }],
}


def _restored(namespace, folder, script, options, *settings):
    """Events whose backup is restored into an empty claim by a script. Returns their number, and the keys before and after."""
    volume(f"{namespace.name}-checkpoints", "1Gi")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"{namespace.name}-checkpoints"}
    namespace.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "checkpoints"}, "spec": claim})
    volume(f"{namespace.name}-lost")
    added = [part for name, value in _ADDED.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]
    pod = _install(namespace, *added, *settings)
    _post(namespace, pod, 20)
    _settled(namespace, pod)
    execute = ["kubectl", "-n", namespace.name, "exec", pod, "-c", "cairn", "--", "/cairn"]
    with (folder / "cairn.tar").open("wb") as archive:
        subprocess.run(inside(*execute, "backup", "-", *options), stdout=archive, check=True)
    with tarfile.open(folder / "cairn.tar") as archive:
        require(("log.key" in archive.getnames()) == bool(options), "only --keys adds the signing keys")
        (folder / "last.checkpoint").write_bytes(archive.extractfile("log.checkpoint").read())
    ids, before = namespace.ids(pod), namespace.key(pod)
    # For the new claim: the old volume keeps what was on it.
    volume(f"{namespace.name}-new")
    _shell(namespace, f"cd {folder}\n" + script)
    pod = namespace.ready("cairn=standalone", 120)
    require(namespace.ids(pod) == ids, "the events differ")
    after = namespace.key(pod)
    _post(namespace, pod)
    _settled(namespace, pod)
    namespace.cairn(pod, "verify", "--all")
    return len(ids), set(before), set(after)


def a_backup_is_restored_into_an_empty_claim(namespace, folder):
    """The documented steps of docs/backup.md: an archive over standard output, and a pod that fills an empty volume from it."""
    events, before, after = _restored(namespace, folder, documented("docs/backup.md", "delete pvc"), [])
    require(not before & after, "the log goes on without its key")
    return f"{events} events restored, in a new log"


def a_backup_with_keys_continues_its_log(namespace, folder):
    """The same steps with the documented pod that mounts the last checkpoint from a Secret."""
    steps, pod = documented("docs/backup.md", "delete pvc"), documented("docs/backup.md", "cairn-last-checkpoint")
    first = "kubectl get statefulset/cairn -o json | jq '.spec.template.spec"
    begin, end = steps.index(first), steps.index("kubectl wait pod/cairn-restore --for=condition")
    events, before, after = _restored(namespace, folder, steps[:begin] + pod + "\n" + steps[end:], ["--keys"], "--set", "logOriginPrefix=example.com/prod", "--set", "config.recorder.enabled=false")
    require(before == after, "the log does not go on under its key")
    return f"{events} events restored, in the same log"


def the_standalone_overlay_runs(namespace, _):
    """`kubectl apply -k` of the central Cairn."""
    volume("overlay")
    keys = base64.b64encode(f"{SEND} ingest\n".encode()).decode()
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cairn-keys"}, "data": {"api-keys": keys}})
    rendered = run("kubectl", "kustomize", REPOSITORY / "deploy/kustomize/overlays/standalone")
    names = [document["metadata"]["name"] for document in yaml.safe_load_all(rendered) if document["kind"] == "StatefulSet"]
    namespace.kubectl("apply", "-f", "-", text=rendered)
    pod = namespace.ready("cairn=standalone")
    require(pod == f"{names[0]}-0", f"the pod is {pod}")
    _post(namespace, pod)
    namespace.cairn(pod, "verify", "--all")
    return "ready, and accepts events with a key"


CHECKS = (
    the_chart_installs_tests_and_upgrades,
    a_key_is_rotated_in_the_cluster,
    a_rolled_back_volume_begins_a_new_log,
    a_backup_is_restored_into_an_empty_claim,
    a_backup_with_keys_continues_its_log,
    the_standalone_overlay_runs,
)
