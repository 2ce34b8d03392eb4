//! Limits for `bench.py`: what this machine achieves with programs that do nothing else.
//!
//! - `limits sha256 BYTES SECONDS` hashes texts of BYTES bytes on one core; prints bytes per second.
//! - `limits rocksdb DIRECTORY EVENTS BYTES AGENTS RUN SECONDS` commits batches of EVENTS events with records of
//!   BYTES bytes, of AGENTS agents in turn, RUN consecutive events of each; prints events per second. The rows are
//!   those of a commit of the ledger, in the same order and with the ledger's database settings, and each batch is
//!   synced before the next. Nothing is parsed, hashed, indexed or answered.
//! - `limits fsync DIRECTORY BYTES SECONDS` repeatedly appends BYTES bytes to a file and syncs it; prints the median
//!   and the 99th percentile in seconds.

use std::collections::HashSet;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cairn::ledger::format::frame;
use cairn::ledger::format::keys::{Agent, Location, Position, Run, ShardId, time_key};
use cairn::ledger::shard::commit::Commit;
use cairn::ledger::store::{Compression, Family, StorageConfig, Store};
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use sha2::{Digest, Sha256};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    // `cargo bench` adds this argument.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number =
        |at: usize| -> Result<u64, Box<dyn Error>> { Ok(arguments.get(at).ok_or("too few arguments")?.parse()?) };
    let seconds = |at| number(at).map(Duration::from_secs);
    let directory = || arguments.get(1).map(PathBuf::from).ok_or("a directory is missing");
    match arguments.first().map(String::as_str) {
        Some("sha256") => sha256(number(1)? as usize, seconds(2)?),
        Some("rocksdb") => {
            rocksdb(directory()?, number(2)?, number(3)? as usize, number(4)?, number(5)?, seconds(6)?)?;
        }
        Some("fsync") => fsync(directory()?, number(2)? as usize, seconds(3)?)?,
        // Exit status 0, so that `cargo bench` without arguments succeeds.
        _ => eprintln!("usage: limits sha256|rocksdb|fsync ...; see benches/limits.rs"),
    }
    Ok(())
}

fn sha256(len: usize, time: Duration) {
    let text = text(len, &mut fastrand::Rng::with_seed(1));
    let (started, mut bytes) = (Instant::now(), 0);
    while started.elapsed() < time {
        for _ in 0..64 {
            std::hint::black_box(Sha256::digest(std::hint::black_box(&text)));
            bytes += len;
        }
    }
    println!("{:.0}", bytes as f64 / started.elapsed().as_secs_f64());
}

/// Random words, which compress about as well as the texts of agents.
fn text(len: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    (0..len).map(|_| if random.u8(..7) == 0 { b' ' } else { b"etaoinshrdlu"[random.usize(..12)] }).collect()
}

fn rocksdb(data_dir: PathBuf, events: u64, len: usize, agents: u64, run: u64, time: Duration) -> Outcome {
    const ROWS: usize = 4096;
    let store = Store::open(&StorageConfig { data_dir, ..StorageConfig::default() })?;
    let mut random = fastrand::Rng::with_seed(1);
    // Half of each event is the same: the names of its fields, its agent, its type.
    let (shared, varying_len) = (text(len / 2, &mut random), len - len / 2);
    let rows: Vec<Vec<u8>> = (0..ROWS).map(|_| [&shared[..], &text(varying_len, &mut random)].concat()).collect();
    let agents: Vec<(AgentKey, Box<str>)> =
        (0..agents).map(|n| format!("agent-{n}")).map(|id| (AgentKey::of(&id), id.into())).collect();
    let shard = ShardId(0);
    let mut frame = frame::FrameBuilder::new(Compression::Lz4);
    let unset = Location { shard, position: Position(0) };
    let mut runs = vec![Run { first: Sequence(1), location: unset, count: 0 }; agents.len()];
    let mut touched = HashSet::new();
    let (started, mut next) = (Instant::now(), 0u64);
    while started.elapsed() < time {
        let mut batch = store.batch(events as usize * (len + 32));
        for position in next..next + events {
            let location = Location { shard, position: Position(position) };
            frame.add(&rows[position as usize % ROWS]);
            if frame.is_full() || position + 1 == next + events {
                frame.put(&store, &mut batch, location)?;
            }
            let agent = (position / run) as usize % agents.len();
            touched.insert(agent);
            let current = &mut runs[agent];
            if !current.is_continued_at(location) {
                if current.count > 0 {
                    store.put(
                        &mut batch,
                        Family::Chain,
                        &Run::key(agents[agent].0, current.first),
                        &current.encode(),
                    )?;
                }
                *current = Run { first: Sequence(position + 1), location, count: 0 };
            }
            current.count += 1;
        }
        let mut touched: Vec<_> = touched.drain().map(|agent| (&agents[agent], runs[agent])).collect();
        touched.sort_unstable_by_key(|((key, _), _)| *key);
        for ((key, agent_id), run) in touched {
            let head = Agent {
                sequence: run.first,
                hash: Hash([next as u8; 32]),
                first_ms: next,
                last_ms: next,
                run,
                agent_id: agent_id.clone(),
            };
            store.put(&mut batch, Family::Agents, &key.0, &head.encode())?;
        }
        store.put(&mut batch, Family::Times, &time_key(shard, next), &Position(next).encode())?;
        store.commit(batch)?;
        next += events;
    }
    println!("{:.0}", next as f64 / started.elapsed().as_secs_f64());
    Ok(())
}

fn fsync(directory: PathBuf, len: usize, time: Duration) -> Outcome {
    let mut file = std::fs::File::create(directory.join("fsync"))?;
    let (bytes, mut times) = (vec![b'x'; len], Vec::new());
    let started = Instant::now();
    while started.elapsed() < time || times.len() < 100 {
        let before = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    println!("{} {}", times[times.len() / 2].as_secs_f64(), times[times.len() * 99 / 100].as_secs_f64());
    Ok(())
}
