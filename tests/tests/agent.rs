//! The agent on a faked node: GPUs, kubelet and `/proc` are the world's shape, the agent is the real one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent {
    /// Every row of the table of metrics, filled.
    mod coverage;
    /// Everything that the driver tells, against the fake's truth.
    mod depth;
    /// `doctor` and `--once`.
    mod doctor;
    /// Counts of dcgm-exporter's own, and virtual and confidential machines.
    mod events;
    /// What people ask of a GPU exporter, one test each.
    mod features;
    /// The program for machines with a GPU.
    mod hardware;
    /// Uids, labels, claims, ids of all forms.
    mod identity;
    /// MIG instances, their holders, a layout that changes.
    mod mig;
    /// The faked node and the agent on it.
    mod node;
    /// What the cloud announces.
    mod notices;
    /// What operators rely on besides the numbers.
    mod operating;
    /// Whole pages and what other programs read from them.
    mod pages;
    /// A real Prometheus and promtool.
    mod prometheus;
    /// Rules and queries of public repositories.
    mod public_rules;
    /// What others ask of dcgm-exporter, and what we hand out.
    mod queries;
    /// Programs of others on the same NVML.
    mod readers;
    /// The agent and nvidia-ml-py on one library.
    mod second_opinion;
    /// TLS, users, files that change, formats: who gets what over which door.
    mod serving;
    /// Attribution against the truth.
    mod sharing;
    /// The program as it is shipped: its rights, its size, its manifests.
    mod shipped;
    /// The driver at its worst.
    mod survival;
    /// Lost GPUs, missing drivers, slow kubelets, huge answers.
    mod troubles;
}
