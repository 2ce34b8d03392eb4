//! `cairn log`

use std::io::{self, Write};

use super::args::LogArgs;
use super::ledger::Reader;
use super::{Exit, complain, said};
use crate::chain::{AgentKey, Field, Sequence, scan};
use crate::harmless::harmless;
use crate::ledger::events::Events;
use crate::ledger::keys::{Place, Position, ShardId};
use crate::ledger::read::{self, Runs};
use crate::ledger::record::RecordRef;
use crate::ledger::store::StoreError;

/// Shows stored events, the oldest first.
pub fn run(args: &LogArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let shown = Reader::open(&loaded.config.storage.data_dir).and_then(|reader| show(&reader, args));
    match shown {
        Ok(written) => said(written, Exit::Fine),
        Err(error) => complain(Exit::Failed, &error),
    }
}

fn show(reader: &Reader, args: &LogArgs) -> Result<io::Result<()>, StoreError> {
    if let Some(agent_id) = &args.agent_id
        && read::agent(&reader.store, AgentKey::of(agent_id))?.is_none()
    {
        return Ok(Err(io::Error::other(format!("there is no agent {agent_id:?}"))));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut events = Events::scan(&reader.store, 1)?;
    let mut show = |place: Place| -> Result<io::Result<()>, StoreError> {
        match events.at(place)? {
            Some(record) => Ok(write(&mut out, read::parse(&reader.store, place, record)?, args.json)),
            None => Err(reader.store.damaged("an event is missing; run `cairn verify --all`")),
        }
    };
    for place in last_places(reader, args)? {
        if let Err(error) = show(place)? {
            return Ok(Err(error));
        }
    }
    Ok(out.flush())
}

/// Where the last events stand, the oldest first.
fn last_places(reader: &Reader, args: &LogArgs) -> Result<Vec<Place>, StoreError> {
    let store = &reader.store;
    let mut places = Vec::new();
    if let Some(agent_id) = &args.agent_id {
        let key = AgentKey::of(agent_id);
        let head = read::agent(store, key)?.map_or(0, |agent| agent.sequence.0);
        let first = head.saturating_sub(args.last) + 1;
        let mut runs = Runs::from(store, key, Sequence(first))?;
        while let Some(run) = runs.run()? {
            let sequences = run.first.0..run.first.0 + u64::from(run.count);
            places.extend(sequences.filter(|&sequence| sequence >= first && sequence <= head).map(|sequence| Place {
                shard: run.place.shard,
                position: Position(run.place.position.0 + sequence - run.first.0),
            }));
            runs.forward()?;
        }
        return Ok(places);
    }
    let mut timed = Vec::new();
    for shard in (0..reader.meta.shards).map(ShardId) {
        let end = read::end(store, shard)?;
        for position in end.0.saturating_sub(args.last)..end.0 {
            let place = Place { shard, position: Position(position) };
            // With one shard, positions are in the order of time already.
            let ms = if reader.meta.shards == 1 { 0 } else { received_ms(reader, place)? };
            timed.push((ms, place));
        }
    }
    timed.sort_unstable();
    let skip = timed.len().saturating_sub(usize::try_from(args.last).unwrap_or(usize::MAX));
    places.extend(timed.into_iter().skip(skip).map(|(_, place)| place));
    Ok(places)
}

fn received_ms(reader: &Reader, place: Place) -> Result<u64, StoreError> {
    let record = read::record(&reader.store, place)?;
    Ok(record.and_then(|record| record.as_ref().received_ms()).unwrap_or(0))
}

fn write(out: &mut impl Write, record: RecordRef<'_>, json: bool) -> io::Result<()> {
    if json {
        let mut line = Vec::new();
        record.write_answer(&mut line);
        line.push(b'\n');
        return out.write_all(&line);
    }
    let text = |field| harmless(&record.value(field).and_then(scan::text_or_literal).unwrap_or_default());
    writeln!(
        out,
        "{}  {} #{}  {}  {}  {}",
        text(Field::ReceivedAt),
        text(Field::AgentId),
        record.sequence(),
        text(Field::ActionType),
        text(Field::ActionName),
        text(Field::ActionStatus),
    )
}
