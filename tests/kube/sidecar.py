"""Cairn beside an agent: the examples, the overlay and the library chart."""
import json
import time

import yaml

from cluster import (
    NODE,
    REPOSITORY,
    Upstream,
    acknowledged_in,
    agent_environment,
    configure,
    eventually,
    example,
    is_ready,
    of_kind,
    require,
    run,
    status_of,
    volume,
)

AGENT = "app.kubernetes.io/name=my-agent"
ORG = "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11"


def the_example_starts_before_its_agent_and_proves_events(namespace, _):
    """Under PodSecurity `restricted`: the first event of the agent is accepted, and the documented commands work."""
    namespace.apply(*example("examples/cairn.yaml"))
    pod = namespace.ready(AGENT)
    eventually("ten events", lambda: len(namespace.acknowledged(pod)) >= 10)
    lines = [json.loads(line) for line in namespace.kubectl("logs", pod, "-c", "my-agent").splitlines()]
    first = next(line for line in lines if line.get("what") == "first answer")
    require(first["status"] == 201, f"the first answer was {first['status']}: Cairn was not ready before the agent")
    started = next(line for line in lines if line.get("what") == "start")
    require(started["uid"] == 10002 and started["gid"] == 10002, f"the agent runs as {started}")
    # As in deploy/README.md.
    namespace.cairn(pod, "health", "--ready")
    require(len(namespace.cairn(pod, "events", "--last", "5").splitlines()) >= 5, "events --last 5 has fewer lines")
    namespace.cairn(pod, "verify", "--all")
    (event,) = [line for line in namespace.cairn(pod, "events", "--last", "1", "--json").splitlines() if line.startswith("{")]
    labels = json.loads(event)["labels"]
    wanted = {"pod": pod, "namespace": namespace.name, "node": "lab"}
    require({key: labels.get(key) for key in wanted} == wanted, f"the labels are {labels}")
    return f"uid {started['uid']}, the first answer is 201, labels of the pod"


def no_acknowledged_event_is_lost_by_kills(namespace, _):
    """Cairn is killed three times while the agent sends; the kubelet waits longer before each restart."""
    namespace.apply(*example("examples/cairn.yaml"))
    pod = namespace.ready(AGENT)
    for number in range(1, 4):
        before = len(namespace.acknowledged(pod))
        eventually("events after a restart", lambda before=before: len(namespace.acknowledged(pod)) > before + 10, 120)
        namespace.kill(pod)
        eventually(
            "a restart", lambda number=number: status_of(namespace.pod(pod), "cairn")["restartCount"] == number, 180
        )
    namespace.ready(AGENT, 180)
    acknowledged = namespace.acknowledged(pod)
    lost = set(acknowledged) - namespace.ids(pod)
    require(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged events are missing")
    namespace.cairn(pod, "verify", "--all")
    return f"three kills, {len(acknowledged)} acknowledged events, none missing"


def a_log_outlives_its_pod_on_a_claim(namespace, _):
    """A roll-out of the example with a claim: what the agent sends while it ends is stored, and the same log goes on."""
    volume("pvc")
    documents = example("examples/sidecar-pvc.yaml")
    agent_environment(documents, AGENT_LAST=3)
    namespace.apply(*documents)
    selector = "app.kubernetes.io/name=my-agent-pvc"
    old = namespace.ready(selector)
    key, log = namespace.key(old), namespace.follow(old)
    eventually("ten events", lambda: len(namespace.acknowledged(old)) >= 10)
    namespace.kubectl("rollout", "restart", "deployment/my-agent-pvc")
    output = log.communicate(timeout=120)[0]
    acknowledged = acknowledged_in(output)
    after = [line for line in output.split('"SIGTERM"', 1)[1].splitlines() if '"acknowledged"' in line]
    require(len(after) > 5, f"{len(after)} events were acknowledged after SIGTERM: Cairn ended before the agent")
    new = eventually("a new pod", lambda: (name := namespace.ready(selector, 5)) != old and name, 120)
    require(namespace.key(new) == key, "the new pod has another log")
    acknowledged += namespace.acknowledged(new)
    lost = set(acknowledged) - namespace.ids(new)
    require(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged events are missing")
    namespace.cairn(new, "verify", "--all")
    return f"{len(acknowledged)} events of two pods in one log, {len(after)} of them sent after SIGTERM"


def an_ordinary_sidecar_drains(namespace, folder):
    """Without native sidecars Cairn waits for the last events of the agent, and keeps them on the claim."""
    volume("ordinary")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "ledger"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2816Mi"}}},
    }
    namespace.apply(claim)
    values = folder / "values.yaml"
    settings = {"replicas": 1, "cairn": {"sidecar": {"native": False}, "storage": {"existingClaim": "ledger"}}}
    values.write_text(yaml.safe_dump(settings))
    run("helm", "dependency", "update", "deploy/helm/example")
    # 10 s more, as deploy/README.md says.
    rendered = run("helm", "template", "demo", "deploy/helm/example", "-n", namespace.name, "-f", values)
    rendered = rendered.replace("terminationGracePeriodSeconds: 55", "terminationGracePeriodSeconds: 65")
    documents = [document for document in yaml.safe_load_all(rendered) if document and document["kind"] != "Pod"]
    agent_environment(documents, AGENT_LAST=3)
    namespace.apply(*documents)
    selector = "app.kubernetes.io/name=example"
    old = namespace.ready(selector)
    log = namespace.follow(old)
    eventually("ten events", lambda: len(namespace.acknowledged(old)) >= 10)
    namespace.kubectl("rollout", "restart", "deployment/demo")
    output = log.communicate(timeout=120)[0]
    after = [line for line in output.split('"SIGTERM"', 1)[1].splitlines() if '"acknowledged"' in line]
    require(len(after) > 5, f"{len(after)} events were acknowledged after SIGTERM")
    new = eventually("a new pod", lambda: (name := namespace.ready(selector, 5)) != old and name, 120)
    lost = set(acknowledged_in(output)) - namespace.ids(new)
    require(not lost, f"{len(lost)} acknowledged events are missing")
    return f"{len(after)} events acknowledged after SIGTERM, none missing"


def _job(namespace, count, **shutdown):
    documents = example("examples/job.yaml")
    destination = {"org_id_file": "/etc/cairn/secrets/org-id", "endpoint": f"http://{NODE}:8099"}
    configure(documents, relay={"agnost": destination}, shutdown=shutdown)
    agent_environment(documents, AGENT_EVENTS=count, AGENT_PERIOD=0.01)
    namespace.secret("agnost", org_id=ORG)
    namespace.apply(*documents)
    selector = "app.kubernetes.io/name=my-agent-job"
    return eventually("the pod of the Job", lambda: [pod["metadata"]["name"] for pod in namespace.pods(selector)])[0]


def a_job_waits_for_its_upstream(namespace, folder):
    """The upstream returns seconds after the agent has ended: everything is relayed before the pod ends, and the Job completes."""
    pod, upstream = _job(namespace, 50), Upstream(folder / "received")
    eventually("the end of the agent", lambda: "terminated" in status_of(namespace.pod(pod), "my-agent")["state"])
    require(upstream.received() == 0, "the upstream was not away")
    time.sleep(5)
    with upstream:
        namespace.kubectl("wait", "job/my-agent-job", "--for=condition=complete", "--timeout=90s")
        require(upstream.received() == 50, f"{upstream.received()} of 50 events were relayed")
    lines = (folder / "received").read_text().splitlines()
    require(all(json.loads(line)["org"] == ORG for line in lines), "an event has another x-org-id")
    return "50 events relayed after the agent had ended, to an upstream that was away for 5 s"


def a_job_says_what_its_upstream_did_not_get(namespace, _):
    """The upstream stays away: the number is in the termination message, and the exit status is 4."""
    pod = _job(namespace, 50, grace="5s", fail_if_unsent=True)
    status = eventually(
        "the end of Cairn", lambda: status_of(namespace.pod(pod), "cairn")["state"].get("terminated"), 120
    )
    require(status["exitCode"] == 4, f"the exit status is {status['exitCode']}")
    require("50 events" in status.get("message", ""), f"the termination message is {status.get('message')!r}")
    return status["message"].strip()


def a_full_ledger_refuses_and_recovers(namespace, _):
    """Not ready and 503 beyond storage.max_bytes; a larger limit applies by `cairn reload` in the same pod."""
    documents = example("examples/cairn.yaml")
    configure(documents, storage={"max_bytes": "4MiB"})
    namespace.apply(*documents)
    pod = namespace.ready(AGENT)
    load = json.loads(namespace.kubectl("exec", pod, "-c", "my-agent", "--", "python3", "/load.py", 4, 100, 10))
    require(load["statuses"].get("503"), f"a full ledger answers {load['statuses']}")
    eventually("a pod that is not ready", lambda: not is_ready(namespace.pod(pod)))
    configure(documents, storage={"max_bytes": "200MiB"})
    namespace.apply(of_kind(documents, "ConfigMap"))

    def reloaded():
        namespace.cairn(pod, "reload")
        return is_ready(namespace.pod(pod))

    # The kubelet updates the file within a minute or two.
    eventually("a ready pod after the reload", reloaded, 180)
    require(status_of(namespace.pod(pod), "cairn")["restartCount"] == 0, "Cairn was restarted")
    before = len(namespace.acknowledged(pod))
    eventually("events", lambda: len(namespace.acknowledged(pod)) > before)
    namespace.cairn(pod, "verify", "--all")
    return f"answers {load['statuses']}, then ready again without a restart"


def ordinary_load_leaves_the_pod_alone(namespace, _):
    """64 connections send batches of 100 for half a minute, within the memory limit of the example."""
    namespace.apply(*example("examples/cairn.yaml"))
    pod = namespace.ready(AGENT)
    load = json.loads(namespace.kubectl("exec", pod, "-c", "my-agent", "--", "python3", "/load.py", 64, 100, 30))
    status = status_of(namespace.pod(pod), "cairn")
    require(status["restartCount"] == 0, f"Cairn was restarted: {status['lastState']}")
    require(set(load["statuses"]) <= {"201", "503"}, f"answers {load['statuses']}")
    require(load["events"] > 10_000, f"only {load['events']} events were accepted")
    namespace.cairn(pod, "verify", "--all")
    return f"{load['events']} events, no restart"


def the_overlay_adds_a_sidecar(namespace, folder):
    """`kubectl apply -k` of the sidecar overlay: two pods, two logs."""
    rendered = run("kubectl", "kustomize", REPOSITORY / "deploy/kustomize/overlays/sidecar")
    namespace.kubectl("apply", "-f", "-", text=rendered)

    def both():
        pods = namespace.pods(AGENT)
        return len(pods) == 2 and all(map(is_ready, pods)) and [pod["metadata"]["name"] for pod in pods]

    first, second = eventually("two ready pods", both)
    require(namespace.key(first) != namespace.key(second), "two ledgers have one log")
    eventually("events", lambda: len(namespace.acknowledged(first)) > 3)
    for pod in (first, second):
        namespace.cairn(pod, "verify", "--all")
    return "two pods with a log each"


CHECKS = (
    the_example_starts_before_its_agent_and_proves_events,
    no_acknowledged_event_is_lost_by_kills,
    a_log_outlives_its_pod_on_a_claim,
    an_ordinary_sidecar_drains,
    a_job_waits_for_its_upstream,
    a_job_says_what_its_upstream_did_not_get,
    a_full_ledger_refuses_and_recovers,
    ordinary_load_leaves_the_pod_alone,
    the_overlay_adds_a_sidecar,
)
