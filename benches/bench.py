"""Measures Cairn beside what this machine gives to programs that do nothing else, and prints one table.

Usage: bench.py [--rounds N] [--events N] [--only NAME ...] [--json FILE]

Absolute numbers drift; each figure is the median of ratios, a limit and Cairn in turn on the same machine. Everything that
Cairn has is on, and every answer waits for the disk.
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


def figure(work):
    FIGURES[work.__name__] = work
    return work


def report(name, unit, values, goal=None, limits=None, limit_name="", at_most=False):
    """A line of the table; with limits, the ratio is the median of each round's."""
    ratios = [value / limit for value, limit in zip(values, limits)] if limits else None
    ratio = statistics.median(ratios) if ratios else None
    judged = ratio if ratio is not None else statistics.median(values)
    is_met = None if goal is None else judged <= goal if at_most else judged >= goal
    line = {"figure": name, "unit": unit, "value": statistics.median(values), "limit": statistics.median(limits) if limits else None,
            "limit_name": limit_name, "ratio": ratio, "ratios": ratios, "goal": goal, "at_most": at_most, "is_met": is_met}
    print(json.dumps(line), file=sys.stderr)
    return line


def is_on_disk(server):
    """What a figure counts was committed, and nothing was refused."""
    metrics = server.metrics()
    assert not any(value for name, value in metrics.items() if "refused_events_total" in name), metrics
    return metrics


@figure
def single(options):
    """Single events from 128 connections beside a bare echo of the same body, and beside one with as few threads as Cairn."""
    load, cairn, echo, lean, cpu = Load.single(), [], [], [], []
    threads = max(os.cpu_count() - 1, 1)
    with folder() as data, Echo() as limit_server, Echo(7711, threads) as lean_server, Cairn(data) as server:
        for _ in range(options.rounds):
            echo.append(load.run(limit_server.listen, 128, SECONDS))
            lean.append(load.run(lean_server.listen, 128, SECONDS))
            before, events = server.cpu(), server.accepted()
            cairn.append(load.run(server.listen, 128, SECONDS))
            cpu.append((server.cpu() - before) / (server.accepted() - events) * 1e6)
        is_on_disk(server)
    return [report("single events, 128 connections", "events/s", cairn, 0.60, echo, "bare hyper echo"),
            report("the same", "events/s", cairn, None, lean, "bare hyper echo, a thread less"),
            report("CPU time of a single event", "µs", cpu)]


def record_bytes(server):
    """The length of the row of an event, as it is stored."""
    event = urllib.request.urlopen(f"http://{server.listen}/v1/events?limit=1").read().decode()
    event = json.loads(event)[0]
    for beside in ("hash", "prev_hash", "sequence"):
        del event[beside]
    return RECORD_HEADER + len(json.dumps(event, separators=(",", ":")))


def committed(before, after):
    """How many events a commit had."""
    return growth_of("cairn_commit_events_sum", before, after) / growth_of("cairn_commit_events_count", before, after)


def growth_of(name, before, after):
    return after[name] - before.get(name, 0)


@figure
def batches(options):
    """Batches of 100 from 16 connections beside the database alone, with the same rows in batches as large as Cairn's."""
    load, cairn, alone, cpu = Load.batches(), [], [], []
    with folder() as data, Cairn(data) as server:
        for _ in range(options.rounds):
            before, then = is_on_disk(server), server.cpu()
            cairn.append(100 * load.run(server.listen, 16, SECONDS))
            after = is_on_disk(server)
            cpu.append((server.cpu() - then) / growth_of("cairn_ingest_accepted_events_total", before, after) * 1e6)
            server.settle()
            with folder() as limit_data:
                alone += limit("rocksdb", limit_data, round(committed(before, after)), record_bytes(server), 64, 100, SECONDS)
    return [report("events in batches of 100, 16 connections", "events/s", cairn, 0.65, alone, "RocksDB alone"),
            report("CPU time of an event in a batch", "µs", cpu)]


def quantile(q, before, after, name):
    """A quantile of a histogram's new samples, between the bounds of its bucket."""
    buckets = sorted((float(sample.split('le="')[1].split('"')[0]), value - before.get(sample, 0))
                     for sample, value in after.items() if sample.startswith(f"{name}_bucket"))
    rank, low, below = q * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below) if bound != float("inf") else low
        low, below = bound, count


@figure
def latency(options):
    """How long a single event takes at half of the most that fits, beside the commits of that time."""
    load, took, commits, disk = Load.single(), [], [], []
    with folder() as data, Cairn(data) as server:
        most = load.run(server.listen, 128, SECONDS)
        for _ in range(options.rounds):
            before = server.metrics()
            # It sends on all of its connections at once, so there are not more of them than it needs.
            times = load.paced(server.listen, 32, most / 2, SECONDS * 2)
            commits.append(quantile(0.99, before, server.metrics(), "cairn_commit_duration_seconds") * 1e3)
            took.append(times[len(times) * 99 // 100] * 1e3)
            disk.append(limit("fsync", data, 16384, 2)[1] * 1e3)
    return [report("p99 of a single event at half of the most", "ms", took, 2.0, commits, "p99 of commit_duration", at_most=True),
            report("p99 of commit_duration", "ms", commits, None, disk, "p99 of 16 KiB appended and synced")]


@figure
def verification(options):
    """Every chain of a million events, and the log over them, beside hashing the same bytes on one core."""
    load, speeds, limits = Load.batches(), [], []
    with folder() as data:
        with Cairn(data) as server:
            while server.accepted() < 1_000_000:
                load.run(server.listen, 16, 2)
            server.settle()
            events, each = server.accepted(), record_bytes(server) - RECORD_HEADER
        # Each event with the hash before it, its leaf with the byte before it, and the node above.
        leaf = len('{"agent_id":"agent-63","hash":"","sequence":12345}') + 64 + 1
        size = each + 64 + leaf + 65
        for _ in range(options.rounds):
            limits += limit("sha256", size, 2)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([CAIRN, "verify", "--all", "--data-dir", data], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            speeds.append(events * size / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return [report("cairn verify --all, per core", "bytes/s", speeds, 0.4, limits, "SHA-256 on one core")]


def last_seconds(server, load, seconds):
    """Events a second in the last ten seconds of a load, and how many events the consumers were behind."""
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
    """With many events stored: speed, memory, and a start after kill -9."""
    load, full, fresh, lags, starts, peaks, idle = Load.batches(), [], [], [], [], [], []
    with folder() as data:
        server = Cairn(data)
        CURVES["stored"] = growth.while_filling(server, load, options.events)
        for _ in range(options.rounds):
            with folder() as few, Cairn(few) as beside:
                time.sleep(1)
                idle.append(beside.memory())
                fresh.append(last_seconds(beside, load, 15)[0])
            rate, lag = last_seconds(server, load, options.seconds)
            full.append(rate)
            lags.append(lag / rate)
            peaks.append(server.memory("VmHWM"))
            server.end(signal.SIGKILL)
            server = Cairn(data)
            starts.append(server.started_s)
        server.end(signal.SIGTERM)
    return [report(f"events in batches of 100, {options.events:,} stored", "events/s", full, 0.9, fresh, "the same, few stored"),
            report("how far consumers are behind then", "s", lags, 1.0, at_most=True),
            report(f"start after kill -9, {options.events:,} stored", "s", starts, 1.0, at_most=True),
            report("resident memory, idle", "MiB", idle, 24, at_most=True),
            report("resident memory at full load, at most", "MiB", peaks, 160, at_most=True)]


@figure
def curves(_options):
    """What is drawn besides."""
    CURVES["connections"] = growth.by_connections()
    CURVES["sizes"] = growth.by_size(record_bytes, committed)
    CURVES["agents"] = growth.by_agents()
    return []


@figure
def agents(options):
    """Events of 100,000 agents in turn beside those of 64."""
    few, many, slow, fast = Load.batches(mixed=True), Load.batches(agents=100_000, mixed=True), [], []
    with folder() as one, folder() as other, Cairn(one) as of_few, Cairn(other) as of_many:
        for _ in range(options.rounds):
            fast.append(100 * few.run(of_few.listen, 16, SECONDS))
            of_few.settle()
            slow.append(100 * many.run(of_many.listen, 16, SECONDS))
            of_many.settle()
    return [report("events of 100,000 agents in turn", "events/s", slow, 0.5, fast, "the same of 64 agents")]


@figure
def binary(_options):
    """The stripped program."""
    with folder() as path:
        subprocess.run(["strip", "-o", f"{path}/cairn", CAIRN], check=True)
        return [report("size of the stripped program", "MB", [os.path.getsize(f"{path}/cairn") / 1e6], 20, at_most=True)]


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
    parser.add_argument("--events", type=int, default=10_000_000, help="how many events are many")
    parser.add_argument("--seconds", type=int, default=60, help="how long a load lasts with many events stored")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--json", default=TARGET / "bench.json")
    parser.add_argument("--plot", help="where the curves are drawn")
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
