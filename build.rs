//! Sets linker options.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Packs relative relocations: 30 KB instead of 900. This requires glibc 2.36 at run time, so a binary that is built
    // for older machines does not use it.
    if env::var("HOST") == env::var("TARGET") && has_glibc(2, 36) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether this machine has at least this version of glibc.
fn has_glibc(major: u32, minor: u32) -> bool {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // The output is, for example, "glibc 2.36".
    let version = output.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    version.is_some_and(|version: (u32, u32)| version >= (major, minor))
}
