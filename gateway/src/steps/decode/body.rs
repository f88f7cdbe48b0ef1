//! Reading a body: bounded in size, in silence, in pace, and by the global budget of bytes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use routing::units::Time;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::leases::{Bytes as Lease, Short};
use crate::server::watch::Counted;

/// A body that sends nothing for so long is too slow.
pub const PROGRESS: Duration = Duration::from_secs(10);
/// And so is one that, beyond its first [`PROGRESS`], came at fewer bytes a second than this, over all of its length: it
/// holds memory that others wait for.
pub const LEAST_A_SECOND: u64 = 512;

/// A request's body: hyper's own, or anything else behind one pointer (tests, embedders).
pub enum Incoming {
    /// From a connection.
    Hyper(hyper::body::Incoming),
    /// From an HTTP/2 connection, which is told what was read of it.
    Counted(Counted),
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
            Self::Counted(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Other(body) => body.as_mut().poll_frame(cx),
        }
    }
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Counted(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Counted(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// Reads it to the end. `lease` grows with what is held: with what has come, and never with what was only announced. The body
/// is left where it stood when something is wrong, so that the rest can be drained. `came` counts its bytes, also then.
///
/// # Errors
/// 413, 408, 503 (no bytes left in a budget), 504 (the deadline), 400 (it broke off).
pub async fn read(
    body: &mut Incoming,
    max: u64,
    lease: &mut Lease,
    clock: &Clock,
    deadline: Time,
    came: &mut u64,
) -> Result<Bytes> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|n| n > max) {
        return Err(too_large(max));
    }
    // What cannot fit is refused before it is read.
    lease.fits(announced.unwrap_or(0)).map_err(short)?;
    let most = announced.unwrap_or(max);
    let began = clock.now();
    let mut first: Option<Bytes> = None;
    let mut whole: Vec<u8> = Vec::new();
    loop {
        let had = (first.as_ref().map_or(0, Bytes::len) + whole.len()) as u64;
        let (silent, slow) = (clock.now() + PROGRESS, began + patience(had));
        let frame = match clock.within(silent.min(slow).min(deadline), body.frame()).await {
            None if clock.now() >= deadline => {
                return Err(Error::new(
                    Kind::Deadline,
                    "the deadline passed while the body was being read",
                ));
            }
            None => return Err(too_slow(had == 0 || silent <= slow)),
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
        let have = had + data.remaining() as u64;
        *came = have;
        if have > max {
            return Err(too_large(max));
        }
        // One piece is passed on as it is; only a second one is worth a copy.
        if had == 0 {
            lease.grow_to(have).map_err(short)?;
            first = Some(data);
            continue;
        }
        make_room(&mut whole, have, most, lease)?;
        if let Some(before) = first.take() {
            whole.extend_from_slice(&before);
        }
        whole.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| Bytes::from(whole)))
}

/// How long a body may take of which so many bytes have come.
fn patience(bytes: u64) -> Duration {
    PROGRESS + Duration::from_micros(bytes.saturating_mul(1_000_000) / LEAST_A_SECOND)
}

/// Room for `have` bytes, and for as many again, so that not every piece copies those before it; but never for more than
/// `most`, which is all that can come. What is set aside is held.
fn make_room(whole: &mut Vec<u8>, have: u64, most: u64, lease: &mut Lease) -> Result<()> {
    if whole.capacity() as u64 >= have {
        return Ok(());
    }
    let room = have.saturating_mul(2).min(most).max(have);
    lease.grow_to(room).map_err(short)?;
    let more = usize::try_from(room)
        .unwrap_or(usize::MAX)
        .saturating_sub(whole.len());
    whole.reserve_exact(more);
    Ok(())
}

fn too_slow(silent: bool) -> Error {
    let message = if silent {
        format!(
            "no byte of the body came for {} s; send it at once",
            PROGRESS.as_secs()
        )
    } else {
        format!("the body came at fewer than {LEAST_A_SECOND} bytes a second; send it at once, or send less")
    };
    Error::new(Kind::BodyTimeout, message)
}

fn too_large(max: u64) -> Error {
    Error::new(
        Kind::BodyTooLarge,
        format!("the body is larger than {max} bytes (server.max_body_bytes)"),
    )
}

fn short(of: Short) -> Error {
    match of {
        Short::Everybodys => budget(),
        Short::Tenants => share(),
    }
}

/// When room for a body may have come: others end all the time.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// The tenant's part of it is used up.
pub fn share() -> Error {
    Error::new(
        Kind::BodiesFull,
        "the bodies of this tenant take all the memory they may (server.tenant_body_share); try again in a moment",
    )
    .code("tenant_bytes_in_flight")
    .retry_after(ROOM_AGAIN)
}

/// The budget of all bodies is used up.
pub fn budget() -> Error {
    Error::new(
        Kind::BodiesFull,
        "the bodies being served take all the memory they may (server.max_body_bytes_in_flight); try again in a moment",
    )
    .retry_after(ROOM_AGAIN)
}

#[cfg(test)]
mod tests {
    use metrics::Gauge;

    use super::*;
    use crate::leases::{ByteBudget, TenantBytes};

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

    /// A body grows by doubling, but never beyond what it announced or what a body may be: what is set aside is counted.
    #[tokio::test]
    async fn what_is_set_aside_is_counted() {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_secs(10);
        for (announced, max, most, held) in [
            (true, 1 << 20, 120_000, Some(120_000)),
            (true, 1 << 20, 119_999, None),
            (false, 1 << 20, 130_000, None),
            (false, 1 << 20, 200_000, Some(160_000)),
            // A body that may be sent fits into a budget that holds just one of the largest.
            (false, 130_000, 130_000, Some(130_000)),
        ] {
            let budget = ByteBudget::new(most, Gauge::noop());
            let mut lease = budget.lease();
            let mut body = Incoming::other(Pieces { left: 3, announced });
            let got = read(&mut body, max, &mut lease, &clock, until, &mut 0).await;
            assert_eq!(got.is_ok(), held.is_some(), "{announced} {max} {most}");
            assert!(
                held.is_none_or(|held| budget.used() == held),
                "{announced} {max} {most}: {}",
                budget.used()
            );
        }
    }

    /// The budget that was short is the one that is told, and both say when to come again.
    #[tokio::test]
    async fn whose_budget_was_short_is_told() {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_secs(10);
        for (all, part, code) in [
            (1 << 20, 100_000, "tenant_bytes_in_flight"),
            (100_000, 1 << 20, "too_many_bytes_in_flight"),
        ] {
            for announced in [true, false] {
                let (budget, tenants) = (ByteBudget::new(all, Gauge::noop()), TenantBytes::new(part));
                let mut lease = budget.lease();
                assert!(lease.belong_to(tenants.of(&"a".into())));
                let mut body = Incoming::other(Pieces { left: 3, announced });
                let error = read(&mut body, 1 << 20, &mut lease, &clock, until, &mut 0)
                    .await
                    .unwrap_err();
                let said = String::from_utf8_lossy(&error.json()).into_owned();
                assert!(said.contains(code), "{said}");
                assert_eq!(error.retry_after_hint(), Some(ROOM_AGAIN), "{said}");
                assert_eq!(lease.held() == 0, announced, "what cannot fit is not begun");
            }
        }
    }

    /// A piece of so many bytes, again and again, each after a while; 8 MiB are announced.
    struct Drips {
        clock: Clock,
        bytes: usize,
        every: Duration,
        next: Pin<Box<tokio::time::Sleep>>,
        left: u64,
    }

    impl Drips {
        fn new(clock: &Clock, bytes: usize, every: Duration) -> Self {
            Self {
                clock: clock.clone(),
                bytes,
                every,
                next: Box::pin(clock.sleep(every)),
                left: 8 << 20,
            }
        }
    }

    impl Body for Drips {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            if self.next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let next = self.clock.sleep(self.every);
            self.next = Box::pin(next);
            let bytes = self.bytes.min(usize::try_from(self.left).unwrap());
            self.left -= bytes as u64;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; bytes])))))
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.left)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_ended() {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_secs(3_600);
        for (bytes, every, within) in [
            // Never silent for as long as it may be.
            (1, Duration::from_secs(9), 11),
            // Half of the pace: what came buys as much time again.
            (LEAST_A_SECOND as usize / 2, Duration::from_secs(1), 21),
        ] {
            let budget = ByteBudget::new(16 << 20, Gauge::noop());
            let (mut lease, began) = (budget.lease(), clock.now());
            let mut body = Incoming::other(Drips::new(&clock, bytes, every));
            let error = read(&mut body, 8 << 20, &mut lease, &clock, until, &mut 0)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::BodyTimeout);
            assert!(error.message().contains("bytes a second"), "{}", error.message());
            let took = clock.now().since(began);
            assert!(
                (PROGRESS..Duration::from_secs(within)).contains(&took),
                "{bytes}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_the_pace_is_read_however_long_it_takes() {
        let clock = Clock::system();
        let until = clock.now() + Duration::from_secs(3_600);
        let budget = ByteBudget::new(16 << 20, Gauge::noop());
        let (mut lease, began) = (budget.lease(), clock.now());
        let mut body = Incoming::other(Drips::new(&clock, 32 << 10, Duration::from_secs(5)));
        let got = read(&mut body, 8 << 20, &mut lease, &clock, until, &mut 0)
            .await
            .unwrap();
        assert_eq!((got.len(), budget.used()), (8 << 20, 8 << 20));
        assert!(clock.now().since(began) > 100 * PROGRESS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_and_has_not_come_is_not_held() {
        let clock = Clock::system();
        let budget = ByteBudget::new(9 << 20, Gauge::noop());
        let mut lease = budget.lease();
        let mut body = Incoming::other(Drips::new(&clock, 1_000, Duration::from_secs(2)));
        for (seconds, most) in [(1, 0), (4, 5_000)] {
            let until = clock.now() + Duration::from_secs(seconds);
            let mut came = 0;
            let reading = read(&mut body, 8 << 20, &mut lease, &clock, Time::NEVER, &mut came);
            assert!(clock.within(until, reading).await.is_none());
            assert!(budget.used() <= most, "{}", budget.used());
        }
        assert!(budget.take(8 << 20).is_some(), "there is room for another");
    }
}
