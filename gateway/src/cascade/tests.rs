//! The driver against scripted targets, on a paused clock: what the caller gets, what each target saw, what is recorded.

mod continuation;
mod guards;
mod hedge;
mod ladder;
mod money;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use routing::decide::{Query, Silent, Step, decide};
use routing::facts::CallKind;
use routing::ids::TargetId;
use routing::resolve::resolve;
use routing::signals::{Hold, Signals, TargetSignal, Usable};
use routing::verify::Question;

use super::{run as drive, *};
use crate::error::Kind;
use crate::providers::event::{Event, FinishReason};
use crate::providers::failure::{AttemptError, Fault, UpstreamError};
use crate::providers::fake::{FakeTarget, Script};
use crate::providers::pool::PoolLimits;
use crate::testing;

/// Two tiers, tried in order.
const PLAN: &str = r#"
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.a-weak]
provider = "p"
model = "weak"
price = { input = 1.0, output = 2.0 }
[targets.b-strong]
provider = "p"
model = "strong"
price = { input = 10.0, output = 20.0 }
[routes.auto]
tiers = [["a-weak"], ["b-strong"]]
start = "first"
[retry]
backoff = { base_ms = 10, max_ms = 10, jitter = false }
"#;

/// Nobody goes on with a stream that broke.
fn never() -> String {
    PLAN.replace("start = \"first\"", "start = \"first\"\ncontinue = \"never\"")
}

/// Runs to the commit; nobody leaves.
async fn run(work: Work) -> Result<Reply, Box<Failure>> {
    drive(work, |_| panic!("nobody left")).await
}

struct World {
    plan: Arc<Plan>,
    weak: FakeTarget,
    strong: FakeTarget,
    targets: Arc<[Target]>,
    clock: Clock,
    budgets: Arc<Budgets>,
}

impl World {
    fn new(text: &str, weak: Vec<Script>, strong: Vec<Script>) -> Self {
        let plan = Arc::new(testing::plan(text));
        let (weak, strong) = (FakeTarget::new(weak), FakeTarget::new(strong));
        let targets = [&weak, &strong]
            .map(|fake| Target {
                client: Some(Client::Fake(fake.clone())),
                state: Arc::default(),
                granted: None,
            })
            .into();
        let budgets = Arc::new(Budgets::new(&plan.retry, &plan.hedge));
        Self {
            plan,
            weak,
            strong,
            targets,
            clock: Clock::system(),
            budgets,
        }
    }

    fn work(&self, body: &str) -> Work {
        let raw = Bytes::copy_from_slice(body.as_bytes());
        let (call, facts) = crate::steps::decode::decode(CallKind::Chat, raw, 0).unwrap();
        let policy = resolve(&self.plan, &*call.model, &facts).unwrap();
        let now = self.clock.now();
        let signals = Signals {
            now,
            targets: self
                .targets
                .iter()
                .map(|t| TargetSignal {
                    usable: t.state.usable(now),
                    ..TargetSignal::default()
                })
                .collect(),
            encoder_us: None,
        };
        let deadline = now + Duration::from_secs(600);
        let query = Query {
            plan: &self.plan,
            policy: &policy,
            facts: &facts,
            signals: &signals,
            deadline,
            seed: 7,
        };
        let Step::Decided(decision) = decide(&query, &mut Silent) else {
            panic!("no decision")
        };
        Work {
            clock: self.clock.clone(),
            pool: Pool::new(self.clock.clone(), PoolLimits::default()),
            question: Some(Arc::new(Question::new(call.kind, &call.last_turn_text()))),
            call,
            plan: Arc::clone(&self.plan),
            targets: Arc::clone(&self.targets),
            budgets: Arc::clone(&self.budgets),
            reservation: None,
            seat: None,
            signals,
            decision,
            facts: Arc::new(facts),
            deadline,
            until: Time::NEVER,
            silence: None,
            resent: 0,
            began: now,
            seed: 7,
            request_id: "req-1".into(),
            traceparent: None,
            shared: false,
            stale: None,
        }
    }
}

const STREAM: &str =
    r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"Say something nice."}]}"#;
const WHOLE: &str = r#"{"model":"auto","messages":[{"role":"user","content":"Say something nice."}]}"#;

/// The text of the choices in these SSE bytes, and whether `[DONE]` came.
fn said(bytes: &str) -> (String, bool) {
    let mut text = String::new();
    for line in bytes.lines().filter_map(|l| l.strip_prefix("data: {")) {
        let chunk: serde_json::Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        if let Some(delta) = chunk["choices"][0]["delta"]["content"].as_str() {
            text.push_str(delta);
        }
    }
    (text, bytes.contains("data: [DONE]"))
}

/// Reads a stream to its end: bytes, the in-band error if there was one, the account.
async fn drain(mut driver: Box<Driver>) -> (String, Option<Error>, Account) {
    let mut all = Vec::new();
    let mut error = None;
    while let Some(piece) = std::future::poll_fn(|cx| driver.poll_frame(cx)).await {
        match piece {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    (String::from_utf8(all).unwrap(), error, driver.account())
}

fn stream(reply: Reply) -> (Head, Box<Driver>) {
    match reply.body {
        Answer::Stream(driver) => (reply.head, driver),
        other => panic!("no stream of its own: {other:?}"),
    }
}

fn whole(reply: Reply) -> (Head, String, Account) {
    match reply.body {
        Answer::Whole(body) => (
            reply.head,
            String::from_utf8(body.to_vec()).unwrap(),
            reply.account,
        ),
        other => panic!("a stream: {other:?}"),
    }
}

fn outcomes(account: &Account) -> Vec<(&str, &str)> {
    account.attempts.iter().map(|a| (&*a.target, a.outcome)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_commits_at_its_first_content_and_ends_with_done() {
    let script = Script::new()
        .begin("m")
        .wait(Duration::from_secs(3))
        .text("Hello")
        .text(" there")
        .stop()
        .usage(3, 5)
        .done();
    let world = World::new(PLAN, vec![script], vec![]);
    let before = world.clock.now();
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    assert!(
        world.clock.now().since(before) >= Duration::from_secs(3),
        "a role is not content"
    );
    assert_eq!((head.tier, head.attempts, head.target), (0, 1, Some(TargetId(0))));
    let (bytes, error, account) = drain(driver).await;
    assert!(error.is_none());
    assert_eq!(said(&bytes), ("Hello there".to_owned(), true));
    assert_eq!(outcomes(&account), [("a-weak", "ok")]);
    assert_eq!(account.cost, Some(NanoUsd(13_000)));
    assert!(account.whole);
    assert_eq!(world.strong.seen().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_connection_goes_to_the_next_tier() {
    let refused = || Script::refuse(AttemptError::new(Fault::Connect, "connection refused"));
    let world = World::new(PLAN, vec![refused(), refused()], vec![Script::answer("fine")]);
    let (head, body, account) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!((head.tier, head.target), (1, Some(TargetId(1))));
    assert!(body.contains("fine"));
    assert_eq!(outcomes(&account).last(), Some(&("b-strong", "ok")));
    assert!(outcomes(&account).contains(&("a-weak", "target_fault")));
    assert_eq!(usize::from(head.attempts), account.attempts.len());
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_not_shown_and_the_stronger_tier_answers() {
    let empty = Script::new().begin("m").stop().usage(3, 0).done();
    let world = World::new(PLAN, vec![empty], vec![Script::answer("Something nice.")]);
    let (head, body, account) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!(
        (head.tier, head.verdict.as_str(), head.verified.as_str()),
        (1, "pass", "full")
    );
    assert!(body.contains("Something nice."));
    let first = account.attempts.first().unwrap();
    assert_eq!(first.verdict.as_ref().unwrap().check, Some("finish"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_judged_before_a_byte_is_sent() {
    let plan = PLAN.replace(
        "start = \"first\"",
        "start = \"first\"\nhold_back_tokens = \"all\"\nverify = [\"arithmetic\"]",
    );
    let wrong = Script::new()
        .begin("m")
        .text("3 x 60 = ")
        .text("170.")
        .stop()
        .done();
    let right = Script::new()
        .begin("m")
        .text("3 x 60 = ")
        .text("180.")
        .stop()
        .done();
    let world = World::new(&plan, vec![wrong], vec![right]);
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    assert_eq!((head.tier, head.attempts), (1, 2));
    let (bytes, error, account) = drain(driver).await;
    assert!(error.is_none());
    assert_eq!(said(&bytes), ("3 x 60 = 180.".to_owned(), true));
    assert_eq!(
        account.attempts.first().unwrap().verdict.as_ref().unwrap().check,
        Some("arithmetic")
    );
}

#[tokio::test(start_paused = true)]
async fn a_few_tokens_are_held_and_come_in_their_order() {
    let plan = PLAN.replace("start = \"first\"", "start = \"first\"\nhold_back_tokens = 3");
    let script = ["one ", "two ", "three ", "four"]
        .iter()
        .fold(Script::new().begin("m"), |s, t| {
            s.wait(Duration::from_millis(10)).text(t)
        });
    let world = World::new(&plan, vec![script.stop().done()], vec![]);
    let before = world.clock.now();
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let waited = world.clock.now().since(before);
    assert!(
        (Duration::from_millis(30)..Duration::from_millis(40)).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(head.verified, "prefix:3");
    let (bytes, error, _) = drain(driver).await;
    assert!(error.is_none());
    assert_eq!(said(&bytes), ("one two three four".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_is_not_held_longer_than_its_time() {
    let plan = PLAN.replace(
        "start = \"first\"",
        "start = \"first\"\nhold_back_tokens = 50\nhold_back_max_ms = 200",
    );
    let script = Script::new()
        .begin("m")
        .text("slow")
        .wait(Duration::from_secs(2))
        .text("er")
        .stop()
        .done();
    let world = World::new(&plan, vec![script], vec![]);
    let before = world.clock.now();
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    assert!(world.clock.now().since(before) < Duration::from_secs(1));
    assert_eq!(head.verified, "prefix:1");
    assert_eq!(said(&drain(driver).await.0).0, "slower");
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_after_the_commit_is_an_in_band_error_never_a_silent_end() {
    let cut = Script::new()
        .begin("m")
        .text("Hel")
        .fail(AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent());
    let world = World::new(&never(), vec![cut], vec![Script::answer("Hello")]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (bytes, error, account) = drain(driver).await;
    assert_eq!(said(&bytes), ("Hel".to_owned(), false));
    assert_eq!(error.unwrap().kind(), Kind::StreamCut);
    assert!(!account.whole);
    assert_eq!(
        world.strong.seen().len(),
        0,
        "another model may not finish it unasked"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_let_go() {
    let silent = Script::new()
        .begin("m")
        .text("Hel")
        .act(crate::providers::fake::Act::Hang);
    let world = World::new(&never(), vec![silent], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let before = world.clock.now();
    let (_, error, account) = drain(driver).await;
    assert!(error.is_some());
    assert_eq!(world.clock.now().since(before).as_secs(), 30);
    assert_eq!(
        account.attempts.first().unwrap().fault.as_deref(),
        Some("idle_timeout")
    );
    assert_eq!(world.weak.cancelled(), 1);
}

/// Signs of life bear no waiting for ever: not before the first content, and not after it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_only_says_that_it_lives_is_let_go() {
    let mut script = Script::new().begin("m").text("Hel");
    for _ in 0..5_000 {
        script = script.act(crate::providers::fake::Act::Say(vec![Event::Ping]));
        script = script.wait(Duration::from_millis(200));
    }
    let plan = format!("{}\n[timeouts]\nfirst_token_ms = 45_000", never());
    let world = World::new(&plan, vec![script], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let before = world.clock.now();
    let (bytes, error, account) = drain(driver).await;
    assert_eq!(said(&bytes).0, "Hel");
    assert!(error.is_some());
    assert_eq!(world.clock.now().since(before).as_secs(), 45);
    let attempt = account.attempts.first().unwrap();
    assert_eq!(attempt.fault.as_deref(), Some("idle_timeout"));
    assert_eq!(world.weak.cancelled(), 1);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_between_words_are_borne() {
    let mut script = Script::new().begin("m").text("Hel");
    for _ in 0..200 {
        script = script.act(crate::providers::fake::Act::Say(vec![Event::Ping]));
        script = script.wait(Duration::from_millis(200));
    }
    let script = script.text("lo").stop().usage(3, 5).done();
    let world = World::new(&never(), vec![script], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (bytes, error, _) = drain(driver).await;
    assert_eq!(
        (said(&bytes), error.is_none()),
        (("Hello".to_owned(), true), true)
    );
}

#[tokio::test(start_paused = true)]
async fn no_first_content_goes_elsewhere_and_not_to_the_same_again() {
    let plan = format!("{PLAN}\n[timeouts]\nfirst_token_ms = 500");
    let silent = || Script::new().begin("m").act(crate::providers::fake::Act::Hang);
    let world = World::new(&plan, vec![silent(), silent()], vec![Script::answer("here")]);
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    assert_eq!(
        (head.tier, world.weak.seen().len(), world.weak.cancelled()),
        (1, 1, 1)
    );
    assert_eq!(said(&drain(driver).await.0).0, "here");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_request_keeps_the_providers_words() {
    let says = UpstreamError {
        message: "temperature must be at most 2".into(),
        kind: Some("invalid_request_error".into()),
        code: None,
        param: Some("temperature".into()),
    };
    let refuse =
        AttemptError::new(Fault::Status(400), "the provider refused the request").with_upstream(says);
    let world = World::new(PLAN, vec![Script::refuse(refuse)], vec![]);
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(failure.error.status(), 400);
    assert_eq!(failure.error.message(), "temperature must be at most 2");
    assert_eq!(failure.account.attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_asks_not_to_be_sent_the_same_again_is_not() {
    let failing =
        |not_again| Script::refuse(AttemptError::new(Fault::Status(500), "it failed").not_again(not_again));
    for (not_again, calls) in [(false, 2), (true, 1)] {
        let weak = vec![failing(not_again), failing(not_again)];
        let world = World::new(PLAN, weak, vec![Script::answer("here")]);
        assert_eq!(run(world.work(WHOLE)).await.unwrap().head.tier, 1);
        assert_eq!(world.weak.seen().len(), calls, "{not_again}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_the_target_for_everyone() {
    let limited = AttemptError::new(Fault::Status(429), "too many requests")
        .with_retry_after(Some(Duration::from_secs(60)));
    let world = World::new(
        PLAN,
        vec![Script::refuse(limited)],
        vec![Script::answer("a"), Script::answer("b")],
    );
    let (head, ..) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!(head.tier, 1);
    let held = world.targets.first().unwrap().state.usable(world.clock.now());
    let why = Hold::Limited;
    assert!(
        matches!(held, Usable::Held { why: told, .. } if told == why),
        "{held:?}"
    );
    let (head, ..) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!(
        (head.tier, world.weak.seen().len()),
        (1, 1),
        "not asked while it is held"
    );
}

#[tokio::test(start_paused = true)]
async fn a_401_takes_the_target_out_until_a_reload() {
    let says = UpstreamError {
        code: Some("invalid_api_key".into()),
        ..UpstreamError::default()
    };
    let denied = AttemptError::new(Fault::Status(401), "401 from the provider").with_upstream(says);
    let world = World::new(PLAN, vec![Script::refuse(denied)], vec![Script::answer("a")]);
    whole(run(world.work(WHOLE)).await.unwrap());
    let state = &world.targets.first().unwrap().state;
    assert!(state.usable(world.clock.now()).off());
    state.forgive();
    assert!(state.usable(world.clock.now()).yes());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_cancels_the_try() {
    let long = Script::new()
        .begin("m")
        .text("Hel")
        .wait(Duration::from_secs(5))
        .text("lo")
        .stop()
        .done();
    let world = World::new(PLAN, vec![long], vec![]);
    let (_, mut driver) = stream(run(world.work(STREAM)).await.unwrap());
    let account = driver.account();
    drop(driver);
    assert_eq!(world.weak.cancelled(), 1);
    assert_eq!(account.attempts.first().unwrap().outcome, "neutral");
    assert_eq!(world.targets.first().unwrap().state.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn everything_down_ends_in_one_honest_error() {
    let down = || Script::refuse(AttemptError::new(Fault::Connect, "connection refused"));
    let plan = PLAN.replace("start = \"first\"", "start = \"first\"\ndegrade = []");
    let world = World::new(&plan, vec![down()], vec![down()]);
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(failure.error.status(), 502);
    assert!(
        failure.error.message().contains("connection refused"),
        "{}",
        failure.error.message()
    );
    assert!(failure.account.attempts.len() <= 4, "max_attempts");
}

#[tokio::test(start_paused = true)]
async fn the_routes_message_is_an_error_or_an_answer_as_the_plan_says() {
    let down = || Script::refuse(AttemptError::new(Fault::Connect, "connection refused"));
    let message = |status: u16| {
        PLAN.replace(
            "start = \"first\"",
            &format!("start = \"first\"\ndegrade = [\"message\"]\nmessage = {{ status = {status}, text = \"Back soon.\" }}"),
        )
    };
    let world = World::new(&message(503), vec![down()], vec![down()]);
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(
        (failure.error.status().as_u16(), failure.error.message()),
        (503, "Back soon.")
    );
    assert!(failure.head.degraded.unwrap().starts_with("message; reason="));

    let world = World::new(&message(200), vec![down()], vec![down()]);
    let (_, body, _) = whole(run(world.work(WHOLE)).await.unwrap());
    assert!(body.contains("Back soon."), "{body}");
    let world = World::new(&message(200), vec![down()], vec![down()]);
    let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
    assert!(head.degraded.is_some());
    assert_eq!(said(&drain(driver).await.0), ("Back soon.".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn large_answers_are_judged_off_the_sockets_thread_with_the_same_result() {
    let mut text = String::new();
    for i in 0..20_000 {
        text.push_str("All is well, said the river to the weir. ");
        text.push_str(&i.to_string());
        text.push('\n');
    }
    let script = Script::new()
        .begin("m")
        .text(&text)
        .finish(FinishReason::Stop)
        .done();
    let world = World::new(PLAN, vec![script], vec![]);
    let (head, body, _) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!((head.tier, head.verdict.as_str()), (0, "pass"));
    assert!(body.len() > text.len());
}

#[tokio::test(start_paused = true)]
async fn a_tool_call_is_content() {
    let tool = Event::Tool(Box::new(crate::providers::event::ToolDelta {
        choice: 0,
        index: 0,
        id: Some("call_1".into()),
        name: Some("f".into()),
        arguments: "{}".into(),
    }));
    let script = Script::new()
        .begin("m")
        .act(crate::providers::fake::Act::Say(vec![tool]))
        .finish(FinishReason::ToolCalls)
        .done();
    let body = STREAM.replace(
        "\"stream\"",
        r#""tools":[{"type":"function","function":{"name":"f"}}],"stream""#,
    );
    let world = World::new(PLAN, vec![script], vec![]);
    let (head, driver) = stream(run(world.work(&body)).await.unwrap());
    assert_eq!(head.tier, 0);
    assert!(drain(driver).await.0.contains("call_1"));
}

/// Nothing that was set for the tries holds an answer's end up: not a clock of an earlier try, not the deadline.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_last_byte() {
    let down = || Script::refuse(AttemptError::new(Fault::Connect, "connection refused"));
    let message =
        "start = \"first\"\ndegrade = [\"message\"]\nmessage = { status = 200, text = \"Back soon.\" }";
    let messages = World::new(
        &PLAN.replace("start = \"first\"", message),
        vec![down()],
        vec![down()],
    );
    let empty = || Script::new().begin("m").stop().usage(3, 0).done();
    let nothing = World::new(PLAN, vec![empty()], vec![empty()]);
    for world in [messages, nothing] {
        let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
        let before = world.clock.now();
        let (bytes, error, account) = drain(driver).await;
        assert!(error.is_none() && account.whole);
        assert!(said(&bytes).1);
        assert_eq!(world.clock.now().since(before), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_ran_out_is_told_recorded_and_maybe_billed() {
    let plan = PLAN.replace("start = \"first\"", "start = \"first\"\ndegrade = []");
    let plan = format!("{plan}\n[timeouts]\nfirst_token_ms = 500");
    let full = Script::refuse(AttemptError::new(Fault::QueueFull, "64 requests are waiting"));
    let silent = Script::new().begin("m").act(crate::providers::fake::Act::Hang);
    let world = World::new(&plan, vec![full], vec![silent]);
    let failure = run(world.work(STREAM)).await.unwrap_err();
    assert_eq!(
        failure.error.status(),
        504,
        "the last try decides, not an earlier one"
    );
    let said = failure.error.message();
    assert!(
        said.contains("b-strong") && said.contains("first_token_ms"),
        "{said}"
    );
    assert_eq!((failure.head.target, failure.head.tier), (Some(TargetId(1)), 1));
    let last = failure.account.attempts.last().unwrap();
    assert_eq!(
        (last.fault.as_deref(), last.maybe_billed),
        (Some("first_token_timeout"), true)
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_status_is_an_answer_and_names_who_gave_it() {
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-ratelimit-remaining-requests",
        http::HeaderValue::from_static("0"),
    );
    let refused = AttemptError::new(Fault::Status(422), "422 from the provider")
        .with_upstream(UpstreamError::default())
        .with_headers(headers)
        .sent();
    let world = World::new(PLAN, vec![Script::refuse(refused)], vec![]);
    let failure = run(world.work(&WHOLE.replace("auto", "b-strong"))).await;
    assert!(failure.is_ok());
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert!(!failure.account.attempts.first().unwrap().maybe_billed);
    assert_eq!(failure.head.target, Some(TargetId(0)));
    assert!(
        failure
            .head
            .upstream
            .contains_key("x-ratelimit-remaining-requests")
    );
}

#[tokio::test(start_paused = true)]
async fn one_callers_short_patience_holds_no_local_model_back_for_others() {
    let late = AttemptError::new(
        Fault::QueueFull,
        "the predicted wait is longer than the time left",
    )
    .with_retry_after(Some(Duration::from_secs(60)));
    let world = World::new(PLAN, vec![Script::refuse(late)], vec![Script::answer("a")]);
    whole(run(world.work(WHOLE)).await.unwrap());
    let state = &world.targets.first().unwrap().state;
    assert!(state.usable(world.clock.now()).yes());
}

#[tokio::test(start_paused = true)]
async fn a_pinned_target_that_is_held_says_429_and_when() {
    let world = World::new(PLAN, vec![], vec![]);
    let state = &world.targets.first().unwrap().state;
    state.hold(world.clock.now() + Duration::from_secs(60), Hold::Limited);
    let failure = run(world.work(&WHOLE.replace("auto", "a-weak")))
        .await
        .unwrap_err();
    assert_eq!(failure.error.status(), 429);
    assert_eq!(failure.error.retry_after_hint(), Some(Duration::from_secs(60)));
    assert_eq!((failure.head.attempts, world.weak.seen().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_failed_and_named_a_time_is_not_told_as_limited() {
    let down =
        AttemptError::new(Fault::Status(503), "unavailable").with_retry_after(Some(Duration::from_secs(60)));
    let world = World::new(PLAN, vec![Script::refuse(down)], vec![Script::answer("a")]);
    whole(run(world.work(WHOLE)).await.unwrap());
    let held = world.targets.first().unwrap().state.usable(world.clock.now());
    let why = Hold::Failed;
    assert!(
        matches!(held, Usable::Held { why: told, .. } if told == why),
        "{held:?}"
    );
    let failure = run(world.work(&WHOLE.replace("auto", "a-weak")))
        .await
        .unwrap_err();
    assert_eq!(failure.error.status(), 503);
    assert_eq!(failure.error.retry_after_hint(), Some(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_floor_whose_targets_are_all_held_is_told_as_such() {
    for (more, status) in [("min_tier = 1\ndegrade = []", 503), ("min_tier = 1", 503)] {
        let plan = PLAN.replace("start = \"first\"", &format!("start = \"first\"\n{more}"));
        let world = World::new(&plan, vec![], vec![]);
        let state = &world.targets.last().unwrap().state;
        state.hold(world.clock.now() + Duration::from_secs(60), Hold::Limited);
        let error = run(world.work(WHOLE)).await.unwrap_err().error;
        assert_eq!(
            (error.status().as_u16(), error.label()),
            (status, "min_tier_not_available")
        );
        assert_eq!(error.retry_after_hint(), Some(Duration::from_secs(60)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_did_not_pass_is_told_with_its_verdict() {
    let plan = PLAN.replace(
        "start = \"first\"",
        "start = \"first\"\non_fail = \"error\"\ndegrade = []",
    );
    let empty = || Script::new().begin("m").stop().usage(3, 0).done();
    let world = World::new(&plan, vec![empty()], vec![empty()]);
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(failure.error.label(), "answer_not_verified");
    assert!(
        !failure.error.should_retry(),
        "every tier has answered: a client's own tries would multiply ours"
    );
    let head = failure.head;
    assert_eq!(
        (head.verified.as_str(), head.verdict.as_str()),
        ("full", "fail:finish")
    );
    assert_eq!((head.target, head.tier), (Some(TargetId(1)), 1));
    assert_eq!(failure.account.verdict.unwrap().check, Some("finish"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_after_its_finish_reason_is_whole() {
    let silent = Script::new()
        .begin("m")
        .text("Hello")
        .stop()
        .act(crate::providers::fake::Act::Hang);
    let world = World::new(PLAN, vec![silent], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (bytes, error, account) = drain(driver).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(said(&bytes), ("Hello".to_owned(), true));
    assert_eq!(bytes.matches("[DONE]").count(), 1);
    assert_eq!(outcomes(&account), [("a-weak", "ok")]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_says_what_it_used() {
    let cut = Script::new()
        .begin("m")
        .text("Hel")
        .text("lo")
        .fail(AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent());
    let world = World::new(&never(), vec![cut], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (_, _, account) = drain(driver).await;
    let usage = account.usage.unwrap();
    assert_eq!((usage.completion, usage.from), (2, "counted"));
    assert_eq!(
        usage.prompt, PROMPT,
        "the provider has read the prompt, and charges for it"
    );
    assert_eq!(account.cost, Some(NanoUsd(PROMPT * 1_000 + 4_000)));
    assert!(!account.whole);
}

/// What is estimated for the prompt of [`STREAM`] and [`WHOLE`].
const PROMPT: u64 = 9;

#[tokio::test(start_paused = true)]
async fn figures_told_at_the_beginning_of_a_cut_stream_are_not_its_last() {
    let cut = Script::new()
        .begin("m")
        .usage(30, 1)
        .text("A sentence of some length that came in one piece")
        .fail(AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent());
    let world = World::new(&never(), vec![cut], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (_, _, account) = drain(driver).await;
    let usage = account.usage.unwrap();
    assert_eq!((usage.prompt, usage.completion, usage.from), (30, 12, "counted"));
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_without_figures_is_measured_by_its_bytes() {
    let text: String = (0..400).map(|i| format!("{i:04} ")).collect();
    // Zeros are no figures.
    let script = Script::new().begin("m").text(&text).stop().usage(0, 0).done();
    let world = World::new(PLAN, vec![script], vec![]);
    let (_, _, account) = whole(run(world.work(WHOLE)).await.unwrap());
    let usage = account.usage.unwrap();
    assert_eq!(
        (usage.prompt, usage.completion, usage.from),
        (PROMPT, 500, "counted")
    );
    assert_eq!(account.cost, Some(NanoUsd(PROMPT * 1_000 + 500 * 2_000)));
}

#[tokio::test(start_paused = true)]
async fn a_try_that_nobody_began_to_answer_used_nothing() {
    let refused = AttemptError::new(Fault::InBand(529), "overloaded").sent();
    let world = World::new(
        PLAN,
        vec![Script::new().fail(refused)],
        vec![Script::answer("fine")],
    );
    let (_, _, account) = whole(run(world.work(WHOLE)).await.unwrap());
    assert!(account.attempts.first().unwrap().usage.is_none());
}

#[tokio::test]
async fn an_answer_that_is_judged_elsewhere_keeps_its_figures() {
    let plan = PLAN.replace(
        "start = \"first\"",
        "start = \"first\"\nverify = [\"json_schema\"]",
    );
    let body = format!("{{\"a\":[{}1]}}", "1,".repeat(200_000));
    let script = || Script::new().begin("m").text(&body).stop().usage(3, 5).done();
    let world = World::new(&plan, vec![script()], vec![script()]);
    let mut work = world.work(WHOLE);
    let mut question = Question::new(CallKind::Chat, "Numbers, as JSON");
    question.format = routing::verify::Format::JsonObject;
    work.question = Some(Arc::new(question));
    let mut driver = Driver::new(work);
    // One poll: the answer is whole and on its way to be judged; then its caller leaves.
    let polled = std::future::poll_fn(|cx| Poll::Ready(driver.poll_commit(cx).is_pending())).await;
    assert!(polled);
    let account = driver.account();
    let attempt = account.attempts.first().unwrap();
    let usage = attempt.usage.unwrap();
    assert_eq!((usage.prompt, usage.completion, usage.from), (3, 5, "provider"));
    assert_eq!(attempt.cost_nano_usd, Some(13_000));
}

#[tokio::test(start_paused = true)]
async fn a_large_whole_answer_passes() {
    let text = "x".repeat(running::MAX_HELD + 1);
    let world = World::new(PLAN, vec![Script::answer(&text)], vec![]);
    let (_, body, _) = whole(run(world.work(&WHOLE.replace("auto", "a-weak"))).await.unwrap());
    assert!(body.len() > text.len());
}

#[tokio::test(start_paused = true)]
async fn silence_is_borne_no_longer_than_the_callers_client_bears_it() {
    let silent = Script::new()
        .begin("m")
        .text("Hel")
        .act(crate::providers::fake::Act::Hang);
    let world = World::new(&never(), vec![silent], vec![]);
    let mut work = world.work(STREAM);
    work.silence = Some(Duration::from_secs(5));
    let (_, driver) = stream(run(work).await.unwrap());
    let before = world.clock.now();
    let (_, error, _) = drain(driver).await;
    assert!(error.unwrap().message().contains("5000 ms"));
    assert_eq!(world.clock.now().since(before).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_before_the_commit_leaves_the_tries_in_the_record() {
    let hangs = Script::new().begin("m").act(crate::providers::fake::Act::Hang);
    let world = World::new(PLAN, vec![hangs], vec![]);
    let mut told = None;
    let running = drive(world.work(STREAM), |account| told = Some(account));
    let left = tokio::time::timeout(Duration::from_millis(100), running).await;
    assert!(left.is_err());
    assert_eq!(world.weak.cancelled(), 1);
    let account = told.unwrap();
    assert_eq!(outcomes(&account), [("a-weak", "neutral")]);
    assert!(!account.whole);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_do_not_move_the_deadline() {
    let mut script = Script::new().begin("m");
    for _ in 0..50_000 {
        script = script.act(crate::providers::fake::Act::Say(vec![Event::Ping]));
        script = script.wait(Duration::from_millis(20));
    }
    let plan = PLAN.replace(
        "tiers = [[\"a-weak\"], [\"b-strong\"]]",
        "tiers = [[\"a-weak\"]]\ndegrade = []",
    );
    let world = World::new(&plan, vec![script], vec![]);
    let mut work = world.work(STREAM);
    let began = world.clock.now();
    work.deadline = began + Duration::from_secs(2);
    let failure = run(work).await.unwrap_err();
    assert_eq!(failure.error.kind(), Kind::Deadline);
    assert_eq!(world.clock.now().since(began).as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_live_without_words_for_as_long_as_its_first_ones_may_take() {
    let text = format!(
        "{}\n[timeouts]\nfirst_token_ms = 60_000\nidle_ms = 30_000",
        never()
    );
    let ping = |script: Script| {
        script
            .wait(Duration::from_secs(20))
            .act(crate::providers::fake::Act::Say(vec![Event::Ping]))
    };
    // Forty seconds of them are borne, though `idle_ms` is thirty.
    let goes_on = ping(ping(Script::new().begin("m").text("Hel")))
        .text("lo")
        .stop()
        .usage(3, 5)
        .done();
    let world = World::new(&text, vec![goes_on], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let (bytes, error, _) = drain(driver).await;
    assert!(error.is_none());
    assert_eq!(said(&bytes), ("Hello".to_owned(), true));
    // For ever they are not.
    let for_ever = (0..500).fold(Script::new().begin("m").text("Hel"), |s, _| ping(s));
    let world = World::new(&text, vec![for_ever], vec![]);
    let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
    let before = world.clock.now();
    let (_, error, account) = drain(driver).await;
    let words = "nothing but signs of life came for 60000 ms";
    assert!(error.unwrap().message().contains(words));
    assert_eq!(world.clock.now().since(before).as_secs(), 60);
    assert_eq!(
        account.attempts.first().unwrap().fault.as_deref(),
        Some("idle_timeout")
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_has_not_taken_is_not_read_from_the_target() {
    let script = (0..10).fold(Script::new().begin("m"), |s, i| s.text(&format!("piece {i}. ")));
    let world = World::new(PLAN, vec![script.stop().usage(3, 5).done()], vec![]);
    let (_, mut driver) = stream(run(world.work(STREAM)).await.unwrap());
    let mut text = String::new();
    while !text.contains("piece 1") {
        let piece = std::future::poll_fn(|cx| driver.poll_frame(cx)).await;
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    drop(driver);
    assert_eq!(
        world.weak.cancelled(),
        1,
        "the end of the script was never reached: nothing is read ahead"
    );
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_comes_after_its_clock_is_not_lost_when_nothing_better_came() {
    let plan = format!(
        "{}\n[timeouts]\nattempt_ms = 1_000",
        PLAN.replace("start = \"first\"", "start = \"first\"\ndegrade = []")
    );
    let after = |ms| {
        Script::new()
            .wait(Duration::from_millis(ms))
            .begin("m")
            .text("late")
            .stop()
            .usage(3, 5)
            .done()
    };
    let late = || after(1_600);
    let down = || Script::refuse(AttemptError::new(Fault::Connect, "connection refused"));
    let world = World::new(&plan, vec![late()], vec![down(), down()]);
    let (head, body, account) = whole(run(world.work(WHOLE)).await.unwrap());
    assert!(body.contains("late"));
    assert_eq!((head.tier, head.verdict.as_str()), (0, "pass"));
    assert!(outcomes(&account).contains(&("a-weak", "ok")));
    // One that is there before is taken, and the late one is let go.
    let world = World::new(&plan, vec![late()], vec![Script::answer("in time")]);
    let (head, body, account) = whole(run(world.work(WHOLE)).await.unwrap());
    assert!(body.contains("in time"));
    assert_eq!((head.tier, world.weak.cancelled()), (1, 1));
    let given_up = account.attempts.iter().find(|a| &*a.target == "a-weak").unwrap();
    assert_eq!(
        (given_up.fault.as_deref(), given_up.maybe_billed),
        (Some("attempt_timeout"), true)
    );
    // It has as long again and no longer: nobody waits until the deadline for who may never answer.
    let world = World::new(&plan, vec![after(3_000)], vec![down(), down()]);
    let before = world.clock.now();
    assert!(run(world.work(WHOLE)).await.is_err());
    assert_eq!(world.clock.now().since(before), Duration::from_secs(2));
}
