//! windlass-agent.
pub mod gpu;
pub mod pods;
pub mod attribution;
