//! The embedded cloud: groups, boot times, stock-outs, quotas, interruptions, slow and failing calls, from a scenario.
//! [`Machines`] is the cloud itself (values, a seed and the time it is told); [`SimCloud`] reads the clock and keeps
//! the state file, so that a provider that was killed finds its machines again.

mod adapter;
mod conditions;
mod draw;
mod launch;
mod machines;
mod refusals;
mod scenario;
mod state;

pub use adapter::{SimCloud, look, read_scenario};
pub use machines::{Machine, Machines};
pub use scenario::{Event, Failing, Happening, Scenario, ScenarioError, SimGroup, Spans};
pub use state::StateError;

#[cfg(test)]
mod tests;
