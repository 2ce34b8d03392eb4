"""Runs real clients against a Cairn of its own, and looks at what was stored.

Usage: check.py CAIRN FOLDER, the program and the folder that the clients are installed in. Only loopback is used.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
ORG = "00000000-0000-4000-8000-000000000001"


class Server:
    def __init__(self, cairn, data, **environment):
        self.data, self.cairn = data, cairn
        command = [cairn, "serve", "--listen", "127.0.0.1:0", "--data-dir", data]
        environment = {**os.environ, "CAIRN_ADMIN__LISTEN": "127.0.0.1:0", **environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stdout:
            said = json.loads(line)
            if said.get("message") == "cairn takes events":
                self.url = f"http://{said['listen']}"
                return
        raise SystemExit("the server did not start")

    def events(self, **query):
        query = urllib.parse.urlencode({"order": "asc", "limit": 1000, **query})
        with urllib.request.urlopen(f"{self.url}/v1/events?{query}") as answer:
            return json.load(answer)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        verified = subprocess.run([self.cairn, "verify", "--all", "--data-dir", self.data], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return verified.stdout.strip()


def client(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def picked(event):
    names = ("agent_id", "session_id", "action_type", "action_name", "action_input", "action_output", "action_status",
             "duration_ms", "source", "capture_method")
    return {name: event[name] for name in names if name in event}


def expect(found, expected, what):
    assert found == expected, f"{what}\nfound    {found}\nexpected {expected}"


def expect_all(found, expected, what):
    """In any order: SDKs send from several threads."""
    found, expected = (sorted(json.dumps(event, sort_keys=True) for event in events) for events in (found, expected))
    wrong = sorted(set(found) ^ set(expected))
    assert found == expected, f"{what}: found or expected, and not both:\n" + "\n".join(wrong)


def mapped(session, name, **more):
    return {"agent_id": "agnost", "session_id": session, "action_type": "AGENT_TURN", "action_name": name,
            "source": "agnost", "capture_method": "agnost-api", **more}


def told(session):
    return {**mapped(session, "capture-session"), "action_type": "CUSTOM"}


def agnost_python(server, folder):
    slowest = float(client(f"{folder}/python/bin/python", HERE / "agnost_client.py", server.url, ORG))
    events = server.events()
    sent = {"action_output": '"Sunny"', "action_status": "success", "duration_ms": 12}
    turns = [mapped("py-1", "weather-agent", action_input=json.dumps(f"What is the weather? {n}"), **sent) for n in range(20)]
    last = mapped("py-2", "booking-agent", action_input='"Book a table"', action_output='"No table is free"',
                  action_status="error", duration_ms=34)
    found = [picked(event) for event in events]
    expect_all(found, [told("py-1"), *turns, told("py-2"), last], "conversations")
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
    found = [picked(event) for event in server.events(session_id="node-1")]
    # This SDK sends a text as the member of an object.
    turn = mapped("node-1", "search-agent", action_input='{"input":"Find it"}', action_output='{"output":"Found"}',
                  action_status="success", duration_ms=56)
    failed = {**turn, "action_input": '{"input":"Find more"}', "action_output": '{"output":"Nothing"}',
              "action_status": "error", "duration_ms": 78}
    # It tells of a session once for each call that finds none yet.
    sessions = found.count(told("node-1"))
    assert sessions in (1, 2), f"{sessions} sessions"
    expect_all(found, [told("node-1")] * sessions + [turn, failed], "conversation")
    return f"{len(found)} events"


def main():
    cairn, folder = sys.argv[1:3]
    # An upstream that is not there: nobody waits for it.
    relay = {"CAIRN_RELAY__AGNOST__ORG_ID": ORG, "CAIRN_RELAY__AGNOST__ENDPOINT": "http://127.0.0.1:9",
             "CAIRN_SHUTDOWN__GRACE": "1s"}
    for check in (agnost_python, agnost_node):
        with tempfile.TemporaryDirectory() as data:
            server = Server(cairn, data, **relay)
            try:
                said = check(server, folder)
                verified = server.end().splitlines()[0]
            finally:
                server.process.kill()
            print(f"{check.__name__}: {said}; {verified}")


main()
