//! The end-to-end rig: a real Kubernetes control plane, our provider as users run it, and a cluster-autoscaler, real or
//! modelled, with the machines in between played. Only `cargo e2e` compiles it.

pub mod autoscaler;
pub mod aws;
pub mod binaries;
pub use crate::certificates;
pub mod journal;
pub mod kubelets;
pub mod model;
pub mod plane;
pub mod process;
pub mod provider;
pub mod relay;
pub mod scene;
pub mod world;
