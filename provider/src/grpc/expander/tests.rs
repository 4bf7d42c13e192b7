//! `BestOptions` on raw bytes.
