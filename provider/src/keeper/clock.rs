//! What time it is, for everyone outside of the pure core.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::timestamp::{Steady, Timestamp};

/// The one clock of the program: it never goes back, however the machine's is set.
#[expect(clippy::disallowed_methods, reason = "the core is told the time; somebody has to know it")]
pub(crate) fn clock() -> Timestamp {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    static STEADY: Mutex<Steady> = Mutex::new(Steady::new());
    let run = STARTED.elapsed();
    STEADY.lock().unwrap_or_else(PoisonError::into_inner).read(wall(), run)
}

/// The machine's own clock, right or wrong.
#[expect(clippy::disallowed_methods, reason = "as above; and it is what AWS's clock is compared with")]
pub(crate) fn wall() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
