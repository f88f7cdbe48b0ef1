//! Responses: their heads, by the wire contract, and what their bodies are made of. The only place that makes them.

use std::fmt::Write as _;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Response, StatusCode};
use routing::plan::Plan;
use routing::units::Time;

use crate::body::{Content, Metered, Source};
use crate::cascade::{self, Answer, Driver, Head};
use crate::error::{Error, Kind};
use crate::ledger::Ledger;
use crate::limits::Standing;
use crate::note;
use crate::server::watch::Watch;
use crate::steps::cache::{Served, Told};
use crate::steps::deadline::Deadline;
use crate::steps::intake::FRAMING;
use crate::telemetry::record::End;

/// What the steps come to.
pub type Outcome = Result<Reply, Failed>;

/// An answer that is not an error.
pub struct Reply(Box<Answered>);

struct Answered {
    status: StatusCode,
    content_type: Option<&'static str>,
    body: Answer,
    head: Option<Head>,
    /// What its tries came to, where that is known with its head.
    account: Option<cascade::Account>,
    model: Option<std::sync::Arc<str>>,
    decision: Option<HeaderValue>,
    until: Time,
}

/// No answer.
pub struct Failed {
    error: Error,
    cascade: Option<Box<(Head, cascade::Account)>>,
    decision: Option<HeaderValue>,
}

impl Failed {
    /// Adds `x-weir-decision`.
    pub fn with_decision(mut self, json: Option<HeaderValue>) -> Self {
        self.decision = json;
        self
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            cascade: None,
            decision: None,
        }
    }
}
impl From<Box<cascade::Failure>> for Failed {
    fn from(failure: Box<cascade::Failure>) -> Self {
        let cascade::Failure { error, account, head } = *failure;
        Self {
            error,
            cascade: Some(Box::new((head, account))),
            decision: None,
        }
    }
}

/// May a page read the response.
#[derive(Default)]
pub struct Cors {
    /// The origin that may.
    pub allow: Option<HeaderValue>,
}

impl Reply {
    fn plain(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Self {
        Self(Box::new(Answered {
            status,
            content_type,
            body: Answer::Whole(body),
            head: None,
            account: None,
            model: None,
            decision: None,
            until: Time::NEVER,
        }))
    }
    /// A JSON body that no model made.
    pub fn json(body: Bytes) -> Self {
        Self::plain(StatusCode::OK, Some("application/json"), body)
    }
    /// A page may ask.
    pub fn preflight() -> Self {
        Self::plain(StatusCode::NO_CONTENT, None, Bytes::new())
    }
    /// What step 11 came to.
    pub fn of_cascade(reply: cascade::Reply, deadline: &Deadline, plan: &Plan, now: Time) -> Self {
        let cascade::Reply { head, body, account } = reply;
        let target = head.target.and_then(|id| plan.targets.get(id.index()));
        let (content_type, until) = match body {
            // Bounded by its length, where it is sent.
            Answer::Whole(_) => ("application/json", Time::NEVER),
            Answer::Stream(_) | Answer::Shared(_) => {
                let clocks = target.map_or(&plan.timeouts, |t| &t.timeouts);
                let until = (now + clocks.max_stream).min(deadline.whole);
                ("text/event-stream; charset=utf-8", until)
            }
        };
        let model = target.map(|t| t.name.clone());
        Self(Box::new(Answered {
            status: StatusCode::OK,
            content_type: Some(content_type),
            body,
            head: Some(head),
            account: Some(account),
            model,
            decision: None,
            until,
        }))
    }
    /// What step 7 found.
    pub fn served(served: Served, deadline: &Deadline, plan: &Plan, now: Time) -> Self {
        let body = match served.body {
            Told::Whole(bytes) => Answer::Whole(bytes),
            Told::Stream(source) => Answer::Shared(source),
        };
        let reply = cascade::Reply {
            head: served.head,
            body,
            account: cascade::Account::default(),
        };
        let mut reply = Self::of_cascade(reply, deadline, plan, now);
        reply.0.model = Some(served.target);
        reply.0.account = None;
        reply
    }
    /// Adds `x-weir-decision`.
    pub fn with_decision(mut self, json: Option<HeaderValue>) -> Self {
        self.0.decision = json;
        self
    }
}

/// Makes the response. The ledger moves into its body.
pub fn respond(
    outcome: Outcome,
    request: &Parts,
    cors: Cors,
    connection: Option<&Watch>,
    mut ledger: Ledger,
) -> Response<Metered> {
    let mut headers = HeaderMap::with_capacity(16);
    put(
        &mut headers,
        HeaderName::from_static("x-request-id"),
        &ledger.record.id,
    );
    // An error before any attempt says only its id.
    let timed = match &outcome {
        Ok(_) => true,
        Err(failed) => failed.cascade.as_ref().is_some_and(|tried| tried.0.attempts > 0),
    };
    let (status, content, until) = match outcome {
        Ok(reply) => answered(reply, &mut headers, &mut ledger),
        Err(failed) => refused(failed, &mut headers, &mut ledger),
    };
    if let Some(standing) = &ledger.standing {
        ratelimits(standing, &mut headers);
    }
    add_cors(&mut headers, request, cors);
    ledger.head_sent(status.as_u16());
    if timed {
        let timing = server_timing(&ledger);
        put(&mut headers, HeaderName::from_static("server-timing"), &timing);
    }
    if let (Some(connection), http::Version::HTTP_11 | http::Version::HTTP_10) = (connection, request.version)
    {
        let taken_by = match &content {
            Content::Whole(bytes) => connection.taken_by(bytes.len() as u64, ledger.clock().now()),
            Content::Stream(_) | Content::End => until,
        };
        connection.set_until(taken_by);
    }
    let mut response = Response::new(Metered::new(content, ledger).until(until));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn answered(
    Reply(reply): Reply,
    headers: &mut HeaderMap,
    ledger: &mut Ledger,
) -> (StatusCode, Content, Time) {
    if let Some(kind) = reply.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(head) = &reply.head {
        if let Some(model) = &reply.model {
            put(headers, HeaderName::from_static("x-weir-model"), model);
        }
        weir_headers(head, headers, ledger.record.cache);
        for (name, value) in &head.upstream {
            if name.as_str().starts_with("x-ratelimit-") {
                headers.append(name, value.clone());
            }
        }
    }
    if let Some(decision) = reply.decision {
        headers.insert(HeaderName::from_static("x-weir-decision"), decision);
    }
    let content = match reply.body {
        Answer::Whole(bytes) => {
            if let Some(account) = reply.account {
                note::account(ledger, account);
            }
            Content::Whole(bytes)
        }
        Answer::Stream(driver) => {
            streamed(reply.head.as_ref(), headers, ledger);
            Content::Stream(Box::new(Streaming(driver)))
        }
        Answer::Shared(source) => {
            streamed(reply.head.as_ref(), headers, ledger);
            Content::Stream(source)
        }
    };
    (reply.status, content, reply.until)
}

fn streamed(head: Option<&Head>, headers: &mut HeaderMap, ledger: &mut Ledger) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Some proxies hold streams back unless told.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    let target = head.and_then(|h| h.target);
    ledger.answered = target.map(routing::ids::TargetId::index);
}

/// The caller's own limits take the place of what a provider said of ours: they are what it has to keep to.
fn ratelimits(standing: &Standing, headers: &mut HeaderMap) {
    for (of, level) in [("requests", standing.requests), ("tokens", standing.tokens)] {
        let Some(level) = level else { continue };
        let values = [
            ("limit", level.limit.to_string()),
            ("remaining", level.remaining.to_string()),
            ("reset", duration(level.reset)),
        ];
        for (what, value) in values {
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(format!("x-ratelimit-{what}-{of}")),
                HeaderValue::try_from(value),
            ) {
                headers.insert(name, value);
            }
        }
    }
}

/// Milliseconds, rounded up: who waits exactly so long does not come too early.
fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// As OpenAI writes them: `6m0s`, `1s`, `120ms`. Rounded up.
fn duration(time: Duration) -> String {
    let ms = whole_ms(time);
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let seconds = ms.div_ceil(1_000);
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn weir_headers(head: &Head, headers: &mut HeaderMap, cache: &'static str) {
    headers.insert("x-weir-tier", HeaderValue::from(u16::from(head.tier)));
    headers.insert("x-weir-attempts", HeaderValue::from(u16::from(head.attempts)));
    headers.insert("x-weir-cache", HeaderValue::from_static(cache));
    let mut text = |name: &'static str, value: &str| {
        if !value.is_empty() {
            put(headers, HeaderName::from_static(name), value);
        }
    };
    text("x-weir-verified", &head.verified);
    text("x-weir-verdict", &head.verdict);
    text("x-weir-degraded", head.degraded.as_deref().unwrap_or_default());
    text("x-weir-ignored", &ignored(&head.ignored));
    if let Some(cost) = head.cost {
        text("x-weir-cost-usd", &cost.to_string());
    }
}

/// Names as the caller wrote them, as far as a head has room for them.
fn ignored(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        let comma = if text.is_empty() { "" } else { ", " };
        if text.len() + comma.len() + name.len() > MAX_IGNORED {
            text.push_str(comma);
            text.push_str("...");
            break;
        }
        text.push_str(comma);
        text.push_str(name);
    }
    text
}

fn refused(failed: Failed, headers: &mut HeaderMap, ledger: &mut Ledger) -> (StatusCode, Content, Time) {
    let Failed {
        error,
        cascade,
        decision,
    } = failed;
    if let Some(decision) = decision {
        headers.insert(HeaderName::from_static("x-weir-decision"), decision);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let retry = if error.should_retry() { "true" } else { "false" };
    headers.insert("x-should-retry", HeaderValue::from_static(retry));
    if let Some(after) = error.retry_after_hint() {
        let ms = whole_ms(after);
        headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        headers.insert("retry-after-ms", HeaderValue::from(ms));
    }
    if error.param_name() == Some(FRAMING) {
        // Where the next request would begin is not sure.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(methods) = error.allowed_methods() {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    if matches!(error.kind(), Kind::MissingKey | Kind::BadKey) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(tried) = cascade {
        let (head, account) = *tried;
        if head.attempts > 0 {
            let last = head.target.and_then(|t| ledger.handles().targets.get(t.index()));
            if let Some(name) = last.map(|t| t.name().clone()) {
                put(headers, HeaderName::from_static("x-weir-model"), &name);
            }
            weir_headers(&head, headers, ledger.record.cache);
            for (name, value) in &head.upstream {
                if name.as_str().starts_with("x-ratelimit-") {
                    headers.append(name, value.clone());
                }
            }
        }
        note::account(ledger, account);
    }
    if error.kind() == Kind::Deadline {
        ledger.handles().deadline(ledger.record.step);
    }
    ledger.record.error = Some(error.label());
    ledger.record.end = End::Error;
    (error.status(), Content::Whole(error.json()), Time::NEVER)
}

/// Bytes of `x-weir-ignored`.
const MAX_IGNORED: usize = 1_024;

/// Headers that a page may read, and those it may send.
const EXPOSED: &str = "x-request-id, x-weir-model, x-weir-tier, x-weir-attempts, x-weir-cache, x-weir-degraded, \
x-weir-verified, x-weir-verdict, x-weir-ignored, x-weir-cost-usd, x-weir-decision, server-timing, retry-after, \
retry-after-ms, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";
const SENT: &str = "authorization, user-agent, x-api-key, content-type, idempotency-key, traceparent, x-weir-min-tier, \
x-weir-deadline-ms, x-weir-debug, x-weir-no-cache, x-weir-tags, x-stainless-arch, x-stainless-lang, x-stainless-os, \
x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, \
x-stainless-timeout, x-stainless-read-timeout, x-stainless-helper-method, openai-organization, openai-project";

fn add_cors(headers: &mut HeaderMap, request: &Parts, cors: Cors) {
    let Some(origin) = cors.allow else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("origin"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    if request.method == http::Method::OPTIONS {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, OPTIONS"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

fn server_timing(ledger: &Ledger) -> String {
    let waited = ledger.waited;
    let decode: u64 = ledger
        .record
        .steps_us
        .iter()
        .filter(|(name, _)| *name == "decode")
        .map(|(_, us)| us)
        .sum();
    let decode = Duration::from_micros(decode).saturating_sub(waited.body);
    let overhead = Duration::from_micros(ledger.record.overhead_us);
    let mut text = String::with_capacity(96);
    for (name, spent) in [
        ("decode", decode),
        ("classify", waited.classify),
        ("queue", waited.queue),
        ("upstream", waited.upstream),
        ("overhead", overhead),
    ] {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name};dur={:.3}", spent.as_secs_f64() * 1e3);
    }
    text
}

/// A value that may hold anything: what a header cannot carry becomes `?`.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).or_else(|_| {
        let safe: String = value
            .chars()
            .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
            .collect();
        HeaderValue::from_str(&safe)
    });
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

/// A committed stream as a body reads it.
struct Streaming(Box<Driver>);

impl Source for Streaming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.0.poll_frame(cx)
    }
    fn settle(&mut self, ledger: &mut Ledger) {
        note::account(ledger, self.0.account());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use routing::ids::TargetId;

    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::Telemetry;
    use crate::telemetry::handles::{PlanHandles, Process};
    use crate::telemetry::record::Record;
    use crate::telemetry::writer::Sink;
    use crate::testing;

    const PLAN: &str = "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.one]\n\
        provider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\ntimeouts = { max_stream_ms = 2_000 }\n\
        [timeouts]\nmax_stream_ms = 60_000\n";

    /// The response, and until when an HTTP/1 connection waits for its caller to take it.
    fn told(clock: &Clock, outcome: Outcome) -> (Response<Metered>, Time) {
        let telemetry = Telemetry::new();
        let ledger = Ledger::open(
            Record::open("r", 1, Default::default()),
            clock.clone(),
            Sink::none(),
            Arc::new(Process::new(&telemetry)),
            Arc::new(PlanHandles::new(&telemetry, &testing::plan(PLAN))),
        );
        let (request, ()) = http::Request::new(()).into_parts();
        let watch = Watch::new(Duration::from_secs(30));
        let response = respond(outcome, &request, Cors::default(), Some(&watch), ledger);
        (response, watch.until())
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_has_an_end_by_its_length() {
        let clock = Clock::system();
        let (_, until) = told(&clock, Ok(Reply::json(Bytes::from(vec![b' '; 10 << 10]))));
        assert_eq!(until, clock.now() + Duration::from_secs(50));
    }

    struct Nothing;
    impl Source for Nothing {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            Poll::Ready(None)
        }
        fn settle(&mut self, _: &mut Ledger) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_the_longest_time_of_the_target_that_answers() {
        let (clock, plan) = (Clock::system(), testing::plan(PLAN));
        let now = clock.now();
        for (target, whole, wanted) in [
            (Some(TargetId(0)), Time::NEVER, 2),
            (None, Time::NEVER, 60),
            (Some(TargetId(0)), now + Duration::from_secs(1), 1),
        ] {
            let deadline = Deadline {
                commit: Time::NEVER,
                whole,
                silence: None,
            };
            let reply = cascade::Reply {
                head: Head {
                    target,
                    ..Head::default()
                },
                body: Answer::Shared(Box::new(Nothing)),
                account: cascade::Account::default(),
            };
            let reply = Reply::of_cascade(reply, &deadline, &plan, now);
            let (_, until) = told(&clock, Ok(reply));
            assert_eq!(until, now + Duration::from_secs(wanted));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn times_to_wait_are_rounded_up() {
        let error = Error::new(Kind::Overloaded, "full").retry_after(Duration::from_micros(1_999_001));
        let (response, _) = told(&Clock::system(), Err(error.into()));
        assert_eq!(response.headers()["retry-after-ms"], "2000");
        assert_eq!(response.headers()["retry-after"], "2");
        for (us, said) in [
            (0, "0ms"),
            (119_001, "120ms"),
            (999_001, "1s"),
            (1_000_001, "2s"),
            (59_000_001, "1m0s"),
            (61_500_000, "1m2s"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), said);
        }
    }

    #[test]
    fn a_name_that_is_no_header_is_still_shown() {
        let mut headers = HeaderMap::new();
        put(&mut headers, HeaderName::from_static("x-weir-model"), "größe\n");
        assert_eq!(headers["x-weir-model"], "gr??e?");
    }

    #[test]
    fn what_was_ignored_is_named_within_bounds() {
        assert_eq!(ignored(&["user".to_owned(), "store".to_owned()]), "user, store");
        let long = ["a".to_owned(), "b".repeat(1 << 20), "c".to_owned()];
        assert_eq!(ignored(&long), "a, ...");
    }
}
