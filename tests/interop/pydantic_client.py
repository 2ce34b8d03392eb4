"""Runs two Pydantic AI agents with a model that needs no network; the tool of one fails.

Usage: pydantic_client.py ENDPOINT
"""
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_ai import Agent, InstrumentationSettings
from pydantic_ai.models.test import TestModel

provider = TracerProvider(resource=Resource.create({"service.name": "weather-service"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sys.argv[1]}/v1/traces")))
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
agent = Agent(TestModel(custom_output_text="Sunny"), name="weather_agent")


@agent.tool_plain
def forecast(city: str) -> dict:
    return {"city": city, "sky": "clear"}


print(agent.run_sync("What is the weather?").output)
failing = Agent(TestModel(), name="failing_agent")


@failing.tool_plain
def station(number: int) -> str:
    raise RuntimeError("the station is down")


try:
    failing.run_sync("Ask the station")
except RuntimeError as error:
    print(error)
provider.shutdown()
