//! The mapping of OpenTelemetry records to the fields of an event, as a table.
//!
//! Each field has a list of rows in order of preference, and the first row that applies gives its value. A row names a
//! source, the conditions under which it applies, and the convention or framework that it serves ([`row`]). The rows are
//! in [`identity`], [`action`], [`content`], [`outcome`] and [`selection`], joined in [`table`]. `ingest.otlp.mapping` puts rows of the user
//! before them ([`custom`]). [`compiled`] prepares them for the lookup in [`super::facts`]; [`document`] writes them as
//! the tables of `docs/otlp.md`.

mod action;
pub mod compiled;
mod content;
pub mod custom;
pub mod document;
mod identity;
mod outcome;
pub mod row;
mod selection;
mod table;

use compiled::Mapping;
use custom::MappingRow;
use row::Target;

/// The mapping with the rows of `ingest.otlp.mapping` before the built-in ones.
pub fn build(custom: &[MappingRow]) -> Mapping {
    let mut mapping = Mapping::default();
    for row in custom {
        mapping.add(row.field, row.records(), |mapping| row.compile(mapping));
    }
    for target in Target::ALL {
        for row in table::rows(target) {
            mapping.add(target, row.records, |mapping| mapping.compile(row));
        }
    }
    mapping.finish()
}
