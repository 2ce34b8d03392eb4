//! How the program is linked.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The places that the loader has to fill in are listed in 30 KB instead of 900. A program that is built for older
    // machines is larger, and starts there.
    if env::var("HOST") == env::var("TARGET") && has_glibc(2, 36) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether this machine has that version of glibc, or a newer one.
fn has_glibc(major: u32, minor: u32) -> bool {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    // Such as "glibc 2.36".
    let version = said.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    version.is_some_and(|version: (u32, u32)| version >= (major, minor))
}
