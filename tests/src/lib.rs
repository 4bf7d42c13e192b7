//! The world, faked.

pub mod caller;
