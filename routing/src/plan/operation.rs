//! How it is run: clocks, retries, guards, caches, records, telemetry.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// `[timeouts]`: separate clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// TCP and TLS.
    pub connect: Duration,
    /// Streams: to the first content; a reasoning delta starts it anew.
    pub first_token: Duration,
    /// Streams: the upstream's silence.
    pub idle: Duration,
    /// One try, to its commit.
    pub attempt: Duration,
    /// To the first new content after a cut.
    pub continue_within: Duration,
    /// After the commit.
    pub max_stream: Duration,
    /// A client that reads nothing.
    pub client_write: Duration,
}

/// `[retry]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retry {
    /// Per request, over all targets.
    pub max_attempts: u8,
    /// Repeats of one target after its first try, per request.
    pub same_target: u8,
    /// Backoff's first step.
    pub backoff_base: Duration,
    /// Backoff's longest step.
    pub backoff_max: Duration,
    /// Full jitter.
    pub jitter: bool,
    /// Repeats on the same target per first try.
    pub budget_ratio: f32,
    /// And so many a second regardless.
    pub budget_min_per_second: u32,
    /// Longest wait for a held target when nothing else can be called.
    pub honor_retry_after: Duration,
}

impl Retry {
    /// The backoff's step after so many others, without its jitter.
    pub fn step(&self, before: u32) -> Duration {
        self.backoff_base
            .saturating_mul(1_u32 << before.min(20))
            .min(self.backoff_max)
    }
}

/// `[hedge]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hedge {
    /// Off by default.
    pub enabled: bool,
    /// Of the target's own latency.
    pub after_quantile: f32,
    /// Of all tries.
    pub max_ratio: f32,
}

/// `[breaker]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breaker {
    /// Opens at this share of failures ...
    pub failure_ratio: f32,
    /// ... from so many requests on,
    pub min_requests: u32,
    /// within this window;
    pub window: Duration,
    /// or at so many in a row.
    pub consecutive_failures: u32,
    /// First time open.
    pub open: Duration,
    /// Longest time open.
    pub max_open: Duration,
    /// At once.
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            min_requests: 20,
            window: Duration::from_millis(10_000),
            consecutive_failures: 5,
            open: Duration::from_millis(5_000),
            max_open: Duration::from_millis(60_000),
            probes: 1,
        }
    }
}

/// `[admission]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admission {
    /// Work at once.
    pub max_in_flight: u32,
    /// Waiting.
    pub queue: u32,
    /// For at most so long.
    pub max_wait: Duration,
}

/// `[cache]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheConfig {
    /// Weight of all entries.
    pub max_bytes: u64,
    /// One flight per key.
    pub coalesce: bool,
    /// How old a stale answer may be.
    pub stale_ttl: Duration,
}

/// `[classify]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Classify {
    /// Past it the heuristic's facts stand.
    pub max: Duration,
}

/// `[records]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Under `$WEIR_HOME`; empty: off.
    pub path: Arc<str>,
    /// Of one file.
    pub max_file_bytes: u64,
    /// Of all files.
    pub keep_bytes: u64,
    /// Age.
    pub keep_days: u32,
    /// Prompt and answer text.
    pub prompts: bool,
}

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Telemetry {
    /// A `tracing` filter.
    pub log: Arc<str>,
    /// Empty: off.
    pub otlp_endpoint: Arc<str>,
}
