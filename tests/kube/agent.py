"""An agent that sends events to its Cairn, each with an id and again until it is acknowledged. It prints one JSON object per line.

AGENT_EVENTS  how many, then it ends; empty: until SIGTERM
AGENT_PERIOD  seconds between events
AGENT_LAST    seconds for which it goes on sending after SIGTERM
"""
import http.client
import json
import os
import signal
import time
import uuid

COUNT = int(os.environ.get("AGENT_EVENTS") or 0)
PERIOD = float(os.environ.get("AGENT_PERIOD", "0.1"))
LAST = float(os.environ.get("AGENT_LAST", "3"))
terminated = None


def say(**fields):
    print(json.dumps({"time": round(time.time(), 3), **fields}), flush=True)


def terminate(*_):
    global terminated
    terminated = terminated or time.time()
    say(what="SIGTERM")


def send(event):
    connection = http.client.HTTPConnection("127.0.0.1:7600", timeout=10)
    try:
        connection.request("POST", "/v1/events", json.dumps(event), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def main():
    signal.signal(signal.SIGTERM, terminate)
    say(what="start", uid=os.getuid(), gid=os.getgid(), groups=os.getgroups())
    acknowledged = attempts = 0
    while not (COUNT and acknowledged >= COUNT) and not (terminated and time.time() - terminated > LAST):
        event = {"id": str(uuid.uuid4()), "agent_id": "my-agent", "action_type": "TOOL_CALL"}
        status = None
        while status not in (200, 201) and not (terminated and time.time() - terminated > LAST):
            attempts += 1
            try:
                status = send(event)
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
            if attempts == 1:
                say(what="first answer", status=status)
            if status not in (200, 201):
                time.sleep(0.05)
        if status in (200, 201):
            acknowledged += 1
            say(acknowledged=event["id"])
        time.sleep(PERIOD)
    say(what="end", acknowledged=acknowledged)


main()
