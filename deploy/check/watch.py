"""Checks monitoring: metrics are documented, named metrics exist, alerts fire when they should, the dashboard is valid.

The names of the metrics come from a running server.
"""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request

import yaml

from context import CheckFailed, require
from tools import run_tool

CONFIG = """
listen: 127.0.0.1:0
admin: {{listen: "127.0.0.1:0"}}
log: {{format: json}}
storage: {{data_dir: {folder}/data, min_free_bytes: 1B}}
relay:
  destinations:
    - name: away
      org_id: 00000000-0000-4000-8000-000000000000
      # It refuses connections, so that the metrics of failures are exported, too.
      endpoint: http://127.0.0.1:{refusing}
"""

# Suffixes of the series that one histogram or summary exports.
SUFFIXES = ("_bucket", "_sum", "_count")
METRIC = re.compile(r"\bcairn_[a-z0-9_]+[a-z0-9]\b")
# Names in texts and expressions that are not metrics: crates, files, jobs.
OTHER_NAMES = {"cairn_bin", "cairn_proof", "cairn_sha"}
# Variables of Grafana in queries, with values to check the queries with.
GRAFANA_VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m", "$namespace": ".*", "$pod": ".*"}
# Configurations of Prometheus, and where each has the alerts: that of the compose file, and one for the Debian package.
PROMETHEUS = {
    "prometheus.yaml": "/etc/prometheus/alerts.yaml",
    "scrape.yaml": "/usr/share/doc/cairn/deploy/monitoring/alerts.yaml",
}


def run(context):
    """Runs all checks of this part."""
    monitoring = context.repository / "deploy/monitoring"
    families = set()

    def item(name, check, *arguments):
        context.run_check("watch", name, check, *arguments)

    def metrics():
        text = scrape(context)
        families.update(check_described(text))
        run_tool(["promtool", "check", "metrics"], text)
        return f"{len(families)} families with descriptions"

    item("metrics of a running server", metrics)
    # Without a scrape these would all fail for the same reason.
    if families:
        item("docs/metrics.md", check_documented, context.repository / "docs/metrics.md", families)
        for path in texts(context.repository):
            item(str(path.relative_to(context.repository)), check_named, path, families)
    item("alerts", check_alerts, monitoring)
    item("runbooks", check_runbooks, monitoring)
    item("dashboard", check_dashboard, context, monitoring / "dashboard.json", families)
    for name, rules in PROMETHEUS.items():
        item(name, check_prometheus, context, monitoring, name, rules)
    item("files of the chart", check_chart_files, context, monitoring)


def scrape(context):
    """The metrics of a server that has accepted events, verified a chain, and tried to relay."""
    folder = context.temp / "watch"
    folder.mkdir()
    log = folder / "log"
    config = folder / "cairn.yaml"
    # A bound port that does not listen refuses every connection, and no other process can listen there.
    with socket.socket() as refusing, log.open("w") as output:
        refusing.bind(("127.0.0.1", 0))
        config.write_text(CONFIG.format(folder=folder, refusing=refusing.getsockname()[1]))
        command = [context.binary, "serve", "--config", config]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            return scrape_used(log)
        except Exception as error:
            lines = log.read_text().splitlines()[-20:]
            raise CheckFailed("\n  ".join([f"{error!r} of a server that logged:", *lines])) from error
        finally:
            # A clean shutdown would wait for the relay.
            server.kill()
            server.wait()


def scrape_used(log):
    """Uses the server that writes this log, and returns its metrics."""
    ready = wait_until(log, lambda: next(filter(is_ready, log.read_text().splitlines()), None))
    addresses = json.loads(ready)
    events, admin = f"http://{addresses['listen']}/v1", f"http://{addresses['admin']}"
    post(f"{events}/events", {"agent_id": "a"})
    post(f"{events}/batch", [{"agent_id": "a"}, {"agent_id": 7}])
    fetch(f"{events}/verify?agent_id=a")
    try:
        fetch(f"{events}/nothing")
    except urllib.error.HTTPError as error:
        require(error.code == 404, f"an unknown path is answered with {error.code}")
    return wait_until(f"{admin}/metrics", lambda: next(filter(is_complete, [fetch(f"{admin}/metrics")]), None))


def is_ready(line):
    """Whether the log line names the addresses of the server."""
    return '"cairn is ready"' in line


def is_complete(text):
    """Whether the log has signed both events and the two of the recorder, and the relay has failed."""
    return "cairn_relay_request_duration_seconds_count" in text and "cairn_log_signed_size 4\n" in text


def post(url, body):
    """Sends events."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


def fetch(url):
    """Reads a page."""
    return urllib.request.urlopen(url, timeout=10).read().decode()


def wait_until(name, find):
    """Calls a function until it returns something."""
    for _ in range(600):
        found = find()
        if found:
            return found
        time.sleep(0.1)
    raise CheckFailed(f"{name} did not contain what is expected within a minute")


def check_described(text):
    """Returns the families of a scrape. Each must have a type and a description."""
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    described = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    for name in re.findall(r"^([a-z_0-9]+)[{ ]", text, re.M):
        family = family_of(name, typed)
        is_described = family in typed and len(described.get(family, "").strip()) >= 10
        require(is_described, f"{name} has no type, or no description of at least 10 characters")
    return set(typed)


def family_of(name, families):
    """The family that a series belongs to."""
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in families:
            return name.removesuffix(suffix)
    return name


def check_documented(document, families):
    """The document contains every metric of Cairn."""
    named = set(METRIC.findall(document.read_text()))
    ours = {family for family in families if family.startswith("cairn_")}
    missing = sorted(ours - named)
    require(ours and not missing, f"{document.name} does not document {missing}")
    return f"documents all {len(ours)} metrics"


def texts(repository):
    """The files that name metrics."""
    monitoring = repository / "deploy/monitoring"
    rules = [monitoring / name for name in ("alerts.yaml", "alerts_test.yaml", "dashboard.json")]
    documents = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md"), *(repository / "deploy").rglob("*.md")]
    return [*sorted(documents), *rules]


def check_named(path, families):
    """Every metric that a file names exists."""
    named = set(METRIC.findall(path.read_text())) - OTHER_NAMES
    unknown = sorted(name for name in named if family_of(name, families) not in families)
    require(not unknown, f"{path.name} names {unknown}, which the server does not export")
    return f"names {len(named)} metrics that exist"


def alerts(monitoring):
    """The alerting rules."""
    groups = yaml.safe_load((monitoring / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def check_alerts(monitoring):
    """promtool runs the tests; each alert has a test in which it fires and one in which it does not."""
    run_tool(["promtool", "check", "rules", monitoring / "alerts.yaml"])
    run_tool(["promtool", "test", "rules", monitoring / "alerts_test.yaml"])
    fires, silent = set(), set()
    for test in yaml.safe_load((monitoring / "alerts_test.yaml").read_text())["tests"]:
        for case in test.get("alert_rule_test", []):
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    names = {rule["alert"] for rule in alerts(monitoring)}
    require(names <= fires, f"no test in which {sorted(names - fires)} fire")
    require(names <= silent, f"no test in which {sorted(names - silent)} do not fire")
    return f"{len(names)} alerts, each with a test that fires and one that does not"


def check_runbooks(monitoring):
    """Each alert has a severity, a summary, a description and a runbook section; every section has its alert."""
    headings = re.findall(r"^## (\w+)$", (monitoring / "runbooks.md").read_text(), re.M)
    rules = alerts(monitoring)
    names = [rule["alert"] for rule in rules]
    require(sorted(headings) == sorted(names), f"sections and alerts differ: {set(headings) ^ set(names)}")
    for rule in rules:
        name, annotations = rule["alert"], rule["annotations"]
        link = f"deploy/monitoring/runbooks.md#{name.lower()}"
        require(annotations.get("runbook_url") == link, f"{name}: runbook_url must be {link}")
        require(
            rule["labels"].get("severity") in ("critical", "warning"),
            f"{name}: severity must be critical or warning",
        )
        require(annotations.get("summary") and annotations.get("description"), f"{name}: no summary or no description")
    return f"{len(headings)} sections, one for each alert"


def panels(board):
    """Every panel, including those in collapsed rows."""
    found = []
    for panel in board["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def check_dashboard(context, path, families):
    """Queries are valid, and use the selected data source and pods; ids are unique, panels do not overlap, and every
    metric of Cairn is shown."""
    board = json.loads(path.read_text())
    ids = [panel["id"] for panel in panels(board)]
    require(len(ids) == len(set(ids)), "two panels have the same id")
    check_layout(board)
    queries = []
    for panel in panels(board):
        title = panel["title"]
        require(panel["type"] == "row" or panel.get("description"), f"{title} has no description")
        for target in panel.get("targets", []):
            queries.append(target["expr"])
            require(target["datasource"]["uid"] == "${datasource}", f"{title}: a query uses another data source")
            for selector in re.findall(r"(?:cairn|process)_\w+(?:\{([^}]*)\})?", target["expr"]):
                chosen = 'namespace=~"$namespace"' in selector and 'pod=~"$pod"' in selector
                require(chosen, f"{title}: a query does not select the chosen pods: {target['expr']}")
    check_expressions(context, queries)
    shown = {family_of(name, families) for query in queries for name in METRIC.findall(query)}
    unseen = sorted(name for name in families if name.startswith("cairn_") and name not in shown)
    require(not unseen, f"no panel shows {unseen}")
    return f"{len(queries)} queries, which cover every metric"


def check_layout(board):
    """Panels are inside the grid and do not overlap."""
    taken = {}
    for panel in board["panels"]:
        area, title = panel["gridPos"], panel["title"]
        require(area["x"] + area["w"] <= 24, f"{title} exceeds the grid")
        for x in range(area["x"], area["x"] + area["w"]):
            for y in range(area["y"], area["y"] + area["h"]):
                other = taken.setdefault((x, y), panel["id"])
                require(other == panel["id"], f"{title} overlaps panel {other}")


def check_expressions(context, queries):
    """promtool accepts the queries. They are checked as rules, because it does not check single queries."""
    rules = []
    for number, query in enumerate(queries):
        for variable, value in GRAFANA_VARIABLES.items():
            query = query.replace(variable, value)
        rules.append({"record": f"query:{number}", "expr": query})
    path = context.temp / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run_tool(["promtool", "check", "rules", "--lint=none", path])


def check_chart_files(context, monitoring):
    """The library chart has copies, because helm reads no files outside of a chart and warns of links."""
    copies = sorted((context.repository / "deploy/helm/cairn-lib/files").iterdir())
    for copy in copies:
        require(not copy.is_symlink(), f"{copy.name} is a link")
        require(copy.read_bytes() == (monitoring / copy.name).read_bytes(), f"{copy} differs: cp {monitoring / copy.name} {copy}")
    return f"{len(copies)} copies are equal to deploy/monitoring"


def check_prometheus(context, monitoring, name, rules):
    """promtool accepts a configuration of Prometheus, with the path of the rules replaced."""
    path = context.temp / name
    text = (monitoring / name).read_text()
    require(rules in text, f"{name} does not name {rules}")
    path.write_text(text.replace(rules, str(monitoring / "alerts.yaml")))
    run_tool(["promtool", "check", "config", path])
    return "valid"
