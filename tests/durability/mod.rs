//! An acknowledged event is on disk: kills, losses of power, full and failing disks, failing commits.

pub mod client_ids;
pub mod clock;
pub mod crash;
pub mod damaged_rows;
pub mod disk;
pub mod disk_faults;
pub mod faults;
pub mod power_loss;
pub mod restart;
