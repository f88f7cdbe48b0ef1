//! A response body that keeps its pace, counts what it hands out, and tells the log how it ended: by being finished, or by
//! being dropped before that, which is how a client that left looks from here.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::capacity::Place;
use super::log::{Ended, Log};
use super::reply::Piece;

/// Long enough for hyper to write out what it holds.
const FLUSH: Duration = Duration::from_millis(2);

/// Writes the end of an entry when it is dropped, whatever happened to the request.
#[derive(Debug)]
pub struct Watch {
    log: Log,
    id: u64,
    ended: Ended,
    /// Of what the provider can do at once.
    place: Option<Place>,
}

impl Watch {
    /// From now on the entry is this one's duty.
    pub fn new(log: Log, id: u64) -> Self {
        Self {
            log,
            id,
            ended: Ended::ClientLeft,
            place: None,
        }
    }

    /// Until the end of the answer it takes up this place.
    pub fn occupies(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The entry's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What to write at the end.
    pub fn will_have(&mut self, ended: Ended) {
        self.ended = ended;
    }

    /// The head is given out.
    pub fn head(&self, status: u16, planned: u32) {
        self.log.update(self.id, |e, at| {
            e.status = status;
            e.headers_us = Some(at);
            e.tokens_planned = planned;
        });
    }

    /// So many tokens are given to the connection.
    pub fn sent(&self, tokens: u32) {
        if tokens > 0 {
            self.log.update(self.id, |e, at| {
                e.first_token_us.get_or_insert(at);
                e.tokens_sent += tokens;
            });
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let ended = self.ended;
        self.log.update(self.id, |e, at| {
            e.ended = ended;
            e.ended_us = Some(at);
        });
    }
}

/// The body of every response of the provider.
pub struct ReplyBody {
    pieces: VecDeque<Piece>,
    pause: Option<Pin<Box<Sleep>>>,
    watch: Option<Watch>,
    /// The script breaks this connection below HTTP: the log must not call that the client's doing.
    broken_below: bool,
}

impl ReplyBody {
    /// A body in pieces.
    pub fn pieces(pieces: Vec<Piece>, watch: Watch, broken_below: bool) -> Self {
        let mut body = Self {
            pieces: pieces.into(),
            pause: None,
            watch: Some(watch),
            broken_below,
        };
        if broken_below && let Some(w) = &mut body.watch {
            w.will_have(Ended::Cut);
        }
        body.finish_if_done();
        body
    }

    /// A body that nobody watches (admin answers).
    pub fn plain(bytes: Bytes) -> Self {
        let pieces = VecDeque::from([Piece::Data {
            after: Duration::ZERO,
            bytes,
            tokens: 0,
        }]);
        Self {
            pieces,
            pause: None,
            watch: None,
            broken_below: false,
        }
    }

    fn finish_if_done(&mut self) {
        if self.pieces.is_empty()
            && let Some(mut w) = self.watch.take()
            && !self.broken_below
        {
            w.will_have(Ended::Done);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let me = &mut *self;
        match me.pieces.front() {
            None => return Poll::Ready(None),
            Some(Piece::Stall) => return Poll::Pending,
            Some(Piece::Cut) => {
                // hyper writes out what it holds only when the body pauses; the tokens before the cut must get there.
                let pause = me
                    .pause
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
                ready!(pause.as_mut().poll(cx));
                if let Some(w) = &mut me.watch {
                    w.will_have(Ended::Cut);
                }
                me.watch = None;
                me.pieces.clear();
                return Poll::Ready(Some(Err(io::Error::other("cut by the script"))));
            }
            Some(Piece::Data { after, .. }) if !after.is_zero() => {
                let pause = me
                    .pause
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(*after)));
                ready!(pause.as_mut().poll(cx));
                me.pause = None;
            }
            Some(Piece::Data { .. }) => {}
        }
        let Some(Piece::Data { bytes, tokens, .. }) = me.pieces.pop_front() else {
            return Poll::Ready(None);
        };
        if let Some(w) = &me.watch {
            w.sent(tokens);
        }
        me.finish_if_done();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.pieces.front() {
            Some(Piece::Data { bytes, .. }) if self.pieces.len() == 1 => {
                SizeHint::with_exact(bytes.len() as u64)
            }
            None => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
