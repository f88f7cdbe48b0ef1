//! Providers: one folder a dialect, one neutral event above them all. Wire types never leave their folder.
//!
//! A try is [`Client::call`], then [`ReplyBody::poll_next`] until a frame holds [`event::Event::Done`] or an error
//! comes. The rules that hold for every provider:
//!
//! * Every answer begins with [`event::Event::Meta`] and ends with exactly one `Done` frame or one error. A stream that
//!   ends without a finish reason, an error event and an event that is not JSON are errors, never an end.
//! * [`event::Frame::wire`] is ready to send to an OpenAI-speaking caller, whatever the provider speaks. For whole
//!   answers only the last frame has it.
//! * Dropping a call or a body, at any point, closes the connection or cancels the local generation. After `Done` the
//!   connection goes back to the pool instead.
//! * Clocks: `connect` is armed inside [`Client::call`]; first token, idle and attempt are the driver's.

pub mod anthropic;
pub mod event;
pub mod failure;
pub mod fake;
mod hidden;
pub mod http;
pub mod json;
pub mod knock;
pub mod local;
pub mod openai;
pub mod pool;
pub mod render;
pub mod sse;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod translate;
pub mod upstream;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::HeaderMap;

use crate::call::Call;
use crate::clock::Clock;
use event::Frame;
use failure::AttemptError;

/// What a try is told beside the call itself.
#[derive(Debug)]
pub struct CallContext<'a> {
    /// The clock that everything here reads.
    pub clock: &'a Clock,
    /// Upstream connections of the runtime that the request lives on.
    pub pool: &'a Arc<pool::Pool>,
    /// DNS, proxy, TCP and TLS together: min(`connect_ms`, deadline left).
    pub connect: Duration,
    /// Deadline left, for a queue that should refuse what it cannot begin in time.
    pub left: Option<Duration>,
    /// This request's id; answers made here are named after it, and it is sent upstream.
    pub request_id: &'a str,
    /// Passed on as it came (already checked), or made here.
    pub traceparent: Option<&'a str>,
    /// `false` for calls with effects upstream (`store`, hosted tools): then a reused connection that closed after
    /// the request was written is an error, not a redial.
    pub may_resend: bool,
}

/// A way to one target. Cheap to clone and free of per-request state.
#[derive(Clone, Debug)]
pub enum Client {
    /// Over HTTP.
    Http(Arc<http::HttpTarget>),
    /// Inside this process.
    Local(local::LocalTarget),
    /// A script, for exact tests.
    Fake(fake::FakeTarget),
}

impl Client {
    /// Starts one try: resolves when the provider has accepted it (response head with a 2xx, or a place in the local
    /// queue).
    ///
    /// # Errors
    /// [`AttemptError`] with what happened and, for error statuses, the provider's own words.
    pub async fn call(&self, call: &Call, ctx: &CallContext<'_>) -> Result<Reply, AttemptError> {
        match self {
            Client::Http(target) => target.call(call, ctx).await,
            Client::Local(target) => target.call(call, ctx).await,
            Client::Fake(target) => target.call(call, ctx).await,
        }
    }
}

/// An accepted try.
#[derive(Debug)]
pub struct Reply {
    /// The provider's status; 200 for local targets.
    pub status: u16,
    /// Allow-listed headers of the provider: `retry-after`, `x-ratelimit-*`, `x-request-id`, ...
    pub headers: HeaderMap,
    /// The try went over a connection that had served before.
    pub reused: bool,
    /// A reused connection had closed, and the same try was dialled anew.
    pub redialled: bool,
    /// The answer.
    pub body: ReplyBody,
}

/// An answer as it comes.
#[derive(Debug)]
pub enum ReplyBody {
    /// Over HTTP.
    Http(Box<http::HttpBody>),
    /// A local model's.
    Local(Box<local::answer::LocalBody>),
    /// All of it in one frame.
    One(Option<Box<Frame>>),
    /// A script.
    Fake(Box<fake::FakeBody>),
}

impl ReplyBody {
    /// The next frame. `None` only after a frame with [`event::Event::Done`], or after an error.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, AttemptError>>> {
        match self {
            ReplyBody::Http(body) => body.poll_next(cx),
            ReplyBody::Local(body) => body.poll_next(cx),
            ReplyBody::One(frame) => Poll::Ready(frame.take().map(|frame| Ok(*frame))),
            ReplyBody::Fake(body) => body.poll_next(cx),
        }
    }

    /// [`ReplyBody::poll_next`] as a future. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Frame, AttemptError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}
