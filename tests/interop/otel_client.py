"""Exports spans and log records with the OpenTelemetry SDK for Python. Usage: otel_client.py ENDPOINT COMPRESSION [grpc]"""
import sys

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

endpoint = sys.argv[1]
if sys.argv[3:] == ["grpc"]:
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    compression = {"none": Compression.NoCompression, "gzip": Compression.Gzip}[sys.argv[2]]
    endpoints = {"traces": endpoint, "logs": endpoint}
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    compression = Compression(sys.argv[2])
    endpoints = {"traces": f"{endpoint}/v1/traces", "logs": f"{endpoint}/v1/logs"}
resource = Resource.create({"service.name": "planner", "deployment.environment.name": "test"})


class Twice(SpanExporter):
    """Exports everything twice, as an exporter does if the first answer was lost."""

    def __init__(self, exporter):
        self.exporter = exporter

    def export(self, spans):
        self.exporter.export(spans)
        return self.exporter.export(spans)

    def shutdown(self):
        self.exporter.shutdown()


exporter = OTLPSpanExporter(endpoint=endpoints["traces"], compression=compression, timeout=60)
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(Twice(exporter)))
tracer = traces.get_tracer("interop", "1.0")
with tracer.start_as_current_span(
    "invoke_agent researcher",
    attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "researcher", "gen_ai.conversation.id": "c-1"},
):
    with tracer.start_as_current_span(
        "chat gpt-5",
        kind=trace.SpanKind.CLIENT,
        attributes={
            "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5", "gen_ai.provider.name": "openai",
            "gen_ai.conversation.id": "c-1", "gen_ai.input.messages": '[{"role": "user", "content": "Größe?"}]',
            "gen_ai.output.messages": '[{"role": "assistant", "content": "7"}]', "gen_ai.usage.input_tokens": 2**53 + 1,
            "stops": ["a", "b"], "temperature": 0.5, "stream": True,
        },
    ):
        pass
    try:
        with tracer.start_as_current_span(
            "execute_tool search",
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "session.id": "c-1",
                        "gen_ai.tool.call.arguments": '{"q": "size"}', "gen_ai.tool.call.result": "no network"},
        ):
            raise ConnectionError("no route to host")
    except ConnectionError:
        pass
for n in range(600):
    tracer.start_span(f"step {n}").end()
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(
    BatchLogRecordProcessor(OTLPLogExporter(endpoint=endpoints["logs"], compression=compression, timeout=60)))
logger = logs.get_logger("interop")
for _ in range(2):
    # Two equal records are two events.
    logger.emit(LogRecord(timestamp=1_771_324_200_250_000_001, event_name="claude_code.tool_result",
                          severity_number=SeverityNumber.INFO, body={"said": ["done"]},
                          attributes={"session.id": "c-2", "tool_name": "Bash", "success": "true", "duration_ms": "42"}))
traces.shutdown()
logs.shutdown()
