"""Checks the compose file: its validity, and the same restrictions as those of pods."""
import re

import configurations
import manifests
from compose_spec import PyCompose
from context import Context, CheckFailed, require

# The default of shutdown.grace.
GRACE = "20s"
VERSION = re.compile(r".+:v?\d+\.\d+\.\d+")


def run(context: Context):
    file = context.repository / "deploy/docker-compose.yaml"
    context.run_check("overlays", file.name, _check, context, file)


def _check(context, file):
    text = file.read_text()
    manifests.load(text)
    try:
        parsed = PyCompose.from_yaml(text)
        parsed.validate()
    except ValueError as error:
        raise CheckFailed(str(error)) from error
    services, volumes = parsed.to_dict()["services"], parsed.to_dict().get("volumes", {})
    for name, service in services.items():
        _check_service(file, name, service, volumes)
    require("cairn" in services, "service cairn is missing")
    _check_cairn(context, file, services["cairn"])
    return f"{len(services)} services"


def _check_service(file, name, service, volumes):
    require(VERSION.fullmatch(service["image"]), f"{name}: the image {service['image']} must have a version")
    for port in service.get("ports", []):
        require(str(port).startswith("127.0.0.1:"), f"{name}: the port {port} is published on all addresses")
    for mount in service.get("volumes", []):
        source, _, rest = mount.partition(":")
        if source.startswith((".", "/")):
            require((file.parent / source).is_file(), f"{name}: file {source} is missing")
            require(rest.endswith(":ro"), f"{name}: {source} must be mounted read-only")
        else:
            require(source in volumes, f"{name}: volume {source} is missing")
    require(service.get("cap_drop") == ["ALL"], f"{name}: it must drop all capabilities")
    require(
        not service.get("cap_add") and not service.get("privileged"),
        f"{name}: it has more privileges than it needs",
    )
    require("no-new-privileges:true" in service.get("security_opt", []), f"{name}: it can gain privileges by setuid")


def _check_cairn(context, file, service):
    wanted = f"cairn:{context.version()}"
    require(service["image"] == wanted, f"cairn: its image must be {wanted}, not {service['image']}")
    require(service.get("user") == "10001:10001", f"cairn: the user is {service.get('user')}, not 10001:10001")
    require(service.get("read_only") is True, "cairn: read_only must be true")
    require(any(mount.startswith("/tmp") for mount in service.get("tmpfs", [])), "cairn: /tmp is not writable")
    require(
        any(mount.endswith(":/var/lib/cairn") for mount in service["volumes"]),
        "cairn: no volume at /var/lib/cairn",
    )
    given = service.get("stop_grace_period", "10s")
    is_enough = manifests.seconds(given) >= manifests.seconds(GRACE)
    require(is_enough, f"cairn: it is killed after {given}, but may need {GRACE}")
    build = service["build"]
    dockerfile = file.parent / build["context"] / build["dockerfile"]
    require(dockerfile.is_file(), f"cairn: {build['dockerfile']} is missing")
    settings = (context.repository / "deploy/image/cairn.yaml").read_text()
    environment = {"env": [{"name": name, "value": value} for name, value in service["environment"].items()]}
    configurations.check_text(context, "cairn", settings, configurations.environment(environment))
