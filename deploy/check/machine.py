"""What runs outside of Kubernetes: the image's recipe, the service, the scripts."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from context import need
from tools import run_tool

# As systemd counts, from 0 (sees nothing) to 10 (may do everything): below 2 is what it calls OK or better.
MOST_EXPOSURE = 2.0


def run(context):
    """Checks all of it."""
    deploy = context.repository / "deploy"

    def item(name, check, *arguments):
        context.item("machine", name, check, *arguments)

    item("Dockerfile", check_dockerfile, context, deploy / "Dockerfile")
    for script in sorted(deploy.rglob("*.sh")):
        item(str(script.relative_to(context.repository)), check_script, script)
    for path in (deploy / "image/cairn.yaml", deploy / "systemd/cairn.yaml"):
        item(str(path.relative_to(context.repository)), check_config, context, path)
    item("cairn.service", check_service, context, deploy / "systemd/cairn.service")


def check_script(script):
    """A shell reads it, and it stops at what fails."""
    run_tool(["sh", "-n", script])
    need("\nset -eu\n" in script.read_text(), f"{script.name} goes on when something fails: set -eu")
    return "a shell reads it"


def check_config(context, path):
    """The program would start with it."""
    run_tool([context.binary, "config", "validate", "--config", path])
    return "the program takes it"


def check_dockerfile(context, path):
    """hadolint, and what it does not know: versions, the user, and that the last stage starts from nothing."""
    run_tool([context.tools / "hadolint", path])
    text = path.read_text()
    package = tomllib.loads((context.repository / "Cargo.toml").read_text())["package"]
    version, rust = package["version"], package["rust-version"]
    wanted = {
        f'org.opencontainers.image.version="{version}"': "the version of Cargo.toml",
        f"FROM rust:{rust}-bookworm AS build": "the compiler that Cargo.toml asks for",
        "USER 10001:10001": "a user that is not root",
        'CMD ["/cairn", "health", "--config", "/etc/cairn/cairn.yaml"]': "a health check by the program itself",
    }
    for line, why in wanted.items():
        need(line in text, f"the Dockerfile lacks {line}: {why}")
    makefile = (context.repository / "Makefile").read_text()
    auditable = re.search(r"cargo-auditable@\S+", text)[0]
    need(f"{auditable} " in makefile, f"the Dockerfile has {auditable}, the Makefile another one")
    last = re.findall(r"^FROM (\S+)", text, re.M)[-1]
    need(last == "scratch", "the last stage of the Dockerfile has more in it than is copied there")
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M))
    let_in = set(re.findall(r"^!(\S+)$", (context.repository / ".dockerignore").read_text(), re.M))
    missing = {word for line in copied for word in line.split()} - let_in
    need(not missing, f".dockerignore keeps out {sorted(missing)}, which the Dockerfile copies")
    return f"hadolint has nothing to say; version {version}, user 10001, from scratch"


def check_service(context, unit):
    """Has systemd look at the service in a root where the program and systemd's own units are."""
    root = context.temp / "machine"
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True, ignore_dangling_symlinks=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    shutil.copy(unit, root / "etc/systemd/system")
    for program, at in ((context.binary, "usr/bin/cairn"), (Path("/bin/kill"), "bin/kill")):
        (root / at).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, root / at)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit.name],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in said.stderr.splitlines() if unit.name in line]
    need(not ours, "; ".join(ours))
    security = run_tool(["systemd-analyze", "security", "--offline=yes", f"--root={root}", unit.name])
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", security)[1])
    need(exposure <= MOST_EXPOSURE, f"the exposure of {unit.name} is {exposure}, more than {MOST_EXPOSURE}")
    return f"systemd takes it; exposure {exposure} of 10"
