// Exports spans with the OpenTelemetry SDK for Go over gRPC, compressed with gzip. Usage: otel_client ENDPOINT
package main

import (
	"context"
	"errors"
	"log"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx := context.Background()
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(os.Args[1]), otlptracegrpc.WithCompressor("gzip"))
	if err != nil {
		log.Fatal(err)
	}
	service := resource.NewSchemaless(attribute.String("service.name", "booker"))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(service))
	tracer := provider.Tracer("interop", trace.WithInstrumentationVersion("1.0"))

	session := attribute.String("gen_ai.conversation.id", "s-1")
	agent := attribute.String("gen_ai.agent.name", "travel-agent")
	operation := func(name string) attribute.KeyValue { return attribute.String("gen_ai.operation.name", name) }
	turn, root := tracer.Start(ctx, "invoke_agent travel-agent", trace.WithAttributes(operation("invoke_agent"), agent, session))
	_, model := tracer.Start(turn, "chat m-1", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		operation("chat"), agent, session, attribute.String("gen_ai.request.model", "m-1"),
		attribute.Float64("ratio", 0.25), attribute.Int64("big", 1<<53+1), attribute.StringSlice("list", []string{"a", "b"}),
		attribute.Bool("flag", false)))
	model.End()
	_, tool := tracer.Start(turn, "execute_tool book", trace.WithAttributes(
		operation("execute_tool"), agent, session, attribute.String("gen_ai.tool.name", "book"),
		attribute.String("gen_ai.tool.call.arguments", `{"to": "Rome"}`)))
	tool.RecordError(errors.New("no seats"))
	tool.SetStatus(codes.Error, "no seats")
	tool.End()
	root.End()
	if err := provider.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
