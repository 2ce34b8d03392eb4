"""Uses the Python SDK of Agnost as its documentation describes; prints the longest time of a call in seconds.

Usage: agnost_client.py ENDPOINT ORG_ID
"""
import sys
import time

import agnost

endpoint, org_id = sys.argv[1:3]
assert agnost.init(org_id, endpoint=endpoint)
agnost.identify("ann", {"name": "Ann", "plan": "paid"})
slowest = 0
for n in range(20):
    started = time.perf_counter()
    agnost.track(user_id="ann", conversation_id="py-1", agent_name="weather-agent", input=f"What is the weather? {n}",
                 output="Sunny", properties={"temperature": 0.7, "api_token": "s3cret"}, latency=12)
    # The first call announces the session and waits for the answer, so it does not count.
    slowest = max(slowest, time.perf_counter() - started) if n else 0
interaction = agnost.begin(user_id="ann", conversation_id="py-2", agent_name="booking-agent", input="Book a table")
interaction.end(output="No table is free", success=False, latency=34)
agnost.flush()
agnost.shutdown()
print(slowest)
