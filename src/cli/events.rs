//! `cairn events`: prints stored events, and with `--follow` waits for more.

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use cairn_proof::chain::{AgentKey, Field, Sequence, scan};

use serde_json::Value;

use super::args::EventsArgs;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure};
use super::ledger::Reader;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::committed::Committed;
use crate::ledger::read::events::Events;
use crate::ledger::read::runs::Runs;
use crate::ledger::read::{lookup, merge};
use crate::ledger::store::StoreError;
use crate::text::sanitize;

/// The interval at which `--follow` polls for new events.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The maximum number of events that `--follow` prints per poll.
const FOLLOW_EVENTS: usize = 4096;
/// The interval at which `--follow` asks a server, which is a request each time.
const SERVER_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of events in a list of a server.
const PAGE_EVENTS: u64 = 1000;
/// The number of ids that are kept, more than the pages that `--follow` looks at when events arrive.
const SEEN_IDS: usize = 16 * 1024;

/// Prints stored events, the oldest first.
pub fn run(args: &EventsArgs) -> CommandResult {
    if let Some(url) = &args.server {
        return from_server(&Client::at(url, &args.connect)?, args);
    }
    let reader = Reader::open(&args.ledger.load()?.config.storage.data_dir)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    // Read before the events are listed, so that an event committed in between is printed once, by `follow`.
    let ends = ends(&reader)?;
    print_last(&reader, args, &ends, &mut out)?;
    out.flush()?;
    if args.follow { follow(&reader, args, ends, &mut out) } else { Ok(Exit::Success) }
}

/// Prints the last events of a running server, the oldest first, and with `--follow` those that it accepts from then on.
fn from_server(client: &Client, args: &EventsArgs) -> CommandResult {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut seen = Seen::default();
    let mut limit = usize::try_from(args.last).unwrap_or(usize::MAX);
    loop {
        let events = newest(client, args, limit, &seen)?;
        for (index, event) in events.iter().enumerate().rev() {
            if index < limit {
                write_value(&mut out, event, args.json)?;
            }
            seen.add(event);
        }
        out.flush()?;
        if !args.follow {
            return Ok(Exit::Success);
        }
        // From now on, what was not seen is new.
        limit = usize::MAX;
        std::thread::sleep(SERVER_POLL_INTERVAL);
    }
}

/// The newest events of a server that were not seen, the newest first, in pages, until there are enough or one was seen.
fn newest(client: &Client, args: &EventsArgs, limit: usize, seen: &Seen) -> Result<Vec<Value>, Failure> {
    let mut events: Vec<Value> = Vec::new();
    // To follow, a whole page has to be seen, so that older events are not taken for new ones.
    let page_limit = if args.follow { PAGE_EVENTS } else { PAGE_EVENTS.min(args.last) }.to_string();
    let mut query = vec![("order", "desc"), ("limit", &page_limit)];
    query.extend(args.agent_id.as_deref().map(|agent_id| ("agent_id", agent_id)));
    for page in client.pages(&Client::path("/v1/events", &query)?) {
        let page = page?;
        let page = page.as_array().map(Vec::as_slice).unwrap_or_default();
        let before = events.len();
        events.extend(page.iter().filter(|event| !seen.contains(event)).cloned());
        if events.len() >= limit || events.len() - before < page.len() {
            break;
        }
    }
    Ok(events)
}

/// The ids of the newest events, so that none is printed twice. Those of several shards do not come in one order.
#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Seen {
    fn contains(&self, event: &Value) -> bool {
        event["id"].as_str().is_some_and(|id| self.ids.contains(id))
    }

    fn add(&mut self, event: &Value) {
        let Some(id) = event["id"].as_str() else { return };
        self.ids.insert(id.to_owned());
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Writes an event of a server.
fn write_value(out: &mut impl Write, event: &Value, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{event}");
    }
    write_line(out, &event["sequence"], |field| match &event[field.name()] {
        Value::String(text) => sanitize(text),
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// The position after the last event of each shard.
fn ends(reader: &Reader) -> Result<Vec<Position>, StoreError> {
    (0..reader.meta.shards).map(|shard| lookup::end(&reader.store, ShardId(shard))).collect()
}

fn print_last(reader: &Reader, args: &EventsArgs, ends: &[Position], out: &mut impl Write) -> Result<(), Failure> {
    if let Some(agent_id) = &args.agent_id
        && !args.follow
        && lookup::agent(&reader.store, AgentKey::of(agent_id))?.is_none()
    {
        return Err(format!("there is no agent {agent_id:?}").into());
    }
    let mut events = Events::scan(&reader.store, 1)?;
    for location in last_locations(reader, args, ends)? {
        let missing = || reader.store.damaged("an event is missing; run `cairn verify --all`");
        let record = events.at(location)?.ok_or_else(missing)?;
        write(out, lookup::parse(&reader.store, location, record)?, args.json)?;
    }
    Ok(())
}

/// Prints every event after `next` until the process ends.
fn follow(reader: &Reader, args: &EventsArgs, mut next: Vec<Position>, out: &mut impl Write) -> CommandResult {
    let agent = args.agent_id.as_deref().map(AgentKey::of);
    loop {
        reader.refresh()?;
        let committed = Committed::new(reader.meta.shards, Arc::clone(reader.store.expired()));
        for (shard, end) in committed.shards().zip(ends(reader)?) {
            committed.publish(shard, end, 0, None);
        }
        let mut written = Ok(());
        merge::read(&reader.store, &committed, &mut next, FOLLOW_EVENTS, |_, record| {
            if let Some(record) = record.filter(|record| agent.is_none_or(|agent| record.agent() == agent))
                && written.is_ok()
            {
                written = write(out, record, args.json);
            }
            Ok(())
        })?;
        written?;
        out.flush()?;
        if committed.lag(&next) == 0 {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The locations of the last events, the oldest first.
fn last_locations(reader: &Reader, args: &EventsArgs, ends: &[Position]) -> Result<Vec<Location>, StoreError> {
    if let Some(agent_id) = &args.agent_id {
        return last_of_agent(reader, AgentKey::of(agent_id), args.last, ends);
    }
    let mut timed = Vec::new();
    for (shard, end) in (0..reader.meta.shards).map(ShardId).zip(ends) {
        let mut newest_ms = 0;
        for position in end.0.saturating_sub(args.last)..end.0 {
            let location = Location { shard, position: Position(position) };
            // With one shard, positions are already in the order of time.
            let ms = if reader.meta.shards == 1 { 0 } else { received_ms(reader, location)? };
            // Events of a shard remain in the order of their positions, also when the clock was set back.
            newest_ms = newest_ms.max(ms);
            timed.push((newest_ms, location));
        }
    }
    timed.sort_unstable();
    let skip = timed.len().saturating_sub(usize::try_from(args.last).unwrap_or(usize::MAX));
    Ok(timed.into_iter().skip(skip).map(|(_, location)| location).collect())
}

fn last_of_agent(reader: &Reader, agent: AgentKey, last: u64, ends: &[Position]) -> Result<Vec<Location>, StoreError> {
    let head = lookup::agent(&reader.store, agent)?.map_or(0, |agent| agent.sequence.0);
    let first = head.saturating_sub(last) + 1;
    let mut locations = Vec::new();
    let mut runs = Runs::from(&reader.store, agent, Sequence(first))?;
    while let Some(run) = runs.run()? {
        let sequences = run.first.0..run.first.0 + u64::from(run.count);
        locations.extend(sequences.filter(|&sequence| sequence >= first && sequence <= head).map(|sequence| {
            Location { shard: run.location.shard, position: Position(run.location.position.0 + sequence - run.first.0) }
        }));
        runs.forward()?;
    }
    locations.retain(|location| ends.get(usize::from(location.shard.0)).is_some_and(|end| location.position < *end));
    Ok(locations)
}

fn received_ms(reader: &Reader, location: Location) -> Result<u64, StoreError> {
    let record = lookup::record(&reader.store, location)?;
    Ok(record.and_then(|record| record.as_ref().received_ms()).unwrap_or(0))
}

fn write(out: &mut impl Write, record: RecordRef<'_>, json: bool) -> io::Result<()> {
    if json {
        let mut line = Vec::new();
        record.write_answer(&mut line);
        line.push(b'\n');
        return out.write_all(&line);
    }
    write_line(out, &record.sequence(), |field| {
        sanitize(&record.value(field).and_then(scan::text_or_literal).unwrap_or_default())
    })
}

/// Writes the line of an event with these texts in its fields.
fn write_line(out: &mut impl Write, sequence: &dyn Display, text: impl Fn(Field) -> String) -> io::Result<()> {
    let action_type = text(Field::ActionType);
    writeln!(
        out,
        "{}  {} #{sequence}  {}  {}  {}",
        text(Field::ReceivedAt),
        text(Field::AgentId),
        // Every event with its content has a type.
        if action_type.is_empty() { "(erased)" } else { &action_type },
        text(Field::ActionName),
        text(Field::ActionStatus),
    )
}
