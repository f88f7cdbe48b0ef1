//! Admission: who may begin, who waits and in which order, who is turned away at once, and how much a target can take.
//!
//! Two pure parts. [`Line`] is the row of those who wait: bounded, ordered by class and then by arrival and size, with a small
//! share that keeps the lower classes from starving; it turns away whoever would wait in vain. [`Adaptive`] is the number of
//! tries that a target takes at once, learned from what it refuses and from how long it takes to its first word. Neither
//! waits, counts time or wakes anybody: that is the gateway's part.

mod adaptive;
mod first_word;
mod line;
#[cfg(test)]
mod tests;

pub use adaptive::{Adaptive, Felt};
pub use line::{Ask, Joined, Line, Pace, Shed, ShedWhy, Ticket};

use std::time::Duration;

use crate::units::Time;

/// Until when a request may wait: `max_wait`, and never into the time that its answer needs. Of the time left, what nineteen
/// of twenty answers take (`run`) is kept for the answer itself, but half of it at most: where answers are of very unequal
/// length, one that may be short is not turned away for the sake of the longest.
pub fn patience(now: Time, max_wait: Duration, deadline: Time, run: Option<Duration>) -> Time {
    let left = deadline.since(now);
    let kept = run.unwrap_or(Duration::ZERO).min(left / 2);
    (now + max_wait).min(now + (left - kept))
}
