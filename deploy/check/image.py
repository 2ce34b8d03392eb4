"""Builds the image from the Dockerfile with an engine, and runs it as users do: read-only, as user 10001, with a volume.

image.py DIRECTORY, which has the base image (see deploy/image/base.sh), and gets the image. It has no network but loopback.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from booted import eventually
from context import Context, require
from tools import run_tool

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# What the README of the deployment says.
SIZE = 40_000_000
VOLUME = "cairn-image-check"


class Engine:
    """podman and buildah with images and containers of their own."""

    def __init__(self, folder):
        self.storage = ["--root", folder / "storage", "--runroot", folder / "run"]
        # An engine raises limits by default, which it may not do in every container.
        self.limits = ["--ulimit", "nofile=10000:10000", "--ulimit", "nproc=4096:4096"]

    def podman(self, *words):
        return run_tool(["podman", *self.storage, *words])

    def try_podman(self, *words):
        command = ["podman", *self.storage, *words]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    def build(self, revision):
        options = ["--layers", "--pull-never", "--format", "docker", "--network", "host"]
        arguments = ["--build-arg", f"REVISION={revision}", "-f", "deploy/Dockerfile", "-t", "cairn:check", "."]
        subprocess.run(["buildah", *self.storage, "build", *options, *arguments], cwd=REPOSITORY, check=True)

    def start(self, name, *options):
        """Starts the image as deploy/README.md does. Without systemd, podman runs no health checks by itself."""
        safe = ["--read-only", "--tmpfs", "/tmp", "--network", "none", "--stop-timeout", "30", "--no-healthcheck"]
        self.podman("run", "-d", "--name", name, *self.limits, *safe, "-v", f"{VOLUME}:/var/lib/cairn", *options, "cairn:check")

    def logs(self, name):
        done = self.try_podman("logs", name)
        return done.stdout + done.stderr

    def inside(self, name, *words):
        """Runs a program of this machine in the network of a container."""
        pid = json.loads(self.podman("inspect", name))[0]["State"]["Pid"]
        return run_tool(["nsenter", f"--target={pid}", "--net", "--", *words])


def built(engine):
    """The image has the settings of the Dockerfile."""
    image = json.loads(engine.podman("inspect", "--type", "image", "cairn:check"))[0]
    config = image["Config"]
    require(config["User"] == "10001:10001", f"the user is {config['User']}")
    require(config["Entrypoint"] == ["/cairn"] and config["Cmd"] == ["serve"], f"it runs {config['Entrypoint']} {config['Cmd']}")
    require("CAIRN_CONFIG=/etc/cairn/cairn.yaml" in config["Env"], "CAIRN_CONFIG is not set")
    health = image.get("HealthCheck") or image.get("Healthcheck") or {}
    require(health.get("Test") == ["CMD", "/cairn", "health"], f"the health check is {health}")
    require(image["Size"] < SIZE, f"it has {image['Size']} bytes")
    return f"{image['Size'] / 1e6:.1f} MB, user 10001"


def warned(engine):
    """A lone container without CAIRN_LISTEN says that nothing outside can reach it."""
    engine.start("alone")
    warning = eventually("a warning", lambda: [line for line in engine.logs("alone").splitlines() if "CAIRN_LISTEN" in line])
    engine.podman("stop", "alone")
    return json.loads(warning[0])["message"]


def served(engine):
    """Read-only and as user 10001 it accepts and verifies events; there is no shell; it stops cleanly."""
    engine.start("open", "-e", "CAIRN_LISTEN=0.0.0.0:7600", "-e", "CAIRN_AUTH__ALLOW_ANONYMOUS=true")
    eventually("a healthy server", lambda: engine.try_podman("exec", "open", "/cairn", "health").returncode == 0)
    require("CAIRN_LISTEN" not in engine.logs("open"), "it warns although CAIRN_LISTEN is set")
    engine.inside("open", "curl", "-sf", "localhost:7600/v1/events", "-H", "Content-Type: application/json", "-d", '{"agent_id": "a"}')
    engine.podman("exec", "open", "/cairn", "verify", "--all")
    require(engine.try_podman("exec", "open", "sh", "-c", "true").returncode != 0, "there is a shell")
    mount = json.loads(engine.podman("volume", "inspect", VOLUME))[0]["Mountpoint"]
    owner = pathlib.Path(mount, "data").stat()
    require(owner.st_uid == 10001 and owner.st_mode & 0o777 == 0o700, f"the ledger belongs to {owner.st_uid}, mode {owner.st_mode:o}")
    engine.podman("stop", "open")
    status = json.loads(engine.podman("inspect", "open"))[0]["State"]["ExitCode"]
    require(status == 0, f"the exit status is {status}")
    return "an event accepted and verified, exit status 0"


def continued(engine):
    """A new container with the same volume continues the ledger."""
    engine.start("again", "-e", "CAIRN_LISTEN=0.0.0.0:7600", "-e", "CAIRN_AUTH__ALLOW_ANONYMOUS=true")
    eventually("a healthy server", lambda: engine.try_podman("exec", "again", "/cairn", "health").returncode == 0)
    events = engine.podman("exec", "again", "/cairn", "status").splitlines()[0].split()[1]
    require(events == "1", f"there are {events} events")
    engine.podman("stop", "again")
    return "the event is there"


def main():
    engine = Engine(pathlib.Path(sys.argv[1]).resolve(strict=True))
    engine.build(run_tool(["git", "-C", REPOSITORY, "rev-parse", "HEAD"]).strip())
    context = Context(REPOSITORY, pathlib.Path("/cairn"), pathlib.Path(sys.executable).parent, pathlib.Path(tempfile.gettempdir()))

    def clean():
        for name in ("alone", "open", "again"):
            engine.try_podman("rm", "--force", name)
        engine.try_podman("volume", "rm", VOLUME)

    clean()
    for check in (built, warned, served, continued):
        context.run_check("image", check.__name__, check, engine)
    clean()
    print(f"{context.passed} checks passed, {len(context.failures)} failed")
    return 1 if context.failures else 0


if __name__ == "__main__":
    sys.exit(main())
