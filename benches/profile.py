"""Flame graphs of the CPU time: single events, batches, and the verification of the stored events.

Usage: profile.py PERF_TOOLS [DIRECTORY]. PERF_TOOLS contains the binaries of the crate inferno; DIRECTORY receives the
drawings.
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
# Stacks are unwound with the DWARF tables of C++ and Rust, from 16 KiB of stack each.
RECORD = ["perf", "record", "--quiet", "--freq", "299", "--call-graph", "dwarf,16384"]


def draw(name, title, samples):
    """Draws a flame graph of perf's samples, without frames that are too narrow to be visible."""
    stacks = subprocess.run(["perf", "script", "--no-inline", "-i", samples], check=True, capture_output=True).stdout
    folded = subprocess.run([TOOLS / "inferno-collapse-perf"], input=stacks, check=True, capture_output=True).stdout
    flames = subprocess.run([TOOLS / "inferno-flamegraph", "--title", title, "--minwidth", "0.4", "--hash"], input=folded, check=True,
                            capture_output=True).stdout
    path = DRAWINGS / f"{name}.svg"
    path.write_bytes(flames)
    print(path)


def under_load(server, load, connections, samples):
    """Records a server at full load."""
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
