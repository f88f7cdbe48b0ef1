//! The one error of the gateway, and the one table that says what a kind of it means to a caller.
//!
//! A row has the HTTP status, OpenAI's `type` and `code`, the metric label, and whether the same request may be worth
//! sending again. The match is exhaustive: a new kind does not compile without its row.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

/// What went wrong, as far as a caller needs to tell cases apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body is not JSON, or not an object.
    BadJson,
    /// A field has a wrong type or a value out of range.
    BadField,
    /// A field that must be there is not.
    MissingField,
    /// A request header of ours cannot be read.
    BadHeader,
    /// `content-type` is not `application/json`.
    MediaType,
    /// `content-encoding` is not `identity`.
    ContentEncoding,
    /// The body is larger than `server.max_body_bytes`.
    BodyTooLarge,
    /// The body came too slowly.
    BodyTimeout,
    /// The body ended early or broke its framing.
    BodyBroken,
    /// `server.max_body_bytes_in_flight` is used up.
    BodiesFull,
    /// No such path.
    UnknownPath,
    /// A path of the API that is not served (yet).
    EndpointNotSupported,
    /// A path that is there, asked with another method.
    Method,
    /// No such route, alias, target or upstream model.
    UnknownModel,
    /// A key is asked for and none was sent.
    MissingKey,
    /// The key is not one of ours.
    BadKey,
    /// The store of keys could not be read since the start, so a key cannot be judged.
    KeysUnread,
    /// The key may not name this model.
    ModelNotAllowed,
    /// The `Host` is not one of ours.
    HostNotAllowed,
    /// The `Origin` is not one of ours.
    OriginNotAllowed,
    /// The caller's `idempotency-key` stands for another request.
    KeyReused,
    /// A rule denies it.
    Denied,
    /// A rule that would deny depends on a fact that the classifier could not find out.
    ClassifierFailed,
    /// A rule would send a pinned model elsewhere.
    PinRefused,
    /// No target of at least the tier asked for is usable.
    MinTier,
    /// No usable target can do what the request needs.
    Capability,
    /// The prompt is longer than every usable target's context.
    ContextLength,
    /// The caller's deadline, or the default one.
    Deadline,
    /// The local model's queue is full, or its wait longer than the time left.
    LocalQueueFull,
    /// The local model is still loading.
    ModelStarting,
    /// The local model failed.
    LocalFailed,
    /// Nothing that could answer is usable now.
    NoTarget,
    /// A money limit applies, and no target that is left has a known price.
    PriceUnknown,
    /// A limit of the plan is used up for now.
    OverLimit,
    /// A day's money is used up.
    OverBudget,
    /// This process is full.
    Overloaded,
    /// The provider says that the request is wrong; its status and words are kept.
    UpstreamCaller,
    /// The provider limits us.
    UpstreamLimited,
    /// The provider refused our credentials or account.
    UpstreamRefused,
    /// The provider failed.
    UpstreamFailed,
    /// The provider was too slow.
    UpstreamTimeout,
    /// The provider's stream broke off and could not be continued.
    StreamCut,
    /// The route wants a verified answer and none passed.
    Unverified,
    /// The caller left. Seen by records only.
    ClientGone,
    /// A mistake of ours.
    Bug,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP status before the commit.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: &'static str,
    /// Metric label; also the record's `error`.
    pub label: &'static str,
    /// `x-should-retry`.
    pub retry: bool,
}

const INVALID: &str = "invalid_request_error";
const AUTH: &str = "authentication_error";
const DENIED: &str = "permission_error";
const SERVER: &str = "server_error";
const TIMEOUT: &str = "timeout_error";
const LIMIT: &str = "rate_limit_error";

impl Kind {
    /// Every kind, for tests and generated tables.
    pub const ALL: [Kind; 45] = [
        Kind::BadJson,
        Kind::BadField,
        Kind::MissingField,
        Kind::BadHeader,
        Kind::MediaType,
        Kind::ContentEncoding,
        Kind::BodyTooLarge,
        Kind::BodyTimeout,
        Kind::BodyBroken,
        Kind::BodiesFull,
        Kind::UnknownPath,
        Kind::EndpointNotSupported,
        Kind::Method,
        Kind::UnknownModel,
        Kind::MissingKey,
        Kind::BadKey,
        Kind::KeysUnread,
        Kind::ModelNotAllowed,
        Kind::HostNotAllowed,
        Kind::OriginNotAllowed,
        Kind::KeyReused,
        Kind::Denied,
        Kind::ClassifierFailed,
        Kind::PinRefused,
        Kind::MinTier,
        Kind::Capability,
        Kind::ContextLength,
        Kind::Deadline,
        Kind::LocalQueueFull,
        Kind::ModelStarting,
        Kind::LocalFailed,
        Kind::NoTarget,
        Kind::PriceUnknown,
        Kind::OverLimit,
        Kind::OverBudget,
        Kind::Overloaded,
        Kind::UpstreamCaller,
        Kind::UpstreamLimited,
        Kind::UpstreamRefused,
        Kind::UpstreamFailed,
        Kind::UpstreamTimeout,
        Kind::StreamCut,
        Kind::Unverified,
        Kind::ClientGone,
        Kind::Bug,
    ];

    /// The table.
    pub const fn row(self) -> Row {
        const fn row(status: u16, kind: &'static str, code: &'static str, retry: bool) -> Row {
            Row {
                status,
                kind,
                code,
                label: code,
                retry,
            }
        }
        match self {
            Kind::BadJson => row(400, INVALID, "invalid_json", false),
            Kind::BadField => row(400, INVALID, "invalid_value", false),
            Kind::MissingField => row(400, INVALID, "missing_required_parameter", false),
            Kind::BadHeader => row(400, INVALID, "invalid_header", false),
            Kind::MediaType => row(415, INVALID, "unsupported_media_type", false),
            Kind::ContentEncoding => row(415, INVALID, "unsupported_content_encoding", false),
            Kind::BodyTooLarge => row(413, INVALID, "request_too_large", false),
            Kind::BodyTimeout => row(408, TIMEOUT, "request_body_timeout", true),
            Kind::BodyBroken => row(400, INVALID, "request_body_incomplete", false),
            Kind::BodiesFull => row(503, SERVER, "too_many_bytes_in_flight", true),
            Kind::UnknownPath => row(404, INVALID, "unknown_url", false),
            Kind::EndpointNotSupported => row(404, INVALID, "endpoint_not_supported", false),
            Kind::Method => row(405, INVALID, "method_not_supported", false),
            Kind::UnknownModel => row(404, INVALID, "model_not_found", false),
            Kind::MissingKey => row(401, AUTH, "missing_api_key", false),
            Kind::BadKey => row(401, AUTH, "invalid_api_key", false),
            Kind::KeysUnread => row(503, SERVER, "keys_not_readable", true),
            Kind::ModelNotAllowed => row(403, DENIED, "model_not_allowed", false),
            Kind::HostNotAllowed => row(403, DENIED, "host_not_allowed", false),
            Kind::OriginNotAllowed => row(403, DENIED, "origin_not_allowed", false),
            Kind::KeyReused => row(409, "idempotency_error", "idempotency_key_reused", false),
            Kind::Denied => row(403, DENIED, "denied_by_rule", false),
            Kind::ClassifierFailed => row(503, SERVER, "classifier_failed", true),
            Kind::PinRefused => row(403, DENIED, "model_refused_by_rule", false),
            Kind::MinTier => row(503, SERVER, "min_tier_not_available", true),
            Kind::Capability => row(400, INVALID, "unsupported_capability", false),
            Kind::ContextLength => row(400, INVALID, "context_length_exceeded", false),
            Kind::Deadline => row(504, TIMEOUT, "deadline_exceeded", true),
            Kind::LocalQueueFull => row(503, SERVER, "local_queue_full", true),
            Kind::ModelStarting => row(503, SERVER, "model_starting", true),
            Kind::LocalFailed => row(500, SERVER, "local_model_failed", true),
            Kind::NoTarget => row(503, SERVER, "no_target_available", true),
            Kind::PriceUnknown => row(503, SERVER, "price_unknown", false),
            Kind::OverLimit => row(429, LIMIT, "over_limit", true),
            Kind::OverBudget => row(429, "insufficient_quota", "over_budget", false),
            Kind::Overloaded => row(503, SERVER, "overloaded", true),
            Kind::UpstreamCaller => row(400, INVALID, "upstream_rejected", false),
            Kind::UpstreamLimited => row(429, LIMIT, "rate_limit_exceeded", true),
            Kind::UpstreamRefused => row(502, SERVER, "upstream_refused_us", false),
            Kind::UpstreamFailed => row(502, SERVER, "upstream_failed", true),
            Kind::UpstreamTimeout => row(504, TIMEOUT, "upstream_timeout", true),
            Kind::StreamCut => row(502, SERVER, "stream_cut", true),
            Kind::Unverified => row(502, SERVER, "answer_not_verified", true),
            Kind::ClientGone => row(499, INVALID, "client_closed_request", false),
            Kind::Bug => row(500, SERVER, "internal_error", true),
        }
    }
}

/// The provider's own words, kept for a [`Kind::UpstreamCaller`] (and for its status on [`Kind::UpstreamLimited`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamSays {
    /// Its HTTP status.
    pub status: u16,
    /// Its `error.type`, when it gave one.
    pub kind: Option<Box<str>>,
    /// Its `error.code`.
    pub code: Option<Box<str>>,
}

/// An error on its way to one caller. One pointer wide.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    code: Option<&'static str>,
    upstream: Option<UpstreamSays>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    status: Option<u16>,
    spent: bool,
    for_good: bool,
}

/// The result of everything on a request's path.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A kind and a sentence that says what happened and what to do next.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            param: None,
            code: None,
            upstream: None,
            retry_after: None,
            allow: None,
            status: None,
            spent: false,
            for_good: false,
        }))
    }
    /// Names the field (`error.param`).
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }
    /// A more exact `error.code` than the table's.
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }
    /// The provider's own words.
    pub fn upstream(mut self, says: UpstreamSays) -> Self {
        self.0.upstream = Some(says);
        self
    }
    /// A true estimate of when it is worth trying again.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }
    /// Another status than the table's (a route's own `message`).
    pub fn status_as(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }
    /// Our own tries are spent: sending the same again is of use only after a time that is known.
    pub fn spent(mut self) -> Self {
        self.0.spent = true;
        self
    }
    /// Sending the same again is of no use, however long one waits.
    pub fn for_good(mut self) -> Self {
        self.0.for_good = true;
        self
    }
    /// Methods that the path takes (405).
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    /// Its sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The field it names.
    pub fn param_name(&self) -> Option<&str> {
        self.0.param.as_deref()
    }
    /// The methods of a 405.
    pub fn allowed_methods(&self) -> Option<&'static str> {
        self.0.allow
    }
    /// When to try again, where that is known.
    pub fn retry_after_hint(&self) -> Option<Duration> {
        self.0.retry_after
    }
    /// HTTP status: the provider's for its own words, else the table's.
    pub fn status(&self) -> StatusCode {
        let own = self.0.kind.row().status;
        let status = match (&self.0.upstream, self.0.kind) {
            (Some(up), Kind::UpstreamCaller) if (400..500).contains(&up.status) => up.status,
            _ => self.0.status.unwrap_or(own),
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    /// Metric label.
    pub fn label(&self) -> &'static str {
        self.0.kind.row().label
    }
    /// What `x-should-retry` says.
    pub fn should_retry(&self) -> bool {
        match (&self.0.upstream, self.0.kind) {
            (Some(up), Kind::UpstreamCaller) => matches!(up.status, 408 | 409 | 429),
            _ if self.0.for_good => false,
            _ if self.0.spent => self.0.retry_after.is_some(),
            _ => self.0.kind.row().retry,
        }
    }

    fn wire(&self) -> Wire<'_> {
        let row = self.0.kind.row();
        let up = self.0.upstream.as_ref();
        Wire {
            error: WireError {
                message: &self.0.message,
                kind: up.and_then(|u| u.kind.as_deref()).unwrap_or(row.kind),
                param: self.0.param.as_deref(),
                code: match up {
                    // A provider that gave no code said nothing more exact: do not invent one for it.
                    Some(u) if self.0.kind == Kind::UpstreamCaller => u.code.as_deref(),
                    Some(u) => Some(u.code.as_deref().unwrap_or(row.code)),
                    None => Some(self.0.code.unwrap_or(row.code)),
                },
            },
        }
    }
    /// The body: `{"error":{"message","type","param","code"}}`, all four keys.
    pub fn json(&self) -> Bytes {
        // Serialising borrowed strings into memory cannot fail; the fallback keeps the promise of the shape anyway.
        serde_json::to_vec(&self.wire()).map(Bytes::from).unwrap_or(Bytes::from_static(
            br#"{"error":{"message":"internal error","type":"server_error","param":null,"code":"internal_error"}}"#,
        ))
    }
    /// The same as a server-sent event, for a stream that has begun. No `[DONE]` may follow it.
    pub fn sse(&self) -> Bytes {
        let json = self.json();
        let mut event = Vec::with_capacity(json.len() + 8);
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&json);
        event.extend_from_slice(b"\n\n");
        Bytes::from(event)
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    error: WireError<'a>,
}

#[derive(Serialize)]
struct WireError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label(), self.0.message)
    }
}
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Error({:?}: {:?}, param {:?})",
            self.0.kind, self.0.message, self.0.param
        )
    }
}
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_label_of_its_own() {
        let mut labels: Vec<_> = Kind::ALL.iter().map(|k| k.row().label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!((400..600).contains(&kind.row().status), "{kind:?}");
        }
    }

    #[test]
    fn all_four_keys_are_there() {
        let e = Error::new(Kind::BadField, "n must be between 1 and 128").param("n");
        assert_eq!(
            e.json(),
            r#"{"error":{"message":"n must be between 1 and 128","type":"invalid_request_error","param":"n","code":"invalid_value"}}"#
        );
        assert_eq!(e.status(), 400);
        assert!(
            Error::new(Kind::Bug, "x")
                .json()
                .ends_with(br#""param":null,"code":"internal_error"}}"#)
        );
    }

    #[test]
    fn a_provider_keeps_its_words() {
        let e = Error::new(Kind::UpstreamCaller, "no such voice")
            .param("voice")
            .upstream(UpstreamSays {
                status: 422,
                kind: Some("bad_voice".into()),
                code: None,
            });
        assert_eq!(e.status(), 422);
        assert!(!e.should_retry());
        assert_eq!(
            e.json(),
            r#"{"error":{"message":"no such voice","type":"bad_voice","param":"voice","code":null}}"#
        );
    }
}
