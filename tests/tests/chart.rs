//! The Helm chart that we hand out, by a real Helm: what it renders is what the plain manifests are, what it refuses it refuses with a reason,
//! and what it runs has no more rights than it needs. `UPDATE_EXPECT=1` writes the plain manifests anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod chart {
    /// The plain manifests are the chart's.
    mod manifests;
    /// What switches what.
    mod switches;
    /// Values: described, checked, and those of the programs.
    mod values;
}
