//! What a connection's I/O and the requests on it know of each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use routing::units::Time;
use tokio::sync::Notify;

use super::manners::{Manners, Why};

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
    /// HTTP/2: it has lost its manners.
    lost: Notify,
}

impl Watch {
    /// A connection whose client may read nothing for `stall`.
    pub fn new(stall: std::time::Duration) -> Self {
        let us = u64::try_from(stall.as_micros()).unwrap_or(u64::MAX);
        Self {
            write_stall_us: AtomicU64::new(us),
            until: AtomicU64::new(Time::NEVER.0),
            manners: Mutex::new(None),
            open: AtomicUsize::new(0),
            lost: Notify::new(),
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
    /// They were too many for a connection that asks nothing.
    pub fn heard(&self, bytes: usize, now: impl FnOnce() -> Time) -> Result<(), Why> {
        if self.open.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        match &mut *self.manners() {
            Some(manners) => manners.talked(bytes as u64, now()),
            None => Ok(()),
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
    /// That happened too often.
    pub fn closed(&self, answered: bool, now: Time) -> Result<(), Why> {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let judged = match &mut *self.manners() {
            Some(manners) => manners.ended(answered, now),
            None => Ok(()),
        };
        if judged.is_err() {
            self.lost.notify_one();
        }
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
    pub fn write_stall(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.write_stall_us.load(Ordering::Relaxed))
    }
}
