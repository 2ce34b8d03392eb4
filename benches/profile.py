"""Draws where the CPU time goes, as flame graphs: single events, batches, and the verification of what they stored.

Usage: profile.py PERF_TOOLS [FOLDER]. PERF_TOOLS has the programs of the crate inferno; FOLDER is where the drawings go.
"""
import pathlib
import subprocess
import sys
import threading
import time

from load import Load
from machine import CAIRN, Cairn, folder

SECONDS = 8
TOOLS, DRAWINGS = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "benches/profiles")
# Stacks by the tables that C++ and Rust have for unwinding; 16 KiB of each.
RECORD = ["perf", "record", "--quiet", "--freq", "299", "--call-graph", "dwarf,16384"]


def draw(name, title, samples):
    """A flame graph of what perf recorded. What is too narrow to be seen is left out."""
    stacks = subprocess.run(["perf", "script", "--no-inline", "-i", samples], check=True, capture_output=True).stdout
    folded = subprocess.run([TOOLS / "inferno-collapse-perf"], input=stacks, check=True, capture_output=True).stdout
    flames = subprocess.run([TOOLS / "inferno-flamegraph", "--title", title, "--minwidth", "0.4", "--hash"], input=folded, check=True,
                            capture_output=True).stdout
    path = DRAWINGS / f"{name}.svg"
    path.write_bytes(flames)
    print(path)


def under_load(server, load, connections, samples):
    """Records a server that is sent as much as it takes."""
    sender = threading.Thread(target=load.run, args=(server.listen, connections, SECONDS + 2))
    sender.start()
    time.sleep(1)
    subprocess.run([*RECORD, "--output", samples, "--pid", str(server.child.pid), "sleep", str(SECONDS)], check=True)
    sender.join()
    server.settle()


def main():
    DRAWINGS.mkdir(exist_ok=True)
    with folder() as data, folder() as scratch:
        samples = f"{scratch}/perf"
        with Cairn(data) as server:
            under_load(server, Load.single(), 128, samples)
            draw("single", "cairn serve, single events from 128 connections", samples)
            under_load(server, Load.batches(), 16, samples)
            draw("batches", "cairn serve, events in batches of 100 from 16 connections", samples)
        verify = [CAIRN, "verify", "--all", "--data-dir", data]
        subprocess.run([*RECORD, "--output", samples, *verify], check=True, stdout=subprocess.DEVNULL)
        draw("verify", "cairn verify --all", samples)


main()
