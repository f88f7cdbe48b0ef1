//! The one place of this crate that reads a clock. Load generator and provider measure real time over real sockets, so
//! theirs is tokio's clock and cannot be a test's; everything that decides (arrivals, histograms, slopes) is handed
//! durations instead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// The present moment, monotonic.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for headers that hold a date.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970, for reports that people compare later.
pub fn wall_s() -> u64 {
    wall()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// Whole microseconds of a duration; saturates after half a million years.
pub fn us(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
