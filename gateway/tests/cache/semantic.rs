//! Answers to questions that mean the same. The encoder is a script: what counts here is what is done with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::classify::{Classifier, Reader, Reading};
use gateway::providers::fake::{Act, Gate, Script};
use routing::facts::Facts;
use serde_json::{Value, json};

use crate::house::{Answer, House, body, eventually, house};

/// To this encoder everything means the same, but for what speaks of the weather.
#[derive(Default)]
struct Encoder {
    runs: AtomicUsize,
    /// Never answers.
    stuck: bool,
    /// Never answers on a text that has this in it.
    stuck_at: Option<&'static str>,
    /// Reads so many bytes of a text, where it does not read all.
    reads: Option<usize>,
}

impl Reader for Encoder {
    /// Twenty microseconds a byte behind ten milliseconds of others.
    fn predicted_us(&self, bytes: usize) -> Option<u64> {
        Some(10_000 + 1_000 * bytes as u64 / 50)
    }
    fn read(&self, text: String, _: &Facts) -> Pin<Box<dyn Future<Output = Option<Reading>> + Send>> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if self.stuck || self.stuck_at.is_some_and(|word| text.contains(word)) {
            return Box::pin(std::future::pending());
        }
        let weather = text.contains("weather");
        let vector: [f32; 2] = if weather { [0.0, 1.0] } else { [1.0, 0.1] };
        Box::pin(std::future::ready(Some(Reading {
            category: "other".into(),
            difficulty: 0.0,
            version: "script-1".into(),
            vector: vector.into(),
            whole: self.reads.is_none_or(|most| text.len() <= most),
        })))
    }
}

fn plan(rate: f64) -> String {
    let cache = format!(
        "tiers = [[\"one\"]]\n\
         cache = {{ exact_ttl_s = 600, semantic = {{ enabled = true, max_error_rate = {rate} }} }}\n"
    );
    format!(
        "[routes.kept]\n{cache}[routes.loose]\nverify = []\n{cache}\
         [routes.plain]\ntiers = [[\"one\"]]\ncache = {{ exact_ttl_s = 600 }}\n"
    )
}

fn with(rate: f64, script: Script) -> (House, Arc<Encoder>) {
    with_encoder(&plan(rate), script, Encoder::default())
}

fn with_encoder(plan: &str, script: Script, encoder: Encoder) -> (House, Arc<Encoder>) {
    let house = house(plan, [script]);
    let encoder = Arc::new(encoder);
    house
        .app
        .set_classifier(Classifier::new(Some(Arc::clone(&encoder) as Arc<dyn Reader>)));
    (house, encoder)
}

/// The same question, in other words each time: an exact look finds none of them.
fn question(n: usize) -> Value {
    let words = [
        "please", "kindly", "now", "then", "well", "so", "again", "once", "and",
    ];
    let mut said = String::new();
    let mut n = n;
    loop {
        said = format!("{} {said}", words[n % words.len()]);
        n /= words.len();
        if n == 0 {
            break;
        }
    }
    json!([{"role": "user", "content": format!("{said}tell me what a weir is")}])
}

fn ask(messages: Value, more: Value) -> Value {
    let mut body = body(false, json!({"model": "kept", "messages": messages}));
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

impl House {
    /// What the looks came to, in the order in which requests ended. The house is at its end then.
    async fn looks(self) -> Vec<Value> {
        let records = self.end().await;
        records.into_iter().map(|r| r["semantic"].clone()).collect()
    }

    async fn asked_and_kept(&self, body: &Value) -> Answer {
        let answer = self.ask(body).await;
        self.landed().await;
        answer
    }

    fn semantic(&self) -> (usize, u64) {
        let memory = self.app.cache().semantic();
        let looked = memory.bounds(100).iter().map(|b| b.lookups).sum();
        (memory.figures().entries, looked)
    }
}

const TEXT: &str = "It is a low wall in a river.";

#[tokio::test(start_paused = true)]
async fn once_its_own_evidence_suffices_an_answer_is_given_to_the_same_question_in_other_words() {
    let (house, encoder) = with(1.0, Script::answer(TEXT));
    let first = house.asked_and_kept(&ask(question(0), json!({}))).await;
    assert_eq!(first.header("x-weir-cache"), "miss");
    let mut hits = 0;
    for n in 1..400 {
        let stream = n % 2 == 0;
        let calls = house.fake.seen().len();
        let answer = house
            .asked_and_kept(&ask(question(n), json!({"stream": stream})))
            .await;
        assert_eq!(answer.text(), TEXT);
        let again = house.fake.seen().len() - calls;
        match answer.header("x-weir-cache") {
            "miss" => assert_eq!(again, 1),
            "semantic" => {
                hits += 1;
                assert_eq!((again, answer.header("x-weir-attempts")), (0, "0"));
                assert_eq!(answer.header("x-weir-model"), "one");
            }
            other => panic!("{other}"),
        }
    }
    // The first hit may come after about twenty looks; from then on most are.
    assert!(hits > 200, "{hits}");
    assert_eq!(
        house.semantic(),
        (1, 400),
        "explored and the same: no further entry"
    );
    assert_eq!(
        encoder.runs.load(Ordering::Relaxed),
        400,
        "equal texts need no encoder"
    );
    let records = house.end().await;
    let free = records.iter().filter(|r| r["cache"] == "semantic");
    assert_eq!(free.clone().count(), hits);
    for record in free {
        assert_eq!(
            (&record["cost_nano_usd"], &record["end"]),
            (&json!(0), &json!("whole"))
        );
        assert_eq!(record["semantic"]["came_to"], "hit");
        assert_eq!(record["semantic"]["similarity_ppm"], 1_000_000);
        assert_eq!(record["heads"], json!(["script-1"]));
    }
}

#[tokio::test(start_paused = true)]
async fn other_answers_are_told_to_be_different_and_become_entries() {
    let (house, _) = with(0.02, Script::answer("unused"));
    for n in 0..100 {
        let says = format!("It costs {} euros.", 10 + n);
        house.fake.turn(Script::answer(&says));
        let answer = house.asked_and_kept(&ask(question(n), json!({}))).await;
        assert_eq!(answer.text(), says);
    }
    assert_eq!(house.semantic(), (100, 100));
    let page = house.app.telemetry().render();
    for line in [
        r#"weir_semantic_evidence_total{verdict="different"} 99"#,
        r#"weir_semantic_lookups_total{route="kept",came_to="explore"} 99"#,
        r#"weir_semantic_lookups_total{route="kept",came_to="miss"} 1"#,
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

/// Neither equal nor plainly different: only an encoder could say.
const LONG: &str =
    "A weir is a low wall across a stream which holds the water back and lets what is too much run over";
const LONG_TOO: &str = "People put such a barrier into rivers so that boats find enough depth there and mills have something to turn with";

/// Whoever asks goes on, and what it held is given back, however long it takes to learn from its answer.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_while_an_answer_is_learnt_from() {
    let keys = "[server]\nauth = \"keys\"\n[[keys]]\nname = \"a\"\nkey = \"env:KEY_A\"\n\
                limits = { concurrency = 1 }\n";
    let encoder = Encoder {
        stuck_at: Some("barrier"),
        ..Encoder::default()
    };
    let (house, _) = with_encoder(&format!("{}{keys}", plan(0.02)), Script::answer(LONG), encoder);
    let key = [("authorization", "Bearer key-a")];
    let asked = async |n| {
        let answer = house.send(&key, &ask(question(n), json!({}))).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        house.landed().await;
        assert_eq!(house.app.bodies().used(), 0);
    };
    asked(0).await;
    let began = house.app.clock().now();
    house.fake.turn(Script::answer(LONG_TOO));
    asked(1).await;
    asked(2).await;
    let took = house.app.clock().now().since(began);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// An answer that cannot be compared has shown nothing: it counts as a wrong one, and the bound leaves less room.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_compared_stays_charged() {
    let mut hits = Vec::new();
    for (reads, verdict) in [(None, "unsure"), (Some(80), "uncompared")] {
        let encoder = Encoder {
            reads,
            ..Encoder::default()
        };
        let (house, _) = with_encoder(&plan(0.3), Script::answer(LONG), encoder);
        for n in 0..400 {
            let says = if n % 2 == 0 { LONG } else { LONG_TOO };
            house.fake.turn(Script::answer(says));
            house.asked_and_kept(&ask(question(n), json!({}))).await;
        }
        let page = house.app.telemetry().render();
        let counted = |verdict: &str| format!("weir_semantic_evidence_total{{verdict=\"{verdict}\"}}");
        assert!(page.contains(&counted(verdict)), "{page}");
        assert_eq!(
            page.contains(&format!("{} 0", counted("uncompared"))),
            reads.is_none()
        );
        let looks = house.looks().await;
        hits.push(looks.iter().filter(|l| l["came_to"] == "hit").count());
    }
    assert!(hits[0] > 2 * hits[1], "{hits:?}");
}

/// Of a question that is too long for it the encoder sees head and tail, and the middle could say anything.
#[tokio::test(start_paused = true)]
async fn a_question_that_the_encoder_does_not_read_whole_is_not_looked_for() {
    let encoder = Encoder {
        reads: Some(40),
        ..Encoder::default()
    };
    let (house, encoder) = with_encoder(&plan(1.0), Script::answer(TEXT), encoder);
    for text in [
        "tell me what a weir is",
        "tell me what a weir is, and what it is good for",
    ] {
        let body = ask(json!([{"role": "user", "content": text}]), json!({}));
        assert_eq!(house.asked_and_kept(&body).await.text(), TEXT);
    }
    assert_eq!(house.semantic(), (1, 1));
    assert_eq!(encoder.runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn everything_but_the_last_turn_must_be_equal() {
    let (house, _) = with(1.0, Script::answer(TEXT));
    let user = |text: &str| json!({"role": "user", "content": text});
    let system = |text: &str| json!([{"role": "system", "content": text}, user("tell me what a weir is")]);
    let plain = || json!([user("please tell me what a weir is")]);
    let tool = |name: &str| json!([{"type": "function", "function": {"name": name}}]);
    let bodies = [
        ask(json!([user("tell me what a weir is")]), json!({})),
        ask(plain(), json!({"tools": tool("a")})),
        ask(plain(), json!({"tools": tool("b")})),
        ask(plain(), json!({"max_tokens": 77})),
        ask(plain(), json!({"seed": 4})),
        ask(plain(), json!({"stop": ["x"]})),
        ask(plain(), json!({"response_format": {"type": "text"}})),
        ask(system("be kind"), json!({})),
        ask(system("be short"), json!({})),
        ask(
            json!([user("hi"), {"role": "assistant", "content": "hello"}, user("tell me what a weir is")]),
            json!({}),
        ),
        ask(
            json!([{"role": "user", "name": "x", "content": "tell me what a weir is"}]),
            json!({}),
        ),
    ];
    for body in &bodies {
        assert_eq!(house.asked_and_kept(body).await.header("x-weir-cache"), "miss");
    }
    assert_eq!(house.semantic(), (bodies.len(), bodies.len() as u64));
    let looks = house.looks().await;
    assert!(looks.iter().all(|l| l["came_to"] == "miss"), "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn another_tenant_finds_nothing() {
    let keys = "[server]\nauth = \"keys\"\n\
        [[keys]]\nname = \"a\"\nkey = \"env:KEY_A\"\ntenant = \"a\"\n\
        [[keys]]\nname = \"b\"\nkey = \"env:KEY_B\"\ntenant = \"b\"\n";
    let house = house(&format!("{}{keys}", plan(1.0)), [Script::answer(TEXT)]);
    house.app.set_classifier(Classifier::new(Some(
        Arc::new(Encoder::default()) as Arc<dyn Reader>
    )));
    for key in ["Bearer key-a", "Bearer key-b"] {
        let answer = house
            .send(&[("authorization", key)], &ask(question(1), json!({})))
            .await;
        assert_eq!(answer.header("x-weir-cache"), "miss", "{:?}", answer.body);
        house.landed().await;
    }
    let tenants: Vec<String> = house
        .app
        .cache()
        .semantic()
        .bounds(100)
        .into_iter()
        .map(|b| b.tenant)
        .collect();
    assert_eq!(tenants, ["a", "b"]);
    let looks = house.looks().await;
    assert!(looks.iter().all(|l| l["came_to"] == "miss"), "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_says_why_it_refused() {
    let (house, _) = with(1.0, Script::answer(TEXT));
    for content in [
        "How much are 5 apples in all?",
        "How much are 6 apples in all?",
        "How is the weather?",
    ] {
        let body = ask(json!([{"role": "user", "content": content}]), json!({}));
        house.asked_and_kept(&body).await;
    }
    assert_eq!(house.semantic().0, 3);
    let looks = house.looks().await;
    assert_eq!(
        (&looks[1]["came_to"], &looks[1]["guard"]),
        (&json!("refused"), &json!("number"))
    );
    assert_eq!(
        (&looks[2]["came_to"], &looks[2]["guard"]),
        (&json!("miss"), &Value::Null),
        "not alike at all"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_not_looked_for() {
    let (house, encoder) = with(1.0, Script::answer(TEXT));
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "what is a weir"}]}]);
    let ends_otherwise =
        json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "A weir"}]);
    let long = user(&"long ".repeat(300));
    for body in [
        ask(user("at random"), json!({"temperature": 1})),
        ask(user("two of them"), json!({"n": 2})),
        ask(user("another route"), json!({"model": "plain"})),
        ask(user("   "), json!({})),
        ask(parts, json!({})),
        ask(ends_otherwise, json!({})),
        ask(long, json!({})),
    ] {
        house.ask(&body).await;
    }
    let named = [("x-weir-no-cache", "1"), ("idempotency-key", "k1")];
    for (n, header) in named.iter().enumerate() {
        house.send(&[*header], &ask(question(n), json!({}))).await;
    }
    assert_eq!(encoder.runs.load(Ordering::Relaxed), 0);
    let looks = house.looks().await;
    assert_eq!(looks.len(), 9);
    assert!(looks.iter().all(Value::is_null), "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_plain_and_whole_is_not_kept_by_meaning() {
    let cut = Script::new()
        .begin("m")
        .text(TEXT)
        .finish(gateway::providers::event::FinishReason::Length)
        .usage(3, 5)
        .done();
    let (house, _) = with(1.0, cut);
    for n in 0..3 {
        house
            .asked_and_kept(&ask(question(n), json!({"model": "loose"})))
            .await;
    }
    assert_eq!(
        house.app.cache().stores().exact.held().0,
        3,
        "the route asks for no check"
    );
    assert_eq!(house.semantic(), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_or_absent_encoder_costs_its_time_limit_and_nothing_else() {
    let house = house(&plan(1.0), [Script::answer(TEXT)]);
    assert_eq!(
        house.asked_and_kept(&ask(question(0), json!({}))).await.text(),
        TEXT
    );
    let stuck = Encoder {
        stuck: true,
        ..Encoder::default()
    };
    house
        .app
        .set_classifier(Classifier::new(Some(Arc::new(stuck) as Arc<dyn Reader>)));
    let began = house.app.clock().now();
    assert_eq!(
        house.asked_and_kept(&ask(question(1), json!({}))).await.text(),
        TEXT
    );
    let took = house.app.clock().now().since(began);
    assert!(
        took <= house.app.runtime().plan.classify.max + Duration::from_millis(20),
        "{took:?}"
    );
    assert_eq!(house.semantic(), (0, 0));
}

/// What counts is how long it would take over this question, not over a usual one.
#[tokio::test(start_paused = true)]
async fn an_encoder_that_would_take_too_long_is_not_asked() {
    let (house, encoder) = with(1.0, Script::answer(TEXT));
    for (words, runs) in [(10, 1), (200, 1)] {
        let text = "word ".repeat(words);
        let body = ask(json!([{"role": "user", "content": text}]), json!({}));
        assert_eq!(house.asked_and_kept(&body).await.text(), TEXT);
        assert_eq!(encoder.runs.load(Ordering::Relaxed), runs, "{words} words");
    }
    assert_eq!(house.semantic(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_asks_what_is_asked_already_reads_along_and_is_not_looked_for() {
    let gate = Gate::default();
    let slow = Script::new()
        .begin("m")
        .act(Act::Gate(gate.clone()))
        .text(TEXT)
        .stop()
        .usage(3, 5)
        .done();
    let (house, encoder) = with(1.0, slow);
    let leader = tokio::spawn(house.send(&[], &ask(question(0), json!({}))));
    house.readers(1).await;
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..100 {
        others.spawn(house.send(&[], &ask(question(0), json!({}))));
    }
    house.readers(101).await;
    gate.open();
    for answer in others.join_all().await {
        assert_eq!(
            (answer.header("x-weir-cache"), answer.text().as_str()),
            ("coalesced", TEXT)
        );
    }
    assert_eq!(leader.await.unwrap().text(), TEXT);
    house.landed().await;
    assert_eq!(
        (house.semantic(), encoder.runs.load(Ordering::Relaxed)),
        ((1, 1), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_clears_what_is_kept_and_the_bound_goes_on() {
    let (house, _) = with(1.0, Script::answer(TEXT));
    house.asked_and_kept(&ask(question(0), json!({}))).await;
    assert_eq!(house.semantic(), (1, 1));
    house.app.cache().clear();
    assert_eq!(house.semantic(), (0, 1));
    // What is on its way is from before it, too.
    let gate = Gate::default();
    let slow = Script::new().begin("m").act(Act::Gate(gate.clone())).text(TEXT);
    house.fake.turn(slow.stop().usage(3, 5).done());
    let waiting = tokio::spawn(house.send(&[], &ask(question(1), json!({}))));
    house.readers(1).await;
    house.app.cache().clear();
    gate.open();
    assert_eq!(waiting.await.unwrap().text(), TEXT);
    house.landed().await;
    assert_eq!(house.semantic(), (0, 2));
    house.fake.turn(Script::answer(TEXT));
    house.asked_and_kept(&ask(question(0), json!({}))).await;
    assert_eq!(house.semantic(), (1, 3));
    // A plan without it leaves nothing behind.
    let other = routing::plan::load(crate::house::PLAN).unwrap();
    house.app.swap(other.plan, other.notes);
    eventually("nothing is kept", || house.semantic().0 == 0).await;
}
