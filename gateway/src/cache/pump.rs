//! A flight's call: drives the cascade and writes what it says into the log; keeps the answer where it may be kept.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::flight::{End, Flight};
use super::keep::Keep;
use crate::cascade::Driver;
use crate::error::{Error, Kind};
use crate::telemetry::handles::Process;

/// Frames in one poll; then the task yields.
const MAX_TURNS: usize = 32;

/// See the module. Dropping it at any point ends the call and tells the readers.
pub struct Pump {
    driver: Box<Driver>,
    flight: Arc<Flight>,
    keep: Option<Box<Keep>>,
    process: Arc<Process>,
    committed: bool,
    landed: bool,
    /// Several targets wrote the answer.
    joined: bool,
}

impl Pump {
    /// For a call that has not begun.
    pub fn new(driver: Box<Driver>, flight: Arc<Flight>, keep: Keep, process: Arc<Process>) -> Self {
        Self {
            driver,
            flight,
            keep: Some(Box::new(keep)),
            process,
            committed: false,
            landed: false,
            joined: false,
        }
    }

    /// Writes until it has ended, then keeps what there is to keep.
    pub async fn run(mut self) {
        let pump = &mut self;
        let whole = std::future::poll_fn(|cx| pump.poll(cx)).await;
        if let (true, Some(keep)) = (whole, self.keep.take()) {
            let (head, joined) = (self.driver.head(), self.joined);
            // What the call held (places under limits, memory) is not held while its answer is looked at.
            drop(self);
            keep.whole(head, joined).await;
        }
    }

    /// Is it whole, once it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        for _ in 0..MAX_TURNS {
            if !self.flight.has_room(cx) {
                return Poll::Pending;
            }
            if self.committed {
                match self.driver.poll_piece(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(piece))) => self.flight.push(piece.into_frame()),
                    Poll::Ready(Some(Err(error))) => return self.over(End::Failed(error)),
                    Poll::Ready(None) => return self.over(End::Whole),
                }
                continue;
            }
            match self.driver.poll_commit(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return self.over(End::Failed(error)),
                Poll::Ready(Ok(Some(piece))) => {
                    self.flight.push(piece.into_frame());
                    return self.over(End::Whole);
                }
                Poll::Ready(Ok(None)) => {
                    self.committed = true;
                    self.flight.committed(self.driver.head());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn over(&mut self, end: End) -> Poll<bool> {
        let whole = matches!(end, End::Whole);
        if !whole {
            // Before its readers hear of it: who tries again must not find it.
            self.keep = None;
        }
        self.landed = true;
        let account = self.driver.account();
        self.joined = account.attempts.iter().any(|a| a.continued.is_some());
        self.flight.land(end, self.driver.head(), account);
        Poll::Ready(whole)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.keep = None;
        if self.landed {
            return;
        }
        let (kind, message) = if std::thread::panicking() {
            self.process.panics.increment(1);
            (
                Kind::Bug,
                "a bug in the gateway ended this request; it was counted",
            )
        } else {
            (Kind::ClientGone, "everybody who asked for this has left")
        };
        let account = self.driver.account();
        let end = End::Failed(Error::new(kind, message));
        self.flight.land(end, self.driver.head(), account);
    }
}
