//! One call for all who ask the same at the same time: an append-only, bounded log of what is said, and readers of it.
//!
//! Leader and waiters are equal readers. Each reads at its own pace, keeps its own deadline, and may leave; the last one gone
//! ends the call. The pace is set by whoever reads fastest: a slow reader holds nobody up, and one that falls further behind
//! than the log is long is told so. A reader alone is waited for, as a caller is that has a call to itself.
//!
//! The leader pays: its ledger stays open until the call has ended, also when the leader itself left before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use super::semantic::Sought;
use crate::cascade::{Account, Head};
use crate::error::Error;
use crate::leases;
use crate::ledger::{Ledger, Payer};
use crate::note;
use crate::providers::event::Frame;
use crate::providers::render::Form;

/// Bytes of a log. One that grows beyond takes nobody in any more, and forgets what the fastest has read.
pub const MAX_LOG: usize = 4 << 20;
/// What a frame takes beside its bytes.
const FRAME: usize = 128;

/// How a flight ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The answer is whole.
    Whole,
    /// There is none, or it broke off.
    Failed(Error),
    /// Its leader left, or was refused, before the call began: who waits may lead another one.
    NotBegun,
}

/// One call that is shared.
pub struct Flight {
    /// The leader's form: readers of the same one get the very bytes.
    pub form: Form,
    /// Hash of the body, where callers name their requests themselves.
    pub body: Option<[u8; 32]>,
    /// Questions whose answer is to be learnt from, once it is whole.
    sought: Mutex<Vec<Sought>>,
    log: Mutex<Log>,
}

struct Log {
    head: Option<Head>,
    frames: VecDeque<Frame>,
    /// Number of the first frame that is still there.
    first: u64,
    bytes: usize,
    /// What is held of the process's budget for bodies.
    lease: Option<leases::Bytes>,
    end: Option<End>,
    readers: Vec<Option<Seat>>,
    count: usize,
    /// The pump waits for room.
    pump: Option<Waker>,
    abort: Option<AbortHandle>,
    /// The call was begun, and has not ended.
    flying: bool,
    /// What the call came to, once it has ended, until the leader's ledger has it.
    account: Option<Account>,
    /// The ledger of a leader that left.
    left: Option<Ledger>,
}

#[derive(Default)]
struct Seat {
    at: u64,
    waker: Option<Waker>,
}

/// What a reader finds.
pub enum Read {
    /// The next frame.
    Frame(Frame),
    /// It ended so.
    End(End),
    /// It read too slowly: what comes next is no longer there.
    Behind,
}

impl Flight {
    /// A flight that has not begun, with its leader as the first reader.
    pub fn led(form: Form, lease: Option<leases::Bytes>, body: Option<[u8; 32]>) -> Reader {
        let flight = Arc::new(Self {
            form,
            body,
            sought: Mutex::default(),
            log: Mutex::new(Log {
                head: None,
                frames: VecDeque::new(),
                first: 0,
                bytes: 0,
                lease,
                end: None,
                readers: vec![Some(Seat::default())],
                count: 1,
                pump: None,
                abort: None,
                flying: false,
                account: None,
                left: None,
            }),
        });
        Reader { flight, seat: 0 }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its answer is to be learnt from.
    pub fn seek(&self, question: Sought) {
        self.questions().push(question);
    }

    /// Questions whose answer is to be learnt from.
    pub(super) fn take_sought(&self) -> Vec<Sought> {
        std::mem::take(&mut *self.questions())
    }

    fn questions(&self) -> MutexGuard<'_, Vec<Sought>> {
        self.sought.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May it be joined?
    pub(super) fn is_open(&self) -> bool {
        self.log().is_open()
    }

    /// Another reader, from the first word; `None` when that is no longer there, or the flight has come to nothing.
    pub fn join(self: &Arc<Self>) -> Option<Reader> {
        let mut log = self.log();
        if !log.is_open() {
            return None;
        }
        let seat = log.seat();
        Some(Reader {
            flight: Arc::clone(self),
            seat,
        })
    }

    /// The call runs; `abort` ends it.
    pub(super) fn begun(&self, abort: AbortHandle) {
        let mut log = self.log();
        // Everybody may have left before the task was there to be ended.
        if log.count == 0 && log.end.is_none() {
            abort.abort();
        }
        log.flying = log.end.is_none();
        log.abort = log.flying.then_some(abort);
    }

    /// May the pump go on? It is woken when it may.
    pub(super) fn has_room(&self, cx: &mut Context<'_>) -> bool {
        let mut log = self.log();
        log.make_room();
        let room = !log.is_full();
        if !room {
            log.pump = Some(cx.waker().clone());
        }
        room
    }

    /// The answer is committed to.
    pub(super) fn committed(&self, head: Head) {
        let mut log = self.log();
        log.head = Some(head);
        let wakers = log.wakers();
        drop(log);
        wake(wakers);
    }

    /// The next piece of it.
    pub(super) fn push(&self, frame: Frame) {
        let mut log = self.log();
        let bytes = log.bytes + FRAME + frame.wire.as_ref().map_or(0, bytes::Bytes::len);
        log.bytes = bytes;
        // Where there is no room left in the process, this log is as long as it may be.
        if let Some(lease) = &mut log.lease
            && lease.grow_to(bytes as u64).is_err()
        {
            log.lease = None;
        }
        log.frames.push_back(frame);
        log.make_room();
        let wakers = log.wakers();
        drop(log);
        wake(wakers);
    }

    /// It has ended, and this is what it came to.
    pub(super) fn land(&self, end: End, head: Head, account: Account) {
        let mut log = self.log();
        if matches!(log.end, Some(End::Whole | End::Failed(_))) {
            return;
        }
        // The head of a stream speaks of what was true at its commit, also to who asks for it afterwards.
        if log.head.is_none() || !self.form.stream {
            log.head = Some(head);
        }
        log.end = Some(end);
        log.abort = None;
        log.flying = false;
        let left = log.left.take();
        match left {
            None => log.account = Some(account),
            Some(mut ledger) => {
                drop(log);
                note::account(&mut ledger, account);
                drop(ledger);
                log = self.log();
            }
        }
        let wakers = log.wakers();
        drop(log);
        wake(wakers);
    }

    /// The leader did not come so far as to make the call.
    pub(super) fn not_begun(&self) {
        let mut log = self.log();
        if log.end.is_some() {
            return;
        }
        log.end = Some(End::NotBegun);
        let wakers = log.wakers();
        drop(log);
        wake(wakers);
    }

    /// All that was said, where none of it was forgotten.
    pub(super) fn said<T>(&self, look: impl FnOnce(&VecDeque<Frame>) -> Option<T>) -> Option<T> {
        let log = self.log();
        if log.first > 0 {
            return None;
        }
        look(&log.frames)
    }

    /// What the call came to, once, when it has ended.
    pub fn account(&self) -> Option<Account> {
        self.log().account.take()
    }

    /// How many read it.
    pub fn readers(&self) -> usize {
        self.log().count
    }
}

impl Payer for Flight {
    fn settle(&self, ledger: &mut Ledger) -> bool {
        let mut log = self.log();
        match (log.account.take(), &log.end) {
            (Some(account), _) => {
                drop(log);
                note::account(ledger, account);
                false
            }
            (None, None) if log.flying => {
                log.left = Some(ledger.hand_over());
                true
            }
            (None, _) => false,
        }
    }
}

impl Log {
    fn is_open(&self) -> bool {
        self.first == 0 && !matches!(self.end, Some(End::Failed(_) | End::NotBegun))
    }

    fn seat(&mut self) -> usize {
        self.count += 1;
        let free = self.readers.iter().position(Option::is_none);
        match free {
            Some(at) => {
                self.readers[at] = Some(Seat::default());
                at
            }
            None => {
                self.readers.push(Some(Seat::default()));
                self.readers.len() - 1
            }
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > MAX_LOG || (self.lease.is_none() && !self.frames.is_empty())
    }

    /// Forgets what the fastest reader has behind it.
    fn make_room(&mut self) {
        if !self.is_full() {
            return;
        }
        let fastest = self.readers.iter().flatten().map(|s| s.at).max().unwrap_or(0);
        while self.first < fastest && self.is_full() {
            let Some(frame) = self.frames.pop_front() else {
                break;
            };
            self.first += 1;
            self.bytes = self
                .bytes
                .saturating_sub(FRAME + frame.wire.map_or(0, |w| w.len()));
        }
    }

    fn wakers(&mut self) -> Vec<Waker> {
        self.readers
            .iter_mut()
            .flatten()
            .filter_map(|s| s.waker.take())
            .collect()
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// One reader. Dropping it leaves.
pub struct Reader {
    flight: Arc<Flight>,
    seat: usize,
}

impl Reader {
    /// What is read.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The next frame, or the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        let mut log = self.flight.log();
        let (first, seat) = (log.first, self.seat);
        let Some(at) = log.readers.get(seat).and_then(Option::as_ref).map(|s| s.at) else {
            return Poll::Ready(Read::Behind);
        };
        let Some(back) = at.checked_sub(first) else {
            return Poll::Ready(Read::Behind);
        };
        if let Some(frame) = log.frames.get(usize::try_from(back).unwrap_or(usize::MAX)) {
            let frame = frame.clone();
            if let Some(Some(seat)) = log.readers.get_mut(seat) {
                seat.at = at + 1;
            }
            let pump = log.pump.take();
            drop(log);
            if let Some(pump) = pump {
                pump.wake();
            }
            return Poll::Ready(Read::Frame(frame));
        }
        if let Some(end) = &log.end {
            return Poll::Ready(Read::End(end.clone()));
        }
        if let Some(Some(seat)) = log.readers.get_mut(seat) {
            seat.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The head, once it is committed to; or how it ended before.
    ///
    /// # Errors
    /// How it ended.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, (End, Head)>> {
        let mut log = self.flight.log();
        match (&log.end, &log.head) {
            (Some(end @ (End::Failed(_) | End::NotBegun)), head) => {
                // What was said of a stream before it broke is read all the same.
                if log.frames.is_empty() || !self.flight.form.stream {
                    return Poll::Ready(Err((end.clone(), head.clone().unwrap_or_default())));
                }
                Poll::Ready(Ok(head.clone().unwrap_or_default()))
            }
            (_, Some(head)) => Poll::Ready(Ok(head.clone())),
            (_, None) => {
                if let Some(Some(seat)) = log.readers.get_mut(self.seat) {
                    seat.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The head as it is now.
    pub fn head(&self) -> Head {
        self.flight.log().head.clone().unwrap_or_default()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut log = self.flight.log();
        let left = log.readers.get_mut(self.seat).and_then(Option::take);
        if left.is_none() {
            return;
        }
        log.count -= 1;
        // The pace may be another's now.
        let pump = log.pump.take();
        let abort = if log.count == 0 { log.abort.take() } else { None };
        drop(log);
        if let Some(abort) = abort {
            abort.abort();
        }
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}
