"""The compose file: whether it is one, and whether it is as closed as the pods."""
import re

import configurations
import manifests
from compose_spec import PyCompose
from context import Context, Wrong, need

# shutdown.grace, if nobody says otherwise.
GRACE = "20s"
VERSION = re.compile(r".+:v?\d+\.\d+\.\d+")


def run(context: Context):
    file = context.repository / "deploy/docker-compose.yaml"
    context.item("overlays", file.name, _check, context, file)


def _check(context, file):
    text = file.read_text()
    manifests.load(text)
    try:
        parsed = PyCompose.from_yaml(text)
        parsed.validate()
    except ValueError as error:
        raise Wrong(str(error)) from error
    services, volumes = parsed.to_dict()["services"], parsed.to_dict().get("volumes", {})
    for name, service in services.items():
        _check_service(file, name, service, volumes)
    need("cairn" in services, "there is no service cairn")
    _check_cairn(context, file, services["cairn"])
    return f"{len(services)} services"


def _check_service(file, name, service, volumes):
    need(VERSION.fullmatch(service["image"]), f"{name}: the image {service['image']} has to say its version")
    for port in service.get("ports", []):
        need(str(port).startswith("127.0.0.1:"), f"{name}: the port {port} is open to the whole network")
    for mount in service.get("volumes", []):
        source, _, rest = mount.partition(":")
        if source.startswith((".", "/")):
            need((file.parent / source).is_file(), f"{name}: there is no file {source}")
            need(rest.endswith(":ro"), f"{name}: it may write {source}")
        else:
            need(source in volumes, f"{name}: there is no volume {source}")
    need(service.get("cap_drop") == ["ALL"], f"{name}: it has to drop all capabilities")
    need(not service.get("cap_add") and not service.get("privileged"), f"{name}: it has more privileges than it needs")
    need("no-new-privileges:true" in service.get("security_opt", []), f"{name}: it may get privileges by setuid")


def _check_cairn(context, file, service):
    wanted = f"cairn:{context.version()}"
    need(service["image"] == wanted, f"cairn: its image has to be {wanted}, not {service['image']}")
    need(service.get("user") == "10001:10001", f"cairn: the user is {service.get('user')}, not 10001:10001")
    need(service.get("read_only") is True, "cairn: read_only has to be true")
    need(any(mount.startswith("/tmp") for mount in service.get("tmpfs", [])), "cairn: it cannot write /tmp")
    need(any(mount.endswith(":/var/lib/cairn") for mount in service["volumes"]), "cairn: no volume at /var/lib/cairn")
    given = service.get("stop_grace_period", "10s")
    is_enough = manifests.seconds(given) >= manifests.seconds(GRACE)
    need(is_enough, f"cairn: it is killed after {given}, and may need {GRACE}")
    build = service["build"]
    dockerfile = file.parent / build["context"] / build["dockerfile"]
    need(dockerfile.is_file(), f"cairn: there is no {build['dockerfile']}")
    settings = (context.repository / "deploy/image/cairn.yaml").read_text()
    environment = {"env": [{"name": name, "value": value} for name, value in service["environment"].items()]}
    configurations.check_text(context, "cairn", settings, configurations.environment(environment))
