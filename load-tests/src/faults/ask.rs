//! The caller: sends one request and writes down all that it got.

use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Form};
use crate::client::{Answer, Client, Error};
use crate::clock::now;
use crate::sse::Events;

/// The caller itself gives up after this.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// What one caller got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// The status; 0 when no head came.
    pub status: u16,
    /// `x-weir-model`, where there is one.
    pub answered_by: String,
    /// `x-weir-cost-usd`, where there is one.
    pub cost: Option<f64>,
    /// `retry-after` and `x-should-retry`.
    pub advice: (String, String),
    /// All text, in order.
    pub text: String,
    /// Arguments of tool calls, in order.
    pub arguments: String,
    /// The body's models, in order, each once.
    pub models: Vec<String>,
    /// Ids of the answer, each once.
    pub ids: Vec<String>,
    /// Role chunks.
    pub roles: usize,
    /// Finish reasons.
    pub finishes: Vec<String>,
    /// Usage: how often it came, prompt tokens, completion tokens.
    pub usage: (usize, u64, u64),
    /// `[DONE]` came, and so many events after it.
    pub done: Option<usize>,
    /// The error object, in a body or in band.
    pub error: Option<Value>,
    /// Something that is not JSON where JSON must be.
    pub nonsense: Option<String>,
    /// The connection broke, or the caller gave up.
    pub broken: Option<String>,
    /// From sending to the end.
    pub took: Duration,
}

/// The request of a case.
pub fn body(case: &Case) -> Value {
    let mut body = json!({
        "model": case.asks_for(),
        "max_tokens": 200,
        "messages": [{"role": "user", "content": case.prompt()}],
    });
    if let (Some(into), Some(extra)) = (body.as_object_mut(), case.extra.as_object()) {
        into.extend(extra.clone());
        if case.form == Form::Stream {
            into.insert("stream".into(), json!(true));
            into.insert("stream_options".into(), json!({"include_usage": true}));
        }
    }
    body
}

/// Asks once.
pub async fn ask(client: &Client, case: &Case) -> Got {
    let began = now();
    let mut got = Got::default();
    let mut headers = http::HeaderMap::new();
    if let Some(ms) = case.deadline_ms {
        headers.insert("x-weir-deadline-ms", http::HeaderValue::from(ms));
    }
    let asked = async {
        let bytes = body(case).to_string().into();
        let mut answer = client.post_bytes("/v1/chat/completions", &headers, bytes).await?;
        got.status = answer.status();
        answer.header("x-weir-model").clone_into(&mut got.answered_by);
        got.cost = answer.header("x-weir-cost-usd").parse().ok();
        got.advice = (
            answer.header("retry-after").to_owned(),
            answer.header("x-should-retry").to_owned(),
        );
        read(&mut answer, &mut got).await
    };
    let ended = tokio::time::timeout(PATIENCE, asked).await;
    got.broken = match ended {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.to_string()),
        Err(_) => Some(format!("nothing ended within {} s", PATIENCE.as_secs())),
    };
    got.took = now() - began;
    got
}

async fn read(answer: &mut Answer, got: &mut Got) -> Result<(), Error> {
    if answer.header("content-type").starts_with("text/event-stream") {
        let mut events = Events::default();
        while let Some(bytes) = answer.next().await? {
            for event in events.push(&bytes) {
                got.event(&event);
            }
        }
        if events.unfinished() {
            got.nonsense = Some("half an event at the end".to_owned());
        }
        return Ok(());
    }
    let mut all = Vec::new();
    while let Some(bytes) = answer.next().await? {
        all.extend_from_slice(&bytes);
    }
    match serde_json::from_slice(&all) {
        Ok(value) => got.chunk(&value, "message"),
        Err(e) => {
            let text: String = String::from_utf8_lossy(&all).chars().take(60).collect();
            got.nonsense = Some(format!(
                "a body of {} bytes that is not JSON ({e}): {text}",
                all.len()
            ));
        }
    }
    Ok(())
}

fn note(list: &mut Vec<String>, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str)
        && list.last().map(String::as_str) != Some(text)
    {
        list.push(text.to_owned());
    }
}

impl Got {
    fn event(&mut self, event: &str) {
        if let Some(after) = &mut self.done {
            *after += 1;
            return;
        }
        if event == "[DONE]" {
            self.done = Some(0);
            return;
        }
        match serde_json::from_str(event) {
            Ok(value) => self.chunk(&value, "delta"),
            Err(e) => self.nonsense = Some(format!("an event that is not JSON ({e})")),
        }
    }

    fn chunk(&mut self, v: &Value, part: &str) {
        if let Some(error) = v.get("error").filter(|e| !e.is_null()) {
            self.error = Some(error.clone());
            return;
        }
        note(&mut self.models, v.get("model"));
        note(&mut self.ids, v.get("id"));
        // Of several choices the first stands for all.
        let choices = v.get("choices").and_then(Value::as_array);
        let choice = choices.and_then(|c| {
            c.iter()
                .find(|c| c.get("index").and_then(Value::as_u64) == Some(0))
        });
        let said = |at: &str| choice?.pointer(&format!("/{part}/{at}")).and_then(Value::as_str);
        self.text.push_str(said("content").unwrap_or_default());
        self.arguments
            .push_str(said("tool_calls/0/function/arguments").unwrap_or_default());
        self.roles += usize::from(said("role").is_some());
        let finish = choice
            .and_then(|c| c.get("finish_reason"))
            .and_then(Value::as_str);
        self.finishes.extend(finish.map(str::to_owned));
        if let Some(usage) = v.get("usage").filter(|u| u.is_object()) {
            let figure = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
            self.usage = (
                self.usage.0 + 1,
                figure("prompt_tokens"),
                figure("completion_tokens"),
            );
        }
    }
}
