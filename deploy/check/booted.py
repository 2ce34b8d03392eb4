"""A Debian server: a root directory in which systemd is process 1, in namespaces of its own.

mmdebstrap fills the root directory, which is kept for the next run, and systemd-nspawn boots a copy of it.
"""
import http.client
import os
import pathlib
import platform
import shutil
import subprocess
import time

from context import CheckFailed

PACKAGES = "systemd,systemd-sysv,dbus,ca-certificates,curl,python3-minimal,libpython3-stdlib"
# Longer than a boot on a busy machine takes.
BOOT_SECONDS = 90


def missing():
    """Why this machine cannot boot a server, or None."""
    if os.geteuid() != 0:
        return "needs root"
    programs = ("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb")
    absent = [program for program in programs if not shutil.which(program)]
    return f"needs {', '.join(absent)}" if absent else None


class BootFailed(Exception):
    """systemd did not start in namespaces of this machine. The message has the end of its output."""


class Server:
    """A booted server. Use it in a `with` statement, which ends it."""

    def __init__(self, folder, kept):
        self.root = folder / "server"
        self.log = folder / "server.log"
        archive = kept / f"server-{platform.machine()}.tar"
        if not archive.exists():
            part = archive.with_suffix(".part.tar")
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", part], check=True
            )
            part.rename(archive)
        self.root.mkdir()
        subprocess.run(["tar", "-C", self.root, "-xf", archive], check=True)
        self.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        self.process = None
        self.init = None

    def __enter__(self):
        command = ["systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--private-network", "--console=pipe"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--directory={self.root}", "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children:
                self.init = children[0]
                if self.try_run("systemctl", "is-system-running")[1].strip() in ("running", "degraded"):
                    return self
            time.sleep(0.2)
        self.__exit__()
        raise BootFailed(self.log.read_text()[-500:].strip())

    def __exit__(self, *_):
        # systemd-nspawn asks the init process to power off.
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _inside(self, words):
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wdns=/root"]
        return ["nsenter", f"--target={self.init}", *namespaces, "--", "env", "DEBIAN_FRONTEND=noninteractive", *map(str, words)]

    def try_run(self, *words):
        """Runs a command as root. Returns its status, its standard output and its standard error."""
        done = subprocess.run(self._inside(words), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def run(self, *words):
        """Runs a command that must succeed. Returns its output."""
        status, out, err = self.try_run(*words)
        if status:
            raise CheckFailed(f"{' '.join(map(str, words))} exits with {status}: {(err + out).strip()[-1500:]}")
        return out + err

    def shell(self, script):
        """Runs a script, as someone who follows the documents does. It stops at the first failure."""
        return self.run("sh", "-euc", script)

    def start(self, *words):
        """Starts a command that runs beside the checks."""
        return subprocess.Popen(self._inside(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def journal(self):
        """The process log of the service."""
        return self.run("journalctl", "--unit=cairn", "--no-pager", "--output=cat")

    def write(self, path, text):
        """Writes a file of root."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def eventually(what, condition, seconds=30):
    """Waits until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            result = condition()
        except (OSError, http.client.HTTPException):
            result = None
        if result:
            return result
        time.sleep(0.1)
    raise CheckFailed(f"not within {seconds} s: {what}")
