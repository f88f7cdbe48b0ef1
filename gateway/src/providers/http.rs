//! Targets behind HTTP: one exchange over the pool, in the dialect of the provider.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use arc_swap::ArcSwapOption;
use routing::plan::{Params, ProviderKind, TargetConfig};

use super::event::Frame;
use super::failure::{AttemptError, Fault};
use super::hidden::Hidden;
use super::pool::{Endpoint, Exchange, Exchanged, PooledBody};
use super::upstream::{parse_error, passing_headers, plain_text, read_error, retry_after};
use super::{CallContext, Reply, ReplyBody};
use super::{anthropic, openai};
use crate::call::{Call, CallKind};

/// The dialect of an HTTP provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Any OpenAI-compatible server.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
}

/// Headers that an exchange depends on: a plan may not set them.
const FRAMING: [&str; 6] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "upgrade",
];

/// One target at one HTTP provider.
pub struct HttpTarget {
    name: Arc<str>,
    model: Arc<str>,
    dialect: Dialect,
    endpoint: Endpoint,
    /// Everything that is the same in every request.
    headers: HeaderMap,
    /// The header that carries the key.
    key: Arc<ProviderKey>,
    /// What nobody else is shown.
    hidden: Arc<Hidden>,
    params: Params,
    max_output: Option<u32>,
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HttpTarget({} as {:?} at {:?})",
            self.name, self.dialect, self.endpoint
        )
    }
}

/// A provider's key; shared by its targets, so that a key file that changes is heard by all of them.
#[derive(Default)]
pub struct ProviderKey(ArcSwapOption<String>);

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.load().is_some() {
            "ProviderKey(set)"
        } else {
            "ProviderKey(none)"
        })
    }
}

impl ProviderKey {
    /// A key, or none.
    pub fn new(key: Option<String>) -> Arc<Self> {
        let this = Self::default();
        this.set(key);
        Arc::new(this)
    }

    /// Replaces it. Line breaks around it, as files have them, are not part of it; an empty key is none.
    pub fn set(&self, key: Option<String>) {
        self.0.store(
            key.map(|k| k.trim().to_owned())
                .filter(|k| !k.is_empty())
                .map(Arc::new),
        );
    }

    /// The key now.
    pub(super) fn now(&self) -> Option<Arc<String>> {
        self.0.load_full()
    }

    fn add(&self, dialect: Dialect, headers: &mut HeaderMap) -> Result<(), AttemptError> {
        let guard = self.0.load();
        let Some(key) = guard.as_deref() else {
            return Ok(());
        };
        let (name, text) = match dialect {
            Dialect::Openai => (AUTHORIZATION, format!("Bearer {key}")),
            Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key.clone()),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            AttemptError::new(
                Fault::Off,
                "the provider's api_key has characters that a header cannot carry",
            )
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }
}

/// A header that the plan adds to every request to a provider.
#[derive(Clone)]
pub struct ExtraHeader {
    /// Its name.
    pub name: Arc<str>,
    /// Its value; a secret's is looked up.
    pub value: String,
    /// The value is a secret of the plan.
    pub secret: bool,
}

impl fmt::Debug for ExtraHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraHeader({})", self.name)
    }
}

impl HttpTarget {
    /// A target of the plan. `headers` are the provider's extra ones with their secrets looked up.
    ///
    /// # Errors
    /// A sentence that names the header that cannot be sent.
    pub fn new(
        config: &TargetConfig,
        endpoint: Endpoint,
        key: Arc<ProviderKey>,
        headers: &[ExtraHeader],
    ) -> Result<Self, String> {
        let dialect = match config.kind {
            ProviderKind::Openai => Dialect::Openai,
            ProviderKind::Anthropic => Dialect::Anthropic,
            ProviderKind::Local => return Err(format!("target {} is local, not behind HTTP", config.name)),
        };
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        all.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"))),
        );
        if dialect == Dialect::Anthropic {
            all.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        for ExtraHeader { name, value, .. } in headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("`{name}` cannot be a header's name"))?;
            if FRAMING.contains(&name.as_str()) {
                return Err(format!(
                    "header {name} is written by the connection itself; leave it out"
                ));
            }
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("the value of header {name} cannot be sent"))?;
            // It may be a secret of the plan.
            value.set_sensitive(true);
            all.insert(name, value);
        }
        Ok(Self {
            name: config.name.clone(),
            model: config.model.clone(),
            dialect,
            hidden: Arc::new(Hidden::new(Arc::clone(&key), headers, &endpoint)),
            endpoint,
            headers: all,
            key,
            params: config.params.clone(),
            max_output: config.max_output,
        })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The dialect it speaks.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The headers of a request that has no body.
    pub(super) fn plain_headers(&self, ctx: &CallContext<'_>) -> Result<HeaderMap, AttemptError> {
        let mut headers = self.headers.clone();
        headers.remove(CONTENT_TYPE);
        self.key.add(self.dialect, &mut headers)?;
        if let Ok(value) = HeaderValue::from_str(ctx.request_id) {
            headers.insert("x-request-id", value);
        }
        Ok(headers)
    }

    /// The target's name, for messages.
    fn at(&self) -> String {
        format!("{} ({})", self.name, self.endpoint.base())
    }

    /// See [`super::Client::call`].
    pub(super) async fn call(&self, call: &Call, ctx: &CallContext<'_>) -> Result<Reply, AttemptError> {
        let exchange = self.exchange(call, ctx)?;
        let answer = exchange.send(ctx.pool).await?;
        let headers = self.hidden.kept(passing_headers(&answer.head.headers));
        let status = answer.head.status.as_u16();
        if !(200..300).contains(&status) {
            return Err(self
                .hidden
                .taken_from(self.refused(status, answer, headers, ctx).await));
        }
        let created = ctx.clock.unix_ms() / 1_000;
        let decoder = self
            .decoder(call, &answer.head.headers, created)
            .map_err(|error| self.hidden.taken_from(error))?;
        Ok(Reply {
            status,
            headers,
            reused: answer.reused,
            redialled: answer.redialled,
            body: ReplyBody::Http(Box::new(HttpBody {
                body: Some(answer.body),
                decoder,
                hidden: Arc::clone(&self.hidden),
            })),
        })
    }

    fn exchange(&self, call: &Call, ctx: &CallContext<'_>) -> Result<Exchange<'_>, AttemptError> {
        let (suffix, body) = match self.dialect {
            Dialect::Openai => (
                openai::path(call.kind),
                openai::request::body(call, &self.model, &self.params),
            ),
            Dialect::Anthropic => (
                anthropic::path(self.endpoint.path()),
                anthropic::encode::body(call, &self.model, self.max_output, &self.params)?,
            ),
        };
        let target = self
            .endpoint
            .target(suffix)
            .map_err(|e| AttemptError::new(Fault::Off, e))?;
        Ok(Exchange {
            endpoint: &self.endpoint,
            target,
            method: Method::POST,
            headers: self.request_headers(call, ctx)?,
            body,
            connect: ctx.connect,
            may_resend: ctx.may_resend,
        })
    }

    fn request_headers(&self, call: &Call, ctx: &CallContext<'_>) -> Result<HeaderMap, AttemptError> {
        let mut headers = self.headers.clone();
        let accept = if call.stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        self.key.add(self.dialect, &mut headers)?;
        for (name, value) in [
            ("x-request-id", Some(ctx.request_id)),
            ("traceparent", ctx.traceparent),
        ] {
            if let Some(value) = value.and_then(|v| HeaderValue::from_str(v).ok()) {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }

    async fn refused(
        &self,
        status: u16,
        answer: Exchanged,
        headers: HeaderMap,
        ctx: &CallContext<'_>,
    ) -> AttemptError {
        let wait = retry_after(&headers, ctx.clock.wall());
        let not_again = answer
            .head
            .headers
            .get("x-should-retry")
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"false"));
        let body = read_error(answer.body).await;
        let upstream = parse_error(&body);
        let text = match &upstream {
            Some(_) => None,
            None => plain_text(&body),
        };
        let at = self.at();
        let detail = match (status, &upstream) {
            (300..=399, _) => {
                format!("{at} redirects with status {status}; redirects are not followed, correct base_url")
            }
            (404, None) => {
                format!("{at} answered 404; does its base_url end where the API begins (often /v1)?")
            }
            (_, None) => format!("{at} answered {status} with a body that is no JSON error"),
            (_, Some(_)) => format!("{at} answered {status}"),
        };
        let error = AttemptError::new(Fault::Status(status), detail)
            .with_retry_after(wait)
            .with_headers(headers)
            .redialled(answer.redialled)
            .not_again(not_again)
            .sent();
        match upstream {
            Some(upstream) => error.with_upstream(upstream),
            None => error.with_text(text),
        }
    }

    /// Choices that the target was asked for: the plan may keep `n` from it.
    fn choices(&self, call: &Call) -> u16 {
        if self.params.drop.iter().any(|name| &**name == "n") {
            call.prompts.max(1)
        } else {
            call.choices
        }
    }

    fn decoder(&self, call: &Call, headers: &HeaderMap, created: u64) -> Result<Decoder, AttemptError> {
        let at = self.at();
        let text = |name| {
            headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
                .unwrap_or_default()
        };
        let encoding = text(CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            let encoding = shown(encoding);
            let detail = format!("{at} compressed its answer ({encoding}) although it was asked not to");
            return Err(AttemptError::new(Fault::BadAnswer, detail).sent());
        }
        let media = text(CONTENT_TYPE)
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let unexpected = |wanted: &str| {
            let media = shown(text(CONTENT_TYPE));
            let detail = format!("{at} answered with `{media}` instead of {wanted}; is base_url right?");
            AttemptError::new(Fault::BadAnswer, detail).sent()
        };
        match (call.stream, media.as_str()) {
            (_, "text/html") => Err(unexpected("JSON")),
            (false, "text/event-stream") => Err(unexpected("a whole answer")),
            // Servers that cannot stream answer whole; what cannot be told apart by its type is taken for a stream.
            (true, "application/json") | (false, _) => Ok(Decoder::whole(self.dialect, call, &at, created)),
            (true, _) => Ok(Decoder::stream(
                self.dialect,
                call,
                &at,
                created,
                self.choices(call),
            )),
        }
    }
}

/// The beginning of a header's value, for messages.
fn shown(value: &str) -> &str {
    let value = value.split(';').next().unwrap_or_default().trim();
    value.get(..value.floor_char_boundary(60)).unwrap_or_default()
}

/// Bytes to frames, by dialect and form.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one an answer, inside a box that is made anyway"
)]
enum Decoder {
    OpenaiStream(openai::stream::StreamDecoder),
    OpenaiWhole(openai::whole::WholeDecoder),
    AnthropicStream(anthropic::decode::StreamDecoder),
    AnthropicWhole(anthropic::decode::WholeDecoder),
}

/// The same call on whichever decoder it is.
macro_rules! each {
    ($self:expr, $decoder:ident => $call:expr) => {
        match $self {
            Decoder::OpenaiStream($decoder) => $call,
            Decoder::OpenaiWhole($decoder) => $call,
            Decoder::AnthropicStream($decoder) => $call,
            Decoder::AnthropicWhole($decoder) => $call,
        }
    };
}

impl Decoder {
    fn stream(dialect: Dialect, call: &Call, at: &str, created: u64, choices: u16) -> Self {
        match dialect {
            Dialect::Openai => Self::OpenaiStream(openai::stream::StreamDecoder::new(call, at, choices)),
            Dialect::Anthropic => {
                Self::AnthropicStream(anthropic::decode::StreamDecoder::new(call, at, created))
            }
        }
    }

    fn whole(dialect: Dialect, call: &Call, at: &str, created: u64) -> Self {
        match dialect {
            Dialect::Openai => Self::OpenaiWhole(openai::whole::WholeDecoder::new(call, at)),
            Dialect::Anthropic => {
                Self::AnthropicWhole(anthropic::decode::WholeDecoder::new(call, at, created))
            }
        }
    }

    fn push(&mut self, data: bytes::Bytes) {
        each!(self, d => d.push(data));
    }

    fn end(&mut self, broken: Option<String>) {
        each!(self, d => d.end(broken));
    }

    fn pull(&mut self) -> Result<Option<Frame>, AttemptError> {
        each!(self, d => d.pull())
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct HttpBody {
    /// `None` once the answer is over, well or not.
    body: Option<PooledBody>,
    decoder: Decoder,
    /// Not to be quoted in an error.
    hidden: Arc<Hidden>,
}

impl HttpBody {
    /// See [`ReplyBody::poll_next`].
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, AttemptError>>> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            match self.decoder.pull() {
                Ok(Some(frame)) => {
                    if frame.is_done()
                        && let Some(body) = self.body.take()
                    {
                        body.finish();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Err(error) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(self.hidden.taken_from(error.sent()))));
                }
                Ok(None) => {}
            }
            match body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => self.decoder.push(data),
                Poll::Ready(Some(Err(broken))) => self.decoder.end(Some(broken.detail)),
                Poll::Ready(None) => self.decoder.end(None),
            }
        }
    }
}

/// Endpoints that a call kind has at a dialect.
pub fn serves(dialect: Dialect, kind: CallKind) -> bool {
    match dialect {
        Dialect::Openai => true,
        Dialect::Anthropic => kind == CallKind::Chat,
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::ProxyEnv;
    use super::*;
    use crate::testing;

    #[test]
    fn a_plan_does_not_set_the_headers_of_the_framing() {
        let plan = testing::plan(
            "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
             [targets.t]\nprovider = \"p\"\nmodel = \"m\"\n[routes.auto]\ntiers = [[\"t\"]]\n",
        );
        let make = |name: &str, value: &str| {
            let endpoint = Endpoint::new("http://127.0.0.1:1/v1", None, None, &ProxyEnv::default()).unwrap();
            let headers = [ExtraHeader {
                name: name.into(),
                value: value.to_owned(),
                secret: true,
            }];
            HttpTarget::new(&plan.targets[0], endpoint, ProviderKey::new(None), &headers)
        };
        for (name, value) in [
            ("Content-Length", "5"),
            ("host", "x"),
            ("x-a", "a\r\nx-b: c"),
            ("x a", "b"),
        ] {
            assert!(make(name, value).is_err(), "{name}");
        }
        let target = make("x-team", "secret").unwrap();
        assert!(!format!("{:?} {target:?} {:?}", target.headers, target.hidden).contains("secret"));
    }
}
