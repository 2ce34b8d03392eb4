"""The rules for every pod that runs Cairn. Each rule is a function whose name states it."""
import re

import manifests
from cairn import containers, is_loopback
from context import CheckFailed

MI = 1024**2
USER = 10001
# The default of Cairn's configuration.
GRACE = "20s"
# Time after shutdown.grace in which the database is closed, in seconds.
SLACK = 5
ADMIN_LISTEN = "127.0.0.1:7601"
# The ports of a pod. Other manifests refer to them by name.
PORTS = {"cairn": 7600, "cairn-otlp": 4318}
MOUNTS = {"/etc/cairn": "cairn-config", "/var/lib/cairn": "cairn-data", "/tmp": "cairn-tmp"}
FIELDS = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "NODE_NAME": "spec.nodeName"}
LABELS = {"POD": "metadata.name", "NAMESPACE": "metadata.namespace", "NODE": "spec.nodeName"}
# What a sidecar needs for its own load, and a central Cairn for the largest request bodies of any client.
LEAST_MEMORY = {"sidecar": 256 * MI, "standalone": 512 * MI}
REFERENCE = re.compile(r"\$\((\w+)\)")


def check(cairn, waived=()):
    """Checks every rule. A waived rule must be broken, so that no waiver is obsolete."""
    for rule in RULES + (SERVER_RULES if cairn.is_server else ()):
        if rule.__name__ not in waived:
            rule(cairn)
        elif cairn.is_server:
            cairn.require(_is_broken(rule, cairn), f"the waived rule {rule.__name__} holds: remove the waiver")


def _is_broken(rule, cairn):
    try:
        rule(cairn)
    except CheckFailed:
        return True
    return False


def pins_image_and_arguments(cairn):
    name, image = cairn.container["name"], cairn.container["image"]
    cairn.require(name == "cairn", "the container must be called cairn, because others refer to it by this name")
    version = image.split("@")[-1].split("/")[-1].partition(":")[2]
    cairn.require(version not in ("", "latest"), f"the image {image} must have a version or a digest")
    cairn.require("command" not in cairn.container, "the image defines the command")
    # The variable is also there for `kubectl exec`.
    arguments = cairn.container.get("args", [])
    cairn.require("--config" not in arguments, f"CAIRN_CONFIG names the file, not {arguments}")
    named = [entry.get("value") for entry in cairn.container.get("env", []) if entry["name"] == "CAIRN_CONFIG"]
    cairn.require(named == ["/etc/cairn/cairn.yaml"], f"CAIRN_CONFIG must be /etc/cairn/cairn.yaml, not {named}")


def container_is_restricted(cairn):
    given = cairn.container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for key, value in wanted.items():
        cairn.require(given.get(key) == value, f"securityContext.{key} must be {value}, not {given.get(key)}")
    unknown = set(given) - set(wanted) - {"runAsUser", "runAsGroup"}
    cairn.require(not unknown, f"securityContext has the unknown {', '.join(sorted(unknown))}")


def runs_as_dedicated_user(cairn):
    for key in ("runAsUser", "runAsGroup"):
        given = cairn.container["securityContext"].get(key)
        cairn.require(given == USER, f"securityContext.{key} must be {USER}, not {given}")


def pod_is_restricted(cairn):
    spec = cairn.pod.spec
    context = spec.get("securityContext", {})
    cairn.require(context.get("runAsNonRoot") is True, "the pod's securityContext.runAsNonRoot must be true")
    seccomp = context.get("seccompProfile", {}).get("type")
    cairn.require(seccomp == "RuntimeDefault", f"the pod's seccompProfile must be RuntimeDefault, not {seccomp}")
    token = spec.get("automountServiceAccountToken")
    cairn.require(token is False, "automountServiceAccountToken must be false: Cairn needs no token")
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        cairn.require(not spec.get(key), f"the pod must not set {key}")


def has_group_for_secrets_and_claims(cairn):
    """Secrets have mode 0440, and the root of a claim belongs to root: without fsGroup Cairn can use neither."""
    secrets = any(kind == "secret" for kind, _, _ in cairn.files().values())
    if not secrets and not _is_on_claim(cairn):
        return
    context = cairn.pod.spec.get("securityContext", {})
    cairn.require(context.get("fsGroup") == USER, f"with secrets or a claim the pod needs fsGroup: {USER}")
    policy = context.get("fsGroupChangePolicy")
    is_private = policy == "OnRootMismatch"
    cairn.require(is_private, "fsGroupChangePolicy must be OnRootMismatch, or the group may read a ledger")


def _is_on_claim(cairn):
    return "cairn-data" in cairn.pod.claims or "persistentVolumeClaim" in (cairn.volume("cairn-data") or {})


def _field(variable):
    """The field of the pod that a variable has, or None."""
    return variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")


def variables_are_defined_before_use(cairn):
    """$(NAME) is replaced only if NAME is defined before it."""
    seen = []
    for variable in cairn.container.get("env", []):
        name = variable["name"]
        cairn.require(name not in seen, f"the variable {name} is defined twice")
        for used in REFERENCE.findall(variable.get("value", "")):
            cairn.require(used in seen, f"{name} uses $({used}), which is not defined before it")
        if name in FIELDS:
            field = _field(variable)
            cairn.require(field == FIELDS[name], f"{name} must come from {FIELDS[name]}, not {field}")
        seen.append(name)


def events_have_source_labels(cairn):
    given = {variable["name"]: _field(variable) for variable in cairn.container.get("env", [])}
    for label, field in LABELS.items():
        if label.lower() not in cairn.setting("ingest.default_labels", {}):
            name = f"CAIRN_INGEST__DEFAULT_LABELS__{label}"
            cairn.require(given.get(name) == field, f"{name} must come from {field}, not {given.get(name)}")


def mounts_match_volumes(cairn):
    pod, mounts = cairn.pod, cairn.container["volumeMounts"]
    volumes = [volume["name"] for volume in pod.spec.get("volumes", [])] + list(pod.claims)
    for name in volumes:
        mounted = [mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])]
        cairn.require(volumes.count(name) == 1, f"the pod has two volumes {name}")
        cairn.require(name in mounted, f"no container mounts the volume {name}")
    paths = {mount["mountPath"]: mount for mount in mounts}
    cairn.require(len(paths) == len(mounts), "two volumes are mounted at one path")
    for mount in mounts:
        cairn.require(mount["name"] in volumes, f"it mounts {mount['name']}, which is not a volume of the pod")
        cairn.require(
            "subPath" not in mount,
            f"{mount['mountPath']}: a mount with subPath does not get changed secrets",
        )
    for path, name in MOUNTS.items():
        cairn.require(paths.get(path, {}).get("name") == name, f"the volume {name} must be mounted at {path}")
    cairn.require(paths["/etc/cairn"].get("readOnly") is True, "/etc/cairn must be mounted with readOnly: true")
    for path in ("/var/lib/cairn", "/tmp"):
        cairn.require(not paths[path].get("readOnly"), f"{path} is not writable")
    is_limited = "sizeLimit" in cairn.volume("cairn-tmp").get("emptyDir", {})
    cairn.require(is_limited, "cairn-tmp must be an emptyDir with a sizeLimit")


def configured_files_are_mounted(cairn):
    files = cairn.files()
    cairn.require("/etc/cairn/cairn.yaml" in files, "no volume contains /etc/cairn/cairn.yaml")
    named = paths_under_etc(cairn.config)
    for path in named:
        cairn.require(path in files, f"cairn.yaml names {path}, which no volume contains")
    for path, (kind, source, item) in files.items():
        mode = item.get("mode", cairn.volume("cairn-config")["projected"].get("defaultMode"))
        if kind == "secret":
            cairn.require(path in named, f"{path} is mounted, but cairn.yaml does not name it")
            cairn.require(mode == 0o440, f"{path} is a secret: its mode must be 0440, not {mode or 0:04o}")
            cairn.require(not source.get("optional"), f"{path} is optional, but Cairn does not start without it")
        else:
            cairn.require(
                mode == 0o444,
                f"{path}: its mode must be 0444, because a pod without secrets needs no fsGroup",
            )


def paths_under_etc(node):
    """All values of a configuration that are paths under /etc/cairn."""
    if isinstance(node, dict):
        return [path for value in node.values() for path in paths_under_etc(value)]
    if isinstance(node, list):
        return [path for value in node for path in paths_under_etc(value)]
    return [node] if isinstance(node, str) and node.startswith("/etc/cairn/") else []


def has_kind_label(cairn):
    given = cairn.pod.labels.get("cairn")
    cairn.require(
        given == cairn.kind,
        f"the label cairn must be {cairn.kind}, by which PodMonitors select pods, not {given}",
    )


def declares_served_ports(cairn):
    """A sidecar declares only the admin port, a central Cairn also each port beyond loopback, by its name."""
    admin = cairn.setting("admin.listen", ADMIN_LISTEN)
    cairn.require(not is_loopback(admin), f"probes use the pod's address, but admin.listen is {admin}")
    served = {int(address.rpartition(":")[2]) for address in cairn.listen_addresses() if not is_loopback(address)}
    wanted = {name: port for name, port in PORTS.items() if port in served}
    cairn.require(len(wanted) == len(served), f"it listens on {served}, but only {PORTS} have names")
    wanted["cairn-admin"] = int(admin.rpartition(":")[2])
    given = {port["name"]: port["containerPort"] for port in cairn.container.get("ports", [])}
    cairn.require(given == wanted, f"its ports must be {wanted}, not {given}")


def has_startup_and_liveness_probes(cairn):
    startup, liveness = _probe(cairn, "startup", "/healthz"), _probe(cairn, "liveness", "/healthz")
    cairn.require(
        startup["periodSeconds"] == 1,
        "the startupProbe must have a period of one second, because the app waits for it",
    )
    cairn.require(
        _tolerance_s(startup) >= 300,
        f"a start after a crash may take 300 s, but the startupProbe permits {_tolerance_s(startup)} s",
    )
    cairn.require(
        liveness.get("timeoutSeconds", 1) >= 5,
        "the livenessProbe must have a timeout of at least five seconds",
    )
    is_slow = 60 <= _tolerance_s(liveness) <= 120
    cairn.require(
        is_slow,
        f"the livenessProbe must tolerate a slow disk for one or two minutes, not {_tolerance_s(liveness)} s",
    )


def has_readiness_probe(cairn):
    tolerance_s = _tolerance_s(_probe(cairn, "readiness", "/readyz"))
    cairn.require(tolerance_s <= 30, f"the readinessProbe needs {tolerance_s} s to detect a full disk")


def _probe(cairn, kind, path):
    probe = cairn.container.get(f"{kind}Probe")
    cairn.require(probe, f"it has no {kind}Probe")
    wanted = {"path": path, "port": "cairn-admin"}
    cairn.require(probe.get("httpGet") == wanted, f"the {kind}Probe must request {wanted}, not {probe.get('httpGet')}")
    return probe


def _tolerance_s(probe):
    """How long a probe may fail, in seconds; defaults are those of Kubernetes."""
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)


def has_memory_and_no_cpu_limit(cairn):
    requests, limits = cairn.container["resources"]["requests"], cairn.container["resources"]["limits"]
    cairn.require("cpu" not in limits, "a CPU limit would delay answers")
    cairn.require("cpu" in requests and "memory" in requests, "it must request cpu and memory")
    least = LEAST_MEMORY[cairn.kind]
    given = manifests.size(limits.get("memory", "0"))
    cairn.require(given >= least, f"a {cairn.kind} needs {least // MI}Mi of memory, but its limit is {given // MI}Mi")


def refuses_events_before_disk_is_full(cairn):
    """storage.max_bytes, the volume, and the limit of ephemeral-storage: each is larger than the one before."""
    ledger = manifests.size(cairn.setting("storage.max_bytes", "10GiB"))
    needed = ledger + ledger // 4 // MI * MI + 256 * MI
    directory = cairn.setting("storage.data_dir", "./data")
    cairn.require(directory == "/var/lib/cairn/data", f"storage.data_dir is {directory}, which is not on the volume")
    requests, limits = cairn.container["resources"]["requests"], cairn.container["resources"]["limits"]
    cairn.require("ephemeral-storage" in limits, "it has no limit of ephemeral-storage")
    limit = manifests.size(limits["ephemeral-storage"])
    is_requested = requests.get("ephemeral-storage") == limits["ephemeral-storage"]
    cairn.require(is_requested, "it must request all of its ephemeral-storage, so that others are evicted first")
    volume = _volume_size(cairn)
    if volume is not None:
        message = f"max_bytes of {ledger // MI}Mi needs a volume of {needed // MI}Mi, not {volume // MI}Mi"
        cairn.require(volume >= needed, message)
    least = 256 * MI if _is_on_claim(cairn) else volume + 128 * MI
    cairn.require(limit >= least, f"its limit of ephemeral-storage must be {least // MI}Mi, not {limit // MI}Mi")


def _volume_size(cairn):
    """The size of the ledger's volume, in bytes; None if the claim is the user's, not among these manifests."""
    if "cairn-data" in cairn.pod.claims:
        return cairn.pod.claims["cairn-data"]
    volume = cairn.volume("cairn-data")
    if "persistentVolumeClaim" in volume:
        return cairn.claims.get(volume["persistentVolumeClaim"]["claimName"])
    limit = volume.get("emptyDir", {}).get("sizeLimit")
    cairn.require(limit, "cairn-data has no sizeLimit")
    return manifests.size(limit)


def retains_claims(cairn):
    """Ledgers are evidence: only an operator deletes them."""
    policy = cairn.pod.owner["spec"].get("persistentVolumeClaimRetentionPolicy", {})
    cairn.require("Delete" not in policy.values(), f"its ledgers would be deleted with the StatefulSet: {policy}")


def has_exclusive_claim(cairn):
    """A claim has one ledger, and a ledger one process: a new pod would wait for the old one without end."""
    if cairn.pod.owner["kind"] == "Deployment" and _is_on_claim(cairn):
        spec = cairn.pod.owner["spec"]
        cairn.require(spec.get("replicas", 1) == 1, f"{spec.get('replicas')} replicas would share one claim")
        strategy = spec.get("strategy", {}).get("type")
        cairn.require(strategy == "Recreate", f"with a claim the strategy must be Recreate, not {strategy}")


def other_containers_have_storage_limits(cairn):
    """If one container has a limit of ephemeral-storage, the node limits the pod to the sum of all limits."""
    for container in cairn.pod.spec["containers"]:
        limits = container.get("resources", {}).get("limits", {})
        message = f"container {container['name']} has no limit of ephemeral-storage, and could use Cairn's"
        cairn.require("ephemeral-storage" in limits, message)


def other_containers_use_loopback_address(cairn):
    """Cairn listens on 127.0.0.1 only, and some clients resolve localhost to ::1 first."""
    for container in containers(cairn.pod):
        for variable in container.get("env", []):
            message = f"{variable['name']} of {container['name']}: use 127.0.0.1, because nothing listens on ::1"
            cairn.require("localhost" not in variable.get("value", ""), message)


def commands_mount_no_claim(cairn):
    """A pod that only runs a command, such as that of `helm test`, would hang if a claim is on another node."""
    if not cairn.is_server:
        for volume in cairn.pod.spec["volumes"]:
            cairn.require("persistentVolumeClaim" not in volume, f"it mounts the claim of {volume['name']}")


def ends_after_app(cairn):
    """A native sidecar ends after the app. An ordinary container needs a preStop hook that waits for the app."""
    hook = cairn.container.get("lifecycle")
    needed = manifests.seconds(cairn.setting("shutdown.grace", GRACE)) + SLACK
    if cairn.is_native:
        policy = cairn.container.get("restartPolicy")
        cairn.require(
            policy == "Always",
            "without restartPolicy: Always the app does not start, because an init container must end first",
        )
        cairn.require(cairn.container is cairn.pod.spec["initContainers"][0], "it must be the first init container")
        cairn.require(not hook, "a native sidecar ends after the app, and needs no preStop hook")
    else:
        is_job = cairn.pod.owner["kind"] in ("Job", "CronJob")
        cairn.require(not is_job, "in a Job it must be native, or the Job never completes")
        command = (hook or {}).get("preStop", {}).get("exec", {}).get("command", [])
        cairn.require(_is_drain(command), f"preStop must run drain with --after and --within, not {command}")
        after, within = manifests.seconds(command[3]), manifests.seconds(command[5])
        cairn.require(0 < after <= within, f"drain --after {after} s must be positive, and at most --within {within} s")
        needed += within
    given = cairn.pod.spec.get("terminationGracePeriodSeconds", 30)
    cairn.require(given >= needed, f"terminationGracePeriodSeconds is {given}, but Cairn may need {needed:g}")


def _is_drain(command):
    options = ["--after", *command[3:4], "--within", *command[5:6]]
    return len(command) == 6 and command == ["/cairn", "drain", *options]


RULES = (
    pins_image_and_arguments,
    container_is_restricted,
    runs_as_dedicated_user,
    pod_is_restricted,
    has_group_for_secrets_and_claims,
    variables_are_defined_before_use,
    events_have_source_labels,
    mounts_match_volumes,
    configured_files_are_mounted,
    other_containers_use_loopback_address,
    commands_mount_no_claim,
)
SERVER_RULES = (
    has_kind_label,
    declares_served_ports,
    has_startup_and_liveness_probes,
    has_readiness_probe,
    has_memory_and_no_cpu_limit,
    refuses_events_before_disk_is_full,
    retains_claims,
    has_exclusive_claim,
    other_containers_have_storage_limits,
    ends_after_app,
)
