//! The on-disk format: keys and values of every column family. The table is in [`crate::ledger`].

pub mod checks;
pub mod clock_step;
pub mod floor;
pub mod frame;
pub mod id_cursor;
pub mod keys;
pub mod meta;
pub mod packing;
pub mod record;
pub mod stub;
pub mod terms;
