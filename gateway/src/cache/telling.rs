//! A flight as one of its readers tells it to its caller: in the caller's own form, whatever the leader's was.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::flight::{End, Read, Reader};
use crate::body::Source;
use crate::cascade::Head;
use crate::error::{Error, Kind};
use crate::ledger::Ledger;
use crate::providers::event::{Event, Usage};
use crate::providers::render::Form;
use crate::providers::translate::Translator;
use crate::telemetry::record;

/// Frames that are read in one poll; then the task yields.
const MAX_TURNS: usize = 32;

/// See the module.
pub struct Telling {
    reader: Reader,
    form: Form,
    /// Absent where the leader's very bytes are what this caller wants.
    translator: Option<Translator>,
    usage: Option<Usage>,
    /// Another one pays for it.
    waits: bool,
}

impl Telling {
    /// For a caller who wants it so. `waits`: somebody else leads.
    pub fn new(reader: Reader, form: Form, choices: u16, waits: bool) -> Self {
        let same = reader.flight().form == form;
        Self {
            reader,
            form,
            translator: (!same).then(|| Translator::of(form, choices)),
            usage: None,
            waits,
        }
    }

    /// The flight.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Its figures so far, in the record's words.
    pub fn usage(&self) -> Option<record::Usage> {
        self.usage.as_ref().map(super::recorded)
    }

    /// Waits until a stream may begin (`None`), or a whole answer is there.
    ///
    /// # Errors
    /// How the flight ended, with what its head said then.
    pub async fn committed(&mut self) -> Result<(Head, Option<Bytes>), (End, Head)> {
        if self.form.stream {
            let head = std::future::poll_fn(|cx| self.reader.poll_head(cx)).await?;
            return Ok((head, None));
        }
        let mut body = None;
        let end = std::future::poll_fn(|cx| self.poll_whole(cx, &mut body)).await;
        match (end, body) {
            (End::Whole, Some(body)) => Ok((self.reader.head(), Some(body))),
            (End::Whole, None) => {
                let error = Error::new(Kind::Bug, "an answer without a body");
                Err((End::Failed(error), self.reader.head()))
            }
            (end, _) => Err((end, self.reader.head())),
        }
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>, body: &mut Option<Bytes>) -> Poll<End> {
        for _ in 0..MAX_TURNS {
            match self.reader.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Read::Frame(frame)) => {
                    self.note(&frame.events);
                    *body = match &mut self.translator {
                        None => frame.wire,
                        Some(translator) => translator.frame(frame.events).wire,
                    }
                    .or(body.take());
                }
                Poll::Ready(Read::End(end)) => return Poll::Ready(end),
                Poll::Ready(Read::Behind) => return Poll::Ready(End::Failed(behind())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn note(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Usage(usage) = event {
                self.usage = Some(*usage);
            }
        }
    }
}

/// A kept answer as a stream.
pub struct Replay {
    bytes: Bytes,
}

impl Replay {
    /// Bytes that are handed over at once.
    const PIECE: usize = 16 * 1024;

    /// Of all its bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }
}

impl Source for Replay {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let piece = self.bytes.split_to(self.bytes.len().min(Self::PIECE));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }

    fn settle(&mut self, _: &mut Ledger) {}
}

fn behind() -> Error {
    let message = "this answer is read by several callers at once, and this one read it too slowly; send the request again";
    Error::new(Kind::StreamCut, message)
}

impl Source for Telling {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        for _ in 0..MAX_TURNS {
            match self.reader.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Read::Frame(frame)) => {
                    self.note(&frame.events);
                    let wire = match &mut self.translator {
                        None => frame.wire,
                        Some(translator) => translator.frame(frame.events).wire,
                    };
                    if let Some(wire) = wire {
                        return Poll::Ready(Some(Ok(wire)));
                    }
                }
                Poll::Ready(Read::End(End::Whole)) => return Poll::Ready(None),
                Poll::Ready(Read::End(End::Failed(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Read::End(End::NotBegun)) => {
                    let error = Error::new(Kind::Bug, "a stream that began before its call");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Read::Behind) => return Poll::Ready(Some(Err(behind()))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The leader's ledger learns from the flight what the call came to; who waited has had it for nothing.
    fn settle(&mut self, ledger: &mut Ledger) {
        if self.waits {
            ledger.record.usage = self.usage();
        }
    }
}
