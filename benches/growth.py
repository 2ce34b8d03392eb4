"""Throughput by connections, event size, agents and stored events: measured for `bench.py`, and drawn.

Usage: growth.py JSON SVG draws the results of an earlier run. Needs matplotlib.
"""
import json
import sys
import time

from load import Load
from machine import Cairn, Echo, folder, limit

SECONDS = 4
CONNECTIONS = (1, 16, 128, 1024)
SIZES = (200, 2048, 65536)
AGENTS = (1, 64, 1000, 10_000, 100_000)


def by_connections():
    """Single events per second, of Cairn and of a bare echo."""
    load, points = Load.single(), []
    with folder() as data, Echo() as echo, Cairn(data) as server:
        for connections in CONNECTIONS:
            points.append((connections, load.run(server.listen, connections, SECONDS), load.run(echo.listen, connections, SECONDS)))
    return points


def by_size(record_bytes, events_per_commit):
    """MB of events per second in batches, of Cairn and of the database alone with the same rows."""
    points = []
    for size in SIZES:
        load = Load.batches(size=size, events=100 if size < 10_000 else 10)
        with folder() as data, folder() as alone, Cairn(data) as server:
            before = server.metrics()
            rate = load.events * load.run(server.listen, 16, SECONDS)
            events = events_per_commit(before, server.metrics())
            length = record_bytes(server)
            server.settle()
            points.append((size, rate * size / 1e6, limit("rocksdb", alone, round(events), length, 64, load.events, SECONDS)[0] * size / 1e6))
    return points


def by_agents():
    """Events per second in batches of 100, with agents in turn."""
    points = []
    for agents in AGENTS:
        with folder() as data, Cairn(data) as server:
            points.append((agents, 100 * Load.batches(agents=agents, mixed=True).run(server.listen, 16, SECONDS * 2)))
            server.settle()
    return points


def while_filling(server, load, events):
    """Events per second and resident memory in MiB, every ten seconds, until `events` are stored."""
    points, stored = [], server.accepted()
    while stored < events:
        started, before = time.perf_counter(), stored
        load.run(server.listen, 16, 10)
        stored = server.accepted()
        points.append((stored, (stored - before) / (time.perf_counter() - started), server.memory()))
    return points


def draw(curves, path):
    import matplotlib
    matplotlib.use("svg")
    # Text stays text in the SVG, and the same numbers produce the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cairn", "font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
    from matplotlib import pyplot
    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")

    def panel(axes, title, x, y, *lines):
        axes.set(title=title, xlabel=x, ylabel=y)
        for points, at, label in lines:
            axes.plot([point[0] for point in points], [point[at] for point in points], marker="o", markersize=3, label=label)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)

    def spread(axes, points):
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks([point[0] for point in points], [f"{point[0]:,}" for point in points])

    points = curves["connections"]
    panel(panels[0][0], "Single events", "connections", "events/s", (points, 1, "Cairn, on disk"), (points, 2, "bare hyper echo"))
    spread(panels[0][0], points)
    points = curves["sizes"]
    panel(panels[0][1], "Batches, 16 connections", "bytes of an event", "MB/s", (points, 1, "Cairn"), (points, 2, "RocksDB alone"))
    spread(panels[0][1], points)
    points = curves["agents"]
    panel(panels[1][0], "Batches of 100, agents in turn", "agents", "events/s", (points, 1, "Cairn"))
    spread(panels[1][0], points)
    points = [(stored / 1e6, *rest) for stored, *rest in curves["stored"]]
    panel(panels[1][1], "Batches of 100 of one agent", "million events stored", "events/s", (points, 1, "Cairn"))
    memory = panels[1][1].twinx()
    memory.plot([point[0] for point in points], [point[2] for point in points], color="gray", linestyle=":", label="memory")
    memory.set(ylabel="resident memory, MiB", ylim=(0, 200))
    memory.grid(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    with open(sys.argv[1]) as measured:
        draw(json.load(measured)["curves"], sys.argv[2])
