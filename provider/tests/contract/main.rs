//! The provider as CA meets it: over a real socket, in front of the embedded cloud. Each test is one promise of the
//! contract.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests are tests, too")]

mod care;
mod command;
mod doors;
mod expander;
mod reads;
mod restart;
mod sizes;
mod stage;
