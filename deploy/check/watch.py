"""What watches Cairn: every metric is described and told of, everything that is named exists, every alert fires when it should.

The names come from a running server: what it does not export, no alert and no panel can see.
"""

import json
import re
import socket
import subprocess
import time
import urllib.request

import yaml

from context import Wrong, need
from tools import run_tool

CONFIG = """
listen: 127.0.0.1:{port}
admin: {{listen: "127.0.0.1:{admin}"}}
storage: {{data_dir: {folder}/data, min_free_bytes: 1B}}
relay:
  destinations:
    - name: away
      org_id: 00000000-0000-4000-8000-000000000000
      # Nobody listens there: failures are counted, too.
      endpoint: http://127.0.0.1:9
"""

# What makes several series of one metric.
SUFFIXES = ("_bucket", "_sum", "_count")
METRIC = re.compile(r"\bcairn_[a-z0-9_]+[a-z0-9]\b")
# In texts and expressions, and no metrics: the name of the package, its file, a job.
OTHER_NAMES = {"cairn_bin", "cairn_sha"}
# How Grafana's own words look in a query.
GRAFANA_WORDS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m", "$namespace": ".*", "$pod": ".*"}


def run(context):
    """Checks all of it."""
    monitoring = context.repository / "deploy/monitoring"
    families = set()

    def item(name, check, *arguments):
        context.item("watch", name, check, *arguments)

    def metrics():
        text = scrape(context)
        families.update(check_described(text))
        run_tool(["promtool", "check", "metrics"], text)
        return f"{len(families)} families, each described"

    item("metrics of a running server", metrics)
    item("README.md", check_told, context.repository / "README.md", families)
    for path in texts(context.repository):
        item(str(path.relative_to(context.repository)), check_named, path, families)
    item("alerts", check_alerts, monitoring)
    item("runbooks", check_runbooks, monitoring)
    item("dashboard", check_dashboard, context, monitoring / "dashboard.json", families)
    item("prometheus.yaml", check_prometheus, context, monitoring)


def free_port():
    """A port of loopback that nobody has right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def scrape(context):
    """What a server exports that has taken events, verified a chain, and tried to relay."""
    folder = context.temp / "watch"
    folder.mkdir()
    port, admin = free_port(), free_port()
    config = folder / "cairn.yaml"
    config.write_text(CONFIG.format(port=port, admin=admin, folder=folder))
    server = subprocess.Popen([context.binary, "serve", "--config", config], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"http://127.0.0.1:{admin}/readyz", lambda text: True)
        post(f"{url}/v1/events", {"agent_id": "a"})
        post(f"{url}/v1/batch", [{"agent_id": "a"}, {"agent_id": 7}])
        fetch(f"{url}/v1/verify?agent_id=a")
        return wait_for(f"http://127.0.0.1:{admin}/metrics", is_whole)
    finally:
        server.terminate()
        server.wait(timeout=30)


def is_whole(text):
    """Whether the log has signed both events, and the relay has failed."""
    return "cairn_relay_request_duration_seconds_count" in text and "cairn_log_signed_size 2\n" in text


def post(url, body):
    """Sends events."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


def fetch(url):
    """Reads a page."""
    return urllib.request.urlopen(url, timeout=10).read().decode()


def wait_for(url, is_so):
    """Reads a page until it is as it should be."""
    for _ in range(200):
        try:
            text = fetch(url)
            if is_so(text):
                return text
        except OSError:
            pass
        time.sleep(0.1)
    raise Wrong(f"{url} did not become what it should be within 20 s")


def check_described(text):
    """The families of a scrape, each of which has to have a type and a sentence."""
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    described = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    for name in re.findall(r"^([a-z_0-9]+)[{ ]", text, re.M):
        family = family_of(name, typed)
        is_described = family in typed and len(described.get(family, "").strip()) >= 10
        need(is_described, f"{name} has no type, or no description that says anything")
    return set(typed)


def family_of(name, families):
    """The family that a series belongs to."""
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in families:
            return name.removesuffix(suffix)
    return name


def check_told(readme, families):
    """Every metric of ours stands in the README."""
    named = set(METRIC.findall(readme.read_text()))
    ours = {family for family in families if family.startswith("cairn_")}
    missing = sorted(ours - named)
    need(ours and not missing, f"README.md does not tell of {missing}")
    return f"tells of all {len(ours)} metrics of ours"


def texts(repository):
    """Where metrics are named."""
    monitoring = repository / "deploy/monitoring"
    rules = [monitoring / name for name in ("alerts.yaml", "alerts_test.yaml", "dashboard.json")]
    return [*sorted(repository.glob("*.md")), *sorted((repository / "deploy").rglob("*.md")), *rules]


def check_named(path, families):
    """Every metric that a file names exists."""
    named = set(METRIC.findall(path.read_text())) - OTHER_NAMES
    unknown = sorted(name for name in named if family_of(name, families) not in families)
    need(not unknown, f"{path.name} names {unknown}, which no server exports")
    return f"names {len(named)} metrics that exist"


def alerts(monitoring):
    """The alerts, as they are written."""
    groups = yaml.safe_load((monitoring / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def check_alerts(monitoring):
    """Each alert fires when it should, and is silent when not: promtool runs the tests, and each alert has both of them."""
    run_tool(["promtool", "check", "rules", monitoring / "alerts.yaml"])
    run_tool(["promtool", "test", "rules", monitoring / "alerts_test.yaml"])
    fires, silent = set(), set()
    for test in yaml.safe_load((monitoring / "alerts_test.yaml").read_text())["tests"]:
        for case in test.get("alert_rule_test", []):
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    names = {rule["alert"] for rule in alerts(monitoring)}
    need(names <= fires, f"no test in which {sorted(names - fires)} fire")
    need(names <= silent, f"no test in which {sorted(names - silent)} are silent")
    return f"{len(names)} alerts, each fires and is silent in a test"


def check_runbooks(monitoring):
    """Each alert says how bad it is, what it means, and where it stands what to do; no section is left over."""
    headings = re.findall(r"^## (\w+)$", (monitoring / "runbooks.md").read_text(), re.M)
    rules = alerts(monitoring)
    names = [rule["alert"] for rule in rules]
    need(sorted(headings) == sorted(names), f"sections and alerts differ: {set(headings) ^ set(names)}")
    for rule in rules:
        name, annotations = rule["alert"], rule["annotations"]
        link = f"deploy/monitoring/runbooks.md#{name.lower()}"
        need(annotations.get("runbook_url") == link, f"{name}: runbook_url has to be {link}")
        need(rule["labels"].get("severity") in ("critical", "warning"), f"{name}: severity: critical or warning")
        need(annotations.get("summary") and annotations.get("description"), f"{name}: no summary or no description")
    return f"{len(headings)} sections, one for each alert"


def panels(board):
    """Every panel, also those in rows that are folded."""
    found = []
    for panel in board["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def check_dashboard(context, path, families):
    """Every query is one, of the data source and the pods that were chosen; ids are unique, nothing lies on another, and
    no metric of ours is left out."""
    board = json.loads(path.read_text())
    ids = [panel["id"] for panel in panels(board)]
    need(len(ids) == len(set(ids)), "two panels have one id")
    check_layout(board)
    queries = []
    for panel in panels(board):
        title = panel["title"]
        need(panel["type"] == "row" or panel.get("description"), f"{title} has no description")
        for target in panel.get("targets", []):
            queries.append(target["expr"])
            need(target["datasource"]["uid"] == "${datasource}", f"{title}: a query of another data source")
            for selector in re.findall(r"(?:cairn|process)_\w+(?:\{([^}]*)\})?", target["expr"]):
                chosen = 'namespace=~"$namespace"' in selector and 'pod=~"$pod"' in selector
                need(chosen, f"{title}: not of the pods that were chosen: {target['expr']}")
    check_expressions(context, queries)
    shown = {family_of(name, families) for query in queries for name in METRIC.findall(query)}
    unseen = sorted(name for name in families if name.startswith("cairn_") and name not in shown)
    need(not unseen, f"no panel shows {unseen}")
    return f"{len(queries)} queries, of every metric of ours"


def check_layout(board):
    """Panels stand beside each other."""
    taken = {}
    for panel in board["panels"]:
        place, title = panel["gridPos"], panel["title"]
        need(place["x"] + place["w"] <= 24, f"{title} lies over the edge")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["id"])
                need(other == panel["id"], f"{title} lies on panel {other}")


def check_expressions(context, queries):
    """Prometheus can read them: as rules, since promtool checks no queries alone."""
    rules = []
    for number, query in enumerate(queries):
        for word, value in GRAFANA_WORDS.items():
            query = query.replace(word, value)
        rules.append({"record": f"query:{number}", "expr": query})
    path = context.temp / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run_tool(["promtool", "check", "rules", "--lint=none", path])


def check_prometheus(context, monitoring):
    """The configuration of the compose file, with the rules where they are here."""
    path = context.temp / "prometheus.yaml"
    text = (monitoring / "prometheus.yaml").read_text()
    path.write_text(text.replace("/etc/prometheus/alerts.yaml", str(monitoring / "alerts.yaml")))
    run_tool(["promtool", "check", "config", path])
    return "Prometheus reads it"
