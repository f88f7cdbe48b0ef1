//! Step 1, `intake`: is there room for one more, which endpoint, which of our headers; a request id.
//!
//! It stands first because everything else is told by the record that is opened here. It must never look at a body.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Uri};
use routing::facts::CallKind;
use routing::plan::Plan;

use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::providers::upstream::is_of_the_connection;

/// May one more request be open: in the whole process, and of its address?
///
/// # Errors
/// 503, code `too_many_requests_open`.
pub fn room(app: &App, plan: &Plan) -> Result<()> {
    let most = plan.most_requests();
    let full = |message: &'static str| {
        let error = Error::new(Kind::Overloaded, message).code("too_many_requests_open");
        Err(error.retry_after(Duration::from_secs(1)))
    };
    if app.open_requests() > most {
        return full(
            "this gateway has as many requests open as it may (server.max_connections, and max_in_flight and queue of \
             [admission]); try again in a moment",
        );
    }
    let Some(peer) = app.peer() else { return Ok(()) };
    let of_address = app.addresses().most_open(most, plan.server.max_connections);
    if of_address.is_some_and(|most| peer.streams.load(Ordering::Relaxed) > most) {
        return full(
            "this address has as many requests open as it may (its part of all of them is that of server.per_address \
             connections in server.max_connections); try again in a moment",
        );
    }
    Ok(())
}

/// What a request asks of us, by path and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Something to be answered by a model.
    Call(CallKind),
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`, unescaped.
    Model(String),
    /// A browser asks whether its page may call.
    Preflight,
}

/// Paths that will be served one day, and what to call until then.
const NOT_YET: [(&str, &str); 3] = [
    (
        "/v1/responses",
        "call POST /v1/chat/completions instead (Vercel AI SDK: `openai.chat(\"auto\")`; OpenAI's libraries: `client.chat.completions.create`)",
    ),
    (
        "/v1/messages",
        "call POST /v1/chat/completions with an OpenAI client instead",
    ),
    ("/v1/feedback", "there is nothing to call instead yet"),
];

/// The endpoint of a request's path and method. A browser that asks for its page is told that it may, whatever the path:
/// else the page could not read what the call itself is answered.
///
/// # Errors
/// 404 or 405.
pub fn endpoint(head: &Parts) -> Result<Endpoint> {
    framing(&head.headers)?;
    if head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return Ok(Endpoint::Preflight);
    }
    of_path(&head.method, &head.uri)
}

/// The name of the header that `framing` refuses.
pub const FRAMING: &str = "transfer-encoding";

/// A body that comes in pieces is `chunked`, once, and nothing else. hyper looks at the last coding only, and two readers
/// that see a body's end in different places are what requests are smuggled through. (Two lengths that differ, and a
/// coding that is not `chunked` at its end, are hyper's 400; a length beside a coding counts for nothing, and the
/// connection closes behind the answer.)
fn framing(headers: &HeaderMap) -> Result<()> {
    let mut codings = headers.get_all(FRAMING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => {
            let message = "a body is sent with a content-length, or with `transfer-encoding: chunked`, once";
            Err(Error::new(Kind::BadHeader, message).param(FRAMING))
        }
    }
}

fn of_path(method: &Method, uri: &Uri) -> Result<Endpoint> {
    let path = match uri.path() {
        "/" => "/",
        path => path.strip_suffix('/').unwrap_or(path),
    };
    let (found, allow) = match path {
        "/v1/chat/completions" => (Endpoint::Call(CallKind::Chat), "POST"),
        "/v1/completions" => (Endpoint::Call(CallKind::Completion), "POST"),
        "/v1/embeddings" => (Endpoint::Call(CallKind::Embeddings), "POST"),
        "/v1/models" => (Endpoint::Models, "GET"),
        _ => match path.strip_prefix("/v1/models/") {
            Some(id) => (Endpoint::Model(unescape(id)), "GET"),
            None => return Err(unknown(path)),
        },
    };
    match method {
        _ if method.as_str() == allow => Ok(found),
        &Method::OPTIONS => Ok(Endpoint::Preflight),
        other => {
            let message = format!("{other} is not a method of {path}; use {allow}");
            Err(Error::new(Kind::Method, message).allow(allow))
        }
    }
}

fn unknown(path: &str) -> Error {
    for (known, instead) in NOT_YET {
        if path == known || path.strip_prefix(known).is_some_and(|rest| rest.starts_with('/')) {
            return Error::new(
                Kind::EndpointNotSupported,
                format!("{known} is not served by this version; {instead}"),
            );
        }
    }
    let shown: String = path.chars().take(80).collect();
    let hint = match path {
        "/chat/completions" | "/completions" | "/embeddings" | "/models" => "; let `base_url` end in /v1",
        path if path.starts_with("/v1/v1/") => "; `base_url` has /v1 twice",
        "/healthz" | "/readyz" | "/metrics" => "; it is served at the admin address (server.admin)",
        _ => "",
    };
    Error::new(Kind::UnknownPath, format!("there is no {shown} here{hint}"))
}

fn unescape(id: &str) -> String {
    let mut bytes = Vec::with_capacity(id.len());
    let mut rest = id.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%')
            .then(|| {
                let digits = tail.get(..2).filter(|h| h.iter().all(u8::is_ascii_hexdigit))?;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
            })
            .flatten();
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Our own request headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `x-weir-min-tier`.
    pub min_tier: Option<Box<str>>,
    /// `x-weir-debug: 1`.
    pub debug: bool,
    /// `x-weir-no-cache: 1`.
    pub no_cache: bool,
    /// `x-weir-tags`.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// `traceparent`, when it is well formed.
    pub trace: Option<Box<str>>,
    /// `idempotency-key`: the caller's own name for this request.
    pub idempotency_key: Option<Box<str>>,
    /// `x-stainless-retry-count`: how often the client has sent this before.
    pub resent: u32,
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_KEY_BYTES: usize = 255;
const MAX_TIER_BYTES: usize = 128;
const MAX_TAGS: usize = 16;
const MAX_TAG_BYTES: usize = 64;

/// Reads our headers.
///
/// # Errors
/// 400 with the header's name.
pub fn asked(headers: &HeaderMap) -> Result<Asked> {
    let text = |name: &'static str| {
        headers
            .get(HeaderName::from_static(name))
            .and_then(|v| v.to_str().ok())
    };
    let flag = |name| matches!(text(name).map(str::trim), Some("1" | "true"));
    Ok(Asked {
        min_tier: min_tier(headers)?,
        debug: flag("x-weir-debug"),
        no_cache: flag("x-weir-no-cache"),
        tags: tags(headers)?,
        trace: text("traceparent")
            .filter(|t| is_traceparent(t) && !is_of_the_connection(&TRACEPARENT, headers))
            .map(Box::from),
        idempotency_key: idempotency_key(headers)?,
        resent: text("x-stainless-retry-count")
            .and_then(|v| v.trim().parse().ok())
            .unwrap_or(0),
    })
}

/// One that cannot be read is refused: left out, the request might be made twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>> {
    const NAME: &str = "idempotency-key";
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
    match text.filter(|_| values.next().is_none()) {
        Some("") => Ok(None),
        Some(text) if text.len() <= MAX_KEY_BYTES => Ok(Some(text.into())),
        _ => {
            let message = format!("{NAME}: write one value, as UTF-8 of at most {MAX_KEY_BYTES} bytes");
            Err(Error::new(Kind::BadHeader, message).param(NAME))
        }
    }
}

/// A floor that cannot be read is refused: left out, the request would go below it.
fn min_tier(headers: &HeaderMap) -> Result<Option<Box<str>>> {
    const NAME: &str = "x-weir-min-tier";
    let Some(value) = headers.get(NAME) else {
        return Ok(None);
    };
    match std::str::from_utf8(value.as_bytes()).map(str::trim) {
        Ok("") => Ok(None),
        Ok(text) if text.len() <= MAX_TIER_BYTES => Ok(Some(text.into())),
        _ => {
            let message = format!(
                "{NAME}: write a tier's index or a target's name, as UTF-8 of at most {MAX_TIER_BYTES} bytes"
            );
            Err(Error::new(Kind::BadHeader, message).param(NAME))
        }
    }
}

/// A list over one or several headers. Rules may ask for tags, so none is left out in silence.
fn tags(headers: &HeaderMap) -> Result<Vec<(Box<str>, Box<str>)>> {
    let wrong = |why: String| Error::new(Kind::BadHeader, format!("x-weir-tags: {why}")).param("x-weir-tags");
    let mut lines = Vec::new();
    for value in headers.get_all("x-weir-tags") {
        let line =
            std::str::from_utf8(value.as_bytes()).map_err(|_| wrong("write it as UTF-8".to_owned()))?;
        lines.push(line);
    }
    let mut tags = Vec::new();
    let pairs = lines.iter().flat_map(|line| line.split(','));
    for pair in pairs.map(str::trim).filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            return Err(wrong(
                "write `name=value`, several with commas between".to_owned(),
            ));
        };
        if key.is_empty() || key.len() > MAX_TAG_BYTES || value.len() > MAX_TAG_BYTES {
            return Err(wrong(format!(
                "a name or a value is empty or longer than {MAX_TAG_BYTES} bytes"
            )));
        }
        if tags.len() == MAX_TAGS {
            return Err(wrong(format!("more than {MAX_TAGS} tags")));
        }
        tags.push((key.into(), value.into()));
    }
    Ok(tags)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, as W3C Trace Context has it.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |n: usize| {
        parts
            .next()
            .is_some_and(|p| p.len() == n && p.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    hex(2) && hex(32) && hex(16) && hex(2) && text.len() == 55
}

/// A new id: `req_` and 96 random bits.
pub fn new_id() -> String {
    use std::fmt::Write as _;
    let (a, b): (u64, u32) = (rand::random(), rand::random());
    let mut id = String::with_capacity(28);
    let _ = write!(id, "req_{a:016x}{b:08x}");
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> Result<Endpoint, Kind> {
        of_path(&method.parse().unwrap(), &path.parse().unwrap()).map_err(|e| e.kind())
    }

    #[test]
    fn paths_and_methods() {
        assert_eq!(
            at("POST", "/v1/chat/completions"),
            Ok(Endpoint::Call(CallKind::Chat))
        );
        assert_eq!(
            at("POST", "/v1/chat/completions/?x=1"),
            Ok(Endpoint::Call(CallKind::Chat))
        );
        assert_eq!(at("GET", "/v1/models"), Ok(Endpoint::Models));
        assert_eq!(
            at("GET", "/v1/models/openai%2Fgpt"),
            Ok(Endpoint::Model("openai/gpt".into()))
        );
        assert_eq!(
            at("GET", "/v1/models/a/b%zz%+f"),
            Ok(Endpoint::Model("a/b%zz%+f".into()))
        );
        assert_eq!(at("GET", "/v1/embeddings"), Err(Kind::Method));
        assert_eq!(at("OPTIONS", "/v1/embeddings"), Ok(Endpoint::Preflight));
        assert_eq!(at("POST", "/v1/responses"), Err(Kind::EndpointNotSupported));
        assert_eq!(at("GET", "/v1/responses/abc"), Err(Kind::EndpointNotSupported));
        assert_eq!(at("GET", "/"), Err(Kind::UnknownPath));
        let e = of_path(&Method::DELETE, &"/v1/models".parse().unwrap()).unwrap_err();
        assert_eq!(e.allowed_methods(), Some("GET"));
        let e = of_path(&Method::POST, &"/chat/completions".parse().unwrap()).unwrap_err();
        assert!(e.message().contains("/v1"), "{e}");
    }

    #[test]
    fn our_headers() {
        let mut h = HeaderMap::new();
        h.insert("x-weir-tags", "team=a, env = prod".parse().unwrap());
        h.insert("x-weir-debug", "1".parse().unwrap());
        h.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        );
        h.insert("x-stainless-retry-count", "2".parse().unwrap());
        let got = asked(&h).unwrap();
        assert_eq!(
            got.tags,
            [("team".into(), "a".into()), ("env".into(), "prod".into())]
        );
        assert!(got.debug && !got.no_cache && got.trace.is_some());
        h.insert("connection", "keep-alive, Traceparent".parse().unwrap());
        assert_eq!(asked(&h).unwrap().trace, None, "for this connection alone");
        h.remove("connection");
        assert_eq!(got.resent, 2);
        h.insert("x-weir-tags", "nothing".parse().unwrap());
        assert_eq!(asked(&h).unwrap_err().kind(), Kind::BadHeader);
        h.insert("x-weir-tags", "".parse().unwrap());
        h.insert(
            "traceparent",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        );
        assert_eq!(asked(&h).unwrap().trace, None);
    }

    #[test]
    fn a_header_that_cannot_be_read_is_not_left_out() {
        let of = |name: &'static str, value: &[u8]| {
            let mut h = HeaderMap::new();
            h.insert(name, http::HeaderValue::from_bytes(value).unwrap());
            asked(&h).map_err(|e| e.kind())
        };
        assert_eq!(
            of("x-weir-min-tier", "größe".as_bytes()).unwrap().min_tier,
            Some("größe".into())
        );
        assert_eq!(of("x-weir-min-tier", b"\xff"), Err(Kind::BadHeader));
        assert_eq!(of("x-weir-min-tier", &[b'x'; 129]), Err(Kind::BadHeader));
        let tags = of("x-weir-tags", "team=größe".as_bytes()).unwrap().tags;
        assert_eq!(tags, [("team".into(), "größe".into())]);
        assert_eq!(of("x-weir-tags", b"a=\xff"), Err(Kind::BadHeader));
        let mut twice = HeaderMap::new();
        twice.append("x-weir-tags", http::HeaderValue::from_static("a=1"));
        twice.append("x-weir-tags", http::HeaderValue::from_static("b=2"));
        assert_eq!(asked(&twice).unwrap().tags.len(), 2);
    }

    #[test]
    fn ids_differ() {
        let (a, b) = (new_id(), new_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 28);
    }
}
