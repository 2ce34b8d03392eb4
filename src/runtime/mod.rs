//! What the threads of all stages share: supervision, the clock, and a throttle for repeated log lines.

mod clock;
mod log_throttle;
mod supervisor;

pub use clock::{Clock, now_ms, system_clock};
pub use log_throttle::LogThrottle;
pub use supervisor::{OnFailure, spawn, supervise};
