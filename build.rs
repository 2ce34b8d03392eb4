//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The places that the loader has to fill in are listed in 30 KB instead of 900. glibc can read that since 2.36 (2022).
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
