//! The agent on a faked node: GPUs, kubelet and `/proc` are the world's shape, the agent is the real one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent {
    /// Programs of others on the same NVML.
    mod readers;
}
