"""load.py CONNECTIONS EVENTS SECONDS: batches to the Cairn of this pod over kept connections. Prints how they were answered."""
import collections
import http.client
import json
import sys
import threading
import time

CONNECTIONS, EVENTS, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
BATCH = [{"agent_id": f"load-{n % 50}", "action_type": "TOOL_CALL", "action_input": {"q": "y" * 100}} for n in range(EVENTS)]
BODY = json.dumps(BATCH)
statuses = collections.Counter()


def send(end):
    connection = http.client.HTTPConnection("127.0.0.1:7600", timeout=60)
    while time.time() < end:
        try:
            connection.request("POST", "/v1/batch", BODY, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            statuses[str(response.status)] += 1
            if response.status == 503:
                time.sleep(0.2)
        except (OSError, http.client.HTTPException) as error:
            statuses[type(error).__name__] += 1
            connection.close()


threads = [threading.Thread(target=send, args=(time.time() + SECONDS,)) for _ in range(CONNECTIONS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"statuses": statuses, "events": statuses["201"] * EVENTS}))
