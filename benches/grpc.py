"""Measures durable spans over gRPC beside the same exports over HTTP/1.1, from the same generator, in alternating rounds. Prints spans a
second and the server's CPU time for each span, and the ratios.

Usage: grpc.py CAIRN [ROUNDS]. Needs the Python clients of tests/interop, whose protobuf library is in C.
"""
import statistics
import subprocess
import sys

from machine import Cairn, built, folder
from spans import Exports

SECONDS = 5
# Spans of an export, and connections.
LOADS = ((1, 64), (20, 32), (512, 16))


def run(server, exports, protocol, connections):
    """Spans per second, and the CPU time of the server in µs for each."""
    body, offsets = exports.environment["OTLP_BODY"], exports.environment["OTLP_OFFSETS"]
    command = [built("exports"), server.listen, protocol, body, offsets, str(connections), str(SECONDS)]
    accepted, cpu = server.accepted(), server.cpu()
    rate = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * exports.spans
    server.settle()
    return rate, (server.cpu() - cpu) * 1e6 / (server.accepted() - accepted)


def main():
    cairn, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    for spans, connections in LOADS:
        exports, found = Exports(spans), []
        with folder() as data, Cairn(data, binary=cairn) as server:
            for _ in range(rounds):
                found.append([*run(server, exports, "http", connections), *run(server, exports, "grpc", connections)])
        http, http_cpu, grpc, grpc_cpu = map(statistics.median, zip(*found))
        rate = statistics.median(round[2] / round[0] for round in found)
        cpu = statistics.median(round[3] / round[1] for round in found)
        print(f"{spans} spans, {connections} connections: HTTP {http:.0f}/s, {http_cpu:.1f} µs; gRPC {grpc:.0f}/s, {grpc_cpu:.1f} µs; "
              f"ratio {rate:.2f}, of CPU time {cpu:.2f}", flush=True)


main()
