//! The world, faked.

pub mod caller;
pub mod kubelet;
pub mod nvml;
pub mod proc;
pub mod python;
#[cfg(feature = "rig")]
pub mod rig;
pub mod scrape;
