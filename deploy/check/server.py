"""The Debian package on a server, under a real systemd: install, mistakes, upgrade under load, keys, backup, restore, purge."""
import json
import re
import shutil

from booted import BootFailed, Server, eventually, missing
from context import require
from tools import run_tool

CONFIG = "/etc/cairn/cairn.yaml"
PART = "server"


def run(context):
    """Runs all checks of this part, in an order in which each needs those before."""
    why = missing() or unusable(context)
    if why:
        context.skip(PART, "the Debian package under systemd", why)
        return
    (package,) = packages(context)
    # Beside the tools, which are kept for the next run.
    kept = context.tools.parent
    try:
        with Server(context.temp, kept) as server:
            for check in CHECKS:
                context.run_check(PART, check.__name__.replace("_", " "), check, context, server, package)
    except BootFailed as error:
        context.skip(PART, "the Debian package under systemd", f"systemd does not start in a container here: {error}")


def packages(context):
    return sorted((context.repository / "dist").glob("cairn_*.deb"))


def unusable(context):
    """Why there is no package of this revision, or None."""
    found = packages(context)
    if len(found) != 1:
        return "needs the package in dist/: make release"
    folder = context.temp / "package"
    run_tool(["dpkg-deb", "--extract", found[0], folder])
    changelog = run_tool(["zcat", folder / "usr/share/doc/cairn/changelog.Debian.gz"])
    packaged = re.search(r"revision (\w+)", changelog)[1]
    revision = run_tool(["git", "-C", context.repository, "rev-parse", "--short=12", "HEAD"]).strip()
    return None if packaged == revision else f"dist/ has a package of {packaged}, and this is {revision}: make release"


def documented(context, path, heading):
    """The commands of the first console block below a heading, without sudo: this is a shell of root."""
    text = (context.repository / path).read_text()
    block = re.search(rf"^#+ {re.escape(heading)}$.*?^```console[^\n]*\n(.*?)^```$", text, re.M | re.S)[1]
    return "\n".join(re.findall(r"^\$ (?:sudo )?(.*)$", block.replace("sudo ", ""), re.M))


def post(server, agent="my-agent"):
    event = json.dumps({"agent_id": agent})
    server.run("curl", "-sf", "localhost:7600/v1/events", "-H", "Content-Type: application/json", "-d", event)


def events(server):
    # The status is not 0 if nothing can be signed.
    return int(re.search(r"^events: +(\d+)$", server.try_run("cairn", "status", "--config", CONFIG)[1], re.M)[1])


def property_of(server, name):
    return server.run("systemctl", "show", "cairn", f"--property={name}", "--value").strip()


def install_an_earlier_version(context, server, package):
    """The package with an earlier version number is installed, and the service started and used."""
    parts = context.temp / "earlier"
    run_tool(["dpkg-deb", "--raw-extract", package, parts])
    control = (parts / "DEBIAN/control").read_text()
    (parts / "DEBIAN/control").write_text(re.sub(r"^Version: .*$", "Version: 0.0.1-1", control, flags=re.M))
    run_tool(["dpkg-deb", "--root-owner-group", "--build", parts, server.root / "root/earlier.deb"])
    shutil.copy(package, server.root / "root/cairn.deb")
    server.run("apt-get", "install", "--yes", "--no-install-recommends", "./earlier.deb")
    require(property_of(server, "ActiveState") == "inactive", "the installation started the service")
    # The checks count events, and a stop that is recorded would be one that a backup does not have.
    dropin = "/etc/systemd/system/cairn.service.d/10-recorder.conf"
    server.write(dropin, "[Service]\nEnvironment=CAIRN_RECORDER__ENABLED=false\n")
    server.run("systemctl", "daemon-reload")
    server.run("systemctl", "enable", "--now", "cairn")
    post(server)
    eventually(
        "the status text of the unit has the event",
        lambda: property_of(server, "StatusText") == "accepting events, 1 event stored",
    )
    server.run("cairn", "verify", "--all", "--config", CONFIG)
    return "active, and has an event"


def refuse_an_invalid_configuration(_, server, __):
    """systemctl fails for it, a reload leaves the service running, and a start is not tried again and again."""
    valid = server.run("cat", CONFIG)
    server.write(CONFIG, valid + "bogus: 1\n")
    require(server.try_run("systemctl", "reload", "cairn")[0] != 0, "a reload of an invalid configuration succeeds")
    require(property_of(server, "ActiveState") == "active", "a refused reload ended the service")
    require(server.try_run("systemctl", "restart", "cairn")[0] != 0, "a start with an invalid configuration succeeds")
    state = property_of(server, "ActiveState")
    require(state == "failed", f"the state after an invalid configuration is {state}")
    require("bogus" in server.journal(), "the journal does not name the key")
    server.write(CONFIG, valid + "limits: {events_per_second: 1000}\n")
    server.run("systemctl", "start", "cairn")
    server.write(CONFIG, valid + "limits: {events_per_second: 2000}\n")
    server.run("systemctl", "reload", "cairn")
    eventually("a reload of a valid configuration", lambda: "limits.events_per_second" in server.journal())
    server.write(CONFIG, valid)
    server.run("systemctl", "reload", "cairn")
    _reload_with_credentials(server)
    return "reload and start fail, the running service stays; a valid configuration is reloaded"


def _reload_with_credentials(server):
    """With keys that systemd passes to the service, the documented command reloads other settings."""
    valid, credentials = server.run("cat", CONFIG), "/run/credentials/cairn.service/api-keys"
    server.write("/etc/cairn/api-keys", "a-key-of-the-check-1234\n")
    server.write("/etc/systemd/system/cairn.service.d/keys.conf", "[Service]\nLoadCredential=api-keys:/etc/cairn/api-keys\n")
    server.write(CONFIG, valid + f"auth: {{api_keys_file: {credentials}}}\n")
    server.shell("chmod 600 /etc/cairn/api-keys; systemctl daemon-reload; systemctl restart cairn")
    server.write(CONFIG, valid + f"auth: {{api_keys_file: {credentials}}}\nlimits: {{events_per_second: 3000}}\n")
    before = server.journal().count("configuration reloaded")
    server.run("cairn", "reload")
    eventually("a reload with credentials", lambda: server.journal().count("configuration reloaded") > before)
    server.write(CONFIG, valid)
    server.shell("rm /etc/systemd/system/cairn.service.d/keys.conf; systemctl daemon-reload; systemctl restart cairn")


def restart_what_does_not_answer(_, server, __):
    """The watchdog restarts a stopped process, and systemd one that was killed."""
    server.write("/etc/systemd/system/cairn.service.d/fast.conf", "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")
    server.shell("systemctl daemon-reload; systemctl restart cairn")
    for signal, restarts in (("STOP", "1"), ("KILL", "2")):
        server.shell(f"kill -{signal} {property_of(server, 'MainPID')}")
        eventually(
            f"a restart after SIG{signal}",
            lambda restarts=restarts: property_of(server, "NRestarts") == restarts
            and property_of(server, "ActiveState") == "active",
        )
    server.shell("rm /etc/systemd/system/cairn.service.d/fast.conf; systemctl daemon-reload; systemctl restart cairn")
    return "after SIGSTOP by the watchdog, after SIGKILL at once"


def upgrade_under_load(context, server, _):
    """The new version is installed while a sender sends: every acknowledged event is there, and the ledger is valid."""
    before = property_of(server, "MainPID")
    shutil.copy(context.repository / "deploy/check/sender.py", server.root / "root/sender.py")
    sender = server.start("python3", "/root/sender.py")
    sender.stdout.readline()
    try:
        server.run("apt-get", "install", "--yes", "--no-install-recommends", "./cairn.deb")
        eventually("the new process is active", lambda: property_of(server, "ActiveState") == "active")
        require(property_of(server, "MainPID") != before, "the upgrade did not restart the service")
        post(server)
    finally:
        acknowledged = sender.communicate("")[0].split()
    require(len(acknowledged) > 10, f"the sender got {len(acknowledged)} acknowledgements")
    lines = server.run("cairn", "events", "--agent-id=load", "--last=1000000", "--json", "--config", CONFIG).splitlines()
    stored = {json.loads(line)["id"] for line in lines if line.startswith("{")}
    lost = [id for id in acknowledged if id not in stored]
    require(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged events are missing")
    server.run("cairn", "verify", "--all", "--config", CONFIG)
    return f"{len(acknowledged)} events acknowledged before, during and after, none missing"


def rotate_the_key(_, server, __):
    """`cairn key rotate` as root writes a key that the service reads, and the next checkpoint has both signatures."""
    rotated = server.run("cairn", "key", "rotate", "--config", CONFIG).split()[0]
    server.run("systemctl", "restart", "cairn")
    post(server)

    def signed():
        note = server.run("cat", "/var/lib/cairn/data/log.checkpoint")
        return note.count("\n— ") == 2

    eventually("a checkpoint with two signatures", signed)
    require(rotated in server.run("cairn", "key", "show", "--config", CONFIG), "the new key is not shown")
    return "both keys sign"


def refuse_other_directories_with_a_reason(_, server, __):
    """A path outside of the sandbox gives a message that names ProtectSystem."""
    valid = server.run("cat", CONFIG)
    server.write(CONFIG, valid + "log: {checkpoint_file: /srv/checkpoints/cairn}\n")
    server.shell("mkdir -p /srv/checkpoints; cp /var/lib/cairn/data/log.checkpoint /srv/checkpoints/cairn")
    server.run("systemctl", "restart", "cairn")
    eventually("a line that names ProtectSystem", lambda: "ProtectSystem" in server.journal())
    eventually("a status text that says so", lambda: "NOTHING IS SIGNED" in property_of(server, "StatusText"))
    server.write(CONFIG, valid)
    server.run("systemctl", "restart", "cairn")
    return "the journal names ProtectSystem and the documents"


def keep_the_checkpoint_elsewhere(context, server, _):
    """The documented steps put the checkpoint on another disk; without the disk, the service does not start."""
    server.shell("mkdir -p /srv/disk /var/lib/private/cairn-checkpoints")
    # In place of a disk. It is mounted in the namespaces of the server only.
    server.run("mount", "--bind", "/srv/disk", "/var/lib/private/cairn-checkpoints")
    documents = server.root / "usr/share/doc/cairn/deploy/systemd"
    require(documents.is_dir(), "the package lacks the examples of drop-ins")
    server.shell(documented(context, "docs/backup.md", "The checkpoint on another disk"))
    post(server)
    eventually("a checkpoint on the other disk", lambda: (server.root / "srv/disk/cairn").exists())
    require("possible" in server.run("cairn", "status", "--config", CONFIG), "nothing is signed")
    server.shell("systemctl stop cairn; umount /var/lib/private/cairn-checkpoints")
    require(server.try_run("systemctl", "start", "cairn")[0] != 0, "it starts without the disk")
    server.run("mount", "--bind", "/srv/disk", "/var/lib/private/cairn-checkpoints")
    server.run("systemctl", "start", "cairn")
    return "signed there; no start without the disk"


def back_up_and_restore(context, server, _):
    """The documented steps, after events that the backup does not have: a new log begins; without them the log continues."""
    server.run("mkdir", "-p", "/backups")
    server.shell(documented(context, "docs/backup.md", "On a server"))
    log = server.run("cairn", "key", "show", "--config", CONFIG).split("+")[0]
    stored = events(server)
    server.shell(documented(context, "docs/backup.md", "Restore on a server"))
    require(events(server) == stored, f"{events(server)} of {stored} events after the restore")
    require(server.run("cairn", "key", "show", "--config", CONFIG).split("+")[0] == log, "another log after the restore")
    server.run("systemctl", "stop", "cairn")
    server.shell("rm -r /var/lib/cairn/data.lost; systemctl start cairn")
    post(server)
    eventually("the event is signed", lambda: "not yet signed:   0 events" in server.run("cairn", "status", "--config", CONFIG))
    restored = server.shell(documented(context, "docs/backup.md", "Restore on a server"))
    require("1 event" in restored, f"the restore does not say what is missing: {restored}")
    require(server.run("cairn", "key", "show", "--config", CONFIG).split("+")[0] != log, "the log has two histories")
    post(server)
    _restore_onto_a_new_disk(server)
    return "the log continues; after a signed event that is lost, a new one begins"


def _restore_onto_a_new_disk(server):
    """The whole directory of the service is lost: the checkpoint on the other disk stays writable for the service."""
    eventually("everything is signed", lambda: "not yet signed:   0 events" in server.run("cairn", "status", "--config", CONFIG))
    server.shell("rm -rf /backups/later; cairn backup /backups/later --keys --config /etc/cairn/cairn.yaml")
    server.shell("systemctl stop cairn; rm -r /var/lib/private/cairn")
    checkpoint = "/var/lib/private/cairn-checkpoints/cairn"
    server.run("cairn", "restore", "/backups/later", "--checkpoint", checkpoint, "--config", CONFIG)
    server.run("systemctl", "start", "cairn")
    post(server)
    stored = events(server)
    eventually(
        "a signature after the restore",
        lambda: f"last checkpoint:  {stored} events" in server.run("cairn", "status", "--server", "http://localhost:7600"),
    )


def remove_and_purge(_, server, __):
    """What was recorded outlives the package, a purge says where it is, and a new installation continues with it."""
    stored = events(server)
    server.run("apt-get", "remove", "--yes", "cairn")
    output = server.run("apt-get", "purge", "--yes", "cairn")
    require("The ledger and the signing keys stay in /var/lib/private/cairn." in output, f"the purge says: {output}")
    server.run("apt-get", "install", "--yes", "--no-install-recommends", "./cairn.deb")
    server.run("systemctl", "start", "cairn")
    require(events(server) == stored, f"{events(server)} of {stored} events after a new installation")
    return "the ledger stays, and is used by a new installation"


CHECKS = (
    install_an_earlier_version,
    refuse_an_invalid_configuration,
    restart_what_does_not_answer,
    upgrade_under_load,
    rotate_the_key,
    refuse_other_directories_with_a_reason,
    keep_the_checkpoint_elsewhere,
    back_up_and_restore,
    remove_and_purge,
)
