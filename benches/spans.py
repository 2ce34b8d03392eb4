"""Exports of spans as OpenTelemetry's SDKs send them, and a generator that sends them with new ids each time (wrk)."""
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HERE = pathlib.Path(__file__).parent
RESOURCE = {"service.name": "planner", "deployment.environment.name": "prod", "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": "1.45.2"}


def messages(role, text):
    """Messages as instrumentations put them into an attribute."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


# A call of a model, with 8 attributes and 532 bytes in an export of 512.
SPAN = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5",
    "gen_ai.agent.name": "researcher", "gen_ai.usage.input_tokens": 1234,
    "gen_ai.input.messages": messages("user", "What will the weather be in Rome tonight?"),
    "gen_ai.output.messages": messages("assistant", "Sunny, no umbrella."),
}


def add(attributes, values):
    for key, value in values.items():
        attribute = attributes.add(key=key)
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value


def export(spans):
    """An export of this number of spans, and the offsets of its ids."""
    request, ids, rng = ExportTraceServiceRequest(), [], random.Random(1)
    resource = request.resource_spans.add()
    add(resource.resource.attributes, RESOURCE)
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "pydantic-ai", "2.68.0"
    for n in range(spans):
        span = scope.spans.add(name="chat gpt-5", kind=3, trace_id=rng.randbytes(16), span_id=rng.randbytes(8), flags=257,
                               start_time_unix_nano=1771324200250000001 + n, end_time_unix_nano=1771324201750000001 + n)
        add(span.attributes, {**SPAN, "gen_ai.conversation.id": f"conversation-{n % 50}"})
        ids += [span.trace_id, span.span_id]
    body, offsets, at = request.SerializeToString(), [], 0
    for id in ids:
        at = body.index(id, at)
        offsets.append(at)
    return body, offsets


class Exports:
    """Requests with an export of `spans` spans each."""

    def __init__(self, spans):
        self.spans = spans
        self.body, offsets = export(spans)
        self.folder = tempfile.TemporaryDirectory(prefix="cairn-load-")
        self.environment = {"OTLP_BODY": f"{self.folder.name}/body", "OTLP_OFFSETS": f"{self.folder.name}/offsets"}
        pathlib.Path(self.environment["OTLP_BODY"]).write_bytes(self.body)
        pathlib.Path(self.environment["OTLP_OFFSETS"]).write_text("\n".join(map(str, offsets)))

    def run(self, listen, connections, seconds):
        """Spans per second of a closed loop, and the p99 of the response times in ms."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s", "-s", HERE / "otlp.lua",
                   f"http://{listen}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True,
                                env={**os.environ, **self.environment}).stdout
        assert "Non-2xx" not in output and "Socket errors" not in output, output
        value, unit = re.search(r"99%\s+([0-9.]+)(us|ms|s)", output).groups()
        p99_ms = float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
        return self.spans * float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1]), p99_ms
