"""Sends events to localhost:7600 until its standard input ends or a minute is over, each again until it is acknowledged.

Prints the ids of the acknowledged events. Runs inside the server, so it uses only the standard library.
"""
import http.client
import json
import select
import sys
import time
import uuid

deadline = time.monotonic() + 60
while not select.select([sys.stdin], [], [], 0)[0]:
    event = {"agent_id": "load", "id": str(uuid.uuid4())}
    acknowledged = False
    while not acknowledged:
        if time.monotonic() > deadline:
            sys.exit("no acknowledgement within a minute")
        try:
            connection = http.client.HTTPConnection("localhost", 7600, timeout=5)
            connection.request("POST", "/v1/events", json.dumps(event), {"Content-Type": "application/json"})
            acknowledged = connection.getresponse().status in (200, 201)
            connection.close()
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    print(event["id"], flush=True)
