//! Asking one scene's questions and judging what comes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::paint::Paint;
use super::scenes::{Ask, Scene};
use crate::client::{Answer, Client};
use crate::clock::{now, us};
use crate::provider::{Entry, Log};
use crate::sse::Events;

/// What came of one question.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Status; 0 when no answer came.
    pub status: u16,
    /// The answer's text, or the error's message.
    pub text: String,
    /// Code of an error.
    pub code: String,
    /// Headers that start with `x-weir-`, and `retry-after`.
    pub headers: Vec<(String, String)>,
    /// Until the first content, in milliseconds.
    pub first_ms: Option<f64>,
    /// Until the end, in milliseconds.
    pub total_ms: f64,
    /// What the strong tier saw meanwhile.
    pub strong: Vec<Entry>,
    /// What is not as meant, one sentence each.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v)
    }
}

/// Plays a scene; the lines for a person go to `say`. Gives what was not as meant.
pub async fn play(
    client: &Client,
    log: &Log,
    scene: &Scene,
    paint: Paint,
    mut say: impl FnMut(String),
) -> Vec<String> {
    let mut wrong = Vec::new();
    let began = now();
    for ask in &scene.ask {
        if let Some(callers) = ask.crowd {
            let crowd = super::crowd::ask(client, log, ask, callers).await;
            crowd.lines(ask, paint).into_iter().for_each(&mut say);
            wrong.extend(crowd.wrong.iter().map(|w| format!("{}: {w}", scene.title)));
            continue;
        }
        let mut o = ask_once(client, log, ask).await;
        let patience = Duration::from_millis(scene.retry_for_ms);
        while !o.wrong.is_empty() && now() - began < patience {
            tokio::time::sleep(Duration::from_millis(250)).await;
            o = ask_once(client, log, ask).await;
        }
        lines(ask, &o, paint).into_iter().for_each(&mut say);
        if scene.retry_for_ms > 0 && o.wrong.is_empty() {
            say(paint.dim(&format!(
                "  {:.1} s after its return",
                (now() - began).as_secs_f64()
            )));
        }
        wrong.extend(o.wrong.iter().map(|w| format!("{}: {w}", scene.title)));
    }
    wrong
}

async fn ask_once(client: &Client, log: &Log, ask: &Ask) -> Outcome {
    log.clear();
    let mut o = sent(client, ask, ask.stream).await;
    o.strong = log.entries();
    let wrong = judge(ask, &o);
    o.wrong.extend(wrong);
    o
}

/// Sends a question once and reads what comes.
pub(super) async fn sent(client: &Client, ask: &Ask, stream: bool) -> Outcome {
    let mut o = Outcome::default();
    let began = now();
    let mut headers = HeaderMap::new();
    headers.insert("x-weir-debug", HeaderValue::from_static("1"));
    let mut body = json!({"model": ask.model, "stream": stream, "temperature": 0, "max_tokens": ask.max_tokens,
        "messages": [{"role": "user", "content": ask.prompt}]});
    if let Some(schema) = &ask.schema {
        let schema: Value = serde_json::from_str(schema).unwrap_or(Value::Null);
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "form", "strict": true, "schema": schema}});
    }
    let sent = client
        .post_bytes("/v1/chat/completions", &headers, Bytes::from(body.to_string()))
        .await;
    let read = match sent {
        Ok(answer) => read(answer, &mut o, began).await,
        Err(e) => Err(e.to_string()),
    };
    o.total_ms = us(now() - began) as f64 / 1e3;
    if let Err(why) = read {
        o.wrong.push(why);
    }
    o
}

async fn read(mut answer: Answer, o: &mut Outcome, began: crate::clock::Instant) -> Result<(), String> {
    o.status = answer.status();
    for (name, value) in answer.headers() {
        if name.as_str().starts_with("x-weir-") || name == "retry-after" {
            o.headers.push((
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ));
        }
    }
    if !answer.header("content-type").starts_with("text/event-stream") {
        let v = answer.json().await.map_err(|e| e.to_string())?;
        let said = |at: &str| v.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
        o.code = said("/error/code");
        o.text = if v.get("error").is_some() {
            said("/error/message")
        } else {
            said("/choices/0/message/content")
        };
        return Ok(());
    }
    let mut reader = Events::default();
    let mut done = false;
    while let Some(bytes) = answer.next().await.map_err(|e| e.to_string())? {
        for event in reader.push(&bytes) {
            done |= event == "[DONE]";
            let v: Value = serde_json::from_str(&event).unwrap_or(Value::Null);
            if let Some(message) = v.pointer("/error/message").and_then(Value::as_str) {
                return Err(format!("the stream ended in an error: {message}"));
            }
            let text = v
                .pointer("/choices/0/delta/content")
                .and_then(Value::as_str)
                .unwrap_or("");
            if !text.is_empty() && o.first_ms.is_none() {
                o.first_ms = Some(us(now() - began) as f64 / 1e3);
            }
            o.text.push_str(text);
        }
    }
    if done {
        Ok(())
    } else {
        Err("the stream ended without [DONE]".into())
    }
}

pub(super) fn judge(ask: &Ask, o: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, sentence: String| {
        if !holds {
            wrong.push(sentence);
        }
    };
    must(
        ask.status.contains(&o.status),
        format!("status {}, not {:?}", o.status, ask.status),
    );
    if let Some(by) = &ask.answered_by {
        let is = o.header("x-weir-model");
        must(is == by, format!("answered by {is:?}, not {by:?}"));
    }
    if let Some(verdict) = &ask.verdict {
        let is = o.header("x-weir-verdict");
        must(
            is.starts_with(verdict.as_str()),
            format!("verdict {is:?}, not {verdict:?}"),
        );
    }
    if let Some(part) = &ask.contains {
        must(
            o.text.contains(part.as_str()),
            format!("the answer {:?} does not contain {part:?}", o.text),
        );
    }
    if let Some(whole) = &ask.is {
        must(
            o.text == *whole,
            format!("the answer {:?} is not {whole:?}", o.text),
        );
    }
    if let Some(part) = &ask.lacks {
        must(
            !o.text.contains(part.as_str()),
            format!("the answer {:?} contains {part:?}", o.text),
        );
    }
    if let Some(n) = ask.attempts {
        let is = o.header("x-weir-attempts");
        must(is == n.to_string(), format!("{is} attempts, not {n}"));
    }
    if let Some(models) = &ask.asked {
        let is: Vec<&str> = o.strong.iter().map(|e| e.model.as_str()).collect();
        must(
            is == *models,
            format!("the provider was asked for {is:?}, not {models:?}"),
        );
    }
    // A route chooses, and says why; a decision that cannot be read is a decision that nobody can explain.
    if o.status == 200 && ask.attempts.is_some() {
        let why = explained(o.header("x-weir-decision"));
        must(
            why.is_some(),
            "x-weir-decision does not say who starts and why".into(),
        );
    }
    if let Some(n) = ask.strong_calls {
        must(
            o.strong.len() == n,
            format!("the strong tier saw {} calls, not {n}", o.strong.len()),
        );
    }
    if let Some(ms) = ask.within_ms {
        must(
            o.total_ms <= ms as f64,
            format!("it took {:.0} ms, more than {ms}", o.total_ms),
        );
    }
    wrong
}

fn lines(ask: &Ask, o: &Outcome, paint: Paint) -> Vec<String> {
    let shown = |label: &str, text: &str| format!("  {} {text}", paint.dim(&format!("{label:<9}")));
    let mut out = vec![shown(
        "asked",
        &format!(
            "{}: {}{}",
            ask.model,
            ask.prompt,
            if ask.stream { "  (stream)" } else { "" }
        ),
    )];
    let one_line = o.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = one_line.chars().take(160).collect();
    if o.status == 200 {
        out.push(shown("answer", &text));
        let tier = o.header("x-weir-tier");
        let mut by = format!(
            "{} (tier {tier}), {} tries",
            o.header("x-weir-model"),
            o.header("x-weir-attempts")
        );
        if o.header("x-weir-attempts") == "1" {
            by.truncate(by.len() - "tries".len());
            by.push_str("try");
        }
        out.push(shown("by", &by));
        let seen = o.header("x-weir-verified");
        out.push(shown(
            "checked",
            &format!("{}, seen: {seen}", o.header("x-weir-verdict")),
        ));
    } else {
        out.push(shown("error", &format!("{} {}: {text}", o.status, o.code)));
    }
    if !o.header("x-weir-degraded").is_empty() {
        out.push(shown("degraded", o.header("x-weir-degraded")));
    }
    let first = o
        .first_ms
        .map(|ms| format!("first word after {ms:.0} ms, "))
        .unwrap_or_default();
    let cost = match o.header("x-weir-cost-usd") {
        "" => String::new(),
        usd => format!("; {usd} USD"),
    };
    out.push(shown(
        "took",
        &format!("{first}all of it {:.0} ms{cost}", o.total_ms),
    ));
    if let Some(why) = explained(o.header("x-weir-decision")) {
        out.push(shown("explain", &why));
    }
    match o.wrong.as_slice() {
        [] => out.push(format!("  {}", paint.good("as meant"))),
        wrong => out.extend(
            wrong
                .iter()
                .map(|w| format!("  {}", paint.bad(&format!("NOT as meant: {w}")))),
        ),
    }
    out
}

/// The decision in one line.
fn explained(decision: &str) -> Option<String> {
    let v: Value = serde_json::from_str(decision).ok()?;
    let words = |v: &Value| match v {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    // A reason is an object: its name, and what it depends on.
    let reason = |v: &Value| -> String {
        let Some(map) = v.as_object() else { return words(v) };
        let name = map.get("reason").map(words).unwrap_or_default().replace('_', " ");
        let rest: Vec<String> = map
            .iter()
            .filter(|(k, _)| *k != "reason")
            .map(|(k, v)| format!("{k} {}", words(v)))
            .collect();
        if rest.is_empty() {
            name
        } else {
            format!("{name} ({})", rest.join(", "))
        }
    };
    let start = v.get("start").map(words)?;
    let ladder: Vec<String> = v
        .get("targets")
        .and_then(Value::as_array)?
        .iter()
        .map(|e| {
            let said = |key: &str| e.get(key).map(words).unwrap_or_default();
            let p = e.get("p_good").and_then(Value::as_f64);
            let p = p.map(|p| format!(" P(good) {p:.2}")).unwrap_or_default();
            format!("{}{p}: {}", said("target"), said("verdict"))
        })
        .collect();
    let reasons: Vec<String> = v
        .get("reasons")
        .and_then(Value::as_array)?
        .iter()
        .map(reason)
        .collect();
    Some(format!(
        "{start} first ({}); {}",
        reasons.join("; "),
        ladder.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Scenes;
    use crate::provider::{Provider, Script};

    fn scene(ask: &str) -> Scene {
        let text = format!(
            "[[scene]]\ntitle = \"t\"\nabout = \"a\"\n[[scene.ask]]\nmodel = \"m\"\nmax_tokens = 9\n{ask}"
        );
        Scenes::parse(&text).unwrap().scene.swap_remove(0)
    }

    #[tokio::test]
    async fn a_scene_that_does_not_go_as_meant_is_told() {
        let script =
            Script::parse("[default]\ntext = \"It is Paris.\"\nheaders = { x-weir-model = \"m1\" }").unwrap();
        let provider = Provider::start(script).await.unwrap();
        let client = Client::new(&provider.url()).unwrap();
        let log = provider.log();
        for stream in ["", "stream = true\n"] {
            let good = scene(&format!(
                "{stream}prompt = \"x\"\ncontains = \"Paris\"\nanswered_by = \"m1\"\nstrong_calls = 1"
            ));
            let mut said = Vec::new();
            let wrong = play(&client, &log, &good, Paint::plain(), |l| said.push(l)).await;
            assert!(wrong.is_empty(), "{wrong:?}");
            assert!(said.iter().any(|l| l.contains("as meant")));
            let bad = scene(&format!(
                "{stream}prompt = \"x\"\ncontains = \"Rome\"\nverdict = \"pass\""
            ));
            let wrong = play(&client, &log, &bad, Paint::plain(), |_| {}).await;
            assert_eq!(wrong.len(), 2, "{wrong:?}");
        }
        let cut = scene("stream = true\nprompt = '[[lab: text=\"a b\" ending=clean]]'");
        let wrong = play(&client, &log, &cut, Paint::plain(), |_| {}).await;
        assert!(wrong.len() == 1 && wrong[0].contains("[DONE]"), "{wrong:?}");
    }
}
