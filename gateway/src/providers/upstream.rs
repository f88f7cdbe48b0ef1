//! What every HTTP provider shares: which headers pass, how long to wait, what an error body says, when an answer is
//! whole.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use smallvec::SmallVec;

use super::event::Event;
use super::failure::UpstreamError;
use super::pool::PooledBody;

/// Bytes of an error body that are looked at.
pub const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Longest message that is passed on.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// Headers of an answer that may pass, beside everything that begins with `x-ratelimit-` or `anthropic-ratelimit-`.
const PASSING: [&str; 5] = [
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "request-id",
    "openai-processing-ms",
];

/// The allow-listed headers.
pub fn passing_headers(from: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in from {
        if passes(name) && !is_of_the_connection(name, from) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

fn passes(name: &HeaderName) -> bool {
    let name = name.as_str();
    PASSING.contains(&name) || name.starts_with("x-ratelimit-") || name.starts_with("anthropic-ratelimit-")
}

/// Named in `connection`: meant for us alone, whatever it is.
pub fn is_of_the_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let named = |value: &http::HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
    };
    headers.get_all(http::header::CONNECTION).iter().any(named)
}

/// The wait that `retry-after-ms`, else `retry-after` (seconds or a date) asks for. Nonsense is no wait at all.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()) {
        return seconds(ms / 1_000.0);
    }
    let text = text("retry-after")?;
    if let Ok(s) = text.parse::<f64>() {
        return seconds(s);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST_WAIT))
}

/// A day is longer than anybody waits; it also keeps sums of times from overflowing.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

fn seconds(s: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(s).ok().map(|d| d.min(LONGEST_WAIT))
}

/// The beginning of an error body, until it ends, breaks or is too long.
pub async fn read_error(mut body: PooledBody) -> Bytes {
    let mut out = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let room = MAX_ERROR_BYTES - out.len();
        out.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        if out.len() >= MAX_ERROR_BYTES {
            break;
        }
    }
    out.into()
}

/// An error body that is plain text, as far as it is looked at. `None`: a page, or bytes.
pub fn plain_text(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let cut = text.floor_char_boundary(1_024);
    let text = text.get(..cut).filter(|t| !t.is_empty() && !t.starts_with('<'))?;
    Some(text.to_owned())
}

/// What an error body says. `None`: it is not JSON, or of no shape that is known.
///
/// Known are `{"error": {..}}`, `{"error": ".."}`, `{"message": ..}`, `{"detail": ..}` and a list around the first.
pub fn parse_error(body: &[u8]) -> Option<UpstreamError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    error_of(&value)
}

/// The same from a value that is parsed already.
pub fn error_of(value: &Value) -> Option<UpstreamError> {
    if let Value::Array(list) = value {
        return list.first().filter(|v| v.is_object()).and_then(error_of);
    }
    match value.get("error") {
        Some(inner @ Value::Object(_)) => Some(fields_of(inner, value)),
        Some(Value::String(message)) => Some(UpstreamError {
            message: clip(message),
            ..fields_of(value, value)
        }),
        _ if value.get("message").is_some() || value.get("detail").is_some() => Some(fields_of(value, value)),
        _ => None,
    }
}

fn fields_of(inner: &Value, outer: &Value) -> UpstreamError {
    let word = |key: &str| match inner.get(key) {
        Some(Value::String(s)) if !s.is_empty() => Some(s.as_str().into()),
        Some(Value::Number(n)) => Some(n.to_string().into()),
        _ => None,
    };
    let message = ["message", "detail", "error"]
        .into_iter()
        .find_map(|key| match inner.get(key).or_else(|| outer.get(key)) {
            Some(Value::String(s)) => Some(clip(s)),
            Some(list @ Value::Array(_)) => Some(clip(&list.to_string())),
            _ => None,
        })
        .unwrap_or_default();
    // Anthropic's outer `type` is just "error".
    UpstreamError {
        message,
        kind: word("type"),
        code: word("code"),
        param: word("param"),
    }
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The HTTP status that an error inside a 200 names or implies; 0 when it does not.
pub fn implied_status(error: &UpstreamError) -> u16 {
    if let Some(status) = error.code.as_deref().and_then(|c| c.parse::<u16>().ok())
        && (400..600).contains(&status)
    {
        return status;
    }
    match error.kind.as_deref() {
        Some("overloaded_error") => 529,
        Some("rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests") => 429,
        Some("authentication_error") => 401,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("invalid_request_error") => 400,
        Some("api_error" | "server_error" | "internal_server_error") => 500,
        Some("timeout_error") => 504,
        _ => 0,
    }
}

/// Which choices have begun and which have ended: a stream is whole when every choice that was asked for, and every one
/// that was seen, has its finish reason.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Choices that were asked for.
    asked: usize,
    seen: SmallVec<[(u16, bool); 2]>,
}

impl Ends {
    /// So many choices were asked for.
    pub fn of(asked: u16) -> Self {
        Self {
            asked: usize::from(asked.max(1)),
            ..Self::default()
        }
    }

    /// Takes an event in.
    pub fn note(&mut self, event: &Event) {
        let (choice, ended) = match event {
            Event::Role { choice }
            | Event::Text { choice, .. }
            | Event::Refusal { choice, .. }
            | Event::Reasoning { choice, .. } => (*choice, false),
            Event::Tool(delta) => (delta.choice, false),
            Event::Finish { choice, .. } => (*choice, true),
            _ => return,
        };
        match self.seen.iter_mut().find(|(c, _)| *c == choice) {
            Some((_, over)) => *over |= ended,
            None => self.seen.push((choice, ended)),
        }
    }

    /// All choices that were asked for were seen, at least one, and all that were seen have ended.
    pub fn complete(&self) -> bool {
        !self.seen.is_empty() && self.missing() == 0 && self.seen.iter().all(|(_, over)| *over)
    }

    /// Choices that began and have not ended, in the order in which they began.
    pub fn open(&self) -> impl Iterator<Item = u16> + '_ {
        self.seen
            .iter()
            .filter(|(_, over)| !over)
            .map(|(choice, _)| *choice)
    }

    /// Nothing was seen of any choice.
    pub fn none(&self) -> bool {
        self.seen.is_empty()
    }

    /// Choices that were asked for and of which nothing was seen, though others began.
    pub fn missing(&self) -> usize {
        match self.seen.len() {
            0 => 0,
            seen => self.asked.saturating_sub(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn waits() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let wait = |list: &[(&str, &str)]| retry_after(&headers(list), now);
        assert_eq!(wait(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(
            wait(&[("retry-after-ms", "1500"), ("retry-after", "9")]),
            Some(Duration::from_millis(1500))
        );
        let date = httpdate::fmt_http_date(now + Duration::from_secs(30));
        assert_eq!(wait(&[("retry-after", &date)]), Some(Duration::from_secs(30)));
        let far = httpdate::fmt_http_date(now + Duration::from_secs(10 * 86_400));
        assert_eq!(wait(&[("retry-after", &far)]), Some(Duration::from_secs(86_400)));
        let past = httpdate::fmt_http_date(now - Duration::from_secs(30));
        assert_eq!(wait(&[("retry-after", &past)]), Some(Duration::ZERO));
        for none in ["soon", "-1", "NaN", "inf"] {
            assert_eq!(wait(&[("retry-after", none)]), None, "{none}");
        }
        assert_eq!(wait(&[("retry-after", "1e9")]), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn only_listed_headers_pass() {
        let got = passing_headers(&headers(&[
            ("x-ratelimit-remaining-tokens", "5"),
            ("set-cookie", "a=b"),
            ("retry-after", "1"),
            ("server", "x"),
            ("connection", "close, X-RateLimit-Limit-Tokens"),
            ("x-ratelimit-limit-tokens", "9"),
        ]));
        let names: Vec<&str> = got.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-ratelimit-remaining-tokens", "retry-after"]);
    }

    #[test]
    fn error_bodies_of_every_shape() {
        let e = parse_error(br#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#).unwrap();
        assert_eq!(
            (
                &*e.message,
                e.kind.as_deref(),
                e.code.as_deref(),
                e.param.as_deref()
            ),
            ("m", Some("t"), Some("c"), Some("p"))
        );
        let e =
            parse_error(br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#)
                .unwrap();
        assert_eq!((implied_status(&e), &*e.message), (529, "Overloaded"));
        assert_eq!(
            parse_error(br#"{"error":"model not found"}"#).unwrap().message,
            "model not found"
        );
        assert_eq!(
            parse_error(br#"{"object":"error","message":"m","code":400}"#)
                .unwrap()
                .code
                .as_deref(),
            Some("400")
        );
        assert_eq!(
            parse_error(br#"{"detail":[{"msg":"x"}]}"#).unwrap().message,
            r#"[{"msg":"x"}]"#
        );
        assert_eq!(
            parse_error(br#"[{"error":{"message":"m","code":503}}]"#).map(|e| implied_status(&e)),
            Some(503)
        );
        for none in [&b"<html>"[..], b"", b"{}", b"[]", b"\"x\"", b"{\"error\":null}"] {
            assert_eq!(parse_error(none), None);
        }
    }

    #[test]
    fn a_choice_that_was_asked_for_and_never_came_has_not_ended() {
        let end = |choice| Event::Finish {
            choice,
            reason: super::super::event::FinishReason::Stop,
        };
        let mut ends = Ends::of(2);
        ends.note(&end(0));
        assert!(!ends.complete());
        ends.note(&end(1));
        assert!(ends.complete());
    }

    #[test]
    fn plain_text_is_no_page() {
        assert_eq!(plain_text(b" too long \n").as_deref(), Some("too long"));
        for none in [&b""[..], b"  ", b"<html>busy</html>", b"\xff\xfe"] {
            assert_eq!(plain_text(none), None);
        }
        assert_eq!(
            plain_text("ä".repeat(2_000).as_bytes()).map(|t| t.len()),
            Some(1_024)
        );
    }

    #[test]
    fn a_stream_is_whole_when_every_choice_has_ended() {
        let mut ends = Ends::of(1);
        assert!(!ends.complete());
        ends.note(&Event::Role { choice: 0 });
        ends.note(&Event::Text {
            choice: 1,
            text: "x".into(),
        });
        ends.note(&Event::Finish {
            choice: 0,
            reason: super::super::event::FinishReason::Stop,
        });
        assert!(!ends.complete());
        ends.note(&Event::Finish {
            choice: 1,
            reason: super::super::event::FinishReason::Stop,
        });
        assert!(ends.complete());
    }
}
