//! The one place where time is read.
//!
//! It stands on tokio's clock, so a test that pauses that clock owns everything here too (never with real sockets or
//! threads: use an in-memory connection there). `clippy.toml` bans reading the time anywhere else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use routing::units::Time;

/// Monotonic and wall time. Cheap to clone; every clone has the same origin.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    /// The machine's.
    System,
    /// A wall clock that was so late at the origin and goes with the monotonic one (tests).
    From(SystemTime),
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the time"
)]
impl Clock {
    /// The machine's clocks. The origin of [`Clock::now`] is this call.
    pub fn system() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            wall: Wall::System,
        }
    }

    /// A wall clock that shows `wall` now and moves with tokio's (possibly paused) clock.
    pub fn starting_at(wall: SystemTime) -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            wall: Wall::From(wall),
        }
    }

    /// Monotonic time since the origin. The origin lies one second back, so that `Time(0)` is never "now".
    pub fn now(&self) -> Time {
        Time(1_000_000) + tokio::time::Instant::now().duration_since(self.origin)
    }

    /// Wall time, for records, headers and HTTP dates. Never for measuring.
    pub fn wall(&self) -> SystemTime {
        match self.wall {
            Wall::System => SystemTime::now(),
            Wall::From(t) => t + tokio::time::Instant::now().duration_since(self.origin),
        }
    }

    /// Wall time as milliseconds since 1970 in UTC.
    pub fn unix_ms(&self) -> u64 {
        let since = self.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// A point of this clock as tokio's timers want it. [`Time::NEVER`] becomes a point some years ahead.
    pub fn instant(&self, at: Time) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        let since = Duration::from_micros(at.0.saturating_sub(1_000_000)).min(FAR);
        self.origin.checked_add(since).unwrap_or(self.origin)
    }

    /// Resolves at `at`; at once when that has passed.
    pub fn sleep_until(&self, at: Time) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.instant(at))
    }

    /// Resolves after `d`.
    pub fn sleep(&self, d: Duration) -> tokio::time::Sleep {
        tokio::time::sleep(d)
    }

    /// `work`, or `None` when `at` comes first.
    pub async fn within<F: Future>(&self, at: Time, work: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.instant(at), work).await.ok()
    }
}

/// A timer that is looked at with every event of a stream and rings seldom: who is told already is not told again, and the
/// time is not read for a look.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Who is woken when it rings.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Rings at `at`.
    pub fn new(clock: &Clock, at: Time) -> Self {
        Self {
            sleep: Box::pin(clock.sleep_until(at)),
            wakes: None,
        }
    }

    /// Rings at `at`, and not when it was to.
    pub fn set(&mut self, clock: &Clock, at: Time) {
        self.sleep.as_mut().reset(clock.instant(at));
        self.wakes = None;
    }

    /// Has it rung? Else whoever asks is woken when it does.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let told = self.wakes.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if told && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let polled = self.sleep.as_mut().poll(cx);
        self.wakes = polled.is_pending().then(|| cx.waker().clone());
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_paused_clock() {
        let clock = Clock::starting_at(UNIX_EPOCH + Duration::from_secs(100));
        let begin = clock.now();
        clock.sleep_until(begin + Duration::from_secs(3600)).await;
        assert!(clock.now().since(begin) >= Duration::from_secs(3600));
        assert!(clock.unix_ms() >= 3_700_000);
    }

    #[tokio::test(start_paused = true)]
    async fn within_gives_up_at_the_point() {
        let clock = Clock::system();
        let at = clock.now() + Duration::from_millis(5);
        assert!(clock.within(at, std::future::pending::<()>()).await.is_none());
        assert_eq!(clock.within(Time::NEVER, async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_when_it_was_set_to_last_and_wakes_who_looked_last() {
        let clock = Clock::system();
        let begin = clock.now();
        let mut alarm = Alarm::new(&clock, begin + Duration::from_secs(10));
        std::future::poll_fn(|cx| {
            assert!(alarm.poll(cx).is_pending() && alarm.poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        alarm.set(&clock, begin + Duration::from_secs(2));
        // Somebody else looks, and is let go again; then this task waits for it.
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(alarm.poll(&mut elsewhere).is_pending());
        std::future::poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(clock.now().since(begin).as_secs(), 2);
        // Rung is rung.
        assert!(alarm.poll(&mut elsewhere).is_ready());
        alarm.set(&clock, begin + Duration::from_secs(5));
        std::future::poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(clock.now().since(begin).as_secs(), 5);
    }
}
