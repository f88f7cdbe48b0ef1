//! What became of one try: whose fault it was, and what may be done about it. One table for every provider.
//!
//! [`classify`] reads evidence (a status with an error body, a broken transport, an error event inside a stream) and
//! returns an [`Outcome`]; [`Outcome::advice`] says what follows. Nothing here looks at which target it was.

use std::time::Duration;

use serde::Serialize;

use crate::signals::Hold;

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "outcome", content = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// A whole answer with a finish reason.
    Ok,
    /// The target's (or our account's) fault: another target may well succeed.
    TargetFault(TargetFault),
    /// The request's fault: never sent again as it was; counts against no target.
    CallerFault(CallerFault),
    /// Nobody's fault; counts for and against nothing.
    Neutral(Neutral),
}

/// Faults of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetFault {
    /// 429: too many requests or tokens. Holds the target, never opens the breaker.
    RateLimited,
    /// 503, 529 or a body that says so; a local queue that is full.
    Overloaded,
    /// Any other 5xx, and an error event without a kind that we know.
    ServerError,
    /// No connection within `connect_ms`.
    ConnectTimeout,
    /// No connection: refused, no route, name not found, TLS.
    Connect,
    /// No content within `first_token_ms`. Never tried again on the same target.
    FirstTokenTimeout,
    /// Not committed within `attempt_ms`.
    AttemptTimeout,
    /// A stream was silent for `idle_ms`.
    IdleTimeout,
    /// The connection broke before any content.
    Reset,
    /// The answer ended in the middle: without a finish reason, or short of its declared length.
    Cut,
    /// What arrived cannot be read: not JSON, not the dialect, an HTML page.
    Malformed,
    /// 401 or 403: our key. The target goes off.
    Auth,
    /// `insufficient_quota`, billing: our account. The target goes off.
    Quota,
    /// `model_not_found`: our plan. The target goes off.
    ModelNotFound,
    /// The target could still be escalated from and took longer than the route's `max_added_ms`. Counts as slow, not as
    /// broken.
    TooSlow,
}

/// Faults of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerFault {
    /// The prompt (with the answer asked for) does not fit the model's context.
    ContextOverflow,
    /// A provider's content filter refused prompt or answer.
    ContentFilter,
    /// A parameter, or a value of one, that this model does not take.
    UnsupportedParameter,
    /// The body is too large for the provider.
    TooLarge,
    /// Any other 4xx.
    InvalidRequest,
}

/// Ends that are nobody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Neutral {
    /// We ended it (client gone, another try won, a check failed).
    Cancelled,
    /// The request's own deadline passed.
    Deadline,
    /// A bug of ours below the cascade (a panic that was caught).
    Internal,
}

/// What an outcome allows and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Advice {
    /// May be sent to the same target again (budgets permitting).
    pub same_target: bool,
    /// May be sent to another target.
    pub elsewhere: bool,
    /// ... but only to one with a larger context, or an unknown one.
    pub larger_context: bool,
    /// ... but only if it was we who chose the target (a route, not a pinned target).
    pub only_if_chosen: bool,
    /// The target goes off, loudly: key, account or plan must be mended by a person.
    pub target_off: bool,
    /// The target is held back for everyone: for `retry-after`, else for one backoff step.
    pub hold: bool,
    /// Counts as a failure for the target's breaker.
    pub breaker: bool,
}

/// An error as a provider words it, from a body or an event inside a stream. Empty fields are absent ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wording<'a> {
    /// `error.code`.
    pub code: &'a str,
    /// `error.type`.
    pub kind: &'a str,
    /// `error.message` (or the body's text, bounded by the caller of this function).
    pub message: &'a str,
    /// `error.param`.
    pub param: &'a str,
}

/// What a try left behind.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// A status with an error body in a shape that we know.
    Status {
        /// HTTP status.
        status: u16,
        /// What the body said.
        wording: Wording<'a>,
    },
    /// A status with a body that is not JSON, or not of a shape that we know. 2xx included.
    NotJson {
        /// HTTP status.
        status: u16,
        /// The body as text, bounded by the caller of this function; empty for pages and bytes.
        text: &'a str,
    },
    /// An error event inside a stream or a body with status 200.
    InBand(Wording<'a>),
    /// The transport broke.
    Transport(Transport),
}

/// How a transport breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// No connection within its clock.
    ConnectTimeout,
    /// Refused, unreachable, name not found, TLS.
    Connect,
    /// Broke before any content.
    Reset,
    /// Broke, or ended without a finish reason, after content.
    Cut,
    /// Not HTTP, not the declared encoding, an event that is not JSON.
    Malformed,
    /// First content's clock.
    FirstTokenTimeout,
    /// The try's clock.
    AttemptTimeout,
    /// Silence.
    IdleTimeout,
}

/// A try's outcome together with what the target said about coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Graded {
    /// Whose fault.
    pub outcome: Outcome,
    /// From `retry-after-ms`, `retry-after` (seconds or date): relative to when it was read.
    pub retry_after: Option<Duration>,
    /// The body was sent and the answer was lost: the provider may have billed it.
    pub maybe_billed: bool,
}

impl Graded {
    /// An outcome with nothing to add.
    pub fn plain(outcome: Outcome) -> Self {
        Self {
            outcome,
            retry_after: None,
            maybe_billed: false,
        }
    }
}

impl Outcome {
    /// What it allows and asks for.
    pub fn advice(self) -> Advice {
        match self {
            Outcome::Ok => Advice::default(),
            Outcome::TargetFault(fault) => fault.advice(),
            Outcome::CallerFault(fault) => fault.advice(),
            Outcome::Neutral(Neutral::Internal) => Advice {
                elsewhere: true,
                ..Advice::default()
            },
            Outcome::Neutral(_) => Advice::default(),
        }
    }

    /// A short word for metrics and records; a bounded set.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::TargetFault(fault) => fault.label(),
            Outcome::CallerFault(fault) => fault.label(),
            Outcome::Neutral(Neutral::Cancelled) => "cancelled",
            Outcome::Neutral(Neutral::Deadline) => "deadline",
            Outcome::Neutral(Neutral::Internal) => "internal",
        }
    }
}

impl TargetFault {
    fn advice(self) -> Advice {
        let base = Advice {
            elsewhere: true,
            breaker: true,
            ..Advice::default()
        };
        match self {
            Self::RateLimited => Advice {
                same_target: true,
                hold: true,
                breaker: false,
                ..base
            },
            Self::Overloaded
            | Self::ServerError
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Reset
            | Self::Cut
            | Self::Malformed => Advice {
                same_target: true,
                ..base
            },
            Self::FirstTokenTimeout | Self::AttemptTimeout | Self::IdleTimeout => base,
            Self::Auth | Self::Quota | Self::ModelNotFound => Advice {
                target_off: true,
                breaker: false,
                ..base
            },
            Self::TooSlow => Advice {
                breaker: false,
                ..base
            },
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect => "connect",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::AttemptTimeout => "attempt_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::ModelNotFound => "model_not_found",
            Self::TooSlow => "too_slow",
        }
    }

    /// Nothing of the request can have reached the provider.
    pub fn unsent(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout)
    }
}

impl CallerFault {
    fn advice(self) -> Advice {
        let elsewhere = Advice {
            elsewhere: true,
            only_if_chosen: true,
            ..Advice::default()
        };
        match self {
            Self::ContextOverflow => Advice {
                larger_context: true,
                ..elsewhere
            },
            Self::UnsupportedParameter | Self::TooLarge => elsewhere,
            Self::ContentFilter | Self::InvalidRequest => Advice::default(),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::ContextOverflow => "context_overflow",
            Self::ContentFilter => "content_filter",
            Self::UnsupportedParameter => "unsupported_parameter",
            Self::TooLarge => "too_large",
            Self::InvalidRequest => "invalid_request",
        }
    }
}

impl Graded {
    /// How long the target is held back for everyone: `retry-after` wherever a fault of the target came with one; a 429
    /// without it holds for one backoff step ([`Graded::is_wordless_limit`] counts which).
    pub fn hold(&self, backoff_step: Duration) -> Option<Duration> {
        match self.outcome {
            Outcome::TargetFault(TargetFault::RateLimited) => Some(self.retry_after.unwrap_or(backoff_step)),
            Outcome::TargetFault(TargetFault::Overloaded | TargetFault::ServerError) => self.retry_after,
            _ => None,
        }
    }

    /// A 429 that does not say when to come back. When one follows another, each holds for the backoff's next step: who is
    /// limited for ever is asked ever less often, and providers count the refused too.
    pub fn is_wordless_limit(&self) -> bool {
        self.outcome == Outcome::TargetFault(TargetFault::RateLimited) && self.retry_after.is_none()
    }

    /// What a hold by [`Graded::hold`] is told as.
    pub fn hold_why(&self) -> Hold {
        match self.outcome {
            Outcome::TargetFault(TargetFault::RateLimited) => Hold::Limited,
            _ => Hold::Failed,
        }
    }
}

/// Reads what a try left behind.
pub fn classify(evidence: Evidence<'_>) -> Outcome {
    match evidence {
        Evidence::Status { status, wording } => of_status(status, wording),
        Evidence::NotJson { status, text } => of_bare_status(status, text),
        Evidence::InBand(wording) => of_status(implied_status(wording), wording),
        Evidence::Transport(transport) => Outcome::TargetFault(of_transport(transport)),
    }
}

fn of_transport(transport: Transport) -> TargetFault {
    match transport {
        Transport::ConnectTimeout => TargetFault::ConnectTimeout,
        Transport::Connect => TargetFault::Connect,
        Transport::Reset => TargetFault::Reset,
        Transport::Cut => TargetFault::Cut,
        Transport::Malformed => TargetFault::Malformed,
        Transport::FirstTokenTimeout => TargetFault::FirstTokenTimeout,
        Transport::AttemptTimeout => TargetFault::AttemptTimeout,
        Transport::IdleTimeout => TargetFault::IdleTimeout,
    }
}

/// A body that we cannot read says less than its status, and a page from something in front of the provider (a 403 of a
/// web firewall) must not switch a target off.
fn of_bare_status(status: u16, text: &str) -> Outcome {
    let said = Wording {
        message: text,
        ..Wording::default()
    };
    match status {
        // Servers that answer in plain text say it in the same words.
        400 | 413 | 422 | 500 if says_overflow(said) => {
            return Outcome::CallerFault(CallerFault::ContextOverflow);
        }
        500..=599 if says_overloaded(said) => return Outcome::TargetFault(TargetFault::Overloaded),
        _ => {}
    }
    Outcome::TargetFault(match status {
        401 => TargetFault::Auth,
        402 => TargetFault::Quota,
        413 => return Outcome::CallerFault(CallerFault::TooLarge),
        429 => TargetFault::RateLimited,
        503 | 529 => TargetFault::Overloaded,
        408 | 409 | 425 | 500..=599 => TargetFault::ServerError,
        _ => TargetFault::Malformed,
    })
}

/// The status that an error inside a 200 would have had.
fn implied_status(w: Wording<'_>) -> u16 {
    if let Ok(status @ 400..=599) = w.code.trim().parse::<u16>() {
        return status;
    }
    match w.kind {
        "overloaded_error" => 529,
        "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens" => 429,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "invalid_request_error" | "BadRequestError" => 400,
        _ => match w.code {
            "rate_limit_exceeded" => 429,
            "invalid_api_key" => 401,
            _ => 500,
        },
    }
}

/// What the provider says goes before its status, except that a 401, a 403 and a 429 are what they are: a 429 that
/// speaks of tokens is about tokens a minute, not about the context.
fn of_status(status: u16, w: Wording<'_>) -> Outcome {
    use {CallerFault as C, Outcome as O, TargetFault as T};
    if status == 402 || says_quota(status, w) {
        return O::TargetFault(T::Quota);
    }
    match status {
        // A provider's moderation speaks of this one request; nobody else's may suffer for it.
        403 if says_filtered(w) || says_moderated(w) => return O::CallerFault(C::ContentFilter),
        401 | 403 => {
            return O::TargetFault(if says_model_not_found(status, w) {
                T::ModelNotFound
            } else {
                T::Auth
            });
        }
        429 => return O::TargetFault(T::RateLimited),
        _ => {}
    }
    if says_overflow(w) {
        return O::CallerFault(C::ContextOverflow);
    }
    if says_filtered(w) {
        return O::CallerFault(C::ContentFilter);
    }
    match status {
        503 | 529 => O::TargetFault(T::Overloaded),
        408 | 409 | 425 | 500..=599 if says_overloaded(w) => O::TargetFault(T::Overloaded),
        408 | 409 | 425 | 500..=599 => O::TargetFault(T::ServerError),
        400..=499 if says_model_not_found(status, w) => O::TargetFault(T::ModelNotFound),
        413 => O::CallerFault(C::TooLarge),
        400..=499 if says_unsupported(w) => O::CallerFault(C::UnsupportedParameter),
        400..=499 => O::CallerFault(C::InvalidRequest),
        _ => O::TargetFault(T::Malformed),
    }
}

/// A sentence may quote what the caller wrote, so a word of it switches a target off only where the status speaks of
/// accounts, or where the provider's own sentence begins with it. A quota that is over in some seconds is a rate.
fn says_quota(status: u16, w: Wording<'_>) -> bool {
    let says = matches!(status, 403 | 429) && any_of(w.message, words::QUOTA);
    words::QUOTA_CODES.contains(&w.code)
        || words::QUOTA_CODES.contains(&w.kind)
        || starts_with(w.message, "your credit balance is too low")
        || (says && !any_of(w.message, words::SOON))
}

fn says_overloaded(w: Wording<'_>) -> bool {
    w.kind == "overloaded_error" || any_of(w.message, words::OVERLOADED)
}

/// As with [`says_quota`]: by the sentence alone only under a status that means it, or about the field `model`.
fn says_model_not_found(status: u16, w: Wording<'_>) -> bool {
    if w.code == "model_not_found" || w.kind == "model_not_found" {
        return true;
    }
    // Anthropic: `{"type":"not_found_error","message":"model: claude-9"}`.
    if w.kind == "not_found_error" && starts_with(w.message, "model:") {
        return true;
    }
    (matches!(status, 401 | 403 | 404) || w.param == "model")
        && contains(w.message, "model")
        && any_of(w.message, words::MODEL_NOT_FOUND)
        && !contains(w.message, "parameter")
}

fn says_overflow(w: Wording<'_>) -> bool {
    words::OVERFLOW_CODES.contains(&w.code)
        || words::OVERFLOW_CODES.contains(&w.kind)
        || any_of(w.message, words::OVERFLOW)
}

fn says_filtered(w: Wording<'_>) -> bool {
    words::FILTER_CODES.contains(&w.code)
        || words::FILTER_CODES.contains(&w.kind)
        || any_of(w.message, words::FILTER)
}

/// OpenRouter and the like: a 403 for a prompt that the model's moderation flagged.
fn says_moderated(w: Wording<'_>) -> bool {
    w.code != "unsupported_country_region_territory" && any_of(w.message, words::MODERATED)
}

fn says_unsupported(w: Wording<'_>) -> bool {
    words::UNSUPPORTED_CODES.contains(&w.code) || any_of(w.message, words::UNSUPPORTED)
}

fn any_of(text: &str, needles: &[&str]) -> bool {
    needles.iter().any(|needle| contains(text, needle))
}

/// ASCII case is ignored; `needle` is lower case.
fn contains(text: &str, needle: &str) -> bool {
    let (text, needle) = (text.as_bytes(), needle.as_bytes());
    text.windows(needle.len()).any(|w| w.eq_ignore_ascii_case(needle))
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests;
mod words;
