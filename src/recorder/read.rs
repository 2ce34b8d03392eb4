//! Reads the events of the recorder back.

use uuid::Uuid;

use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::read::runs::Runs;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::{AgentKey, RECORDER_PREFIX, Sequence};
use cairn_proof::evidence::Erasures;

/// The id of the recorder of the ledger with this instance.
pub fn id_of(instance: Uuid) -> String {
    format!("{RECORDER_PREFIX}{instance}")
}

/// Passes the events of the recorder of the ledger with this instance to `visit`, from a sequence on. There are none in a ledger
/// whose recorder was never on.
///
/// # Errors
/// When the database cannot be read, an event is missing or damaged, or `visit` fails.
pub fn read(
    store: &Store,
    instance: Uuid,
    from: Sequence,
    mut visit: impl FnMut(Location, RecordRef<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let agent = AgentKey::of(&id_of(instance));
    let Some(head) = lookup::agent(store, agent)? else { return Ok(()) };
    let mut runs = Runs::from(store, agent, from)?;
    // Retention may have dropped the first ones.
    let from = Anchor::read(store, agent)?.map_or(from, |anchor| from.max(anchor.sequence));
    let mut events = Events::new(store)?;
    let mut sequence = from;
    while sequence <= head.sequence {
        let missing =
            || store.damaged(format!("event {sequence} of the recorder is missing: run `cairn verify --all`"));
        let run = runs.run()?.filter(|run| run.first <= sequence).ok_or_else(missing)?;
        let offset = sequence.0 - run.first.0;
        if offset >= u64::from(run.count) {
            runs.forward()?;
            continue;
        }
        let location = Location { position: Position(run.location.position.0 + offset), ..run.location };
        match events.at(location)? {
            Some(record) => visit(location, lookup::parse(store, location, record)?)?,
            // Dropped meanwhile.
            None if location.position.0 < store.expired().first_kept(location.shard.0) => {}
            None => return Err(missing()),
        }
        sequence = sequence.next();
    }
    Ok(())
}

/// The erasures of a ledger, from a sequence of the recorder on.
///
/// # Errors
/// When the database cannot be read, or a record is not one of an erasure.
pub fn erasures(store: &Store, instance: Uuid, from: Sequence) -> Result<Erasures, StoreError> {
    let mut erasures = Erasures::default();
    read(store, instance, from, |_, record| {
        erasures.add(record.canonical(), record.sequence()).map_err(|why| store.damaged(why))
    })?;
    Ok(erasures)
}
