//! One running try: its call, then its answer; what it has said so far and how far it may be shown.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use routing::cascade::{Judged, StartKind, TryId};
use routing::continuation::Sent;
use routing::ids::TargetId;
use routing::units::Time;
use tokio::task::JoinHandle;

use super::joining::{self, Joining};
use super::piece::Piece;
use super::watch::{self, Watch};
use crate::providers::event::{Event, Frame, Meta};
use crate::providers::failure::{AttemptError, Fault};
use crate::providers::{Reply, ReplyBody};
use crate::target_state::Leave;

use super::attempt::Means;

/// A call on its way. Boxed once a try: the driver holds up to two of them and moves into the body with one.
pub type Calling = Pin<Box<dyn Future<Output = Result<Reply, AttemptError>> + Send>>;

/// Most bytes that are held back of one answer; a stream that says more before it may be shown is broken off, since
/// memory is bounded.
pub const MAX_HELD: usize = 16 << 20;

/// Where a try stands.
enum Phase {
    /// The provider has not accepted it yet.
    Calling(Calling),
    /// Its answer is coming.
    Reading(ReplyBody),
    /// Its answer is whole, and so large that it is judged off the socket's thread.
    Judging(JoinHandle<Judged>),
    /// Its answer is whole and kept.
    Whole,
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Calling(_) => "Calling",
            Phase::Reading(_) => "Reading",
            Phase::Judging(_) => "Judging",
            Phase::Whole => "Whole",
        })
    }
}

/// What a try has just said.
#[derive(Debug)]
pub enum Said {
    /// The provider accepted it.
    Accepted,
    /// A piece of its answer; already taken in by the watch.
    Frame(Frame),
    /// Its last piece: the answer is whole.
    Whole(Frame),
    /// The verdict on the whole, which was made elsewhere.
    Judged(Judged),
    /// It is over.
    Broke(AttemptError),
}

/// One try, from its start to its end.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub id: TryId,
    /// Where.
    pub target: TargetId,
    /// Its tier in the refined policy.
    pub tier: u8,
    /// Why it was started.
    pub kind: StartKind,
    /// When.
    pub began: Time,
    /// First content, once there is some.
    pub first_content: Option<Time>,
    /// The last frame of any kind; the idle clock counts from here.
    pub last_frame: Time,
    /// The last that was more than a sign of life.
    pub last_words: Time,
    /// What the checks and the accounts know of its answer.
    pub watch: Watch,
    /// Allow-listed headers of the provider.
    pub headers: HeaderMap,
    /// Provider's status, once there is one.
    pub status: Option<u16>,
    /// It went over a kept connection.
    pub reused: bool,
    /// ... which had closed, and was dialled anew.
    pub redialled: bool,
    /// What it holds of its target.
    pub leave: Leave,
    /// What it draws on.
    pub means: Means,
    /// What it has said, where that may have to be gone on with.
    pub sent: Option<Sent>,
    /// Who its answer says it is, where that may have to be said again.
    pub meta: Option<Meta>,
    /// It goes on with a stream that broke.
    pub joining: Option<Box<Joining>>,
    held: Vec<Piece>,
    held_bytes: usize,
    phase: Phase,
}

impl Running {
    /// A try that has just been started.
    #[expect(clippy::too_many_arguments, reason = "each is one plain fact of the start")]
    pub fn new(
        id: TryId,
        target: TargetId,
        tier: u8,
        kind: StartKind,
        now: Time,
        watch: Watch,
        calling: Calling,
        leave: Leave,
    ) -> Self {
        Self {
            id,
            target,
            tier,
            kind,
            began: now,
            first_content: None,
            last_frame: now,
            last_words: now,
            watch,
            headers: HeaderMap::new(),
            status: None,
            reused: false,
            redialled: false,
            sent: None,
            meta: None,
            joining: None,
            held: Vec::new(),
            held_bytes: 0,
            phase: Phase::Calling(calling),
            leave,
            means: Means::default(),
        }
    }

    /// Remembers what the caller receives, or will once this is committed.
    pub fn remember(&mut self, frame: &Frame) {
        let Some(sent) = &mut self.sent else { return };
        joining::note(sent, frame);
        if self.meta.is_none() {
            let meta = frame.events.iter().find_map(|event| match event {
                Event::Meta(meta) => Some((**meta).clone()),
                _ => None,
            });
            self.meta = meta;
        }
    }

    /// The answer is whole.
    pub fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Whole)
    }

    /// Takes what came for the whole answer; its connection is given up.
    pub fn close(&mut self) {
        self.phase = Phase::Whole;
    }

    /// What it says next. `Pending` for ever once it is whole.
    pub fn poll_said(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<Said> {
        match &mut self.phase {
            Phase::Calling(calling) => match calling.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Said::Broke(error)),
                Poll::Ready(Ok(reply)) => {
                    self.status = Some(reply.status);
                    self.headers = reply.headers;
                    self.reused = reply.reused;
                    self.redialled = reply.redialled;
                    (self.last_frame, self.last_words) = (now, now);
                    self.phase = Phase::Reading(reply.body);
                    Poll::Ready(Said::Accepted)
                }
            },
            Phase::Reading(body) => match body.poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    self.last_frame = now;
                    if frame.events.iter().any(|e| *e != Event::Ping) {
                        self.last_words = now;
                    }
                    if frame.is_done() {
                        // Dropping the body gives the connection back to its pool.
                        self.phase = Phase::Whole;
                        return Poll::Ready(Said::Whole(frame));
                    }
                    Poll::Ready(Said::Frame(frame))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Said::Broke(error)),
                Poll::Ready(None) => Poll::Ready(Said::Broke(AttemptError::new(
                    Fault::Cut,
                    "the answer ended without a word",
                ))),
            },
            Phase::Judging(judging) => match Pin::new(judging).poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(judged)) => {
                    self.phase = Phase::Whole;
                    Poll::Ready(Said::Judged(judged))
                }
                Poll::Ready(Err(_)) => {
                    self.phase = Phase::Whole;
                    // A check that panicked has said nothing of the answer.
                    Poll::Ready(Said::Judged(Judged::unchecked()))
                }
            },
            Phase::Whole => Poll::Pending,
        }
    }

    /// The whole of it is being judged; what a look at the part would say no longer matters.
    pub fn is_judging(&self) -> bool {
        matches!(self.phase, Phase::Judging(_))
    }

    /// Judges the whole answer on a thread for such work; [`Said::Judged`] follows.
    pub fn judge_elsewhere(&mut self) {
        // The counts stay: whatever ends the try meanwhile, its tokens were used.
        let checks = self.watch.checks();
        self.phase = Phase::Judging(tokio::task::spawn_blocking(move || {
            checks
                .as_deref()
                .map_or_else(Judged::unchecked, watch::judge_whole)
        }));
    }

    /// Keeps what may not be shown yet. `false`: too much.
    #[must_use]
    pub fn hold(&mut self, piece: Piece) -> bool {
        let bytes = piece.wire.as_ref().map_or(0, bytes::Bytes::len);
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.held.push(piece);
        self.held_bytes <= MAX_HELD
    }

    /// What was held, in order; nothing is held afterwards.
    pub fn release(&mut self) -> Vec<Piece> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }
}
