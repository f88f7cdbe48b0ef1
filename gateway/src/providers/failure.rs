//! Why one try failed. Facts only: what that means (try again, go elsewhere, whose fault) is decided by
//! `routing::outcome` from the same fields.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use routing::outcome::{
    CallerFault, Evidence, Graded, Neutral, Outcome, TargetFault, Transport, Wording, classify,
};

use crate::error::Kind;

/// Which clock of a try ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TryClock {
    /// DNS, TCP, TLS and proxy together (`connect_ms`).
    Connect,
    /// No first content (`first_token_ms`).
    FirstToken,
    /// Silence (`idle_ms`).
    Idle,
    /// The whole try (`attempt_ms`).
    Attempt,
}

/// What happened to the try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The host's name did not resolve.
    Resolve,
    /// No TCP connection, or the proxy did not make one.
    Connect,
    /// TLS failed: certificate, name or protocol.
    Tls,
    /// A clock ran out. [`TryClock::Connect`] is armed here, the others by the driver.
    Timeout(TryClock),
    /// The connection broke before a byte of the answer.
    Reset,
    /// The provider answered with an error status.
    Status(u16),
    /// The provider reported an error inside a 200 (body or event); the status is the one it names or implies, or 0.
    InBand(u16),
    /// The answer is not what the API promises: not JSON, HTML, compressed, headers too large, a broken framing.
    BadAnswer,
    /// The answer broke off: the body ended early, or a stream ended without a finish reason.
    Cut,
    /// The answer is larger than we hold.
    TooLarge,
    /// Local: the queue is full, or the wait is longer than the time left.
    QueueFull,
    /// Local: the request's own deadline passed in the queue.
    Expired,
    /// Local: the prompt does not fit.
    ContextLength,
    /// Local: the model is not loaded (yet, or any more).
    NotReady,
    /// Local: the engine failed.
    Engine,
    /// The request is wrong for this target whatever the target's state: a field of a wrong shape or value. Nothing was
    /// sent.
    Invalid,
    /// The request cannot be said in this target's dialect; nothing was sent.
    Unsupported,
    /// This target is off: no key, or one that cannot be sent. Nothing was sent.
    Off,
    /// A mistake of ours, caught.
    Bug,
}

impl Fault {
    /// A short label for metrics and records. Bounded: statuses are one label a class.
    pub fn label(self) -> &'static str {
        match self {
            Fault::Resolve => "resolve",
            Fault::Connect => "connect",
            Fault::Tls => "tls",
            Fault::Timeout(TryClock::Connect) => "connect_timeout",
            Fault::Timeout(TryClock::FirstToken) => "first_token_timeout",
            Fault::Timeout(TryClock::Idle) => "idle_timeout",
            Fault::Timeout(TryClock::Attempt) => "attempt_timeout",
            Fault::Reset => "reset",
            Fault::Status(429) => "status_429",
            Fault::Status(400..=499) => "status_4xx",
            Fault::Status(500..=599) => "status_5xx",
            Fault::Status(_) => "status_other",
            Fault::InBand(_) => "in_band",
            Fault::BadAnswer => "bad_answer",
            Fault::Cut => "cut",
            Fault::TooLarge => "too_large",
            Fault::QueueFull => "queue_full",
            Fault::Expired => "expired",
            Fault::ContextLength => "context_length",
            Fault::NotReady => "not_ready",
            Fault::Engine => "engine",
            Fault::Invalid => "invalid",
            Fault::Unsupported => "unsupported",
            Fault::Off => "off",
            Fault::Bug => "bug",
        }
    }
}

/// The provider's own words, from an error body or event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// For people. May quote the prompt: shown to the caller whose prompt it is, never recorded or logged.
    pub message: String,
    /// `error.type`.
    pub kind: Option<Box<str>>,
    /// `error.code`.
    pub code: Option<Box<str>>,
    /// `error.param`.
    pub param: Option<Box<str>>,
}

impl UpstreamError {
    fn wording(&self) -> Wording<'_> {
        Wording {
            code: self.code.as_deref().unwrap_or_default(),
            kind: self.kind.as_deref().unwrap_or_default(),
            message: &self.message,
            param: self.param.as_deref().unwrap_or_default(),
        }
    }
}

/// A failed try.
#[derive(Clone)]
pub struct AttemptError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    fault: Fault,
    detail: String,
    upstream: Option<UpstreamError>,
    text: Option<Box<str>>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    sent: bool,
    redialled: bool,
    not_again: bool,
}

impl AttemptError {
    /// A fault and a sentence: what happened, where, and what to look at. Never contains upstream text.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            fault,
            detail: detail.into(),
            upstream: None,
            text: None,
            retry_after: None,
            headers: HeaderMap::new(),
            sent: false,
            redialled: false,
            not_again: false,
        }))
    }
    /// With the provider's own words.
    pub fn with_upstream(mut self, upstream: UpstreamError) -> Self {
        self.0.upstream = Some(upstream);
        self
    }
    /// With a body that is plain text: read for what it means, shown to nobody.
    pub fn with_text(mut self, text: Option<String>) -> Self {
        self.0.text = text.map(String::into_boxed_str);
        self
    }
    /// With the wait that the provider, or our own queue, asks for.
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.0.retry_after = after;
        self
    }
    /// With the allow-listed headers of the answer.
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers = headers;
        self
    }
    /// The request's body had been handed to the provider: the try may have been billed.
    pub fn sent(mut self) -> Self {
        self.0.sent = true;
        self
    }
    /// A reused connection had closed and the same try was dialled anew.
    pub fn redialled(mut self, yes: bool) -> Self {
        self.0.redialled = yes;
        self
    }

    /// The answer said `x-should-retry: false`.
    pub fn not_again(mut self, yes: bool) -> Self {
        self.0.not_again = yes;
        self
    }

    /// With every text in it that may be shown replaced by what `write` makes of it, where it makes something; a header
    /// that would change is left out.
    pub(super) fn rewritten(mut self, write: impl Fn(&str) -> Option<String>) -> Self {
        let Inner {
            detail,
            upstream,
            headers,
            ..
        } = &mut *self.0;
        if let Some(text) = write(detail) {
            *detail = text;
        }
        if let Some(says) = upstream {
            if let Some(text) = write(&says.message) {
                says.message = text;
            }
            for word in [&mut says.kind, &mut says.code, &mut says.param] {
                if let Some(text) = word.as_deref().and_then(&write) {
                    *word = Some(text.into());
                }
            }
        }
        let changes = |value: &http::HeaderValue| value.to_str().is_ok_and(|text| write(text).is_some());
        if headers.values().any(changes) {
            let kept = headers.iter().filter(|(_, value)| !changes(value));
            *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        self
    }

    /// What happened.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }
    /// The sentence for logs and records; holds no upstream text.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
    /// The provider's words, when it had any.
    pub fn upstream(&self) -> Option<&UpstreamError> {
        self.0.upstream.as_ref()
    }
    /// Status that the provider gave or named.
    pub fn status(&self) -> Option<u16> {
        match self.0.fault {
            Fault::Status(s) => Some(s),
            Fault::InBand(s) if s != 0 => Some(s),
            _ => None,
        }
    }
    /// Wait that was asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
    /// Allow-listed headers of the answer, if one came.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }
    /// The body was sent and its answer lost or refused: it may have been billed.
    pub fn was_sent(&self) -> bool {
        self.0.sent
    }
    /// Whose fault it was, by the one table in `routing::outcome`, with what the target said about coming back.
    pub fn graded(&self) -> Graded {
        Graded {
            outcome: self.outcome(),
            retry_after: self.0.retry_after,
            maybe_billed: self.maybe_billed(),
        }
    }

    fn outcome(&self) -> Outcome {
        let transport = |t| classify(Evidence::Transport(t));
        match self.0.fault {
            Fault::Resolve | Fault::Connect | Fault::Tls => transport(Transport::Connect),
            Fault::Timeout(TryClock::Connect) => transport(Transport::ConnectTimeout),
            Fault::Timeout(TryClock::FirstToken) => transport(Transport::FirstTokenTimeout),
            Fault::Timeout(TryClock::Idle) => transport(Transport::IdleTimeout),
            Fault::Timeout(TryClock::Attempt) => transport(Transport::AttemptTimeout),
            Fault::Reset => transport(Transport::Reset),
            Fault::Cut => transport(Transport::Cut),
            Fault::BadAnswer | Fault::TooLarge => transport(Transport::Malformed),
            Fault::Status(status) => classify(match &self.0.upstream {
                Some(said) => Evidence::Status {
                    status,
                    wording: said.wording(),
                },
                None => Evidence::NotJson {
                    status,
                    text: self.0.text.as_deref().unwrap_or_default(),
                },
            }),
            Fault::InBand(_) => classify(Evidence::InBand(
                self.0
                    .upstream
                    .as_ref()
                    .map_or_else(Wording::default, UpstreamError::wording),
            )),
            Fault::QueueFull | Fault::NotReady => Outcome::TargetFault(TargetFault::Overloaded),
            Fault::Expired => Outcome::Neutral(Neutral::Deadline),
            Fault::Engine => Outcome::TargetFault(TargetFault::ServerError),
            Fault::ContextLength => Outcome::CallerFault(CallerFault::ContextOverflow),
            Fault::Unsupported => Outcome::CallerFault(CallerFault::UnsupportedParameter),
            Fault::Invalid => Outcome::CallerFault(CallerFault::InvalidRequest),
            Fault::Off => Outcome::TargetFault(TargetFault::Auth),
            Fault::Bug => Outcome::Neutral(Neutral::Internal),
        }
    }

    /// The request was written, and whether it was answered (and billed) nobody told us. An error status is an answer.
    fn maybe_billed(&self) -> bool {
        let lost = match self.0.fault {
            Fault::Reset | Fault::Cut | Fault::BadAnswer | Fault::TooLarge | Fault::InBand(_) => true,
            Fault::Timeout(clock) => clock != TryClock::Connect,
            _ => false,
        };
        self.0.sent && lost
    }

    /// The target asks not to be sent the same again: it may be a gateway that has spent its own tries, and ours on top
    /// would multiply them.
    pub fn asks_no_repeat(&self) -> bool {
        // In the middle of a stream there are no headers left; a gateway like this one tells by this code that it has
        // tried to go on, and could not.
        let spent = |says: &UpstreamError| says.code.as_deref() == Some(Kind::StreamCut.row().code);
        self.0.not_again || self.0.upstream.as_ref().is_some_and(spent)
    }

    /// See [`AttemptError::redialled`].
    pub fn was_redialled(&self) -> bool {
        self.0.redialled
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.fault.label(), self.0.detail)
    }
}
impl fmt::Debug for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Upstream text stays out: it quotes prompts.
        write!(
            f,
            "AttemptError({:?}, {:?}, sent {})",
            self.0.fault, self.0.detail, self.0.sent
        )
    }
}
impl std::error::Error for AttemptError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fault: Fault) -> Outcome {
        AttemptError::new(fault, "x").graded().outcome
    }

    #[test]
    fn the_table_is_asked() {
        let said = |code: &str| UpstreamError {
            code: Some(code.into()),
            ..UpstreamError::default()
        };
        let quota = AttemptError::new(Fault::Status(429), "x").with_upstream(said("insufficient_quota"));
        assert_eq!(quota.graded().outcome, Outcome::TargetFault(TargetFault::Quota));
        assert_eq!(
            outcome(Fault::Status(502)),
            Outcome::TargetFault(TargetFault::ServerError)
        );
        let long = AttemptError::new(Fault::InBand(400), "x").with_upstream(said("context_length_exceeded"));
        assert_eq!(
            long.graded().outcome,
            Outcome::CallerFault(CallerFault::ContextOverflow)
        );
        assert_eq!(outcome(Fault::Cut), Outcome::TargetFault(TargetFault::Cut));
        assert_eq!(
            outcome(Fault::QueueFull),
            Outcome::TargetFault(TargetFault::Overloaded)
        );
        assert_eq!(
            outcome(Fault::Timeout(TryClock::FirstToken)),
            Outcome::TargetFault(TargetFault::FirstTokenTimeout)
        );
    }

    #[test]
    fn a_gateway_that_could_not_go_on_is_not_asked_to_again() {
        let said = |code: &str| {
            let code = Some(code.into());
            AttemptError::new(Fault::InBand(502), "x").with_upstream(UpstreamError {
                code,
                ..UpstreamError::default()
            })
        };
        assert!(said("stream_cut").asks_no_repeat());
        assert!(!said("overloaded").asks_no_repeat());
    }

    #[test]
    fn what_may_have_been_billed() {
        let billed = |fault, sent: bool| {
            let e = AttemptError::new(fault, "x");
            if sent { e.sent() } else { e }.graded().maybe_billed
        };
        assert!(billed(Fault::Cut, true));
        assert!(billed(Fault::Timeout(TryClock::Idle), true));
        assert!(!billed(Fault::Reset, false));
        assert!(!billed(Fault::Status(500), true));
    }
}
