import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Exports spans with the OpenTelemetry SDK for Java over gRPC, compressed with gzip. Usage: OtelClient ENDPOINT */
public class OtelClient {
    public static void main(String[] arguments) {
        var exporter = OtlpGrpcSpanExporter.builder().setEndpoint(arguments[0]).setCompression("gzip").build();
        var provider = SdkTracerProvider.builder()
                .setResource(Resource.builder().put("service.name", "booker").build())
                .addSpanProcessor(BatchSpanProcessor.builder(exporter).build())
                .build();
        var tracer = provider.get("interop", "1.0");
        Span root = start(tracer, "invoke_agent travel-agent", "invoke_agent", Context.root()).startSpan();
        Context turn = Context.root().with(root);
        start(tracer, "chat m-1", "chat", turn)
                .setSpanKind(SpanKind.CLIENT)
                .setAttribute("gen_ai.request.model", "m-1")
                .setAttribute("ratio", 0.25)
                .setAttribute("big", (1L << 53) + 1)
                .setAttribute(AttributeKey.stringArrayKey("list"), List.of("a", "b"))
                .setAttribute("flag", false)
                .startSpan()
                .end();
        Span tool = start(tracer, "execute_tool book", "execute_tool", turn)
                .setAttribute("gen_ai.tool.name", "book")
                .setAttribute("gen_ai.tool.call.arguments", "{\"to\": \"Rome\"}")
                .startSpan();
        tool.recordException(new IllegalStateException("no seats"));
        tool.setStatus(StatusCode.ERROR, "no seats");
        tool.end();
        root.end();
        if (!provider.shutdown().join(60, TimeUnit.SECONDS).isSuccess()) {
            System.exit(1);
        }
    }

    private static SpanBuilder start(Tracer tracer, String name, String operation, Context parent) {
        return tracer.spanBuilder(name)
                .setParent(parent)
                .setAttribute("gen_ai.operation.name", operation)
                .setAttribute("gen_ai.agent.name", "travel-agent")
                .setAttribute("gen_ai.conversation.id", "s-1");
    }
}
