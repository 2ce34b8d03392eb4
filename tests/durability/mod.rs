//! An answer means that the event is on disk: crashes, power losses, full and failing disks.

pub mod crash;
pub mod damaged_rows;
pub mod disk;
pub mod disk_faults;
pub mod faults;
pub mod power_loss;
pub mod restart;
