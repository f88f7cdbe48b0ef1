//! A caller: sends one request, reads the answer to its end or leaves before it, and writes down all that it got.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::client::{Answer, Client, Error};
use crate::clock::now;
use crate::sse::Events;

/// When the caller goes away of its own accord.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// It stays to the end.
    #[default]
    Never,
    /// After so many pieces of content.
    AfterPieces(u32),
    /// When so much time has passed, whatever has come by then.
    After(Duration),
}

/// What one caller got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// The status; 0 when no head came.
    pub status: u16,
    /// `x-request-id`.
    pub id: String,
    /// `x-weir-model`, where there is one.
    pub answered_by: String,
    /// `x-weir-degraded`, where there is one.
    pub degraded: String,
    /// `x-weir-cost-usd`, where there is one.
    pub cost: Option<f64>,
    /// `x-weir-attempts`, where there is one.
    pub attempts: Option<u32>,
    /// `retry-after` and `x-should-retry`.
    pub advice: (String, String),
    /// All text, in order.
    pub text: String,
    /// Pieces of it.
    pub pieces: u32,
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
    /// Events after an error.
    pub after_error: usize,
    /// Something that is not JSON where JSON must be.
    pub nonsense: Option<String>,
    /// The connection broke, or the caller gave up.
    pub broken: Option<String>,
    /// The caller left, as it meant to.
    pub left: bool,
    /// From sending to the end.
    pub took: Duration,
}

/// Asks for a chat completion, once. After `patience` the caller itself gives up.
pub async fn ask(client: &Client, body: Bytes, headers: &HeaderMap, patience: Duration, leave: Leave) -> Got {
    let began = now();
    let mut got = Got::default();
    let asked = async {
        let mut answer = client.post_bytes("/v1/chat/completions", headers, body).await?;
        got.status = answer.status();
        answer.header("x-request-id").clone_into(&mut got.id);
        answer.header("x-weir-model").clone_into(&mut got.answered_by);
        answer.header("x-weir-degraded").clone_into(&mut got.degraded);
        got.cost = answer.header("x-weir-cost-usd").parse().ok();
        got.attempts = answer.header("x-weir-attempts").parse().ok();
        got.advice = (
            answer.header("retry-after").to_owned(),
            answer.header("x-should-retry").to_owned(),
        );
        read(&mut answer, &mut got, leave).await
    };
    let within = match leave {
        Leave::After(time) => time.min(patience),
        Leave::Never | Leave::AfterPieces(_) => patience,
    };
    let ended = tokio::time::timeout(within, asked).await;
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(e)) => got.broken = Some(e.to_string()),
        Err(_) if within < patience => got.left = true,
        Err(_) => got.broken = Some(format!("nothing ended within {} s", patience.as_secs())),
    }
    got.took = now() - began;
    got
}

async fn read(answer: &mut Answer, got: &mut Got, leave: Leave) -> Result<(), Error> {
    if answer.header("content-type").starts_with("text/event-stream") {
        let mut events = Events::default();
        while let Some(bytes) = answer.next().await? {
            for event in events.push(&bytes) {
                got.event(&event);
                if let Leave::AfterPieces(most) = leave
                    && got.pieces >= most
                {
                    got.left = true;
                    return Ok(());
                }
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
        self.after_error += usize::from(self.error.is_some());
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
        let text = said("content").unwrap_or_default();
        let arguments = said("tool_calls/0/function/arguments").unwrap_or_default();
        self.pieces += u32::from(!text.is_empty() || !arguments.is_empty());
        self.text.push_str(text);
        self.arguments.push_str(arguments);
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

/// Keys of an OpenAI error object that this one lacks.
pub fn lacking_keys(error: &Value) -> Vec<&'static str> {
    let keys = ["message", "type", "param", "code"];
    keys.into_iter().filter(|key| error.get(key).is_none()).collect()
}
