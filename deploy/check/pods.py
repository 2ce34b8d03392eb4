"""What every pod with a Cairn has to have, as rules with a name and a reason each."""
import re

import manifests
from cairn import containers, is_loopback
from context import Wrong

MI = 1024**2
USER = 10001
# What Cairn takes if its configuration does not say otherwise.
GRACE = "20s"
# More than shutdown.grace, in seconds: the database is closed after it.
SLACK = 5
ADMIN_LISTEN = "127.0.0.1:7601"
# The ports of a pod: by their names other manifests find them.
PORTS = {"cairn": 7600, "cairn-otlp": 4318}
MOUNTS = {"/etc/cairn": "cairn-config", "/var/lib/cairn": "cairn-data", "/tmp": "cairn-tmp"}
FIELDS = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "NODE_NAME": "spec.nodeName"}
LABELS = {"POD": "$(POD_NAME)", "NAMESPACE": "$(POD_NAMESPACE)", "NODE": "$(NODE_NAME)"}
# What a sidecar needs for its own load, and a central collector for the largest bodies of strangers.
LEAST_MEMORY = {"sidecar": 256 * MI, "standalone": 512 * MI}
REFERENCE = re.compile(r"\$\((\w+)\)")


def check(cairn, waived=()):
    """Every rule. One that a manifest need not keep has to be broken there: else nobody would miss it."""
    for rule in RULES + (SERVER_RULES if cairn.is_server else ()):
        if rule.__name__ not in waived:
            rule(cairn)
        elif cairn.is_server:
            cairn.need(_is_broken(rule, cairn), f"it keeps the rule {rule.__name__}, which it need not")


def _is_broken(rule, cairn):
    try:
        rule(cairn)
    except Wrong:
        return True
    return False


def says_what_it_runs(cairn):
    name, image = cairn.container["name"], cairn.container["image"]
    cairn.need(name == "cairn", "it has to be called cairn, for what looks for it")
    version = image.split("@")[-1].split("/")[-1].partition(":")[2]
    cairn.need(version not in ("", "latest"), f"the image {image} has to say a version, or a digest")
    cairn.need("command" not in cairn.container, "the image says the command")
    arguments = cairn.container.get("args", [])
    has_file = arguments[-2:] == ["--config", "/etc/cairn/cairn.yaml"]
    cairn.need(has_file, f"{arguments} do not end with its configuration")


def may_do_nothing_that_it_need_not(cairn):
    given = cairn.container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for key, value in wanted.items():
        cairn.need(given.get(key) == value, f"securityContext.{key} has to be {value}, not {given.get(key)}")
    unknown = set(given) - set(wanted) - {"runAsUser", "runAsGroup"}
    cairn.need(not unknown, f"securityContext has {', '.join(sorted(unknown))}, which no rule here knows")


def runs_as_its_own_user(cairn):
    for key in ("runAsUser", "runAsGroup"):
        given = cairn.container["securityContext"].get(key)
        cairn.need(given == USER, f"securityContext.{key} has to be {USER}, not {given}")


def pod_is_restricted(cairn):
    spec = cairn.pod.spec
    context = spec.get("securityContext", {})
    cairn.need(context.get("runAsNonRoot") is True, "the pod's securityContext.runAsNonRoot has to be true")
    seccomp = context.get("seccompProfile", {}).get("type")
    cairn.need(seccomp == "RuntimeDefault", f"the pod's seccompProfile has to be RuntimeDefault, not {seccomp}")
    token = spec.get("automountServiceAccountToken")
    cairn.need(token is False, "automountServiceAccountToken has to be false: there is no token to steal then")
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        cairn.need(not spec.get(key), f"the pod shares {key} with others")


def reads_secrets_and_claims_by_group(cairn):
    """Secrets are 0440 and a claim's root belongs to root: without fsGroup Cairn could use neither."""
    secrets = any(kind == "secret" for kind, _, _ in cairn.files().values())
    if not secrets and not _is_on_claim(cairn):
        return
    context = cairn.pod.spec.get("securityContext", {})
    cairn.need(context.get("fsGroup") == USER, f"with secrets or a claim the pod needs fsGroup: {USER}")
    policy = context.get("fsGroupChangePolicy")
    is_closed = policy == "OnRootMismatch"
    cairn.need(is_closed, "fsGroupChangePolicy has to be OnRootMismatch, or the group may read a ledger")


def _is_on_claim(cairn):
    return "cairn-data" in cairn.pod.claims or "persistentVolumeClaim" in (cairn.volume("cairn-data") or {})


def environment_is_in_order(cairn):
    """$(NAME) stands for what was defined before it, and for itself where nothing was."""
    seen = []
    for variable in cairn.container.get("env", []):
        name = variable["name"]
        cairn.need(name not in seen, f"the variable {name} is there twice")
        for used in REFERENCE.findall(variable.get("value", "")):
            cairn.need(used in seen, f"{name} uses $({used}), which is not defined before it")
        if name in FIELDS:
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            cairn.need(field == FIELDS[name], f"{name} has to come from {FIELDS[name]}, not {field}")
        seen.append(name)


def events_say_where_they_came_from(cairn):
    given = {variable["name"]: variable.get("value") for variable in cairn.container.get("env", [])}
    for label, value in LABELS.items():
        if label.lower() not in cairn.setting("ingest.default_labels", {}):
            name = f"CAIRN_INGEST__DEFAULT_LABELS__{label}"
            cairn.need(given.get(name) == value, f"{name} has to be {value}, not {given.get(name)}")


def mounts_what_is_there(cairn):
    pod, mounts = cairn.pod, cairn.container["volumeMounts"]
    volumes = [volume["name"] for volume in pod.spec.get("volumes", [])] + list(pod.claims)
    for name in volumes:
        mounted = [mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])]
        cairn.need(volumes.count(name) == 1, f"the pod has two volumes {name}")
        cairn.need(name in mounted, f"no container mounts the volume {name}")
    paths = {mount["mountPath"]: mount for mount in mounts}
    cairn.need(len(paths) == len(mounts), "two volumes are mounted at one path")
    for mount in mounts:
        cairn.need(mount["name"] in volumes, f"it mounts {mount['name']}, which the pod has not")
        cairn.need("subPath" not in mount, f"{mount['mountPath']}: a subPath would never see a secret that was changed")
    for path, name in MOUNTS.items():
        cairn.need(paths.get(path, {}).get("name") == name, f"the volume {name} has to be mounted at {path}")
    cairn.need(paths["/etc/cairn"].get("readOnly") is True, "/etc/cairn has to be mounted with readOnly: true")
    for path in ("/var/lib/cairn", "/tmp"):
        cairn.need(not paths[path].get("readOnly"), f"{path} cannot be written")
    is_limited = "sizeLimit" in cairn.volume("cairn-tmp").get("emptyDir", {})
    cairn.need(is_limited, "cairn-tmp has to be an emptyDir with a sizeLimit")


def configuration_names_the_files_that_are_there(cairn):
    files = cairn.files()
    cairn.need("/etc/cairn/cairn.yaml" in files, "nothing brings /etc/cairn/cairn.yaml")
    named = paths_under_etc(cairn.config)
    for path in named:
        cairn.need(path in files, f"cairn.yaml names {path}, which no volume brings")
    for path, (kind, source, item) in files.items():
        mode = item.get("mode", cairn.volume("cairn-config")["projected"].get("defaultMode"))
        if kind == "secret":
            cairn.need(path in named, f"{path} is mounted, and cairn.yaml does not name it")
            cairn.need(mode == 0o440, f"{path} is a secret: its mode has to be 0440, not {mode or 0:04o}")
            cairn.need(not source.get("optional"), f"{path} is optional, but Cairn does not start without it")
        else:
            cairn.need(mode == 0o444, f"{path}: without a secret there need be no fsGroup, so its mode has to be 0444")


def paths_under_etc(node):
    """Every text in a configuration that is a path under /etc/cairn."""
    if isinstance(node, dict):
        return [path for value in node.values() for path in paths_under_etc(value)]
    if isinstance(node, list):
        return [path for value in node for path in paths_under_etc(value)]
    return [node] if isinstance(node, str) and node.startswith("/etc/cairn/") else []


def carries_its_label(cairn):
    given = cairn.pod.labels.get("cairn")
    cairn.need(given == cairn.kind, f"PodMonitors look for the label cairn: {cairn.kind}, and it is {given}")


def opens_the_ports_that_it_serves(cairn):
    """A sidecar only the admin port; a standalone one each that is not loopback, under the names that others use."""
    admin = cairn.setting("admin.listen", ADMIN_LISTEN)
    cairn.need(not is_loopback(admin), f"probes come to the pod's address, and admin.listen is {admin}")
    served = {int(address.rpartition(":")[2]) for address in cairn.listens() if not is_loopback(address)}
    wanted = {name: port for name, port in PORTS.items() if port in served}
    cairn.need(len(wanted) == len(served), f"it listens on {served}, and only {PORTS} have names")
    wanted["cairn-admin"] = int(admin.rpartition(":")[2])
    given = {port["name"]: port["containerPort"] for port in cairn.container.get("ports", [])}
    cairn.need(given == wanted, f"its ports have to be {wanted}, not {given}")


def is_probed(cairn):
    startup, liveness = _probe(cairn, "startup", "/healthz"), _probe(cairn, "liveness", "/healthz")
    cairn.need(startup["periodSeconds"] == 1, "the startupProbe has to ask each second: the app waits for it")
    cairn.need(_patience(startup) >= 300, f"a start after a crash may take 300 s, and has {_patience(startup)}")
    cairn.need(liveness.get("timeoutSeconds", 1) >= 5, "the livenessProbe has to give an answer five seconds")
    is_slow = 60 <= _patience(liveness) <= 120
    cairn.need(is_slow, f"the livenessProbe has to wait a minute or two, for a slow disk, not {_patience(liveness)} s")


def is_probed_for_readiness(cairn):
    patience = _patience(_probe(cairn, "readiness", "/readyz"))
    cairn.need(patience <= 30, f"the readinessProbe takes {patience} s to see a full disk")


def _probe(cairn, kind, path):
    probe = cairn.container.get(f"{kind}Probe")
    cairn.need(probe, f"it has no {kind}Probe")
    wanted = {"path": path, "port": "cairn-admin"}
    cairn.need(probe.get("httpGet") == wanted, f"the {kind}Probe has to ask {wanted}, not {probe.get('httpGet')}")
    return probe


def _patience(probe):
    """For how many seconds it may fail, with what Kubernetes takes if nothing is said."""
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)


def has_memory_and_no_limit_of_cpu(cairn):
    requests, limits = cairn.container["resources"]["requests"], cairn.container["resources"]["limits"]
    cairn.need("cpu" not in limits, "a limit of CPU would hold answers back")
    cairn.need("cpu" in requests and "memory" in requests, "it has to request cpu and memory")
    least = LEAST_MEMORY[cairn.kind]
    given = manifests.size(limits.get("memory", "0"))
    cairn.need(given >= least, f"a {cairn.kind} needs {least // MI}Mi of memory, and its limit is {given // MI}Mi")


def refuses_events_before_the_disk_is_full(cairn):
    """storage.max_bytes, then the volume, then the limit of ephemeral-storage: each with room for the one before."""
    ledger = manifests.size(cairn.setting("storage.max_bytes", "10GiB"))
    needed = ledger + ledger // 4 // MI * MI + 256 * MI
    directory = cairn.setting("storage.data_dir", "./data")
    cairn.need(directory == "/var/lib/cairn/data", f"storage.data_dir is {directory}, which is not on the volume")
    requests, limits = cairn.container["resources"]["requests"], cairn.container["resources"]["limits"]
    cairn.need("ephemeral-storage" in limits, "it has no limit of ephemeral-storage")
    limit = manifests.size(limits["ephemeral-storage"])
    is_asked = requests.get("ephemeral-storage") == limits["ephemeral-storage"]
    cairn.need(is_asked, "it has to request all of its ephemeral-storage: others are evicted first")
    volume = _volume_size(cairn)
    if volume is not None:
        sentence = f"max_bytes of {ledger // MI}Mi needs a volume of {needed // MI}Mi, not {volume // MI}Mi"
        cairn.need(volume >= needed, sentence)
    beside = 256 * MI if _is_on_claim(cairn) else volume + 128 * MI
    cairn.need(limit >= beside, f"its limit of ephemeral-storage has to be {beside // MI}Mi, not {limit // MI}Mi")


def _volume_size(cairn):
    """None: the claim is the user's, and not among these manifests."""
    if "cairn-data" in cairn.pod.claims:
        return cairn.pod.claims["cairn-data"]
    volume = cairn.volume("cairn-data")
    if "persistentVolumeClaim" in volume:
        return cairn.claims.get(volume["persistentVolumeClaim"]["claimName"])
    limit = volume.get("emptyDir", {}).get("sizeLimit")
    cairn.need(limit, "cairn-data has no sizeLimit")
    return manifests.size(limit)


def keeps_its_ledgers(cairn):
    """They are evidence, and deleted by hand."""
    policy = cairn.pod.owner["spec"].get("persistentVolumeClaimRetentionPolicy", {})
    cairn.need("Delete" not in policy.values(), f"its ledgers would go with the StatefulSet: {policy}")


def is_alone_with_its_claim(cairn):
    """A claim has one ledger, and a ledger one process: a new pod would wait for the old one for ever."""
    if cairn.pod.owner["kind"] == "Deployment" and _is_on_claim(cairn):
        spec = cairn.pod.owner["spec"]
        cairn.need(spec.get("replicas", 1) == 1, f"{spec.get('replicas')} replicas would share one claim")
        strategy = spec.get("strategy", {}).get("type")
        cairn.need(strategy == "Recreate", f"with a claim the strategy has to be Recreate, not {strategy}")


def others_leave_it_its_disk(cairn):
    """With one limit of ephemeral-storage, the node holds the whole pod to the sum of all of them."""
    for container in cairn.pod.spec["containers"]:
        limits = container.get("resources", {}).get("limits", {})
        sentence = f"container {container['name']} has no limit of ephemeral-storage, and takes Cairn's"
        cairn.need("ephemeral-storage" in limits, sentence)


def others_find_it(cairn):
    """It listens on 127.0.0.1 alone, and localhost is ::1 first for some clients."""
    for container in containers(cairn.pod):
        for variable in container.get("env", []):
            sentence = f"{variable['name']} of {container['name']}: write 127.0.0.1, for nobody listens on ::1"
            cairn.need("localhost" not in variable.get("value", ""), sentence)


def waits_for_no_claim(cairn):
    """What only looks, such as the pod of `helm test`, would hang where a claim is on another node."""
    if not cairn.is_server:
        for volume in cairn.pod.spec["volumes"]:
            cairn.need("persistentVolumeClaim" not in volume, f"it waits for the claim of {volume['name']}")


def ends_after_the_app(cairn):
    """As a native sidecar by itself; else by a preStop hook that waits for what the app still sends."""
    hook = cairn.container.get("lifecycle")
    needed = manifests.seconds(cairn.setting("shutdown.grace", GRACE)) + SLACK
    if cairn.is_native:
        policy = cairn.container.get("restartPolicy")
        cairn.need(policy == "Always", "without restartPolicy: Always the app waits until an init container ends")
        cairn.need(cairn.container is cairn.pod.spec["initContainers"][0], "it has to be the first init container")
        cairn.need(not hook, "a native sidecar is ended after the app, and needs no preStop hook")
    else:
        is_job = cairn.pod.owner["kind"] in ("Job", "CronJob")
        cairn.need(not is_job, "in a Job it has to be native, or the Job never ends")
        command = (hook or {}).get("preStop", {}).get("exec", {}).get("command", [])
        cairn.need(_is_drain(command), f"preStop has to drain with --after, --within and --config, and runs {command}")
        after, within = manifests.seconds(command[3]), manifests.seconds(command[5])
        cairn.need(0 < after <= within, f"drain waits for {after} s of silence, but for no more than {within} s")
        needed += within
    given = cairn.pod.spec.get("terminationGracePeriodSeconds", 30)
    cairn.need(given >= needed, f"terminationGracePeriodSeconds is {given}, and Cairn may need {needed:g}")


def _is_drain(command):
    options = ["--after", *command[3:4], "--within", *command[5:6], "--config", "/etc/cairn/cairn.yaml"]
    return len(command) == 8 and command == ["/cairn", "drain", *options]


RULES = (
    says_what_it_runs,
    may_do_nothing_that_it_need_not,
    runs_as_its_own_user,
    pod_is_restricted,
    reads_secrets_and_claims_by_group,
    environment_is_in_order,
    events_say_where_they_came_from,
    mounts_what_is_there,
    configuration_names_the_files_that_are_there,
    others_find_it,
    waits_for_no_claim,
)
SERVER_RULES = (
    carries_its_label,
    opens_the_ports_that_it_serves,
    is_probed,
    is_probed_for_readiness,
    has_memory_and_no_limit_of_cpu,
    refuses_events_before_the_disk_is_full,
    keeps_its_ledgers,
    is_alone_with_its_claim,
    others_leave_it_its_disk,
    ends_after_the_app,
)
