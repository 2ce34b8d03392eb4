"""Loads: request bodies, and the generators that send them (wrk, h2load)."""
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent
# The example event of the documents.
PLAIN = {"agent_id": "my-agent", "action_type": "TOOL_CALL", "action_name": "search_database", "action_status": "success"}
WORDS = "the search found nine orders of this customer since march and two of them were paid back in part".split()


def event(n, agent, size, rng):
    """An event of `size` bytes on the wire: a call of a tool, with its output."""
    event = {"agent_id": f"agent-{agent}", "action_type": "TOOL_CALL", "action_name": "search_orders", "action_status": "success",
             "session_id": f"session-{n % 50}", "duration_ms": n % 997, "action_output": ""}
    missing = size - len(json.dumps(event, separators=(",", ":")))
    words, length = [], 0
    while length < missing:
        words.append(f"{rng.choice(WORDS)}{rng.randrange(1000) if rng.random() < 0.2 else ''}")
        length += len(words[-1]) + 1
    event["action_output"] = " ".join(words)[: max(missing, 0)]
    return event


class Load:
    """Request bodies in a directory, and the path that they are posted to."""

    def __init__(self, path, bodies, events):
        self.path, self.events = path, events
        self.folder = tempfile.TemporaryDirectory(prefix="cairn-load-")
        for n, body in enumerate(bodies):
            pathlib.Path(self.folder.name, str(n)).write_text(body)

    @staticmethod
    def single():
        return Load("/v1/events", [json.dumps(PLAIN)], 1)

    @staticmethod
    def batches(events=100, agents=64, size=250, mixed=False):
        """Batches of `events` events: each batch of one agent, or of all agents in turn if `mixed`."""
        rng = random.Random(1)
        bodies = max(64, agents // events if mixed else 0)
        agent_of = (lambda batch, n: (batch * events + n) % agents) if mixed else (lambda batch, _: batch % agents)
        return Load("/v1/batch", [json.dumps([event(n, agent_of(batch, n), size, rng) for n in range(events)], separators=(",", ":"))
                                  for batch in range(bodies)], events)

    def run(self, listen, connections, seconds):
        """Requests per second of a closed loop: each connection sends the next request after the answer."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "post.lua",
                   f"http://{listen}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True,
                                env={**os.environ, "POST_BODIES": self.folder.name, "POST_PATH": self.path}).stdout
        assert "Non-2xx" not in output and "Socket errors" not in output, output
        return float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1])

    def paced(self, listen, connections, requests_per_second, seconds):
        """Response times in seconds, sorted, of an open loop: requests are sent at a fixed rate."""
        log = pathlib.Path(self.folder.name, "log")
        log.unlink(missing_ok=True)
        rate = f"--rps={requests_per_second / connections:.3f}"
        command = ["h2load", "--h1", f"-c{connections}", rate, f"-D{seconds}", "-d", f"{self.folder.name}/0",
                   "-H", "content-type: application/json", f"--log-file={log}", f"http://{listen}{self.path}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line.split("\t") for line in log.read_text().splitlines()]
        assert lines and all(status in ("200", "201") for _, status, _ in lines), output
        return sorted(int(micros) / 1e6 for _, _, micros in lines)
