"""Checks what runs outside of Kubernetes: Dockerfile, systemd service, scripts, configuration files."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from context import require
from tools import run_tool

# The exposure level of systemd, from 0 to 10; below 2 systemd rates it OK or better.
MOST_EXPOSURE = 2.0


def run(context):
    """Runs all checks of this part."""
    deploy = context.repository / "deploy"

    def item(name, check, *arguments):
        context.run_check("machine", name, check, *arguments)

    item("Dockerfile", check_dockerfile, context, deploy / "Dockerfile")
    for script in sorted(deploy.rglob("*.sh")):
        item(str(script.relative_to(context.repository)), check_script, script)
    for path in (deploy / "image/cairn.yaml", deploy / "systemd/cairn.yaml"):
        item(str(path.relative_to(context.repository)), check_config, context, path)
    item("cairn.service", check_service, context, deploy / "systemd/cairn.service")


def check_script(script):
    """The script parses, and stops at the first failure."""
    run_tool(["sh", "-n", script])
    require("\nset -eu\n" in script.read_text(), f"{script.name} continues after a failure: add set -eu")
    return "sh parses it"


def check_config(context, path):
    """`cairn config validate` accepts the file."""
    run_tool([context.binary, "config", "validate", "--config", path])
    return "valid"


def check_dockerfile(context, path):
    """hadolint accepts it; versions, user, health check and the last stage are as required."""
    run_tool([context.tools / "hadolint", path])
    text = path.read_text()
    package = tomllib.loads((context.repository / "Cargo.toml").read_text())["package"]
    version, rust = package["version"], package["rust-version"]
    wanted = {
        f'org.opencontainers.image.version="{version}"': "the version of Cargo.toml",
        f"FROM rust:{rust}-bookworm AS build": "the compiler version of Cargo.toml",
        "USER 10001:10001": "a user that is not root",
        'CMD ["/cairn", "health"]': "a health check by the program itself",
    }
    for line, why in wanted.items():
        require(line in text, f"the Dockerfile lacks {line}: {why}")
    makefile = (context.repository / "Makefile").read_text()
    auditable = re.search(r"cargo-auditable@\S+", text)[0]
    require(f"{auditable} " in makefile, f"the Dockerfile has {auditable}, the Makefile another version")
    last = re.findall(r"^FROM (\S+)", text, re.M)[-1]
    require(last == "scratch", "the last stage of the Dockerfile must start from scratch")
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M))
    included = set(re.findall(r"^!(\S+)$", (context.repository / ".dockerignore").read_text(), re.M))
    members = tomllib.loads((context.repository / "Cargo.toml").read_text())["workspace"]["members"]
    uncopied = {f"{member}/Cargo.toml" for member in members} - copied
    require(not uncopied, f"the Dockerfile does not copy {sorted(uncopied)}, which cargo reads")
    folders = lambda path: {path, *map(str, Path(path).parents)}
    missing = {word for line in copied for word in line.split() if not folders(word) & included}
    require(not missing, f".dockerignore excludes {sorted(missing)}, which the Dockerfile copies")
    return f"no complaints of hadolint; version {version}, user 10001, from scratch"


def check_service(context, unit):
    """systemd verifies the unit in a root directory with the program and systemd's own units."""
    root = context.temp / "machine"
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True, ignore_dangling_symlinks=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    shutil.copy(unit, root / "etc/systemd/system")
    for program, at in ((context.binary, "usr/bin/cairn"), (Path("/bin/kill"), "bin/kill")):
        (root / at).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, root / at)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit.name],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in verified.stderr.splitlines() if unit.name in line]
    require(not ours, "; ".join(ours))
    security = run_tool(["systemd-analyze", "security", "--offline=yes", f"--root={root}", unit.name])
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", security)[1])
    require(exposure <= MOST_EXPOSURE, f"the exposure of {unit.name} is {exposure}, more than {MOST_EXPOSURE}")
    return f"valid; exposure {exposure} of 10"
