//! Links the C++ library statically on Linux, so that the program runs on systems with older ones: those of RHEL 9 and Amazon
//! Linux 2023 lack symbols of GCC 12. `make release` checks the result. GCC's own library remains a shared one, because the static
//! one of GCC 12 needs glibc 2.35, and every system has the shared one.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/startup.c");
    println!("cargo:rerun-if-env-changed=CXX");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux")
        || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu")
    {
        return Ok(());
    }
    let startup = cc::Build::new().file("src/startup.c").warnings_into_errors(true).compile_intermediates();
    for object in startup {
        println!("cargo:rustc-link-arg={}", object.display());
    }
    let Some(folder) = env::var_os("OUT_DIR").map(PathBuf::from) else { return Ok(()) };
    // A compiler without the static library links the shared one.
    let Some(library) = library("libstdc++.a") else {
        println!("cargo:warning=libstdc++.a is missing: the program needs the C++ library of this system");
        return Ok(());
    };
    // The linker searches this folder first, and finds only the static library there.
    replace(&folder.join("libstdc++.a"), &format!("INPUT ( {} )\n", library.display()))?;
    println!("cargo:rustc-link-search=native={}", folder.display());
    Ok(())
}

/// The path of a library of the C++ compiler.
fn library(name: &str) -> Option<PathBuf> {
    let target = env::var("TARGET").unwrap_or_default().replace('-', "_");
    let compiler = env::var(format!("CXX_{target}")).or_else(|_| env::var("CXX")).unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A compiler that does not know the library prints the name.
    (path.is_absolute() && path.exists()).then_some(path)
}

/// Writes a file if it has another content, so that nothing is linked again without need.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).unwrap_or_default() == text { Ok(()) } else { fs::write(path, text) }
}
