//! The composition root: starts the stages in the order of the data flow, runs them, reloads the settings that can be
//! changed while they run, and shuts them down in order.

mod admin;
mod error;
mod file_handles;
mod health;
mod metrics;
mod ports;
mod recorded;
mod reload;
mod routes;
mod run;
mod server;
mod stages;

pub use error::ServeError;
pub use reload::{Changed, Live};
pub use server::Server;
