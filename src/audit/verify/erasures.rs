//! Checks events and stubs against the erasures that the recorder has.

use crate::ledger::format::meta;
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::{Store, StoreError};
use crate::recorder;
use cairn_proof::chain::{Break, BreakKind, Sequence, Stub};
use cairn_proof::evidence::Erasures;

/// The erasures of a ledger.
pub struct ErasureCheck {
    /// The agent id of the recorder.
    pub recorder: String,
    erasures: Erasures,
    /// The last record whose erasure is completed.
    done: Sequence,
    /// Why not all records could be read.
    pub broken: Option<String>,
}

impl ErasureCheck {
    /// Reads the erasures of a ledger.
    ///
    /// # Errors
    /// When the database cannot be read. Damaged records are in [`ErasureCheck::broken`].
    pub fn read(store: &Store) -> Result<ErasureCheck, StoreError> {
        // Without it there is no recorder; that the row is missing or damaged is reported with the other rows.
        let instance = meta::instance(store)?.unwrap_or_default();
        let (mut erasures, mut broken) = (Erasures::default(), None);
        // Before the records: those that are recorded meanwhile are not completed.
        let done = match meta::erased(store) {
            // A damaged row is reported with the other rows.
            Err(StoreError::Damaged { .. }) => Sequence(0),
            done => done?,
        };
        let read = recorder::read(store, instance, Sequence(1), |_, record| {
            if let Err(why) = erasures.add(record.canonical(), record.sequence()) {
                broken.get_or_insert(why);
            }
            Ok(())
        });
        match read {
            Ok(()) => {}
            Err(StoreError::Damaged { message, .. }) => broken = Some(message),
            Err(error) => return Err(error),
        }
        Ok(ErasureCheck { recorder: recorder::id_of(instance), erasures, done, broken })
    }

    /// Whether an erasure is recorded and not completed: events may already be missing in the index, and still have their content.
    pub fn is_pending(&self) -> bool {
        self.erasures.last_record() > self.done
    }

    /// Whether an erasure is pending, or was completed since `before`.
    pub fn has_changed_since(&self, before: &ErasureCheck) -> bool {
        self.is_pending() || before.is_pending() || self.done != before.done
    }

    /// Checks an event like [`ErasureCheck::check`]. Before it reports a break, it reads the records again: the erasure may be newer.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn recheck(&mut self, store: &Store, record: RecordRef<'_>) -> Result<Result<(), Break>, StoreError> {
        if self.check(record).is_ok() {
            return Ok(Ok(()));
        }
        // What was completed in between may still have its content in a snapshot that is read.
        *self = ErasureCheck { done: self.done, ..ErasureCheck::read(store)? };
        Ok(self.check(record))
    }

    /// Checks that the erasure of a stub is recorded, and that no erasure of an event with content is.
    ///
    /// # Errors
    /// When that is not so.
    pub fn check(&self, record: RecordRef<'_>) -> Result<(), Break> {
        let (agent, sequence) = (record.agent(), record.sequence());
        let checked = match record.is_erased() {
            true => Stub::parse(record.canonical(), agent)
                .and_then(|stub| self.erasures.check_stub(&stub, agent, sequence, &self.recorder)),
            false if self.erasures.is_empty() => Ok(()),
            false => self.erasures.check_content(agent, sequence, self.done),
        };
        checked.map_err(|why| Break { sequence, kind: BreakKind::Erasure(why) })
    }
}
