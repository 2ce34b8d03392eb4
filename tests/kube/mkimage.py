"""Docker archives by hand: a manifest, a config, one layer or more."""
import hashlib, io, json, os, tarfile, time

def layer(add):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar)
    return out.getvalue()

def image(path, name, layers, config):
    ids = [hashlib.sha256(l).hexdigest() for l in layers]
    conf = json.dumps({"architecture": "amd64", "os": "linux", "created": "2026-11-29T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + i for i in ids]}}).encode()
    cname = hashlib.sha256(conf).hexdigest() + ".json"
    man = json.dumps([{"Config": cname, "RepoTags": [name], "Layers": [i + ".tar" for i in ids]}]).encode()
    with tarfile.open(path, "w") as tar:
        for n, b in [(cname, conf), ("manifest.json", man)] + [(i + ".tar", l) for i, l in zip(ids, layers)]:
            t = tarfile.TarInfo(n); t.size = len(b); tar.addfile(t, io.BytesIO(b))

def tree(folder, uid=0):
    def own(t):
        t.uid = t.gid = uid; t.uname = t.gname = ""; return t
    return lambda tar: [tar.add(os.path.join(folder, n), n, filter=own) for n in sorted(os.listdir(folder))]

def files(entries):
    def add(tar):
        for name, src, mode in entries:
            t = tarfile.TarInfo(name); data = open(src, "rb").read(); t.size = len(data); t.mode = mode
            tar.addfile(t, io.BytesIO(data))
    return add

def under(folder, prefix, uid):
    def own(t):
        t.uid = t.gid = uid; t.uname = t.gname = ""; return t
    return lambda tar: tar.add(folder, prefix, filter=own)

image("pause.docker.tar", "docker.io/library/pause:lab", [layer(files([("pause", "pause", 0o755)]))], {"Entrypoint": ["/pause"]})
image("cairn.docker.tar", "docker.io/library/cairn:0.1.0", [layer(tree("root")), layer(under("data/cairn", "var/lib/cairn", 10001))], {
    "User": "10001:10001", "Volumes": {"/var/lib/cairn": {}}, "ExposedPorts": {"7600/tcp": {}, "7601/tcp": {}},
    "Env": ["CAIRN_CONFIG=/etc/cairn/cairn.yaml"], "Entrypoint": ["/cairn"], "Cmd": ["serve"]})
agent = open("agent.tar", "rb").read()
image("agent.docker.tar", "docker.io/library/my-agent:1.0", [agent, layer(files([("agent.py", "agent.py", 0o644), ("load.py", "load.py", 0o644)]))], {
    "User": "10002:10002", "Env": ["PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1"], "Entrypoint": ["python3", "/agent.py"]})
