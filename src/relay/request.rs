//! Builds a request from the events of a session, and sends it.

use super::consumer::{Consumer, RequestEnd};
use super::event::RelayEvent;
use super::report::report_damaged;
use super::sessions::Turn;
use crate::ledger::format::keys::Location;
use crate::ledger::format::record::Record;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;

impl Consumer<'_> {
    /// Reads the events of a turn, as many as fit into a request. Leaves out those that are not to be sent any more.
    pub(super) fn records_of(&self, mut turn: Turn) -> Result<(Turn, Vec<(Location, Record)>), StoreError> {
        let most = self.context.destination.batch().bytes;
        let (mut events, mut records, mut bytes, mut read) = (Events::new(&self.context.store)?, Vec::new(), 0, 0);
        for location in turn.events.iter().map(|event| event.location) {
            let found = match events.at(location) {
                Ok(Some(bytes)) => lookup::parse(&self.context.store, location, bytes).ok(),
                Ok(None) | Err(StoreError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            match found {
                // Erased since it was read.
                Some(record) if record.is_erased() => {}
                // The filter may have become stricter since the event was read.
                Some(record) if !self.filter.passes(&RelayEvent::new(record)) => {}
                Some(record) => {
                    let length = record.canonical().len();
                    if !records.is_empty() && bytes + length > most {
                        break;
                    }
                    bytes += length;
                    records.push((location, Record::copy(record)));
                }
                None => match location.position < self.context.follower.committed().first(location.shard) {
                    true => self.context.shared.metrics.dropped(1),
                    false => report_damaged(location, &self.context.shared.metrics),
                },
            }
            read += 1;
        }
        turn.events.truncate(read);
        Ok((turn, records))
    }

    /// Sends the events of a turn, or first announces their session.
    pub(super) fn request(&mut self, turn: Turn, records: &[(Location, Record)]) {
        let events: Vec<_> = records.iter().map(|(_, record)| RelayEvent::new(record.as_ref())).collect();
        let [(location, first), ..] = records else { return };
        let destination = &self.context.destination;
        let announces = destination.announces(&events[0]);
        let announcement = if turn.is_announced || announces { None } else { destination.announce(&events[0]) };
        let is_announcement = announcement.is_some();
        let sending = announcement.unwrap_or_else(|| destination.send(&events));
        let (id, location, events) = (lookup::id(first.as_ref()).unwrap_or_default(), *location, events.len());
        let (is_probe, results) = (self.circuit.is_open(), self.results.0.clone());
        let request = async move {
            let sent = sending.await;
            // The receiver is gone if the consumer has ended.
            let _ = results.send(RequestEnd { turn, events, id, location, is_announcement, announces, is_probe, sent });
        };
        self.requests.spawn_on(request, &self.context.runtime);
        // Only frees the finished tasks: their results are sent through the channel.
        while self.requests.try_join_next().is_some() {}
    }
}
