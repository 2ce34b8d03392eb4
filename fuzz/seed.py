"""Seeds for the fuzz targets: test vectors, requests in the form of real senders, an evidence package of a real server.

Usage: seed.py CAIRN CORPUS
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CAIRN, CORPUS = sys.argv[1], pathlib.Path(sys.argv[2])


def seed(target, data):
    data = data.encode() if isinstance(data, str) else data
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def texts(value):
    """Every string in a file of test vectors, and every object as JSON text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield json.dumps(value)
        for item in value.values():
            yield from texts(item)


def field(number, data):
    """A length-delimited protobuf field."""
    head, length = bytes([number << 3 | 2]), len(data)
    while length > 127:
        head += bytes([length & 127 | 128])
        length >>= 7
    return head + bytes([length]) + data


def spans():
    attributes = {
        "gen_ai.operation.name": "execute_tool", "gen_ai.agent.name": "researcher", "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": '{"q":[1,2.5,null]}', "gen_ai.conversation.id": "c", "error.type": "timeout",
        "openinference.span.kind": "LLM", "llm.model_name": "m", "input.value": "x", "output.value": "[1]",
        "metadata": '{"lc_agent_name":"a"}', "traceloop.span.kind": "tool", "ai.prompt": "p",
    }
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    pairs += [{"key": "n", "value": {"intValue": "7"}}, {"key": "d", "value": {"doubleValue": 0.5}},
              {"key": "l", "value": {"arrayValue": {"values": [{"boolValue": True}]}}},
              {"key": "k", "value": {"kvlistValue": {"values": pairs[:2]}}}, {"key": "b", "value": {"bytesValue": "AAE="}}]
    span = {"traceId": "01" * 16, "spanId": "02" * 8, "parentSpanId": "03" * 8, "name": "ai.toolCall", "kind": 3,
            "startTimeUnixNano": "1771324200250000001", "endTimeUnixNano": 1.7713242017e18, "attributes": pairs,
            "status": {"code": 2, "message": "no"}, "events": [{"name": "exception", "attributes": pairs[:3]}],
            "links": [{"traceId": "04" * 16, "spanId": "05" * 8}], "flags": 257}
    record = {"timeUnixNano": "1", "severityNumber": 17, "body": {"stringValue": "claude_code.tool_result"},
              "attributes": [{"key": "event.name", "value": {"stringValue": "tool_result"}}] + pairs, "traceId": "01" * 16}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "svc"}}]}
    yield 2, json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "s"}, "spans": [span]}]}]})
    yield 3, json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]})


def protobuf():
    pair = field(1, b"gen_ai.agent.name") + field(2, field(1, b"researcher"))
    span = field(1, bytes(range(16))) + field(2, bytes(range(8))) + field(5, b"chat") + field(9, pair) + bytes([0x39] + [1] * 8)
    scope = field(1, field(1, b"scope")) + field(2, span)
    yield 0, field(1, field(1, field(1, field(1, b"service.name") + field(2, field(1, b"svc")))) + field(2, scope))
    record = bytes([0x09] + [1] * 8) + field(5, field(1, b"said")) + field(6, pair) + field(9, bytes(range(16)))
    yield 1, field(1, field(2, field(2, record)))


def agnost():
    yield json.dumps({"event_id": "c6aae2e9-6ca5-4a64-9a02-de83d7bf0154", "session_id": "s", "primitive_type": "tool",
                      "primitive_name": "weather", "latency": 1500, "success": False, "args": '{"a":1}', "result": {"x": [1]},
                      "timestamp": 1771324200250, "parent_id": "p", "metadata": {"authorization": "x", "a_token": "y"}})
    yield json.dumps({"session_id": "s", "client_config": "sdk", "user_data": {"user_id": "u", "api-key": "k"}, "ip": ""})


def package():
    """The evidence package of a server with three events; its checkpoint becomes a seed, too."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"CAIRN_LISTEN": "127.0.0.1:0", "CAIRN_ADMIN__LISTEN": "127.0.0.1:0", "CAIRN_STORAGE__DATA_DIR": folder + "/data"}
        server = subprocess.Popen([CAIRN, "serve"], env=env, stdout=subprocess.PIPE)
        try:
            for line in server.stdout:
                entry = json.loads(line)
                if entry["message"] == "cairn is ready":
                    break
            url = f"http://{entry['listen']}"
            for n in range(3):
                body = json.dumps({"agent_id": "a", "action_input": n}).encode()
                request = urllib.request.Request(url + "/v1/events?wait=checkpoint", body, {"content-type": "application/json"})
                urllib.request.urlopen(request).read()
            yield urllib.request.urlopen(url + "/v1/export?agent_id=a").read()
            note = urllib.request.urlopen(url + "/log/checkpoint").read()
            seed("tlog", note)
        finally:
            server.kill()
            server.wait()


for path in sorted((ROOT / "tests/vectors").glob("*.json")):
    for text in texts(json.loads(path.read_text())):
        seed("canonical", text)
        seed("redact", text)
        seed("event", text)
for kind, text in spans():
    seed("otlp", bytes([kind]) + text.encode())
for kind, data in protobuf():
    seed("otlp", bytes([kind]) + data)
for kind, text in enumerate(agnost()):
    seed("agnost", bytes([kind]) + text.encode())
    seed("event", text)
for data in package():
    seed("package", data)
for path in ("entries/000", "0/x001/x234/067", "2/000.p/17", "entries/x123/999.p/255", "63/000"):
    seed("tlog", path)
for text in ("jane@example.com paid with 4111 1111 1111 1111", "Authorization: Bearer abc123def456", "+14155552671 from 192.168.1.1, ::1, 2001:db8::1",
             "DE89370400440532013000 123-45-6789 046 454 286 AB123456C", "-----BEGIN PRIVATE KEY-----\nx", "AKIA" + 16 * "A", "ghp_" + 36 * "a",
             json.dumps({"secret_access_key": 40 * "a", "a@b.org": [json.dumps({"c": "a@b.org"})]}), "sk-" + 20 * "a1", "eyJhbGciOiJub25lIn0.eyJ9.x"):
    seed("redact", text)
