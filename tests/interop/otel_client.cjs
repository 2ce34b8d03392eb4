// Exports spans with the OpenTelemetry SDK for Node, in JSON or over gRPC. Usage: otel_client.cjs ENDPOINT [grpc]
const { context, trace, SpanKind, SpanStatusCode } = require("@opentelemetry/api");
const isGrpc = process.argv[3] === "grpc";
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${isGrpc ? "grpc" : "http"}`);
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const exporter = new OTLPTraceExporter({ url: isGrpc ? process.argv[2] : `${process.argv[2]}/v1/traces` });
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "booker" }),
  spanProcessors: [new BatchSpanProcessor(exporter)],
});
provider.register();
const tracer = provider.getTracer("ai", "1.0");

tracer.startActiveSpan("ai.generateText", { attributes: {
  "ai.telemetry.functionId": "travel-agent", "ai.telemetry.metadata.sessionId": "n-1",
  "ai.prompt": JSON.stringify({ prompt: "Book \ud83d\ude80 \ud800" }), "ai.response.text": "Booked",
} }, (root) => {
  const model = tracer.startSpan("ai.generateText.doGenerate", { kind: SpanKind.CLIENT, attributes: {
    "gen_ai.request.model": "m-1", "ai.telemetry.metadata.sessionId": "n-1", "ratio": 0.25, "big": 9007199254740991,
    "list": ["a", "b"], "flag": false,
  } });
  model.end();
  const tool = tracer.startSpan("ai.toolCall", { attributes: {
    "ai.toolCall.name": "book", "ai.toolCall.args": '{"to":"Rome"}', "ai.telemetry.metadata.sessionId": "n-1",
  } });
  tool.recordException(new Error("no seats"));
  tool.setStatus({ code: SpanStatusCode.ERROR });
  tool.end();
  root.end();
});
provider.shutdown();
