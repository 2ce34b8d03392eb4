"""Checks references between manifests: by name, by labels, and by the names of ports."""
import cairn as cairns
import manifests
from context import require
from manifests import name, of_kind

PERCENT = {f"{number}%" for number in range(1, 101)}


def check(documents):
    """Checks all references among these manifests. References to other objects (Secrets) are the user's."""
    pods = manifests.pods(documents)
    found = cairns.of(documents)
    servers = [cairn for cairn in found if cairn.is_server]
    for pod in pods:
        _check_labels_of(pod)
        _check_account(documents, pod)
        _check_claims(documents, pod)
    for service in of_kind(documents, "Service"):
        _check_service(service, pods, servers)
    for owner in of_kind(documents, "StatefulSet"):
        _check_service_of(documents, owner)
    for policy in of_kind(documents, "NetworkPolicy"):
        _check_policy(policy, servers)
    for budget in of_kind(documents, "PodDisruptionBudget"):
        _check_budget(budget, servers)
    for monitor in of_kind(documents, "PodMonitor"):
        _check_monitor(monitor, servers)


def selects(selector, labels):
    """Whether a selector, with matchLabels and matchExpressions, selects a pod with these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        given, values = labels.get(expression["key"]), expression.get("values", [])
        holds = {
            "In": given in values,
            "NotIn": given not in values,
            "Exists": given is not None,
            "DoesNotExist": given is None,
        }
        if not holds[expression["operator"]]:
            return False
    return True


def _check_labels_of(pod):
    selector = pod.owner["spec"].get("selector")
    if selector is not None:
        require(selects(selector, pod.labels), f"{pod.name}: its selector does not select its own pods")
        unstable = {"app.kubernetes.io/version", "helm.sh/chart"} & set(selector["matchLabels"])
        require(not unstable, f"{pod.name}: the selector contains {unstable}, which changes")


def _check_account(documents, pod):
    accounts = {account["metadata"]["name"]: account for account in of_kind(documents, "ServiceAccount")}
    account = accounts.get(pod.spec.get("serviceAccountName", "default"))
    require(account or not accounts, f"{pod.name}: it uses none of the ServiceAccounts {', '.join(accounts)}")
    automount = account.get("automountServiceAccountToken") if account else False
    require(automount is False, f"{pod.name}: its ServiceAccount must have automountServiceAccountToken: false")


def _check_claims(documents, pod):
    """Pods mount the claims among the manifests. Without any, claims are the user's."""
    claims = {claim["metadata"]["name"] for claim in of_kind(documents, "PersistentVolumeClaim")}
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod.spec.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    missing = mounted - claims if claims else ()
    require(not missing, f"{pod.name}: PersistentVolumeClaim {', '.join(missing)} is missing")


def _check_service(service, pods, servers):
    spec = service["spec"]
    selected = [pod for pod in pods if selects({"matchLabels": spec["selector"]}, pod.labels)]
    require(selected, f"{name(service)}: it selects no pod")
    for pod in selected:
        ports = {port["name"] for container in cairns.containers(pod) for port in container.get("ports", [])}
        for port in spec["ports"]:
            target = port.get("targetPort")
            require(
                target in ports,
                f"{name(service)}: {pod.name} has no port {target}, only {', '.join(sorted(ports))}",
            )
            require(target != "cairn-admin", f"{name(service)}: the Service must not expose the admin port")
    for cairn in servers:
        if cairn.pod in selected:
            _check_service_of_cairn(service, cairn)


def _check_service_of_cairn(service, cairn):
    spec = service["spec"]
    protocol = "https" if cairn.setting("tls.cert_file") else "http"
    is_headless = spec.get("clusterIP") == "None"
    for port in spec["ports"]:
        given = port.get("appProtocol")
        require(given == protocol, f"{name(service)}: appProtocol of {port['name']} must be {protocol}, not {given}")
        require(
            port["name"] == port["targetPort"],
            f"{name(service)}: port {port['name']} has the target {port['targetPort']}",
        )
    wanted = {port["name"] for port in cairn.container["ports"]} - {"cairn-admin"}
    missing = wanted - {port["name"] for port in spec["ports"]}
    require(is_headless or not missing, f"{name(service)}: no port has the target {missing}")
    if is_headless:
        message = f"{name(service)}: a replica with a full disk must be reachable (publishNotReadyAddresses)"
        require(spec.get("publishNotReadyAddresses") is True, message)
    elif cairn.pod.owner["spec"].get("replicas", 1) > 1:
        message = f"{name(service)}: a retry must reach the same ledger (sessionAffinity: ClientIP)"
        require(spec.get("sessionAffinity") == "ClientIP", message)


def _check_service_of(documents, owner):
    wanted = owner["spec"].get("serviceName")
    services = {service["metadata"]["name"]: service for service in of_kind(documents, "Service")}
    require(wanted in services, f"{name(owner)}: Service {wanted} is missing")
    address = services[wanted]["spec"].get("clusterIP")
    require(address == "None", f"{name(owner)}: {wanted} must be headless (clusterIP: None)")


def _check_policy(policy, servers):
    spec = policy["spec"]
    selected = [cairn for cairn in servers if selects(spec["podSelector"], cairn.pod.labels)]
    require(selected, f"{name(policy)}: it selects no pod that runs Cairn")
    require("Ingress" in spec["policyTypes"], f"{name(policy)}: it does not restrict ingress")
    require(("egress" in spec) == ("Egress" in spec["policyTypes"]), f"{name(policy)}: egress and policyTypes disagree")
    opened = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
    for cairn in selected:
        served = {port["containerPort"] for port in cairn.container["ports"]}
        require(
            opened == served,
            f"{name(policy)}: it opens {sorted(opened)}, but {cairn.pod.name} has {sorted(served)}",
        )
        _check_admin_rule_is_separate(policy, cairn)


def _check_admin_rule_is_separate(policy, cairn):
    """Events and metrics have separate rules: a shared rule would open each to the peers of the other."""
    admin = next(port["containerPort"] for port in cairn.container["ports"] if port["name"] == "cairn-admin")
    for rule in policy["spec"]["ingress"]:
        ports = {port["port"] for port in rule["ports"]}
        require(admin not in ports or ports == {admin}, f"{name(policy)}: one rule opens {sorted(ports)}")


def _check_budget(budget, servers):
    spec = budget["spec"]
    selected = [cairn for cairn in servers if selects(spec["selector"], cairn.pod.labels)]
    require(selected, f"{name(budget)}: it selects no pod that runs Cairn")
    given = spec.get("maxUnavailable")
    is_some = given in PERCENT or (isinstance(given, int) and given >= 1)
    require(is_some, f"{name(budget)}: with maxUnavailable {given} no node can be drained")


def _check_monitor(monitor, servers):
    spec = monitor["spec"]
    require(servers, f"{name(monitor)}: no pod runs Cairn")
    for cairn in servers:
        require(selects(spec["selector"], cairn.pod.labels), f"{name(monitor)}: it does not select {cairn.pod.name}")
    endpoints = [(endpoint["port"], endpoint["path"]) for endpoint in spec["podMetricsEndpoints"]]
    require(endpoints == [("cairn-admin", "/metrics")], f"{name(monitor)}: it scrapes {endpoints}")
