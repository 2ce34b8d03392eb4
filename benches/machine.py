"""The servers that are measured, their resource usage, and the programs of the limits."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path.home() / ".cache/cairn/target")) / "release"
CAIRN = TARGET / "cairn"


def built(name):
    """The newest binary that cargo built from a file in `benches`."""
    binaries = [path for path in (TARGET / "deps").glob(f"{name}-*") if path.suffix == "" and os.access(path, os.X_OK)]
    return max(binaries, key=lambda path: path.stat().st_mtime)


def limit(*arguments):
    """Runs `limits`, and returns the numbers that it prints."""
    output = subprocess.run([built("limits"), *map(str, arguments)], capture_output=True, text=True, check=True).stdout
    return [float(number) for number in output.split()]


def model():
    """The model of the processor, as the kernel names it."""
    found = re.search(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return found[1].strip() if found else "unknown"


@contextlib.contextmanager
def folder():
    """A temporary directory on the measured disk, because /tmp may be in memory."""
    path = tempfile.mkdtemp(prefix="cairn-bench-", dir=os.environ.get("BENCH_DIR", TARGET.parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Process:
    """A server process."""

    def cpu(self):
        """The CPU time of the process, in seconds."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, what="VmRSS"):
        """The resident memory in MiB; `VmHWM` is the peak."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGTERM)

    def end(self, how):
        if self.child.poll() is None:
            self.child.send_signal(how)
            self.child.communicate()


class Echo(Process):
    """A bare server that returns the request body. By default tokio starts a thread per core."""

    def __init__(self, port=7710, threads=None):
        self.listen = f"127.0.0.1:{port}"
        environment = {**os.environ, "TOKIO_WORKER_THREADS": str(threads)} if threads else None
        self.child = subprocess.Popen([built("echo"), self.listen], env=environment)
        time.sleep(0.3)


class Cairn(Process):
    """`cairn serve` with default settings, except for its addresses and the given settings."""

    def __init__(self, data, binary=CAIRN, **settings):
        started = time.perf_counter()
        environment = {**os.environ, "CAIRN_LISTEN": "127.0.0.1:0", "CAIRN_ADMIN__LISTEN": "127.0.0.1:0",
                       "CAIRN_LOG__FORMAT": "json", "CAIRN_STORAGE__MAX_BYTES": "100GiB", **settings}
        self.data = data
        self.child = subprocess.Popen([binary, "serve", "--data-dir", data], stdout=subprocess.PIPE, text=True, env=environment)
        line = next(line for line in map(json.loads, self.child.stdout) if line["message"] == "cairn is ready")
        self.listen, self.admin = line["listen"], line["admin"]
        assert urllib.request.urlopen(f"http://{self.admin}/readyz").status == 200
        self.started_s = time.perf_counter() - started

    def metrics(self):
        """All samples: values by name with labels."""
        text = urllib.request.urlopen(f"http://{self.admin}/metrics").read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def accepted(self):
        return self.metrics().get("cairn_ingest_accepted_events_total", 0)

    def lag(self):
        """The lag of the slowest consumer, in events."""
        return max((value for name, value in self.metrics().items() if name.startswith("cairn_consumer_lag_events")), default=0)

    def settle(self):
        """Waits until no consumer has a lag."""
        while self.lag() > 0:
            time.sleep(0.1)
