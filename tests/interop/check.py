"""Runs real clients against a new Cairn server each, and checks the stored events. Uses only the loopback interface.

Usage: check.py CAIRN FOLDER COLLECTOR, with the program, the folder with the installed clients, and the OpenTelemetry Collector.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
ORG = "00000000-0000-4000-8000-000000000001"
COLLECTOR = sys.argv[3]


class Server:
    def __init__(self, cairn, data, **environment):
        self.data, self.cairn = data, cairn
        self.start("127.0.0.1:0", environment)

    def start(self, listen, environment):
        command = [self.cairn, "serve", "--listen", listen, "--data-dir", self.data]
        environment = {**os.environ, "CAIRN_ADMIN__LISTEN": "127.0.0.1:0", **environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stdout:
            entry = json.loads(line)
            if entry.get("message") == "cairn is ready":
                self.listen, self.admin = entry["listen"], entry["admin"]
                self.url, self.instance = f"http://{self.listen}", entry["instance"]
                return
        raise SystemExit("the server did not start")

    def restart_with_defaults(self):
        """Restarts the server on the same data and address with default settings."""
        self.stop()
        self.start(self.listen, {})

    def kill_and_restart(self):
        self.process.kill()
        self.process.communicate()
        time.sleep(0.3)  # the time without a server is the subject
        self.start(self.listen, {})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.admin}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith(name))

    def stats(self):
        with urllib.request.urlopen(f"{self.url}/v1/stats") as answer:
            return json.load(answer)

    def events(self, **query):
        query = urllib.parse.urlencode({"order": "asc", "limit": 1000, **query})
        with urllib.request.urlopen(f"{self.url}/v1/events?{query}") as answer:
            # The server's own events are not those of the clients.
            return [event for event in json.load(answer) if event["capture_method"] != "recorder"]

    def recorded(self):
        """The server's own events."""
        with urllib.request.urlopen(f"{self.url}/v1/events?agent_id=cairn/{self.instance}&limit=1000") as answer:
            return json.load(answer)

    def post(self, event):
        body, headers = json.dumps(event).encode(), {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/v1/events", body, headers)) as answer:
            return json.load(answer)

    def end(self):
        self.stop()
        verified = subprocess.run([self.cairn, "verify", "--all", "--data-dir", self.data], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return verified.stdout.strip()


def client(*command, **more):
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def select(event):
    """The fields of an event that the checks compare."""
    names = ("agent_id", "session_id", "action_type", "action_name", "action_input", "action_output", "action_status",
             "duration_ms", "source", "capture_method")
    return {name: event[name] for name in names if name in event}


def expect(found, expected, what):
    assert found == expected, f"{what}\nfound    {found}\nexpected {expected}"


def expect_all(found, expected, what):
    """Compares without order, because SDKs send from several threads."""
    found, expected = (sorted(json.dumps(event, sort_keys=True) for event in events) for events in (found, expected))
    difference = sorted(set(found) ^ set(expected))
    assert found == expected, f"{what}: found or expected, but not both:\n" + "\n".join(difference)


def mapped(session, name, **more):
    """The event of a capture-event call."""
    return {"agent_id": "agnost", "session_id": session, "action_type": "AGENT_TURN", "action_name": name,
            "source": "agnost", "capture_method": "agnost-api", **more}


def announced(session):
    """The event of a capture-session call."""
    return {**mapped(session, "capture-session"), "action_type": "CUSTOM"}


def agnost_python(server, folder):
    slowest = float(client(f"{folder}/python/bin/python", HERE / "agnost_client.py", server.url, ORG))
    events = server.events()
    sent = {"action_output": '"Sunny"', "action_status": "success", "duration_ms": 12}
    turns = [mapped("py-1", "weather-agent", action_input=json.dumps(f"What is the weather? {n}"), **sent) for n in range(20)]
    last = mapped("py-2", "booking-agent", action_input='"Book a table"', action_output='"No table is free"',
                  action_status="error", duration_ms=34)
    found = [select(event) for event in events]
    expect_all(found, [announced("py-1"), *turns, announced("py-2"), last], "conversations")
    metadata = next(event["metadata"] for event in events if event["action_name"] == "weather-agent")
    expect(metadata["org_id"], ORG, "organization")
    expect(metadata["agnost"]["metadata"]["temperature"], "0.7", "properties")
    expect(metadata["agnost"]["metadata"]["api_token"], "[REDACTED:api_token]", "secrets")
    users = [event["metadata"]["agnost"]["user_data"]["user_id"] for event in events if event["action_type"] == "CUSTOM"]
    expect(users, ["ann", "ann"], "users")
    assert slowest < 0.1, f"track() took {slowest} s"
    return f"track() took {slowest * 1000:.1f} ms at most"


def agnost_node(server, folder):
    client("node", HERE / "agnost_client.cjs", server.url, ORG, env={**os.environ, "NODE_PATH": f"{folder}/node_modules"})
    found = [select(event) for event in server.events(session_id="node-1")]
    # This SDK sends a string as the member of an object.
    turn = mapped("node-1", "search-agent", action_input='{"input":"Find it"}', action_output='{"output":"Found"}',
                  action_status="success", duration_ms=56)
    failed = {**turn, "action_input": '{"input":"Find more"}', "action_output": '{"output":"Nothing"}',
              "action_status": "error", "duration_ms": 78}
    # It announces a session with every call that is made before the first announcement was answered.
    sessions = found.count(announced("node-1"))
    assert sessions in (1, 2), f"{sessions} sessions"
    expect_all(found, [announced("node-1")] * sessions + [turn, failed], "conversation")
    return f"{len(found)} events"


def otel_python(server, folder, *options):
    """Spans that are exported twice are stored once; two equal log records are two events."""
    client(f"{folder}/python/bin/python", HERE / "otel_client.py", server.url, *(options or ["none"]))
    return otel_python_events(server)


def otel_python_gzip(server, folder):
    return otel_python(server, folder, "gzip")


def otel_python_grpc(server, folder):
    return otel_python(server, folder, "none", "grpc")


def otel_python_grpc_gzip(server, folder):
    return otel_python(server, folder, "gzip", "grpc")


def otel_python_grpc_unavailable(server, folder):
    return otel_python_503(server, folder, "grpc")


def otel_python_503(server, folder, *protocol):
    """The server has no disk space at first; the exporters retry until it accepts."""
    command = [f"{folder}/python/bin/python", HERE / "otel_client.py", server.url, "none", *protocol]
    sending = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    refused = 0
    while refused < 4:
        time.sleep(0.1)  # polls the metric until it shows four refusals
        assert sending.poll() is None, sending.stdout.read()
        refused = server.metric('cairn_ingest_requests_total{route="/v1/traces",code="503"}')
    assert not server.events()
    server.restart_with_defaults()
    output, _ = sending.communicate(timeout=120)
    assert sending.returncode == 0, output
    return f"{refused} requests refused; " + otel_python_events(server)


def otel_python_events(server):
    events = server.events()
    by_name = {event["action_name"]: event for event in events}
    steps = [event["agent_id"] for event in events if event["action_name"].startswith("step ")]
    expect(steps, ["planner"] * 600, "steps")
    labels = {"service.name": "planner", "deployment.environment.name": "test"}
    took = by_name["gpt-5"]["duration_ms"]
    expect(select(by_name["gpt-5"]), {
        "agent_id": "researcher", "session_id": "c-1", "action_type": "LLM_CALL", "action_name": "gpt-5",
        "action_input": [{"role": "user", "content": "Größe?"}], "action_output": [{"role": "assistant", "content": "7"}],
        "duration_ms": took, "source": "otlp", "capture_method": "otlp"}, "model")
    expect(by_name["gpt-5"]["labels"], {**labels, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                                        "gen_ai.request.model": "gpt-5"}, "labels")
    metadata, turn = by_name["gpt-5"]["metadata"], by_name["invoke_agent researcher"]
    expect(metadata["attributes"], {"gen_ai.usage.input_tokens": 2**53 + 1, "stops": ["a", "b"], "temperature": 0.5,
                                    "stream": True}, "attributes")
    expect((metadata["kind"], metadata["scope"], metadata["parent_id"]),
           ("client", {"name": "interop", "version": "1.0"}, turn["id"]), "kind, scope and parent")
    expect(metadata["resource"]["telemetry.sdk.language"], "python", "resource")
    expect((turn["agent_id"], turn["session_id"], turn["action_type"]), ("researcher", "c-1", "AGENT_TURN"), "turn")
    tool = by_name["search"]
    expect(select(tool), {
        "agent_id": "researcher", "session_id": "c-1", "action_type": "TOOL_CALL", "action_name": "search",
        "action_input": {"q": "size"}, "action_output": "no network", "action_status": "error",
        "duration_ms": tool["duration_ms"], "source": "otlp", "capture_method": "otlp"}, "tool")
    expect(tool["error_message"], "ConnectionError: no route to host", "error")
    expect(tool["metadata"]["parent_id"], turn["id"], "parent")
    logs = [event for event in events if event["action_type"] == "TOOL_RESULT"]
    expected = {"agent_id": "planner", "session_id": "c-2", "action_type": "TOOL_RESULT", "duration_ms": 42,
            "action_name": "claude_code.tool_result", "action_status": "success", "source": "otlp", "capture_method": "otlp"}
    expect([select(event) for event in logs], [expected, expected], "log records")
    expect([(event["timestamp"], event["metadata"]["body"], event["metadata"]["attributes"]) for event in logs],
           [("2026-02-17T10:30:00.250000001Z", {"said": ["done"]}, {"success": "true", "tool_name": "Bash"})] * 2, "log records")
    expect(len(events), 605, "events")
    return f"{len(events)} events"


def otel_node_grpc(server, folder):
    return otel_node(server, folder, "grpc")


def otel_node(server, folder, *protocol):
    environment = {**os.environ, "NODE_PATH": f"{folder}/node_modules"}
    client("node", HERE / "otel_client.cjs", server.url, *protocol, env=environment)
    by_type = {event["action_type"]: event for event in server.events()}
    expect(sorted(by_type), ["AGENT_TURN", "LLM_CALL", "TOOL_CALL"], "types")
    root, model, tool = by_type["AGENT_TURN"], by_type["LLM_CALL"], by_type["TOOL_CALL"]
    common = {"agent_id": "travel-agent", "session_id": "n-1", "source": "otlp", "capture_method": "otlp"}

    def timeless(event):
        """The selected fields without the duration, which differs between runs."""
        event = select(event)
        assert event.pop("duration_ms") >= 0
        return event

    # A lone surrogate remains of an emoji that was cut in half.
    expect(timeless(root), {**common, "action_type": "AGENT_TURN", "action_name": "ai.generateText", "action_output": "Booked",
                        "action_input": '{"prompt":"Book \U0001F680 \\ud800"}'}, "root")
    expect(timeless(model), {**common, "action_type": "LLM_CALL", "action_name": "m-1"}, "model")
    expect(model["metadata"]["attributes"], {"ratio": 0.25, "big": 2**53 - 1, "list": ["a", "b"], "flag": False}, "attributes")
    expect(timeless(tool), {**common, "action_type": "TOOL_CALL", "action_name": "book", "action_input": {"to": "Rome"},
                        "action_status": "error"}, "tool")
    expect(tool["error_message"], "no seats", "error")
    expect({event["metadata"]["parent_id"] for event in (model, tool)}, {root["id"]}, "parents")
    return f"{len(by_type)} events"


def otel_go_grpc(server, folder):
    client(f"{folder}/otel_client", server.url)
    return otel_turn(server)


def otel_java_grpc(server, folder):
    client("java", "-cp", f"{folder}/java/target/classes:{folder}/java/target/dependency/*", "OtelClient", server.url)
    return otel_turn(server)


def otel_turn(server):
    """The spans that the clients for Go and Java export."""
    by_type = {event["action_type"]: event for event in server.events()}
    expect(sorted(by_type), ["AGENT_TURN", "LLM_CALL", "TOOL_CALL"], "types")
    root, model, tool = by_type["AGENT_TURN"], by_type["LLM_CALL"], by_type["TOOL_CALL"]
    common = {"agent_id": "travel-agent", "session_id": "s-1", "source": "otlp", "capture_method": "otlp"}
    for event, more in ((root, {"action_type": "AGENT_TURN", "action_name": "invoke_agent travel-agent"}),
                        (model, {"action_type": "LLM_CALL", "action_name": "m-1"}),
                        (tool, {"action_type": "TOOL_CALL", "action_name": "book", "action_input": {"to": "Rome"},
                                "action_status": "error"})):
        expect(select(event), {**common, **more, "duration_ms": event["duration_ms"]}, more["action_type"])
    expect(model["metadata"]["attributes"], {"ratio": 0.25, "big": 2**53 + 1, "list": ["a", "b"], "flag": False}, "attributes")
    expect(model["metadata"]["kind"], "client", "kind")
    expect(tool["error_message"], "no seats", "error")
    expect({event["metadata"]["parent_id"] for event in (model, tool)}, {root["id"]}, "parents")
    return f"{len(by_type)} events"


def pydantic_ai(server, folder):
    client(f"{folder}/python/bin/python", HERE / "pydantic_client.py", server.url)
    ok, failed = server.events(agent_id="weather_agent"), server.events(agent_id="failing_agent")
    expect([event["action_type"] for event in ok], ["LLM_CALL", "TOOL_CALL", "LLM_CALL", "AGENT_TURN"], "types")
    turn, tool = ok[3], ok[1]
    expect((tool["action_name"], tool["action_input"], tool["action_output"], tool.get("action_status")),
           ("forecast", {"city": "a"}, {"city": "a", "sky": "clear"}, None), "tool")
    expect((turn["action_output"], turn["action_input"][0]["parts"][0]["content"]), ("Sunny", "What is the weather?"), "turn")
    expect([event["metadata"]["parent_id"] for event in ok[:3]], [turn["id"]] * 3, "parents")
    expect(len({event["session_id"] for event in ok}), 1, "sessions")
    tool = failed[1]
    expect((tool["action_name"], tool["action_input"], tool["action_status"], tool["error_message"]),
           ("station", {"number": 0}, "error", "the station is down"), "failing tool")
    expect([(event["action_type"], event.get("action_status")) for event in failed],
           [("LLM_CALL", None), ("TOOL_CALL", "error"), ("AGENT_TURN", "error")], "failing run")
    return f"{len(ok) + len(failed)} events"


def collector_grpc(server, folder):
    """The Collector has acknowledged every span, and Cairn is killed again and again: nothing is lost, and nothing is stored twice."""
    exports, spans, kills = 300, 50, 5
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = "{}:{}".format(*free.getsockname())
    with tempfile.TemporaryDirectory() as queue:
        environment = {**os.environ, "COLLECTOR_DATA": queue, "COLLECTOR_LISTEN": listen, "CAIRN_ADDRESS": server.listen}
        command = [COLLECTOR, "--config", HERE / "collector_grpc.yaml"]
        collector = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait(lambda: is_open(listen), "the Collector")
            for n in range(exports):
                body = {"resourceSpans": [{"scopeSpans": [{"spans": [
                    {"traceId": f"{n + 1:032x}", "spanId": f"{m + 1:016x}", "name": f"{n} {m}"} for m in range(spans)]}]}]}
                request = urllib.request.Request(f"http://{listen}/v1/traces", json.dumps(body).encode(),
                                                 {"content-type": "application/json"})
                with urllib.request.urlopen(request) as answer:
                    assert answer.status == 200
                if n % (exports // kills) == exports // kills // 2:
                    server.kill_and_restart()
            recorded = len(server.recorded())
            wait(lambda: server.stats()["total_events"] - recorded >= exports * spans, "all spans")
        finally:
            collector.terminate()
            collector.wait(timeout=30)
    found = server.stats()["total_events"] - len(server.recorded())
    expect(found, exports * spans, "spans")
    return f"{found} spans, {kills} kills"


def is_open(address):
    host, port = address.split(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def wait(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)  # polls the condition


def browser(server, folder):
    """A page of another site, also one whose name was given the address of this host, can neither read nor write."""
    server.post({"agent_id": "honest", "action_name": "secret"})
    output = client("node", HERE / "browser_client.cjs", server.url, shutil.which("chromium"),
                    env={**os.environ, "NODE_PATH": f"{folder}/node_modules"})
    seen = json.loads(output)
    # A page that Cairn itself could have served reads and writes: the attempts would succeed if nothing refused them.
    assert "secret" in seen["own"]["read"] and seen["own"]["write"].startswith("201"), seen["own"]
    names = {event["action_name"] for event in server.events(agent_id="forged")}
    expect({name.split()[0] for name in names}, {server.url}, "origins of the stored events")
    for page in ("rebound", "other"):
        for way, outcome in seen[page].items():
            assert "secret" not in outcome and not outcome.startswith("2"), f"{page} {way}: {outcome}"
    for way in ("read", "write", "writeText", "writeTraces"):
        assert seen["rebound"][way].startswith("403"), f"{way}: {seen['rebound'][way]}"
        assert "http.allowed_hosts" in seen["rebound"][way], seen["rebound"][way]
    refused = server.metric('cairn_http_responses_total{code="403"')
    assert refused >= 8, f"{refused} requests refused"
    return f"{refused} requests of other pages refused, {len(names)} events of the own page"


def main():
    cairn, folder = sys.argv[1:3]
    # No upstream listens there, and no client may have to wait for it.
    relay = {"CAIRN_RELAY__AGNOST__ORG_ID": ORG, "CAIRN_RELAY__AGNOST__ENDPOINT": "http://127.0.0.1:9",
             "CAIRN_SHUTDOWN__GRACE": "1s"}
    # More free space than any disk has.
    no_space = {"CAIRN_STORAGE__MIN_FREE_BYTES": "1000PiB"}
    checks = [(check, relay) for check in (agnost_python, agnost_node)]
    over_http = (otel_python, otel_python_gzip, otel_node, pydantic_ai, browser)
    over_grpc = (otel_python_grpc, otel_python_grpc_gzip, otel_node_grpc, otel_go_grpc, otel_java_grpc, collector_grpc)
    checks += [(check, {}) for check in (*over_http, *over_grpc)]
    for check, environment in [*checks, (otel_python_503, no_space), (otel_python_grpc_unavailable, no_space)]:
        with tempfile.TemporaryDirectory() as data:
            server = Server(cairn, data, **environment)
            try:
                result = check(server, folder)
                verified = server.end().splitlines()[0]
            finally:
                server.process.kill()
            print(f"{check.__name__}: {result}; {verified}")


main()
