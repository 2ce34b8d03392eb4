"""Where one manifest names another: by its name, by labels, or by the names of ports."""
import cairn as cairns
import manifests
from context import need
from manifests import name, of_kind

PERCENT = {f"{number}%" for number in range(1, 101)}


def check(documents):
    """All references among these manifests. What they name outside of them (Secrets) is the user's."""
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
    """Whether a selector, with matchLabels and matchExpressions, takes a pod."""
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
        need(selects(selector, pod.labels), f"{pod.name}: its selector does not take its own pods")
        unstable = {"app.kubernetes.io/version", "helm.sh/chart"} & set(selector["matchLabels"])
        need(not unstable, f"{pod.name}: a selector never changes, and {unstable} does")


def _check_account(documents, pod):
    accounts = {account["metadata"]["name"]: account for account in of_kind(documents, "ServiceAccount")}
    account = accounts.get(pod.spec.get("serviceAccountName", "default"))
    need(account or not accounts, f"{pod.name}: it runs as none of the ServiceAccounts {', '.join(accounts)}")
    automount = account.get("automountServiceAccountToken") if account else False
    need(automount is False, f"{pod.name}: its ServiceAccount has to have automountServiceAccountToken: false")


def _check_claims(documents, pod):
    """Claims may be the user's. Where some are among the manifests, they are what pods mount."""
    claims = {claim["metadata"]["name"] for claim in of_kind(documents, "PersistentVolumeClaim")}
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod.spec.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    missing = mounted - claims if claims else ()
    need(not missing, f"{pod.name}: there is no PersistentVolumeClaim {', '.join(missing)}")


def _check_service(service, pods, servers):
    spec = service["spec"]
    selected = [pod for pod in pods if selects({"matchLabels": spec["selector"]}, pod.labels)]
    need(selected, f"{name(service)}: it selects no pod")
    for pod in selected:
        ports = {port["name"] for container in cairns.containers(pod) for port in container.get("ports", [])}
        for port in spec["ports"]:
            target = port.get("targetPort")
            need(target in ports, f"{name(service)}: {pod.name} has no port {target}, only {', '.join(sorted(ports))}")
            need(target != "cairn-admin", f"{name(service)}: who may send events has no business at the admin port")
    for cairn in servers:
        if cairn.pod in selected:
            _check_service_of_cairn(service, cairn)


def _check_service_of_cairn(service, cairn):
    spec = service["spec"]
    protocol = "https" if cairn.setting("tls.cert_file") else "http"
    is_headless = spec.get("clusterIP") == "None"
    for port in spec["ports"]:
        given = port.get("appProtocol")
        need(given == protocol, f"{name(service)}: appProtocol of {port['name']} has to be {protocol}, not {given}")
        need(port["name"] == port["targetPort"], f"{name(service)}: {port['name']} leads to {port['targetPort']}")
    wanted = {port["name"] for port in cairn.container["ports"]} - {"cairn-admin"}
    missing = wanted - {port["name"] for port in spec["ports"]}
    need(is_headless or not missing, f"{name(service)}: nothing leads to {missing}")
    if is_headless:
        sentence = f"{name(service)}: a replica with a full disk has to be found, too (publishNotReadyAddresses)"
        need(spec.get("publishNotReadyAddresses") is True, sentence)
    elif cairn.pod.owner["spec"].get("replicas", 1) > 1:
        sentence = f"{name(service)}: who sends an event again has to reach the same ledger (sessionAffinity: ClientIP)"
        need(spec.get("sessionAffinity") == "ClientIP", sentence)


def _check_service_of(documents, owner):
    wanted = owner["spec"].get("serviceName")
    services = {service["metadata"]["name"]: service for service in of_kind(documents, "Service")}
    need(wanted in services, f"{name(owner)}: there is no Service {wanted}")
    address = services[wanted]["spec"].get("clusterIP")
    need(address == "None", f"{name(owner)}: {wanted} has to be headless (clusterIP: None)")


def _check_policy(policy, servers):
    spec = policy["spec"]
    selected = [cairn for cairn in servers if selects(spec["podSelector"], cairn.pod.labels)]
    need(selected, f"{name(policy)}: it selects no pod with a Cairn")
    need("Ingress" in spec["policyTypes"], f"{name(policy)}: it does not say who may connect")
    need(("egress" in spec) == ("Egress" in spec["policyTypes"]), f"{name(policy)}: egress and policyTypes disagree")
    opened = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
    for cairn in selected:
        served = {port["containerPort"] for port in cairn.container["ports"]}
        need(opened == served, f"{name(policy)}: it opens {sorted(opened)}, and {cairn.pod.name} has {sorted(served)}")
        _check_admin_is_apart(policy, cairn)


def _check_admin_is_apart(policy, cairn):
    """Who may send is one question, who may scrape another: one rule for both would open each to the other's peers."""
    admin = next(port["containerPort"] for port in cairn.container["ports"] if port["name"] == "cairn-admin")
    for rule in policy["spec"]["ingress"]:
        ports = {port["port"] for port in rule["ports"]}
        need(admin not in ports or ports == {admin}, f"{name(policy)}: one rule opens {sorted(ports)}")


def _check_budget(budget, servers):
    spec = budget["spec"]
    selected = [cairn for cairn in servers if selects(spec["selector"], cairn.pod.labels)]
    need(selected, f"{name(budget)}: it selects no pod with a Cairn")
    given = spec.get("maxUnavailable")
    is_some = given in PERCENT or (isinstance(given, int) and given >= 1)
    need(is_some, f"{name(budget)}: with maxUnavailable {given} no node can be drained")


def _check_monitor(monitor, servers):
    spec = monitor["spec"]
    need(servers, f"{name(monitor)}: there is no pod with a Cairn")
    for cairn in servers:
        need(selects(spec["selector"], cairn.pod.labels), f"{name(monitor)}: it does not select {cairn.pod.name}")
    endpoints = [(endpoint["port"], endpoint["path"]) for endpoint in spec["podMetricsEndpoints"]]
    need(endpoints == [("cairn-admin", "/metrics")], f"{name(monitor)}: it scrapes {endpoints}")
