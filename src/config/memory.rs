//! The division of `limits.memory`, the bound of the whole process, among its parts. `docs/configuration.md#memory` describes
//! it.
//!
//! A part has a setting of its own or a fixed size. What the settings that are given leave is divided among the others in
//! the proportions of [`Share::weight`].

use std::fmt;
use std::path::Path;

use bytesize::ByteSize;

use super::settings::Config;
use crate::ingest::working_bytes;
use crate::text::settings::InvalidSetting;

const MIB: u64 = 1 << 20;

/// The default of `limits.memory`, unless three quarters of the limit of the cgroup are less.
const DEFAULT_BYTES: u64 = 192 * MIB;
/// The program, its threads and its runtime, measured idle with the least memory for everything else.
const PROCESS_BYTES: u64 = 26 * MIB;
/// The commit that a shard builds and writes: its events as records and as rows.
const COMMIT_BYTES: u64 = 10 * MIB;
/// A connection with its buffers.
pub const CONNECTION_BYTES: u64 = 32 << 10;
/// The default of `limits.body_bytes`, unless the memory for requests is too small for it.
const DEFAULT_BODY_BYTES: u64 = 20 * MIB;
/// The default of `limits.connections`, unless the memory for connections is too small for them.
const DEFAULT_CONNECTIONS: u64 = 1000;

/// A part of the memory that a setting sets.
struct Share {
    /// The setting.
    key: &'static str,
    /// The proportion of what is divided that is its default.
    weight: u64,
    /// The least with which the process works, in bytes.
    min: u64,
    /// The most that is of use by default, in bytes.
    max: u64,
    /// The memory that a configuration gives it, in bytes.
    of: fn(&Config) -> u64,
    /// Sets the default.
    set: fn(&mut Config, u64),
}

/// All of them.
const SHARES: [Share; 5] = [
    Share {
        key: "storage.memory_bytes",
        weight: 46,
        min: 8 * MIB,
        max: u64::MAX,
        of: |config| config.storage.memory_bytes.as_u64(),
        set: |config, bytes| config.storage.memory_bytes = ByteSize(bytes),
    },
    Share {
        key: "limits.inflight_bytes",
        weight: 46,
        min: MIB,
        max: u64::MAX,
        of: |config| config.limits.inflight_bytes.as_u64(),
        set: |config, bytes| config.limits.inflight_bytes = ByteSize(bytes),
    },
    Share {
        key: "queue.bytes",
        weight: 12,
        min: 64 << 10,
        max: u32::MAX as u64,
        of: |config| config.queue.bytes.as_u64().saturating_mul(config.shards.into()),
        set: |config, bytes| config.queue.bytes = ByteSize(bytes / u64::from(config.shards.max(1))),
    },
    Share {
        key: "limits.response_bytes",
        weight: 12,
        min: MIB,
        max: u64::MAX,
        of: |config| config.limits.response_bytes.as_u64(),
        set: |config, bytes| config.limits.response_bytes = ByteSize(bytes),
    },
    Share {
        key: "limits.connections",
        weight: 32,
        min: CONNECTION_BYTES,
        max: DEFAULT_CONNECTIONS * CONNECTION_BYTES,
        of: |config| (config.limits.connections as u64).saturating_mul(CONNECTION_BYTES),
        set: |config, bytes| {
            config.limits.connections = usize::try_from(bytes / CONNECTION_BYTES).unwrap_or(usize::MAX)
        },
    },
];
/// What the allocator cannot use because its pages are filled in part, as a proportion like [`Share::weight`].
const SLACK_WEIGHT: u64 = 12;

/// The memory of the parts without a setting, in bytes.
fn fixed_bytes(config: &Config) -> u64 {
    PROCESS_BYTES + COMMIT_BYTES * u64::from(config.shards.max(1))
}

/// Sets the defaults of the settings that divide `limits.memory`. `is_given` tells whether a setting has a value of its own
/// in `config`.
pub fn set_defaults(config: &mut Config, is_given: impl Fn(&str) -> bool) {
    let given: u64 = SHARES.iter().filter(|share| is_given(share.key)).map(|share| (share.of)(config)).sum();
    let mut rest = config.limits.memory.as_u64().saturating_sub(fixed_bytes(config)).saturating_sub(given);
    let open = || SHARES.iter().filter(|share| !is_given(share.key));
    let mut weights = SLACK_WEIGHT + open().map(|share| share.weight).sum::<u64>();
    // Those with a maximum first, so that the others get what these do not need.
    let (capped, others): (Vec<&Share>, Vec<&Share>) = open().partition(|share| share.max < u64::MAX);
    for share in capped.into_iter().chain(others) {
        let bytes = (rest * share.weight / weights).clamp(share.min, share.max);
        (share.set)(config, if bytes == share.max { bytes } else { round(bytes) });
        rest = rest.saturating_sub((share.of)(config));
        weights -= share.weight;
    }
    if !is_given("limits.body_bytes") {
        let mut body = DEFAULT_BODY_BYTES;
        while working_bytes(body) > config.limits.inflight_bytes.as_u64() && body > 64 << 10 {
            body = round(body * 7 / 8);
        }
        config.limits.body_bytes = ByteSize(body);
        if !is_given("limits.event_bytes") {
            config.limits.event_bytes = config.limits.event_bytes.min(config.limits.body_bytes);
        }
    }
}

/// Rounds down to a size that is easy to read.
fn round(bytes: u64) -> u64 {
    let unit = if bytes < MIB { 1 << 10 } else { MIB };
    bytes / unit * unit
}

/// The division of a configuration, as it is printed.
pub struct Division {
    memory: u64,
    parts: Vec<(&'static str, u64)>,
}

impl Division {
    /// The division of a configuration.
    pub fn of(config: &Config) -> Division {
        let memory = config.limits.memory.as_u64();
        let fixed = [("the program", PROCESS_BYTES), ("commits", COMMIT_BYTES * u64::from(config.shards.max(1)))];
        let shares = SHARES.iter().map(|share| (share.key, (share.of)(config)));
        Division { memory, parts: fixed.into_iter().chain(shares).collect() }
    }

    fn used(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
    }

    /// Returns what is wrong if the parts do not fit.
    pub fn check(&self) -> Option<InvalidSetting> {
        let parts = || self.parts.iter().map(|(name, bytes)| format!("{name} {}", ByteSize(*bytes)));
        let message = || {
            let parts = parts().collect::<Vec<_>>().join(", ");
            format!("at least {}, the sum of its parts ({parts})", ByteSize(self.used()))
        };
        (self.used() > self.memory).then(|| InvalidSetting::new("limits.memory", message(), ByteSize(self.memory)))
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# limits.memory, {}, is divided among:", ByteSize(self.memory))?;
        let rest = ("what the allocator cannot use", self.memory.saturating_sub(self.used()));
        for (name, bytes) in self.parts.iter().chain([&rest]) {
            writeln!(f, "#   {name:<32} {}", ByteSize(*bytes))?;
        }
        Ok(())
    }
}

/// The default of `limits.memory`, in bytes: 192 MiB, or three quarters of the limit of the cgroup if that is less. The rest
/// of a cgroup is for what the kernel charges to it: pages of files that are being written, and the buffers of sockets.
pub fn default_bytes() -> u64 {
    let limit = cgroup_limit(Path::new("/"), &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    limit.map_or(DEFAULT_BYTES, |limit| DEFAULT_BYTES.min(limit / 4 * 3))
}

/// The least memory limit of the cgroup of this process and those above it, in bytes; `None` without a limit. `membership` is
/// the text of `/proc/self/cgroup`. Reads both versions of cgroups: see cgroups(7). In a container, the folders of the cgroup
/// may be mounted at the root, so the file there counts, too.
fn cgroup_limit(root: &Path, membership: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let text = std::fs::read_to_string(root.join(mount).join(folder).join(file));
            // Without a limit, version 2 has the text "max", and version 1 a number near 2^63.
            limits.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60));
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(memory: u64, change: impl Fn(&mut Config), given: &[&str]) -> Config {
        let mut config = Config::default();
        config.limits.memory = ByteSize(memory);
        change(&mut config);
        set_defaults(&mut config, |key| given.contains(&key));
        config
    }

    #[test]
    fn the_default_is_divided_as_documented() {
        let config = divided(DEFAULT_BYTES, |_| {}, &[]);
        assert_eq!(super::super::settings::differences(&config, &Config::default()), [""; 0]);
        assert!(config.limits.inflight_bytes.as_u64() >= working_bytes(20 * MIB));
        assert_eq!(Division::of(&config).check(), None);
    }

    #[test]
    fn every_memory_from_64_mib_on_is_divided_into_what_works() {
        for memory in (64..1024).step_by(16) {
            for shards in [1, 2] {
                let config = divided(memory * MIB, |config| config.shards = shards, &[]);
                assert_eq!(Division::of(&config).check(), None, "{memory} {shards}");
                assert_eq!(
                    crate::config::checks::check(&config, crate::config::Scope::Server),
                    [],
                    "{memory} {shards}"
                );
                assert!(config.limits.inflight_bytes.as_u64() >= working_bytes(config.limits.body_bytes.as_u64()));
            }
        }
    }

    #[test]
    fn what_is_given_is_kept_and_the_others_share_the_rest() {
        let change = |config: &mut Config| config.storage.memory_bytes = ByteSize::mib(100);
        let config = divided(DEFAULT_BYTES, change, &["storage.memory_bytes"]);
        assert_eq!(config.storage.memory_bytes, ByteSize::mib(100));
        assert!(config.limits.inflight_bytes < ByteSize::mib(30));
        assert_eq!(Division::of(&config).check(), None);
        let change = |config: &mut Config| config.storage.memory_bytes = ByteSize::mib(170);
        let config = divided(DEFAULT_BYTES, change, &["storage.memory_bytes"]);
        let message = Division::of(&config).check().unwrap().message;
        assert!(message.contains("storage.memory_bytes 170.0 MiB"), "{message}");
    }

    #[test]
    fn the_least_limit_of_the_cgroups_above_counts_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |membership| cgroup_limit(root.path(), membership);
        assert_eq!(limit("0::/\n"), None);
        write("sys/fs/cgroup/pod/memory.max", "268435456\n");
        write("sys/fs/cgroup/pod/container/memory.max", "max\n");
        assert_eq!(limit("0::/pod/container\n"), Some(256 * MIB));
        write("sys/fs/cgroup/pod/container/memory.max", "134217728\n");
        assert_eq!(limit("0::/pod/container\n"), Some(128 * MIB));
        assert_eq!(limit("0::/\n"), None);
        // The container sees its own cgroup as the root.
        write("sys/fs/cgroup/memory.max", "67108864\n");
        assert_eq!(limit("0::/\n"), Some(64 * MIB));
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "33554432\n");
        assert_eq!(limit("9:name=systemd:/\n4:memory:/pod\n1:cpu:/pod\n"), Some(32 * MIB));
        assert_eq!(limit("4:memory:/elsewhere\n"), None);
    }
}
