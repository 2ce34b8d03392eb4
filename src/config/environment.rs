//! What the environment says beside settings.

use std::env;
use std::path::{Path, PathBuf};

/// Whether output may be coloured: `NO_COLOR` is not set, or is empty (no-color.org).
pub fn allows_colors() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether this process is in a container that is not part of a pod, so that it has a loopback interface of its own.
pub fn is_lone_container() -> bool {
    let has_file = ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists());
    // With a read-only root, podman hides its file below a file system for /run, and sets only this variable.
    let is_container = has_file || env::var_os("container").is_some();
    is_container && env::var_os("KUBERNETES_SERVICE_HOST").is_none()
}

/// The directories that systemd gives the service (`StateDirectory=`); none without it.
pub fn state_directories() -> Vec<PathBuf> {
    env::var_os("STATE_DIRECTORY").map_or_else(Vec::new, |paths| env::split_paths(&paths).collect())
}
