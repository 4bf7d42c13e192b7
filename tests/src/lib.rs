//! The world, faked.
