"""Measures durable spans in exports of 512, against decoding the same bytes on one core, and against the database alone
with rows of the same length and an id each; in alternating rounds. Prints the ratios.

Usage: otlp.py CAIRN [ROUNDS]. Needs wrk, and the Python clients of tests/interop, whose protobuf library is in C.
"""
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from machine import folder, limit
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS = 512
SECONDS = 5
HERE = pathlib.Path(__file__).parent
RESOURCE = {"service.name": "planner", "deployment.environment.name": "prod", "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": "1.45.2"}
SPAN = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5",
    "gen_ai.agent.name": "researcher", "gen_ai.usage.input_tokens": 1234, "gen_ai.usage.output_tokens": 321,
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [
        {"type": "text", "content": "What is the weather in Rome today, and should I take an umbrella?"}]}]),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [
        {"type": "text", "content": "Sunny, no umbrella needed."}]}]),
    "gen_ai.response.finish_reasons": "stop", "server.address": "api.example.com",
}


def add(attributes, values):
    for key, value in values.items():
        attribute = attributes.add(key=key)
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value


def export():
    """An export, and the offsets of its ids."""
    request, ids, rng = ExportTraceServiceRequest(), [], random.Random(1)
    resource = request.resource_spans.add()
    add(resource.resource.attributes, RESOURCE)
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "pydantic-ai", "2.68.0"
    for n in range(SPANS):
        span = scope.spans.add(name="chat gpt-5", kind=3, trace_id=rng.randbytes(16), span_id=rng.randbytes(8), flags=257,
                               start_time_unix_nano=1771324200250000001 + n, end_time_unix_nano=1771324201750000001 + n)
        add(span.attributes, {**SPAN, "gen_ai.conversation.id": f"conversation-{n % 50}"})
        ids += [span.trace_id, span.span_id]
    body, offsets, at = request.SerializeToString(), [], 0
    for id in ids:
        at = body.index(id, at)
        offsets.append(at)
    return body, offsets


def decode_rate(body):
    """Spans per second, decoded on one core."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        ExportTraceServiceRequest().ParseFromString(body)
        count += SPANS
    return count / (time.perf_counter() - started)


def ingest_rate(listen, environment):
    """Spans per second, each on disk before the answer."""
    output = subprocess.run(["wrk", "-t1", "-c8", f"-d{SECONDS}s", "-s", HERE / "otlp.lua", f"http://{listen}"],
                          capture_output=True, text=True, check=True, env={**os.environ, **environment}).stdout
    assert "Non-2xx" not in output, output
    return SPANS * float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1])


def stored_bytes(listen):
    """The length of the record of an event, in bytes: its header and its canonical bytes."""
    event = json.loads(urllib.request.urlopen(f"http://{listen}/v1/events?limit=1").read())[0]
    for member in ("hash", "prev_hash", "sequence"):
        del event[member]
    return 93 + len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())


def database_rate(listen):
    """Rows per second that the database alone syncs to disk, in batches of four exports."""
    with folder() as data:
        return limit("rocksdb", data, 4 * SPANS, stored_bytes(listen), 1, SPANS, SECONDS, "ids")[0]


def main():
    cairn, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    body, offsets = export()
    with tempfile.TemporaryDirectory() as bodies, folder() as data:
        names = {"OTLP_BODY": f"{bodies}/body", "OTLP_OFFSETS": f"{bodies}/offsets"}
        pathlib.Path(names["OTLP_BODY"]).write_bytes(body)
        pathlib.Path(names["OTLP_OFFSETS"]).write_text("\n".join(map(str, offsets)))
        server = subprocess.Popen([cairn, "serve", "--listen", "127.0.0.1:0", "--data-dir", data],
                                  stdout=subprocess.PIPE, text=True, env={**os.environ, "CAIRN_ADMIN__LISTEN": "127.0.0.1:0"})
        try:
            listen = next(line["listen"] for line in map(json.loads, server.stdout) if line["message"] == "cairn is ready")
            ratios = []
            for _ in range(rounds):
                decoded, ingested = decode_rate(body), ingest_rate(listen, names)
                stored = database_rate(listen)
                ratios.append((ingested / decoded, ingested / stored))
                print(f"cairn {ingested:.0f}/s  decoding {decoded:.0f}/s, ratio {ratios[-1][0]:.2f}  "
                      f"RocksDB alone {stored:.0f}/s, ratio {ratios[-1][1]:.2f}", flush=True)
            length = stored_bytes(listen)
        finally:
            server.terminate()
            server.communicate()
    decode_ratio, database_ratio = map(statistics.median, zip(*ratios))
    print(f"{len(body) / SPANS:.0f} bytes a span, {length} stored; median ratios {decode_ratio:.2f} and {database_ratio:.2f}")


main()
