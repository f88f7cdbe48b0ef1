//! Reading a body: bounded in size, in silence, and by the global budget of bytes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use routing::units::Time;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::leases::Bytes as Lease;

/// A body that sends nothing for so long is too slow.
pub const PROGRESS: Duration = Duration::from_secs(10);

/// A request's body: hyper's own, or anything else behind one pointer (tests, embedders).
pub enum Incoming {
    /// From a connection.
    Hyper(hyper::body::Incoming),
    /// From elsewhere.
    Other(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Other(body) => body.as_mut().poll_frame(cx),
        }
    }
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// Reads it to the end. `lease` grows with what is held. The body is left where it stood when something is wrong, so
/// that the rest can be drained.
///
/// # Errors
/// 413, 408, 503 (no bytes left in the budget), 504 (the deadline), 400 (it broke off).
pub async fn read(
    body: &mut Incoming,
    max: u64,
    lease: &mut Lease,
    clock: &Clock,
    deadline: Time,
) -> Result<Bytes> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|n| n > max) {
        return Err(too_large(max));
    }
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    loop {
        let at = (clock.now() + PROGRESS).min(deadline);
        let frame = match clock.within(at, body.frame()).await {
            None if clock.now() >= deadline => {
                return Err(Error::new(
                    Kind::Deadline,
                    "the deadline passed while the body was being read",
                ));
            }
            None => {
                let message = format!(
                    "no byte of the body came for {} s; send it at once",
                    PROGRESS.as_secs()
                );
                return Err(Error::new(Kind::BodyTimeout, message));
            }
            Some(None) => break,
            Some(Some(Err(_))) => {
                return Err(Error::new(
                    Kind::BodyBroken,
                    "the body ended before its length, or its chunks are broken",
                ));
            }
            Some(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let have = (first.as_ref().map_or(0, Bytes::len) + whole.len() + data.remaining()) as u64;
        if have > max {
            return Err(too_large(max));
        }
        if !lease.grow_to(have) {
            return Err(budget());
        }
        // One piece is passed on as it is; only a second one is worth a copy.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(before) => {
                // What was announced is in the budget already, and memory takes no room before it is written to.
                whole.reserve(usize::try_from(announced.unwrap_or(have)).unwrap_or(0));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&data);
            }
        }
        // Without a length it grows by doubling: what is set aside counts.
        if announced.is_none() && !lease.grow_to(whole.capacity() as u64) {
            return Err(budget());
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

fn too_large(max: u64) -> Error {
    Error::new(
        Kind::BodyTooLarge,
        format!("the body is larger than {max} bytes (server.max_body_bytes)"),
    )
}

/// The tenant's part of it is used up.
pub fn share() -> Error {
    Error::new(
        Kind::BodiesFull,
        "the bodies of this tenant take all the memory they may (server.tenant_body_share); try again in a moment",
    )
    .code("tenant_bytes_in_flight")
}

/// The budget of all bodies, or the tenant's part of it, is used up.
pub fn budget() -> Error {
    Error::new(
        Kind::BodiesFull,
        "the bodies being served take all the memory they may (server.max_body_bytes_in_flight); try again in a moment",
    )
    .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use metrics::Gauge;

    use super::*;
    use crate::leases::ByteBudget;

    /// So many pieces of 40,000 bytes; `announced`: with their length.
    struct Pieces {
        left: usize,
        announced: bool,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
            let Some(left) = self.left.checked_sub(1) else {
                return Poll::Ready(None);
            };
            self.left = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 40_000])))))
        }
        fn size_hint(&self) -> SizeHint {
            if self.announced {
                SizeHint::with_exact(self.left as u64 * 40_000)
            } else {
                SizeHint::default()
            }
        }
    }

    /// A body without a length grows by doubling, one with a length takes what it announced: either way that is counted.
    #[tokio::test]
    async fn what_is_set_aside_is_counted() {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_secs(10);
        for (announced, most, held) in [
            (true, 120_000, Some(120_000)),
            (false, 130_000, None),
            (false, 200_000, Some(160_000)),
        ] {
            let budget = ByteBudget::new(most, Gauge::noop());
            let mut lease = budget.take(0).unwrap();
            let mut body = Incoming::other(Pieces { left: 3, announced });
            let got = read(&mut body, 1 << 20, &mut lease, &clock, until).await;
            assert_eq!(got.is_ok(), held.is_some(), "{announced} {most}");
            assert!(
                held.is_none_or(|held| budget.used() == held),
                "{announced} {most}: {}",
                budget.used()
            );
        }
    }
}
