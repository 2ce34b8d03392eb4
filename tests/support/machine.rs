//! What some tests require of the machine that runs them, and file systems of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The variable with which a test fails if the machine does not meet its requirement. Without it the test is skipped,
/// so that the tests of a developer without root pass. `.ci/run` sets it.
const REQUIRE_ALL: &str = "TEST_REQUIRE_ALL";

/// Whether a requirement of a test is met. If not, the test returns without having run.
///
/// # Panics
/// When it is not met and `TEST_REQUIRE_ALL` is set.
pub fn meets(is_met: bool, requirement: &str) -> bool {
    assert!(is_met || std::env::var_os(REQUIRE_ALL).is_none(), "this test requires {requirement}");
    if !is_met {
        println!("skipped: this test requires {requirement}");
    }
    is_met
}

/// Whether this user may create mount namespaces and mount file systems.
pub fn may_mount() -> bool {
    let output = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    meets(output.is_ok_and(|output| output.status.success()), "a user that may mount file systems")
}

/// Whether this user is root.
pub fn is_root() -> bool {
    meets(rustix::process::geteuid().is_root(), "root")
}

/// A small file system that is unmounted when dropped.
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    /// A file system of this size, such as `64m`; `None` if this user may not mount file systems.
    pub fn new(size: &str) -> Option<Mount> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        meets(is_mounted, "a user that may mount file systems").then_some(Mount { folder })
    }

    /// The folder that it is mounted on.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Changes a mount option, such as `ro`.
    pub fn remount(&self, option: &str) {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A cgroup with a memory limit, of version 1 or 2. It is removed when dropped, once its processes have ended.
pub struct Cgroup {
    folder: PathBuf,
    is_version_2: bool,
}

impl Cgroup {
    /// A cgroup with this limit; `None` if this user may not create one.
    pub fn new(limit_bytes: u64) -> Option<Cgroup> {
        let name = format!("cairn-test-{}-{limit_bytes}", std::process::id());
        let found = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
            .into_iter()
            .enumerate()
            .find_map(|(version, (mount, file))| {
                let folder = Path::new(mount).join(&name);
                std::fs::create_dir(&folder).ok()?;
                let cgroup = Cgroup { folder, is_version_2: version == 1 };
                std::fs::write(cgroup.folder.join(file), limit_bytes.to_string()).ok()?;
                Some(cgroup)
            });
        meets(found.is_some(), "a user that may create memory cgroups").then_some(found?)
    }

    /// A command that runs the one that is appended to it inside the cgroup.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let script = format!("echo $$ > '{}/cgroup.procs' && exec \"$0\" \"$@\"", self.folder.display());
        command.args(["-c", &script]).arg(program);
        command
    }

    /// The number of processes that were killed for want of memory.
    pub fn kills(&self) -> u64 {
        let file = if self.is_version_2 { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..50 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
