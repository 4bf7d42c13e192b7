//! The world, faked.

pub mod aws;
pub mod caller;
pub mod certificates;
pub mod demo;
pub mod golang;
pub mod hardware;
pub mod helm;
pub mod kubelet;
pub mod metadata;
pub mod moto;
pub mod nvml;
pub mod opinion;
pub mod port;
pub mod proc;
pub mod program;
pub mod prometheus;
pub mod python;
pub mod raw;
pub mod recording;
#[cfg(feature = "rig")]
pub mod rig;
pub mod scrape;
