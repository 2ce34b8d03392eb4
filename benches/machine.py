"""Servers to measure, and what they cost."""
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
    """The newest program of that name that cargo made of a file in `benches`."""
    made = [path for path in (TARGET / "deps").glob(f"{name}-*") if path.suffix == "" and os.access(path, os.X_OK)]
    return max(made, key=lambda path: path.stat().st_mtime)


def limit(*arguments):
    """The numbers that a run of `limits` prints."""
    said = subprocess.run([built("limits"), *map(str, arguments)], capture_output=True, text=True, check=True).stdout
    return [float(number) for number in said.split()]


@contextlib.contextmanager
def folder():
    """A folder on the disk that is measured: the temporary one may be memory."""
    path = tempfile.mkdtemp(prefix="cairn-bench-", dir=os.environ.get("BENCH_DIR", TARGET.parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Process:
    """A program that listens."""

    def cpu(self):
        """The CPU time that it took so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, what="VmRSS"):
        """Its resident memory in MiB; `VmHWM` is the most that it ever was."""
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
    """A server that does nothing but answer with what it was sent. As the framework starts it, it has a thread for each core."""

    def __init__(self, port=7710, threads=None):
        self.listen = f"127.0.0.1:{port}"
        environment = {**os.environ, "TOKIO_WORKER_THREADS": str(threads)} if threads else None
        self.child = subprocess.Popen([built("echo"), self.listen], env=environment)
        time.sleep(0.3)


class Cairn(Process):
    """`cairn serve` with all its defaults, but for where it listens and what the test says."""

    def __init__(self, data, **settings):
        started = time.perf_counter()
        environment = {**os.environ, "CAIRN_LISTEN": "127.0.0.1:0", "CAIRN_ADMIN__LISTEN": "127.0.0.1:0",
                       "CAIRN_LOG__FORMAT": "json", "CAIRN_STORAGE__MAX_BYTES": "100GiB", **settings}
        self.data = data
        self.child = subprocess.Popen([CAIRN, "serve", "--data-dir", data], stdout=subprocess.PIPE, text=True, env=environment)
        said = next(said for said in map(json.loads, self.child.stdout) if said["message"] == "cairn takes events")
        self.listen, self.admin = said["listen"], said["admin"]
        assert urllib.request.urlopen(f"http://{self.admin}/readyz").status == 200
        self.started_s = time.perf_counter() - started

    def metrics(self):
        """Every sample: name and labels, and the value."""
        text = urllib.request.urlopen(f"http://{self.admin}/metrics").read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def accepted(self):
        return self.metrics().get("cairn_ingest_accepted_events_total", 0)

    def lag(self):
        """How many events the slowest consumer is behind."""
        return max((value for name, value in self.metrics().items() if name.startswith("cairn_consumer_lag_events")), default=0)

    def settle(self):
        """Waits until the consumers have everything."""
        while self.lag() > 0:
            time.sleep(0.1)
