//! What some tests require of the machine that runs them, and file systems of their own.

use std::path::Path;
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
