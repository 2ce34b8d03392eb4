//! The binary: passes the arguments to the library and returns the exit status.

use std::process::ExitCode;

/// jemalloc, because one thread allocates an event, a second one seals it and a third one frees it: its arenas are shared by
/// all threads, and unused memory returns to the system. The database uses it, too. The settings are in
/// `.cargo/config.toml`, the measurements in `docs/adr/0039-jemalloc.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cairn::cli::run().into()
}
