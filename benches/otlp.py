"""Measures durable spans in exports of 512, against decoding the same bytes on one core, and against the database alone
with rows of the same length; in alternating rounds. Prints the ratios.

Usage: otlp.py CAIRN [ROUNDS]. Needs wrk, and the Python clients of tests/interop, whose protobuf library is in C.
"""
import json
import statistics
import sys
import time
import urllib.request

from machine import Cairn, folder, limit
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from spans import Exports

SPANS = 512
SECONDS = 5
CONNECTIONS = 8


def decode_rate(body):
    """Spans per second, decoded on one core."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        ExportTraceServiceRequest().ParseFromString(body)
        count += SPANS
    return count / (time.perf_counter() - started)


def stored_bytes(listen):
    """The length of the record of an event, in bytes: its header and its canonical bytes."""
    event = json.loads(urllib.request.urlopen(f"http://{listen}/v1/events?limit=1").read())[0]
    for member in ("hash", "prev_hash", "sequence"):
        del event[member]
    return 93 + len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())


def database_rate(listen):
    """Rows per second that the database alone syncs to disk, in batches of four exports."""
    with folder() as data:
        return limit("rocksdb", data, 4 * SPANS, stored_bytes(listen), 1, SPANS, SECONDS)[0]


def main():
    cairn, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    exports, ratios = Exports(SPANS), []
    with folder() as data, Cairn(data, binary=cairn) as server:
        for _ in range(rounds):
            decoded, (ingested, _) = decode_rate(exports.body), exports.run(server.listen, CONNECTIONS, SECONDS)
            stored = database_rate(server.listen)
            ratios.append((ingested / decoded, ingested / stored))
            print(f"cairn {ingested:.0f}/s  decoding {decoded:.0f}/s, ratio {ratios[-1][0]:.2f}  "
                  f"RocksDB alone {stored:.0f}/s, ratio {ratios[-1][1]:.2f}", flush=True)
        length = stored_bytes(server.listen)
    decode_ratio, database_ratio = map(statistics.median, zip(*ratios))
    print(f"{len(exports.body) / SPANS:.0f} bytes a span, {length} stored; median ratios {decode_ratio:.2f} and {database_ratio:.2f}")


main()
