//! The binary: passes the arguments to the library and returns the exit status.

use std::process::ExitCode;

/// mimalloc, because one thread allocates an event, a second one seals it and a third one frees it. The database uses
/// it, too (feature `override`). With the system's allocator an event took 2 to 7 % more CPU time. See
/// `docs/adr/0016-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn::cli::run().into()
}
