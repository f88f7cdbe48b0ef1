//! A target that plays a script inside the process: for tests that want exact events at exact times of their own
//! clock. It keeps the same rules as every provider (see the module above).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use smallvec::SmallVec;

use super::event::{Event, FinishReason, Frame, Meta, Usage};
use super::failure::AttemptError;
use super::translate::Translator;
use super::{CallContext, Reply, ReplyBody};
use crate::call::{Call, CallKind};

/// One thing that a script does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Nothing for so long, on tokio's clock.
    Wait(Duration),
    /// Nothing until the gate is open.
    Gate(Gate),
    /// Nothing now, but at once when asked again: as between two reads of a socket.
    Yield,
    /// These events, in one frame.
    Say(Vec<Event>),
    /// The try fails.
    Fail(AttemptError),
    /// Nothing, for ever.
    Hang,
    /// A bug of ours.
    Panic,
}

/// Holds up what stands behind it in a script, until a test opens it. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<tokio::sync::Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }
}

impl Gate {
    /// From now on nobody is held up.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(self) {
        // Refused: it is closed for waiting, so open for passing.
        let _ = self.0.acquire().await;
    }
}

/// What one call gets.
#[derive(Clone, Debug, Default)]
pub struct Script {
    before: Vec<Act>,
    acts: Vec<Act>,
}

impl Script {
    /// Nothing yet: a script that ends without [`Script::done`] hangs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The usual answer in one text, with usage.
    pub fn answer(text: &str) -> Self {
        Self::new()
            .begin("fake-model")
            .text(text)
            .stop()
            .usage(3, 5)
            .done()
    }

    /// The call itself fails.
    pub fn refuse(error: AttemptError) -> Self {
        Self {
            before: vec![Act::Fail(error)],
            acts: Vec::new(),
        }
    }

    /// What was said so far happens before the call is accepted (all but saying something makes sense there).
    pub fn accept(mut self) -> Self {
        self.before.append(&mut self.acts);
        self
    }

    /// Any act.
    pub fn act(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    /// Nothing for so long.
    pub fn wait(self, time: Duration) -> Self {
        self.act(Act::Wait(time))
    }

    /// Meta and role.
    pub fn begin(self, model: &str) -> Self {
        let meta = Meta {
            id: "fake-1".into(),
            created: 1_700_000_000,
            model: model.into(),
        };
        self.act(Act::Say(vec![
            Event::Meta(Box::new(meta)),
            Event::Role { choice: 0 },
        ]))
    }

    /// A piece of text of choice 0.
    pub fn text(self, text: &str) -> Self {
        self.act(Act::Say(vec![Event::Text {
            choice: 0,
            text: text.into(),
        }]))
    }

    /// Choice 0 ends.
    pub fn finish(self, reason: FinishReason) -> Self {
        self.act(Act::Say(vec![Event::Finish { choice: 0, reason }]))
    }

    /// Choice 0 ends with `stop`.
    pub fn stop(self) -> Self {
        self.finish(FinishReason::Stop)
    }

    /// Token counts.
    pub fn usage(self, prompt: u64, completion: u64) -> Self {
        self.act(Act::Say(vec![Event::Usage(Usage {
            prompt,
            completion,
            ..Usage::default()
        })]))
    }

    /// The answer breaks.
    pub fn fail(self, error: AttemptError) -> Self {
        self.act(Act::Fail(error))
    }

    /// The answer is whole.
    pub fn done(self) -> Self {
        self.act(Act::Say(vec![Event::Done]))
    }
}

/// What a call looked like when it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The endpoint.
    pub kind: CallKind,
    /// A stream was asked for.
    pub stream: bool,
    /// The body.
    pub raw: Bytes,
    /// It might be sent again on a new connection ([`CallContext::may_resend`]).
    pub may_resend: bool,
}

#[derive(Debug, Default)]
struct Shared {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
    /// Bodies and calls that were dropped before their script ended.
    cancelled: AtomicUsize,
}

/// The target. Clones share scripts and log.
#[derive(Clone, Debug, Default)]
pub struct FakeTarget {
    shared: Arc<Shared>,
}

impl FakeTarget {
    /// One script a call, in order; the last one serves all further calls.
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        let fake = Self::default();
        lock(&fake.shared.scripts).extend(scripts);
        fake
    }

    /// What every call gets from now on.
    pub fn turn(&self, script: Script) {
        *lock(&self.shared.scripts) = VecDeque::from([script]);
    }

    /// Calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Calls and bodies dropped before their script ended.
    pub fn cancelled(&self) -> usize {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    fn next_script(&self) -> Script {
        let mut scripts = lock(&self.shared.scripts);
        match scripts.len() {
            0 => Script::answer("ok"),
            1 => scripts.front().cloned().unwrap_or_default(),
            _ => scripts.pop_front().unwrap_or_default(),
        }
    }

    /// See [`super::Client::call`].
    pub(super) async fn call(&self, call: &Call, ctx: &CallContext<'_>) -> Result<Reply, AttemptError> {
        let seen = Seen {
            kind: call.kind,
            stream: call.stream,
            raw: call.raw.clone(),
            may_resend: ctx.may_resend,
        };
        lock(&self.shared.seen).push(seen);
        let script = self.next_script();
        let mut guard = Guard {
            shared: self.shared.clone(),
            ended: false,
        };
        for act in script.before {
            match act {
                Act::Wait(time) => tokio::time::sleep(time).await,
                Act::Gate(gate) => gate.pass().await,
                Act::Yield => tokio::task::yield_now().await,
                Act::Hang => std::future::pending().await,
                Act::Say(_) => {}
                Act::Panic => bug(),
                Act::Fail(error) => {
                    guard.ended = true;
                    return Err(error);
                }
            }
        }
        let body = FakeBody {
            acts: script.acts.into(),
            waits: None,
            wire: Translator::new(call),
            guard,
        };
        Ok(Reply {
            status: 200,
            headers: HeaderMap::new(),
            reused: false,
            redialled: false,
            body: ReplyBody::Fake(Box::new(body)),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::panic, reason = "what it is for")]
fn bug() -> ! {
    panic!("a bug, as the script says")
}

/// Counts a drop before the end.
#[derive(Debug)]
struct Guard {
    shared: Arc<Shared>,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The answer of a script.
pub struct FakeBody {
    acts: VecDeque<Act>,
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    wire: Translator,
    guard: Guard,
}

impl FakeBody {
    /// See [`ReplyBody::poll_next`].
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, AttemptError>>> {
        loop {
            if let Some(waits) = &mut self.waits {
                if waits.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.waits = None;
            }
            if self.guard.ended {
                return Poll::Ready(None);
            }
            match self.acts.pop_front() {
                Some(Act::Wait(time)) => self.waits = Some(Box::pin(tokio::time::sleep(time))),
                Some(Act::Gate(gate)) => self.waits = Some(Box::pin(gate.pass())),
                Some(Act::Yield) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Act::Say(events)) => {
                    let frame = self.wire.frame(SmallVec::from_vec(events));
                    self.guard.ended = frame.is_done();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Act::Fail(error)) => {
                    self.guard.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Act::Panic) => bug(),
                // Whoever waits has a clock of their own; nothing will ever wake them from here.
                Some(Act::Hang) | None => return Poll::Pending,
            }
        }
    }
}

impl std::fmt::Debug for FakeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeBody")
            .field("acts", &self.acts)
            .finish_non_exhaustive()
    }
}
