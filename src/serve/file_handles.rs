//! How many connections the limit of open files permits beside the files of the database.

use rustix::process::{Resource, getrlimit};

use crate::ledger::store::open_files;

/// The most connections to the admin port. Scrapes and probes need few, and their memory is not in that of
/// `limits.connections`.
pub const ADMIN_CONNECTIONS: usize = 128;

/// Files that are open besides tables and connections: the write-ahead log, what compactions write, files of the readers of a
/// package, connections of the relay, and those of the program.
const OTHER_FILES: u64 = 256;

/// The most connections to the public addresses: `wanted`, or what the limit of open files leaves if that is less.
///
/// Connections that took the last file would let the database fail, which ends the process.
pub fn max_connections(wanted: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return wanted };
    let max = within(limit);
    if max < wanted {
        tracing::warn!(
            open_files = limit,
            connections = max,
            "limits.connections: {wanted} connections do not fit into the limit of open files (RLIMIT_NOFILE): fewer are \
             accepted"
        );
    }
    wanted.min(max)
}

/// The most connections with this limit of open files.
fn within(limit: u64) -> usize {
    let taken = u64::from(open_files(limit)) + OTHER_FILES + ADMIN_CONNECTIONS as u64;
    // With a limit this low, a few connections are more useful than none.
    usize::try_from(limit.saturating_sub(taken).max(limit / 16)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fits_into_4096_files_and_a_lower_limit_leaves_some() {
        assert!(within(4096) >= crate::ingest::LimitsConfig::default().connections);
        assert_eq!(within(1024), 384);
        assert_eq!(within(256), 16);
        assert!(within(1 << 20) > 1_000_000);
    }
}
