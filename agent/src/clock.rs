//! The one place that reads the clock: monotonic time since the start for intervals and ages, wall time for timestamps that people read.
//! Everything else is given the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts from the start of the program.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts to count.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the agent's only monotonic clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Monotonic time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Seconds since 1970; 0 on a machine whose clock stands before that.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the agent's only wall clock")]
    pub fn unix(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}
