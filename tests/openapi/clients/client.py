"""Stores, lists and verifies an event with the client that openapi-python-client generates. Arguments: URL."""

import sys

from cairn_client import Client
from cairn_client.api.agents import verify_chain
from cairn_client.api.events import list_events, post_batch, post_event
from cairn_client.models import ListEventsOrder, NewEvent, NewEventLabelsType0, ValidChain

client = Client(base_url=sys.argv[1])
event = NewEvent(agent_id="python-client", action_type="TOOL_CALL", action_name="search")
stored = post_event.sync_detailed(client=client, body=event)
assert stored.status_code == 201, stored
assert stored.parsed.agent_id == "python-client" and stored.parsed.sequence == 1, stored.parsed

labels = NewEventLabelsType0.from_dict({"env": "test", "attempt": 2, "is_dry": True})
batch = post_batch.sync_detailed(client=client, body=[NewEvent(agent_id="python-client", labels=labels)])
assert batch.status_code == 201, batch

events = list_events.sync_detailed(client=client, agent_id="python-client", order=ListEventsOrder.ASC).parsed
assert [event.sequence for event in events] == [1, 2], events
assert events[1].labels.to_dict() == {"env": "test", "attempt": 2, "is_dry": True}, events[1].labels

verdict = verify_chain.sync(client=client, agent_id="python-client")
assert isinstance(verdict, ValidChain) and verdict.valid and verdict.events_verified == 2, verdict
print("openapi-python-client: an event stored, listed and verified")
