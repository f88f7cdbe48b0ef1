//! What a connection's I/O and the requests on it know of each other.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use routing::units::Time;
use tokio::sync::Notify;

use super::manners::{Manners, Why};

/// A whole answer must be taken at so many bytes a second, over all of its length; a stream has a longest time of its own.
pub const LEAST_READ_A_SECOND: u64 = 512;

/// Shared by one connection's I/O wrapper and its requests.
#[derive(Debug)]
pub struct Watch {
    /// A write that makes no progress for so long ends the connection, in microseconds.
    write_stall_us: AtomicU64,
    /// The response under way on an HTTP/1 connection may not last longer.
    until: AtomicU64,
    /// HTTP/2: what it may do without asking.
    manners: Mutex<Option<Manners>>,
    /// HTTP/2: requests that are open.
    open: AtomicUsize,
    /// HTTP/2: bodies of requests that are read, or read and thrown away behind an early answer.
    bodies: AtomicUsize,
    /// HTTP/2: it has lost its manners, and who ends it is told.
    lost: Notify,
    /// That was told: once, however many of its requests end with it.
    told: AtomicBool,
}

impl Watch {
    /// A connection whose client may read nothing for `stall`.
    pub fn new(stall: Duration) -> Self {
        let us = u64::try_from(stall.as_micros()).unwrap_or(u64::MAX);
        Self {
            write_stall_us: AtomicU64::new(us),
            until: AtomicU64::new(Time::NEVER.0),
            manners: Mutex::new(None),
            open: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            lost: Notify::new(),
            told: AtomicBool::new(false),
        }
    }
    /// It speaks HTTP/2: from now on its manners are looked at.
    pub fn speaks_h2(&self, now: Time) {
        *self.manners() = Some(Manners::new(now));
    }
    fn manners(&self) -> MutexGuard<'_, Option<Manners>> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// So many bytes came.
    ///
    /// # Errors
    /// They were too many for what is asked.
    pub fn heard(&self, bytes: usize, now: impl FnOnce() -> Time) -> Result<(), Why> {
        let busy = self.open.load(Ordering::Relaxed) > 0 || self.bodies.load(Ordering::Relaxed) > 0;
        let judged = match &mut *self.manners() {
            Some(manners) if busy => manners.talked_beside(bytes as u64, now()),
            Some(manners) => manners.talked(bytes as u64, now()),
            None => Ok(()),
        };
        if judged.is_err() {
            self.is_told();
        }
        judged
    }
    /// It is told why this connection is let go; `true`: it had been told before.
    pub fn is_told(&self) -> bool {
        self.told.swap(true, Ordering::Relaxed)
    }
    /// HTTP/2: a piece of a body was passed on, of a request or of an answer.
    pub fn passed(&self, bytes: usize) {
        if let Some(manners) = &mut *self.manners() {
            manners.passed(bytes as u64);
        }
    }
    /// HTTP/2: a request is open from now on.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if let Some(manners) = &mut *self.manners() {
            manners.asked();
        }
    }
    /// HTTP/2: a request is over; its caller may have left before its answer was.
    ///
    /// # Errors
    /// That happened too often. Told once.
    pub fn closed(&self, answered: bool, now: Time) -> Result<(), Why> {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let judged = match &mut *self.manners() {
            Some(manners) => manners.ended(answered, now),
            None => Ok(()),
        };
        if judged.is_ok() || self.is_told() {
            return Ok(());
        }
        self.lost.notify_one();
        judged
    }
    /// Resolves when too many requests were left.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }
    /// Bounds the response that begins now (HTTP/1: one at a time).
    pub fn set_until(&self, until: Time) {
        self.until.store(until.0, Ordering::Relaxed);
    }
    /// See [`Watch::set_until`].
    pub fn until(&self) -> Time {
        Time(self.until.load(Ordering::Relaxed))
    }
    /// How long a write may make no progress.
    pub fn write_stall(&self) -> Duration {
        Duration::from_micros(self.write_stall_us.load(Ordering::Relaxed))
    }
    /// When a whole answer of so many bytes, whose head is sent now, must have been taken.
    pub fn taken_by(&self, bytes: u64, now: Time) -> Time {
        let at_least = bytes.saturating_mul(1_000_000) / LEAST_READ_A_SECOND;
        now + self.write_stall() + Duration::from_micros(at_least)
    }
}

/// The body of a request on an HTTP/2 connection, which is told what was read of it.
pub struct Counted {
    body: Incoming,
    watch: Arc<Watch>,
}

impl Counted {
    /// A body that came on that connection.
    pub fn new(body: Incoming, watch: Arc<Watch>) -> Self {
        watch.bodies.fetch_add(1, Ordering::Relaxed);
        Self { body, watch }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.watch.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.watch.passed(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_has_the_time_of_its_length() {
        let watch = Watch::new(Duration::from_secs(30));
        let now = Time::from_millis(5_000);
        assert_eq!(watch.taken_by(0, now), now + Duration::from_secs(30));
        assert_eq!(watch.taken_by(100 << 10, now), now + Duration::from_secs(230));
    }
}
