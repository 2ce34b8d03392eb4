"""Finding the containers that run Cairn, each with its configuration and what is around it."""
from dataclasses import dataclass

import manifests
from context import Wrong, need

# What Cairn takes if its configuration does not say otherwise.
LISTEN = "127.0.0.1:7600"


@dataclass(frozen=True)
class Cairn:
    """A container that runs Cairn, and what is around it."""

    pod: manifests.Pod
    container: dict
    # The text of its cairn.yaml, and what is in it.
    text: str
    config: dict
    # The claims among the manifests: names and sizes in bytes.
    claims: dict

    @property
    def where(self):
        return f"{self.pod.name}, container {self.container['name']}"

    @property
    def is_server(self):
        """Otherwise it looks at something and ends, such as the pod of `helm test`."""
        return self.container.get("args", ["serve"])[0] == "serve"

    @property
    def is_native(self):
        return self.container in self.pod.spec.get("initContainers", [])

    @property
    def kind(self):
        return "sidecar" if all(is_loopback(address) for address in self.listens()) else "standalone"

    def listens(self):
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
        """What the projected volume brings: each path under /etc/cairn, and from a ConfigMap or a Secret."""
        return {
            f"/etc/cairn/{item['path']}": (kind, source[kind], item)
            for source in self.volume("cairn-config")["projected"]["sources"]
            for kind in source
            for item in source[kind]["items"]
        }

    def need(self, holds, sentence):
        need(holds, f"{self.where}: {sentence}")


def is_loopback(address):
    return address.startswith(("127.", "[::1]", "unix:"))


def of(documents):
    """Every Cairn in these manifests, each with its configuration."""
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
    need(volume, f"{pod.name}: it has a Cairn and no volume cairn-config")
    names = [source["configMap"]["name"] for source in volume["projected"]["sources"] if "configMap" in source]
    for document in manifests.of_kind(documents, "ConfigMap"):
        if document["metadata"]["name"] in names:
            return document["data"]["cairn.yaml"]
    raise Wrong(f"{pod.name}: there is no ConfigMap {' or '.join(names)}")
