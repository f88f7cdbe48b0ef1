//! From what is said to a response: head, body in pieces, compression, and the order to write it by hand.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::behaviour::{Behaviour, Ending};
use super::body::{ReplyBody, Watch};
use super::raw::Takeover;
use super::reply::{Piece, Reply};
use super::request::{Api, Ask};
use super::wire::WireControl;
use super::{anthropic, openai};

/// Media type of whole answers.
pub const JSON: &str = "application/json";
/// Media type of streams.
pub const EVENTS: &str = "text/event-stream; charset=utf-8";

/// What goes out, before anything is done to it.
pub struct Answer {
    status: u16,
    kind: &'static str,
    pieces: Vec<Piece>,
    tokens: u32,
}

fn data(bytes: Bytes, tokens: u32) -> Piece {
    Piece::Data {
        after: Duration::ZERO,
        bytes,
        tokens,
    }
}

impl Answer {
    /// A body in one piece.
    pub fn plain(status: u16, kind: &'static str, bytes: Bytes) -> Self {
        Self {
            status,
            kind,
            pieces: vec![data(bytes, 0)],
            tokens: 0,
        }
    }

    /// A stream.
    pub fn events(status: u16, pieces: Vec<Piece>, tokens: u32) -> Self {
        let kind = EVENTS;
        Self {
            status,
            kind,
            pieces,
            tokens,
        }
    }

    /// A whole answer, as far as its ending lets it be whole.
    pub fn whole(status: u16, ask: &Ask, reply: &Reply) -> Self {
        let anthropic = ask.api == Api::Messages;
        let bytes = if anthropic {
            anthropic::whole(reply)
        } else {
            openai::whole(ask, reply)
        };
        let (ending, after) = reply.ending;
        let tokens = reply.tokens();
        let share = bytes.len() * usize::try_from(after.min(tokens)).unwrap_or(0)
            / usize::try_from(tokens.max(1)).unwrap_or(1);
        let part = || data(bytes.slice(..share), after.min(tokens));
        let pieces = match ending {
            Ending::Normal | Ending::NoDone | Ending::NoFinish | Ending::Pause => vec![data(bytes, tokens)],
            Ending::Cut => vec![part(), Piece::Cut],
            Ending::Stall | Ending::Pings => vec![part(), Piece::Stall],
            Ending::Clean => vec![part()],
            Ending::BadJson => {
                let text = String::from_utf8_lossy(&bytes).replacen(':', ";", 1);
                vec![data(text.into(), tokens)]
            }
            Ending::Error => {
                let message = "The server had an error while answering.";
                let body = if anthropic {
                    anthropic::error_body(529, &reply.error, message)
                } else {
                    openai::error_body(500, &reply.error, message)
                };
                vec![data(body.to_string().into(), 0)]
            }
        };
        Self {
            status,
            kind: JSON,
            pieces,
            tokens,
        }
    }

    /// An error body.
    pub fn error(status: u16, message: &str, anthropic: bool, b: &Behaviour) -> Self {
        let scripted = b.error_words(anthropic);
        let body = if anthropic {
            anthropic::error_body(status, &scripted, message)
        } else {
            openai::error_body(status, &scripted, message)
        };
        Self::plain(status, JSON, body.to_string().into())
    }

    /// As it is.
    pub fn plainly(self, watch: Watch) -> Response<ReplyBody> {
        let b = Behaviour::default();
        watch.head(self.status, self.tokens);
        let head = self.head(&watch, &b);
        let (parts, ()) = head.into_parts();
        Response::from_parts(parts, ReplyBody::pieces(self.pieces, watch, false))
    }

    /// As the behaviour wants it. Does not return when the response is written by hand.
    pub async fn send(mut self, watch: Watch, b: &Behaviour, control: &WireControl) -> Response<ReplyBody> {
        watch.head(self.status, self.tokens);
        let mut head = self.head(&watch, b);
        if let Some(style) = b.sse.filter(|_| self.kind == EVENTS) {
            for (at, piece) in self.pieces.iter_mut().enumerate() {
                if let Piece::Data { bytes, .. } = piece {
                    *bytes = style.written(at, bytes);
                }
            }
        }
        if b.gzip == Some(true) {
            compress(&mut self.pieces);
            head.headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let (parts, ()) = head.into_parts();
        if let Some(raw) = b.raw {
            let pause = b.wire.map(|w| Duration::from_millis(w.pause_ms));
            control.take_over(Takeover::new(raw, pause, &parts, self.pieces, watch));
            return std::future::pending().await;
        }
        let broken_below = b.wire.is_some_and(|w| w.cut.is_some());
        Response::from_parts(parts, ReplyBody::pieces(self.pieces, watch, broken_below))
    }

    fn head(&self, watch: &Watch, b: &Behaviour) -> Response<()> {
        let mut r = Response::new(());
        *r.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = r.headers_mut();
        let kind = b.content_type.as_deref().unwrap_or(self.kind);
        headers.extend(HeaderValue::from_str(kind).map(|v| (CONTENT_TYPE, v)));
        if self.kind == EVENTS {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let id = HeaderValue::from_str(&format!("req_lab{}", watch.id()));
        headers.extend(id.map(|v| (HeaderName::from_static("x-request-id"), v)));
        if let Some(s) = b.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(s));
        }
        if let Some(s) = b.retry_after_date {
            let date = crate::clock::wall() + Duration::from_secs(s + 1);
            headers.extend(HeaderValue::from_str(&httpdate::fmt_http_date(date)).map(|v| (RETRY_AFTER, v)));
        }
        for (name, value) in b.headers.iter().flatten() {
            if let (Ok(n), Ok(v)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
                headers.insert(n, v);
            }
        }
        r
    }
}

/// An error that no script asked for.
pub fn refusal(watch: Watch, status: u16, message: &str, anthropic: bool) -> Response<ReplyBody> {
    Answer::error(status, message, anthropic, &Behaviour::default()).plainly(watch)
}

/// Each piece is flushed by itself, so that what is written can be read at once.
fn compress(pieces: &mut [Piece]) {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    let count = pieces.len();
    for (at, piece) in pieces.iter_mut().enumerate() {
        let Piece::Data { bytes, .. } = piece else {
            continue;
        };
        // Writing into memory does not fail.
        let _ = gz.write_all(bytes);
        let _ = if at + 1 == count {
            gz.try_finish()
        } else {
            gz.flush()
        };
        *bytes = std::mem::take(gz.get_mut()).into();
    }
}
