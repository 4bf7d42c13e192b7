//! A model of cluster-autoscaler's main loop: a cluster as values and a provider's answers in, calls and acts out.
//! It drives the demo, the end-to-end rig and the replay of traces, and recordings of the real thing hold it to the truth.

pub mod autoscaler;
pub mod cluster;
