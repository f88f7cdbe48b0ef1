//! The body of every response: one enum inside one [`Metered`], which carries the request's ledger.
//!
//! Dropping a body, at any point, gives back what was held, cancels the upstream call or the local generation (both hang
//! on the [`Source`]) and writes the record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use routing::units::Time;

use crate::clock::Alarm;
use crate::error::{Error, Kind};
use crate::ledger::Ledger;
use crate::telemetry::record::End;

/// Bytes of a whole answer that are handed over at once. A caller has taken one before the next is asked for, so an
/// answer counts as given, and a slow reader as reading, piece by piece.
pub const PIECE: usize = 4 * 1024;

/// Where the pieces of a stream come from.
pub trait Source: Send {
    /// The next bytes for the caller; `None` when the answer is whole. An error becomes an in-band error event, after
    /// which nothing follows.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>>;
    /// It is over, by its end, an error, or because the body was dropped: says once what was used.
    fn settle(&mut self, ledger: &mut Ledger);
}

/// What is sent.
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece.
    Stream(Box<dyn Source>),
    /// Everything was sent.
    End,
}

/// A response's body.
pub struct Metered {
    content: Content,
    ledger: Option<Ledger>,
    /// A stream may not last longer.
    until: Time,
    /// Rings at `until`; made when the stream is first asked for a piece.
    alarm: Option<Alarm>,
}

impl Metered {
    /// Content with the ledger of its request.
    pub fn new(content: Content, ledger: Ledger) -> Self {
        let mut body = Self {
            content,
            ledger: Some(ledger),
            until: Time::NEVER,
            alarm: None,
        };
        // Nobody polls a body that is empty: it has ended here, and its caller is not gone.
        if matches!(&body.content, Content::Whole(bytes) if bytes.is_empty()) {
            body.close(End::Whole, None);
        }
        body
    }
    /// Bounds a stream's length.
    pub fn until(mut self, until: Time) -> Self {
        self.until = until;
        self
    }

    fn close(&mut self, end: End, error: Option<&'static str>) {
        let content = std::mem::replace(&mut self.content, Content::End);
        if let Some(mut ledger) = self.ledger.take() {
            if let Content::Stream(mut source) = content {
                source.settle(&mut ledger);
            }
            // An answer that is an error has said so already.
            if ledger.record.end == End::Gone {
                ledger.record.end = end;
            }
            ledger.record.error = ledger.record.error.or(error);
        }
    }

    fn piece(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        if let Some(ledger) = &mut self.ledger {
            ledger.record.bytes_out += bytes.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Has the stream's time come? Looked at before every piece; who then gets none is woken by it.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(ledger), true) = (&self.ledger, self.until != Time::NEVER) else {
            return false;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Alarm::new(ledger.clock(), self.until));
        alarm.poll(cx).is_ready()
    }

    fn over(&mut self) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let message = "the stream reached its longest time (x-weir-deadline-ms, else timeouts.max_stream_ms)";
        self.cut(&Error::new(Kind::StreamCut, message))
    }

    /// What the source said; `None` when it panicked.
    fn heard(
        &mut self,
        polled: Option<Poll<Option<Result<Bytes, Error>>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        match polled {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(Some(Ok(bytes)))) => {
                if let Some(ledger) = &mut self.ledger {
                    ledger.first_content();
                }
                self.piece(bytes)
            }
            Some(Poll::Ready(Some(Err(error)))) => self.cut(&error),
            Some(Poll::Ready(None)) => {
                self.close(End::Whole, None);
                Poll::Ready(None)
            }
            None => {
                if let Some(ledger) = &self.ledger {
                    ledger.panicked();
                }
                self.cut(&Error::new(
                    Kind::Bug,
                    "a bug in the gateway ended this stream; it was counted",
                ))
            }
        }
    }

    fn cut(&mut self, error: &Error) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let event = error.sse();
        let polled = self.piece(event);
        self.close(End::Cut, Some(error.label()));
        polled
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if matches!(this.content, Content::Stream(_)) && this.is_over(cx) {
            return this.over();
        }
        match &mut this.content {
            Content::End => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = bytes.split_to(bytes.len().min(PIECE));
                let (polled, last) = (this.piece(bytes), this.size_hint().exact() == Some(0));
                if last {
                    this.close(End::Whole, None);
                }
                polled
            }
            Content::Stream(source) => {
                // The guard covers polling too: a bug in a stream is one in-band error, not a dead connection.
                let polled = catch_unwind(AssertUnwindSafe(|| source.poll_next(cx)));
                this.heard(polled.ok())
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::End => true,
            Content::Whole(bytes) => bytes.is_empty() && self.ledger.is_none(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::End => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let (Content::Stream(source), Some(ledger)) = (&mut self.content, &mut self.ledger) {
            source.settle(ledger);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::Telemetry;
    use crate::telemetry::handles::{PlanHandles, Process};
    use crate::telemetry::record::Record;
    use crate::telemetry::writer::Sink;
    use crate::testing;

    struct Silent;
    impl Source for Silent {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            Poll::Pending
        }
        fn settle(&mut self, _: &mut Ledger) {}
    }

    fn ledger(clock: &Clock, telemetry: &Telemetry) -> Ledger {
        Ledger::open(
            Record::open("r", 1, Default::default()),
            clock.clone(),
            Sink::none(),
            Arc::new(Process::new(telemetry)),
            Arc::new(PlanHandles::new(telemetry, &testing::plan(""))),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_falls_silent_ends_at_its_time() {
        let (clock, telemetry) = (Clock::system(), Telemetry::new());
        let until = clock.now() + Duration::from_secs(2);
        let body = Metered::new(Content::Stream(Box::new(Silent)), ledger(&clock, &telemetry)).until(until);
        let all = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
        let event = all.expect("it ends by itself").unwrap().to_bytes();
        assert!(event.starts_with(b"data: {\"error\""), "{event:?}");
        assert_eq!(clock.now(), until);
    }

    struct Talks;
    impl Source for Talks {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            Poll::Ready(Some(Ok(Bytes::from_static(b"data: {}\n\n"))))
        }
        fn settle(&mut self, _: &mut Ledger) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_talks_on_ends_at_its_time() {
        let (clock, telemetry) = (Clock::system(), Telemetry::new());
        let until = clock.now() + Duration::from_secs(2);
        let mut body =
            Metered::new(Content::Stream(Box::new(Talks)), ledger(&clock, &telemetry)).until(until);
        for _ in 0..9 {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(&piece[..], b"data: {}\n\n");
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(last.starts_with(b"data: {\"error\""), "{last:?}");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_empty_body_has_ended_and_its_caller_is_not_gone() {
        let (clock, telemetry) = (Clock::system(), Telemetry::new());
        let body = Metered::new(Content::Whole(Bytes::new()), ledger(&clock, &telemetry));
        assert!(body.is_end_stream());
        drop(body);
        assert!(!telemetry.render().contains("weir_clients_gone_total 1"));
    }
}
