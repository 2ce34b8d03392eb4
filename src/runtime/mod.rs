//! What the threads of all stages share: supervision, the clock, and what the process log needs.

mod audience;
mod blocking;
mod clock;
mod log_throttle;
mod supervisor;

pub use audience::{FOR_COLLECTOR, FOR_TERMINAL};
pub use blocking::blocking;
pub use clock::{Clock, now_ms, system_clock};
pub use log_throttle::LogThrottle;
pub use supervisor::{OnFailure, spawn, supervise};
