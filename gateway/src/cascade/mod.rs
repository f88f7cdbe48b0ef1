//! Step 11, the cascade: carries out what `routing::cascade` decides.
//!
//! [`run`] drives until the commit. Whole answers are then complete; a stream's [`Driver`] moves, boxed once, into the
//! body and forwards frames from there. Nothing above sees a try that was given up: until the commit the caller has
//! received nothing, and after it only one target speaks.

mod account;
mod attempt;
mod driver;
mod errors;
mod expect;
mod joining;
mod piece;
mod running;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use routing::decide::Decision;
use routing::facts::Facts;
use routing::ids::TargetId;
use routing::plan::Plan;
use routing::signals::Signals;
use routing::units::{NanoUsd, Time};
use routing::verify::Question;

pub use account::Account;
pub use driver::Driver;
pub use expect::expected;
pub use piece::Piece;
pub use watch::judged_whole;

use crate::body::Source;
use crate::cache::Entry;
use crate::call::Call;
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::limits::{Meter, Reservation};
use crate::providers::Client;
use crate::providers::pool::Pool;
use crate::target_state::{Seat, TargetState};
use routing::budget::Budgets;

/// A target as the cascade needs it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The way to it; `None`: off, or still starting.
    pub client: Option<Client>,
    /// What is known of it.
    pub state: Arc<TargetState>,
    /// What its provider grants, where the plan says so.
    pub granted: Option<Arc<Meter>>,
}

/// One request, ready to be tried.
#[derive(Debug)]
pub struct Work {
    /// The one clock.
    pub clock: Clock,
    /// The call.
    pub call: Arc<Call>,
    /// The plan that the request began with.
    pub plan: Arc<Plan>,
    /// By target index.
    pub targets: Arc<[Target]>,
    /// Upstream connections of the runtime that the request lives on.
    pub pool: Arc<Pool>,
    /// For repeats and hedges.
    pub budgets: Arc<Budgets>,
    /// What the request holds of the limits that cover it; absent where there are none.
    pub reservation: Option<Arc<Reservation>>,
    /// A place at the target that is to be asked first, where step 9 took one.
    pub seat: Option<Seat>,
    /// What the decision saw.
    pub signals: Signals,
    /// The decision.
    pub decision: Box<Decision>,
    /// Its facts.
    pub facts: Arc<Facts>,
    /// What the checks must know of the request; absent where nothing is checked.
    pub question: Option<Arc<Question>>,
    /// The caller's patience.
    pub deadline: Time,
    /// How often the client has sent this before.
    pub resent: u32,
    /// Bounds everything, a stream after its commit included; never, unless the caller said so itself.
    pub until: Time,
    /// The silence that the caller's client announced it would bear.
    pub silence: Option<Duration>,
    /// When the request's head came.
    pub began: Time,
    /// Randomness for jitter.
    pub seed: u64,
    /// `x-request-id`.
    pub request_id: Arc<str>,
    /// Passed on upstream.
    pub traceparent: Option<Box<str>>,
    /// Several may read the answer, or it may be kept: what its pieces say is wanted beside their bytes.
    pub shared: bool,
    /// An older answer to the same question, for the ladder.
    pub stale: Option<Arc<Entry>>,
}

impl Work {
    /// How long a stream of this target may be silent: `idle_ms`, or what the caller's client would bear if that is less.
    fn idle(&self, target: TargetId) -> Duration {
        self.borne(self.plan.target(target).timeouts.idle)
    }

    /// How long it may say nothing but that it lives. That is no silence, but nothing that the caller gets either: it has
    /// as long as for its first words.
    fn wordless(&self, target: TargetId) -> Duration {
        let timeouts = &self.plan.target(target).timeouts;
        self.borne(timeouts.idle.max(timeouts.first_token))
    }

    fn borne(&self, own: Duration) -> Duration {
        self.silence.map_or(own, |announced| announced.min(own))
    }
}

/// What the head of a response says. For streams it speaks of what was true at the commit.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Who answers.
    pub target: Option<TargetId>,
    /// Its tier in the cascade that was used.
    pub tier: u8,
    /// Tries so far.
    pub attempts: u8,
    /// `step; reason=why`.
    pub degraded: Option<String>,
    /// `full`, `prefix:N`, `none`.
    pub verified: String,
    /// `pass`, `fail:check`, `unchecked`.
    pub verdict: String,
    /// Allow-listed headers of the provider.
    pub upstream: HeaderMap,
    /// Whole answers: cost of all tries, where every price is known.
    pub cost: Option<NanoUsd>,
    /// Fields that the answering local target does not know.
    pub ignored: Vec<String>,
}

/// The answer.
pub enum Answer {
    /// The whole body.
    Whole(Bytes),
    /// Server-sent events.
    Stream(Box<Driver>),
    /// Server-sent events of a call that others may read as well.
    Shared(Box<dyn Source>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(body) => f.debug_tuple("Whole").field(body).finish(),
            Self::Stream(driver) => f.debug_tuple("Stream").field(driver).finish(),
            Self::Shared(_) => f.write_str("Shared"),
        }
    }
}

/// A committed answer.
#[derive(Debug)]
pub struct Reply {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Answer,
    /// The tries of a whole answer; a stream's driver hands its own over at the end ([`Driver::account`]).
    pub account: Account,
}

/// No answer.
#[derive(Debug)]
pub struct Failure {
    /// What the caller is told.
    pub error: Error,
    /// The tries.
    pub account: Account,
    /// What the head says beside the error (attempts, degraded).
    pub head: Head,
}

/// Tries until an answer is committed, or none can be had.
///
/// Dropping the future cancels what runs; `abandoned` is then told of the tries so far, as the caller never will be.
///
/// # Errors
/// [`Failure`] with the error for the caller and the tries that led to it.
pub async fn run(work: Work, abandoned: impl FnMut(Account)) -> Result<Reply, Box<Failure>> {
    let mut driving = Driving {
        driver: Some(Box::new(Driver::new(work))),
        abandoned,
    };
    let committed = std::future::poll_fn(|cx| match &mut driving.driver {
        Some(driver) => driver.poll_commit(cx),
        None => Poll::Pending,
    })
    .await;
    let Some(mut driver) = driving.driver.take() else {
        return Err(Box::new(Failure {
            error: Error::new(Kind::Bug, "a cascade without its driver"),
            account: Account::default(),
            head: Head::default(),
        }));
    };
    match committed {
        Err(error) => Err(Box::new(Failure {
            error,
            head: driver.head(),
            account: driver.account(),
        })),
        Ok(Some(piece)) => Ok(Reply {
            head: driver.head(),
            account: driver.account(),
            body: Answer::Whole(piece.wire.unwrap_or_default()),
        }),
        Ok(None) => Ok(Reply {
            head: driver.head(),
            account: Account::default(),
            body: Answer::Stream(driver),
        }),
    }
}

/// A driver before its commit: a request that is dropped here still says what it tried.
struct Driving<F: FnMut(Account)> {
    driver: Option<Box<Driver>>,
    abandoned: F,
}

impl<F: FnMut(Account)> Drop for Driving<F> {
    fn drop(&mut self) {
        if let Some(mut driver) = self.driver.take() {
            (self.abandoned)(driver.account());
        }
    }
}
