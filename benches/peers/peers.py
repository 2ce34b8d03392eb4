"""Measures Cairn and the OpenTelemetry Collector as they take spans, interleaved in one run, and prints a table.

Usage: peers.py COLLECTOR [--rounds N] [--seconds N] [--sizes N ...] [--servers NAME=BINARY ...] [--write FILE]

Each server has a directory of its own on the same disk, and gets the same exports from the same generator on the same machine.
--servers measures further binaries of Cairn beside it. --write puts the table into FILE, between the lines that mark its place.
"""
import argparse
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from machine import CAIRN, Cairn, Process, folder, model  # noqa: E402
from spans import Exports  # noqa: E402

CONNECTIONS = {1: 64, 20: 32, 512: 16, 2000: 8}
PORT = 7720
BEGIN, END = "<!-- begin: make bench-peers -->", "<!-- end: make bench-peers -->"


class Collector(Process):
    """The Collector with one of the configurations in this folder."""

    def __init__(self, binary, configuration, data, fsync):
        environment = {**os.environ, "PEERS_DATA": data, "PEERS_PORT": str(PORT), "PEERS_FSYNC": fsync}
        self.listen = f"127.0.0.1:{PORT}"
        self.child = subprocess.Popen([binary, "--config", HERE / configuration], env=environment, stdout=subprocess.DEVNULL)
        wait_until_it_answers(self.listen)


def wait_until_it_answers(listen):
    """Waits until a server answers anything, for 20 seconds at most."""
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://{listen}/")
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {listen}")


def servers(options):
    """What starts each server, by its name in the table."""
    collector = options.collector
    started = {"Cairn": lambda data: Cairn(data)}
    for name, binary in (server.split("=") for server in options.servers):
        started[name] = lambda data, binary=binary: Cairn(data, binary=binary)
    if collector:
        started["Collector, `fsync: true`"] = lambda data: Collector(collector, "queue.yaml", data, "true")
        started["Collector, `fsync: false`"] = lambda data: Collector(collector, "queue.yaml", data, "false")
        started["Collector, `nop`"] = lambda data: Collector(collector, "nop.yaml", data, "false")
    return started


def written_bytes(server):
    """What the process has caused to be written to disks, in bytes."""
    return int(re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{server.child.pid}/io").read_text(), re.M)[1])


def measure(start, exports, connections, seconds):
    """One server under load: a second to warm up, and the seconds that count."""
    with folder() as data, start(data) as server:
        exports.run(server.listen, connections, 1)
        before, written = server.cpu(), written_bytes(server)
        rate, p99_ms = exports.run(server.listen, connections, seconds)
        spans = rate * seconds
        return {"rate": rate, "p99": p99_ms, "cpu": (server.cpu() - before) / spans * 1e6, "peak": server.memory("VmHWM"),
                "written": (written_bytes(server) - written) / spans}


def run(options):
    """All results, by size and server, one for each round."""
    results = {}
    for round in range(options.rounds):
        for size in options.sizes:
            exports = Exports(size)
            started = list(servers(options).items())
            for name, start in started[round % len(started):] + started[:round % len(started)]:
                result = measure(start, exports, CONNECTIONS[size], options.seconds)
                results.setdefault((size, name), []).append(result)
                print(f"{size:5} {name:28} {result['rate']:9.0f}/s  {result['cpu']:6.2f} us  p99 {result['p99']:7.1f} ms  "
                      f"peak {result['peak']:5.0f} MiB  written {result['written']:6.0f} bytes", file=sys.stderr, flush=True)
    return results


def ratio(results, size, name, what):
    """The median of the ratios of the rounds, of Cairn to another server."""
    return statistics.median(ours[what] / theirs[what] for ours, theirs in zip(results[size, "Cairn"], results[size, name]))


def table(results):
    """The results as a table in Markdown."""
    lines = ["| spans in a request (connections) | server | spans/s | Cairn's ratio | CPU time of a span | p99 | peak memory "
             "| written for a span |", "|---|---|---|---|---|---|---|---|"]
    for (size, name), rounds in sorted(results.items(), key=lambda result: result[0][0]):
        median = {what: statistics.median(result[what] for result in rounds) for what in rounds[0]}
        compared = "" if name == "Cairn" else f"{ratio(results, size, name, 'rate'):.2f}"
        lines.append(f"| {size:,} ({CONNECTIONS[size]}) | {name} | {median['rate']:,.0f} | {compared} | {median['cpu']:.1f} µs "
                     f"| {median['p99']:.1f} ms | {median['peak']:.0f} MiB | {median['written']:,.0f} bytes |")
    return "\n".join(lines)


def described(options):
    """The machine, the versions and the method, in a sentence each."""
    version = subprocess.run([options.collector, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    cairn = subprocess.run([CAIRN, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return (f"{os.cpu_count()} cores ({model()}), Linux {platform.release().split('-')[0]}, {time.strftime('%Y-%m-%d')}. Cairn "
            f"{cairn}, Collector {version}. {options.rounds} rounds of {options.seconds} s; medians.")


def write(path, text):
    """Replaces what is between the marks in a file."""
    before, rest = path.read_text().split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("collector", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(CONNECTIONS))
    parser.add_argument("--servers", nargs="+", default=[])
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    results = run(options)
    print(table(results))
    if options.write:
        write(options.write, f"{described(options)}\n\n{table(results)}")


main()
