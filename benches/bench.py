"""Measures Cairn against what this machine achieves with programs that do nothing else, and prints a table.

Usage: bench.py [--rounds N] [--events N] [--only NAME ...] [--json FILE]

Absolute numbers drift, so a figure with a limit is the median of the ratios of all rounds, in which the limit and Cairn
are measured in turn. All functions of Cairn are on, and every answer waits for the disk. See docs/performance.md.
"""
import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import growth
from load import Load
from machine import CAIRN, TARGET, Cairn, Echo, folder, limit

SECONDS = 4
RECORD_HEADER = 93
FIGURES = {}
CURVES = {}


def figure(measure):
    """Registers a function under its name, for --only."""
    FIGURES[measure.__name__] = measure
    return measure


def report(name, unit, values, goal=None, limits=None, limit_name="", at_most=False):
    """A line of the table. With limits, its ratio is the median of the ratios of all rounds."""
    ratios = [value / limit for value, limit in zip(values, limits)] if limits else None
    ratio = statistics.median(ratios) if ratios else None
    compared = ratio if ratio is not None else statistics.median(values)
    is_met = None if goal is None else compared <= goal if at_most else compared >= goal
    line = {"figure": name, "unit": unit, "value": statistics.median(values), "limit": statistics.median(limits) if limits else None,
            "limit_name": limit_name, "ratio": ratio, "ratios": ratios, "goal": goal, "at_most": at_most, "is_met": is_met}
    print(json.dumps(line), file=sys.stderr)
    return line


def checked_metrics(server):
    """The metrics of a server, which must not have refused any event."""
    metrics = server.metrics()
    assert not any(value for name, value in metrics.items() if "refused_events_total" in name), metrics
    return metrics


@figure
def single(options):
    """Single events from 128 connections, against an echo with a thread per core, and one with a thread less."""
    load, cairn, echo, lean, cpu = Load.single(), [], [], [], []
    threads = max(os.cpu_count() - 1, 1)
    with folder() as data, Echo() as limit_server, Echo(7711, threads) as lean_server, Cairn(data) as server:
        for _ in range(options.rounds):
            echo.append(load.run(limit_server.listen, 128, SECONDS))
            lean.append(load.run(lean_server.listen, 128, SECONDS))
            before, events = server.cpu(), server.accepted()
            cairn.append(load.run(server.listen, 128, SECONDS))
            cpu.append((server.cpu() - before) / (server.accepted() - events) * 1e6)
        checked_metrics(server)
    return [report("single events, 128 connections", "events/s", cairn, 0.60, echo, "bare hyper echo"),
            report("single events, echo with one thread less", "events/s", cairn, None, lean, "bare hyper echo, one thread less"),
            report("CPU time of a single event", "µs", cpu)]


def record_bytes(server):
    """The length of the record of an event, in bytes."""
    event = urllib.request.urlopen(f"http://{server.listen}/v1/events?limit=1").read().decode()
    event = json.loads(event)[0]
    for member in ("hash", "prev_hash", "sequence"):
        del event[member]
    return RECORD_HEADER + len(json.dumps(event, separators=(",", ":")))


def events_per_commit(before, after):
    """The average number of events in a commit."""
    return increase("cairn_commit_events_sum", before, after) / increase("cairn_commit_events_count", before, after)


def increase(name, before, after):
    return after[name] - before.get(name, 0)


@figure
def batches(options):
    """Batches of 100 from 16 connections, against the database alone with the same rows in commits of the same size."""
    load, cairn, alone, cpu = Load.batches(), [], [], []
    with folder() as data, Cairn(data) as server:
        for _ in range(options.rounds):
            before, cpu_before = checked_metrics(server), server.cpu()
            cairn.append(100 * load.run(server.listen, 16, SECONDS))
            after = checked_metrics(server)
            cpu.append((server.cpu() - cpu_before) / increase("cairn_ingest_accepted_events_total", before, after) * 1e6)
            server.settle()
            with folder() as limit_data:
                alone += limit("rocksdb", limit_data, round(events_per_commit(before, after)), record_bytes(server), 64, 100, SECONDS)
    return [report("events in batches of 100, 16 connections", "events/s", cairn, 0.65, alone, "RocksDB alone"),
            report("CPU time of an event in a batch", "µs", cpu)]


def quantile(q, before, after, name):
    """A quantile of a histogram's new samples, interpolated within its bucket."""
    buckets = sorted((float(sample.split('le="')[1].split('"')[0]), value - before.get(sample, 0))
                     for sample, value in after.items() if sample.startswith(f"{name}_bucket"))
    rank, low, below = q * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below) if bound != float("inf") else low
        low, below = bound, count


@figure
def latency(options):
    """Latency of a single event at half of the highest rate, against the commits of that time."""
    load, latencies, commits, disk = Load.single(), [], [], []
    with folder() as data, Cairn(data) as server:
        highest_rate = load.run(server.listen, 128, SECONDS)
        for _ in range(options.rounds):
            before = server.metrics()
            # h2load sends on all connections at once, so there are only as many connections as it needs.
            times = load.paced(server.listen, 32, highest_rate / 2, SECONDS * 2)
            commits.append(quantile(0.99, before, server.metrics(), "cairn_commit_duration_seconds") * 1e3)
            latencies.append(times[len(times) * 99 // 100] * 1e3)
            disk.append(limit("fsync", data, 16384, 2)[1] * 1e3)
    return [report("p99 of a single event at half of the highest rate", "ms", latencies, 2.0, commits,
                   "p99 of commit_duration", at_most=True),
            report("p99 of commit_duration", "ms", commits, None, disk, "p99 of 16 KiB appended and synced")]


@figure
def verification(options):
    """Verification of a million events, chains and log, against SHA-256 of the same bytes on one core."""
    load, speeds, limits = Load.batches(), [], []
    with folder() as data:
        with Cairn(data) as server:
            while server.accepted() < 1_000_000:
                load.run(server.listen, 16, 2)
            server.settle()
            events, event_bytes = server.accepted(), record_bytes(server) - RECORD_HEADER
        # Hashed per event: the event with its previous hash, its leaf with the prefix byte, and one inner node.
        leaf = len('{"agent_id":"agent-63","hash":"","sequence":12345}') + 64 + 1
        size = event_bytes + 64 + leaf + 65
        for _ in range(options.rounds):
            limits += limit("sha256", size, 2)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([CAIRN, "verify", "--all", "--data-dir", data], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            speeds.append(events * size / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return [report("cairn verify --all, per core", "bytes/s", speeds, 0.4, limits, "SHA-256 on one core")]


def last_seconds(server, load, seconds):
    """Events per second in the last ten seconds of a load, and the lag of the consumers."""
    sender = threading.Thread(target=load.run, args=(server.listen, 16, seconds))
    sender.start()
    time.sleep(seconds - 10.5)
    started, before = time.perf_counter(), server.accepted()
    time.sleep(10)
    rate = (server.accepted() - before) / (time.perf_counter() - started)
    lag = server.lag()
    sender.join()
    return rate, lag


@figure
def stored(options):
    """With many events stored: throughput, lag, memory, and a start after kill -9."""
    load, full, fresh, lags, starts, peaks, idle = Load.batches(), [], [], [], [], [], []
    with folder() as data:
        server = Cairn(data)
        CURVES["stored"] = growth.while_filling(server, load, options.events)
        for _ in range(options.rounds):
            with folder() as few, Cairn(few) as empty:
                time.sleep(1)
                idle.append(empty.memory())
                fresh.append(last_seconds(empty, load, 15)[0])
            rate, lag = last_seconds(server, load, options.seconds)
            full.append(rate)
            lags.append(lag / rate)
            peaks.append(server.memory("VmHWM"))
            server.end(signal.SIGKILL)
            server = Cairn(data)
            starts.append(server.started_s)
        server.end(signal.SIGTERM)
    return [report(f"events in batches of 100, {options.events:,} stored", "events/s", full, 0.9, fresh, "with few events stored"),
            report("lag of index and log at full load", "s", lags, 1.0, at_most=True),
            report(f"start after kill -9, {options.events:,} stored", "s", starts, 1.0, at_most=True),
            report("resident memory, idle", "MiB", idle, 24, at_most=True),
            report("peak resident memory at full load", "MiB", peaks, 160, at_most=True)]


@figure
def curves(_options):
    """The curves of the drawing."""
    CURVES["connections"] = growth.by_connections()
    CURVES["sizes"] = growth.by_size(record_bytes, events_per_commit)
    CURVES["agents"] = growth.by_agents()
    return []


@figure
def agents(options):
    """Events of 100,000 agents in turn, against 64 agents in turn."""
    few, many, slow, fast = Load.batches(mixed=True), Load.batches(agents=100_000, mixed=True), [], []
    with folder() as few_data, folder() as many_data, Cairn(few_data) as of_few, Cairn(many_data) as of_many:
        for _ in range(options.rounds):
            fast.append(100 * few.run(of_few.listen, 16, SECONDS))
            of_few.settle()
            slow.append(100 * many.run(of_many.listen, 16, SECONDS))
            of_many.settle()
    return [report("events of 100,000 agents in turn", "events/s", slow, 0.5, fast, "of 64 agents in turn")]


@figure
def binary(_options):
    """The size of the stripped binary."""
    with folder() as path:
        subprocess.run(["strip", "-o", f"{path}/cairn", CAIRN], check=True)
        return [report("size of the stripped program", "MB", [os.path.getsize(f"{path}/cairn") / 1e6])]


def table(lines):
    def number(value):
        return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    rows = [("figure", "", "limit", "", "ratio", "goal", "")]
    for line in lines:
        goal = "" if line["goal"] is None else f"{'≤' if line['at_most'] else '≥'} {line['goal']:g}"
        rows.append((line["figure"], f"{number(line['value'])} {line['unit']}", line["limit_name"], number(line["limit"]),
                     "" if line["ratio"] is None else f"{line['ratio']:.2f}", goal,
                     {None: "", True: "met", False: "NOT MET"}[line["is_met"]]))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=10_000_000, help="number of stored events of the figure `stored`")
    parser.add_argument("--seconds", type=int, default=60, help="duration of a load with that many events, in seconds")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--json", default=TARGET / "bench.json")
    parser.add_argument("--plot", help="file for the drawing of the curves (SVG)")
    options = parser.parse_args()
    lines = [line for name in options.only for line in FIGURES[name](options)]
    table(lines)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release()}
    with open(options.json, "w") as file:
        json.dump({"machine": machine, "rounds": options.rounds, "figures": lines, "curves": CURVES}, file, indent=1)
    print(f"\nwritten to {options.json}")
    if options.plot:
        growth.draw(CURVES, options.plot)


if __name__ == "__main__":
    main()
