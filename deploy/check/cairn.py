"""Finds the containers that run Cairn, each with its configuration, pod and claims."""
from dataclasses import dataclass

import manifests
from context import CheckFailed, require

# The default of Cairn's configuration.
LISTEN = "127.0.0.1:7600"


@dataclass(frozen=True)
class Cairn:
    """A container that runs Cairn, with its configuration, pod and claims."""

    pod: manifests.Pod
    container: dict
    # The text of its cairn.yaml, and the parsed configuration.
    text: str
    config: dict
    # The PersistentVolumeClaims among the manifests: names, and sizes in bytes.
    claims: dict

    @property
    def where(self):
        return f"{self.pod.name}, container {self.container['name']}"

    @property
    def is_server(self):
        """Whether it runs the server; otherwise it runs a command that ends, such as in the pod of `helm test`."""
        return self.container.get("args", ["serve"])[0] == "serve"

    @property
    def is_native(self):
        return self.container in self.pod.spec.get("initContainers", [])

    @property
    def kind(self):
        return "sidecar" if all(is_loopback(address) for address in self.listen_addresses()) else "standalone"

    def listen_addresses(self):
        listen = self.setting("listen", LISTEN)
        addresses = listen.split(",") if isinstance(listen, str) else listen
        otlp = self.setting("ingest.otlp.listen")
        return [address.strip() for address in addresses] + ([otlp] if otlp else [])

    def setting(self, path, default=None):
        node = self.config
        for key in path.split("."):
            node = (node or {}).get(key)
        return default if node is None else node

    def volume(self, name):
        return next((volume for volume in self.pod.spec.get("volumes", []) if volume["name"] == name), None)

    def files(self):
        """The files of the projected volume: by path, the kind of the source, the source, and its item."""
        return {
            f"/etc/cairn/{item['path']}": (kind, source[kind], item)
            for source in self.volume("cairn-config")["projected"]["sources"]
            for kind in source
            for item in source[kind]["items"]
        }

    def require(self, condition, message):
        require(condition, f"{self.where}: {message}")


def is_loopback(address):
    return address.startswith(("127.", "[::1]", "unix:"))


def of(documents):
    """Every container that runs Cairn in these manifests."""
    claims = {
        claim["metadata"]["name"]: manifests.claim_size(claim)
        for claim in manifests.of_kind(documents, "PersistentVolumeClaim")
    }
    return [
        Cairn(pod, container, text, manifests.load(text)[0], claims)
        for pod in manifests.pods(documents)
        for container in containers(pod)
        if _is_cairn(container)
        for text in [_configuration(documents, pod)]
    ]


def containers(pod):
    return pod.spec.get("initContainers", []) + pod.spec["containers"]


def _is_cairn(container):
    image = container["image"].split("@")[0].split("/")[-1].split(":")[0]
    return container["name"] == "cairn" or image == "cairn"


def _configuration(documents, pod):
    """The text of cairn.yaml, from the ConfigMap that the pod mounts."""
    volume = next((volume for volume in pod.spec.get("volumes", []) if volume["name"] == "cairn-config"), None)
    require(volume, f"{pod.name}: it runs Cairn and has no volume cairn-config")
    names = [source["configMap"]["name"] for source in volume["projected"]["sources"] if "configMap" in source]
    for document in manifests.of_kind(documents, "ConfigMap"):
        if document["metadata"]["name"] in names:
            return document["data"]["cairn.yaml"]
    raise CheckFailed(f"{pod.name}: ConfigMap {' or '.join(names)} is missing")
