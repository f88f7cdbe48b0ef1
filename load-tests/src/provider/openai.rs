//! OpenAI's dialect: chat and legacy completions, whole and as events, errors.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::{Ending, ErrorBody};
use super::reply::{Content, PAUSE_PINGS, Piece, Reply, Usage};
use super::request::{Api, Ask};
use super::script::Script;

/// The moment every answer claims to be made at: scripts give the same bytes on every day.
const CREATED: u64 = 1_700_000_000;

/// A sign of life.
const PING: &[u8] = b": keep-alive\n\n";

fn usage(u: Usage) -> Value {
    json!({
        "prompt_tokens": u.prompt, "completion_tokens": u.completion, "total_tokens": u.prompt.saturating_add(u.completion),
        "prompt_tokens_details": {"cached_tokens": u.cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

fn head(ask: &Ask, r: &Reply, stream: bool) -> Value {
    let (prefix, object) = match (ask.api, stream) {
        (Api::Completions, _) => ("cmpl-lab", "text_completion"),
        (_, true) => ("chatcmpl-lab", "chat.completion.chunk"),
        (_, false) => ("chatcmpl-lab", "chat.completion"),
    };
    json!({"id": format!("{prefix}{}", r.number), "object": object, "created": CREATED, "model": r.model,
           "system_fingerprint": "lab"})
}

fn with(mut head: Value, key: &str, value: Value) -> Value {
    if let Some(o) = head.as_object_mut() {
        o.insert(key.to_owned(), value);
    }
    head
}

fn tool_call(index: usize, number: u64, name: &str, arguments: &str, streamed: bool) -> Value {
    let call = json!({"id": format!("call_lab{number}_{index}"), "type": "function",
                      "function": {"name": name, "arguments": arguments}});
    if streamed {
        with(call, "index", json!(index))
    } else {
        call
    }
}

/// A whole answer.
pub fn whole(ask: &Ask, r: &Reply) -> Bytes {
    let choices: Vec<Value> = r
        .choices
        .iter()
        .enumerate()
        .map(|(i, content)| match (ask.api, content) {
            (Api::Completions, Content::Text(t)) => {
                json!({"index": i, "text": t.concat(), "logprobs": null, "finish_reason": r.finish})
            }
            (_, Content::Text(t)) => json!({"index": i, "logprobs": null, "finish_reason": r.finish,
                "message": {"role": "assistant", "content": t.concat(), "refusal": null}}),
            (_, Content::Tools(calls)) => {
                let calls: Vec<Value> = calls
                    .iter()
                    .enumerate()
                    .map(|(k, (name, args))| tool_call(k, r.number, name, args, false))
                    .collect();
                json!({"index": i, "logprobs": null, "finish_reason": r.finish,
                    "message": {"role": "assistant", "content": null, "refusal": null, "tool_calls": calls}})
            }
        })
        .collect();
    let mut v = with(head(ask, r, false), "choices", json!(choices));
    if let Some(u) = r.usage {
        v = with(v, "usage", usage(u));
    }
    Bytes::from(v.to_string())
}

/// Writes events one after the other and ends them as the script wants.
struct Writer<'a> {
    ask: &'a Ask,
    r: &'a Reply,
    pieces: Vec<Piece>,
    tokens: u32,
    over: bool,
}

impl Writer<'_> {
    fn event(&mut self, after: Duration, tokens: u32, text: &str) {
        let bytes = Bytes::from(format!("data: {text}\n\n"));
        self.pieces.push(Piece::Data { after, bytes, tokens });
    }

    fn chunk(&mut self, after: Duration, tokens: u32, choices: Value) {
        let mut v = with(head(self.ask, self.r, true), "choices", choices);
        if self.ask.include_usage {
            v = with(v, "usage", Value::Null);
        }
        self.event(after, tokens, &v.to_string());
    }

    /// A content delta, or what the script puts in its place.
    fn delta(&mut self, choices: Value) {
        if self.over {
            return;
        }
        let (ending, at) = self.r.ending;
        if self.tokens >= at && !matches!(ending, Ending::Normal | Ending::NoDone | Ending::NoFinish) {
            self.fault(ending);
            if self.over {
                return;
            }
        }
        let after = if self.tokens == 0 {
            self.r.pace.0
        } else {
            self.r.pace.1
        };
        self.tokens += 1;
        self.chunk(after, 1, choices);
    }

    fn fault(&mut self, ending: Ending) {
        match ending {
            Ending::Cut => self.pieces.push(Piece::Cut),
            Ending::Stall => self.pieces.push(Piece::Stall),
            Ending::Pings => self.pieces.extend(Piece::only_pings(PING)),
            Ending::Pause if self.tokens == self.r.ending.1 => {
                return self.pieces.extend(Piece::pings(PING, PAUSE_PINGS));
            }
            Ending::Pause => return,
            Ending::Error => {
                let body = error_body(500, &self.r.error, "The server had an error while streaming.");
                self.event(Duration::ZERO, 0, &body.to_string());
            }
            Ending::BadJson if self.tokens == self.r.ending.1 => {
                self.event(
                    Duration::ZERO,
                    0,
                    r#"{"id":"chatcmpl-lab","choices":[{"index":0,"delta":{"content":"#,
                );
                return;
            }
            Ending::BadJson => return,
            _ => {}
        }
        self.over = true;
    }

    fn choice(&self, index: usize, delta: Value, finish: Value) -> Value {
        match self.ask.api {
            Api::Completions => {
                let text = delta.get("content").cloned().unwrap_or(json!(""));
                json!([{"index": index, "text": text, "logprobs": null, "finish_reason": finish}])
            }
            _ => json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}]),
        }
    }

    fn role(&mut self) {
        if self.ask.api == Api::Completions {
            return;
        }
        for i in 0..self.r.choices.len() {
            let c = self.choice(
                i,
                json!({"role": "assistant", "content": "", "refusal": null}),
                Value::Null,
            );
            self.chunk(Duration::ZERO, 0, c);
        }
    }

    fn tools(&mut self, index: usize, calls: &[(String, String)]) {
        for (k, (name, args)) in calls.iter().enumerate() {
            let opening = json!({"tool_calls": [tool_call(k, self.r.number, name, "", true)]});
            let c = self.choice(index, opening, Value::Null);
            self.delta(c);
            for token in super::words::tokens(args) {
                let delta = json!({"tool_calls": [{"index": k, "function": {"arguments": token}}]});
                let c = self.choice(index, delta, Value::Null);
                self.delta(c);
            }
        }
    }

    fn end(&mut self) {
        let (ending, _) = self.r.ending;
        let goes_on = matches!(
            ending,
            Ending::Normal | Ending::NoDone | Ending::NoFinish | Ending::Pause
        );
        if !self.over && !goes_on {
            self.fault(ending);
        }
        if self.over {
            return;
        }
        if ending != Ending::NoFinish {
            for i in 0..self.r.choices.len() {
                let c = self.choice(i, json!({}), json!(self.r.finish));
                self.chunk(Duration::ZERO, 0, c);
            }
        }
        if let (true, Some(u)) = (self.ask.include_usage, self.r.usage) {
            let v = with(
                with(head(self.ask, self.r, true), "choices", json!([])),
                "usage",
                usage(u),
            );
            self.event(Duration::ZERO, 0, &v.to_string());
        }
        if ending != Ending::NoDone {
            self.event(Duration::ZERO, 0, "[DONE]");
        }
    }
}

/// The events of a streamed answer; choices take turns.
pub fn stream(ask: &Ask, r: &Reply) -> Vec<Piece> {
    let mut w = Writer {
        ask,
        r,
        pieces: Vec::new(),
        tokens: 0,
        over: false,
    };
    w.role();
    let longest = r
        .choices
        .iter()
        .map(|c| if let Content::Text(t) = c { t.len() } else { 0 })
        .max()
        .unwrap_or(0);
    for at in 0..longest {
        for (i, content) in r.choices.iter().enumerate() {
            if let Content::Text(t) = content
                && let Some(token) = t.get(at)
            {
                let c = w.choice(i, json!({"content": token}), Value::Null);
                w.delta(c);
            }
        }
    }
    for (i, content) in r.choices.iter().enumerate() {
        if let Content::Tools(calls) = content {
            w.tools(i, calls);
        }
    }
    w.end();
    w.pieces
}

/// An error body with all four keys.
pub fn error_body(status: u16, e: &ErrorBody, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        403 => ("invalid_request_error", Some("forbidden")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        503 => ("server_error", Some("overloaded")),
        _ => ("server_error", None),
    };
    json!({"error": {
        "message": e.message.as_deref().unwrap_or(message),
        "type": e.r#type.as_deref().unwrap_or(kind),
        "param": e.param,
        "code": e.code.as_deref().or(code),
    }})
}

/// The list of models.
pub fn models(script: &Script) -> Value {
    let data: Vec<Value> = script.models.iter().map(|m| model(&m.name)).collect();
    json!({"object": "list", "data": data})
}

/// One model.
pub fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": "lab"})
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::{Behaviour, ToolCall};
    use super::*;

    fn events(body: &str, b: &Behaviour) -> Vec<Value> {
        let ask = Ask::read(Api::Chat, body.as_bytes()).unwrap();
        let r = Reply::make(&Script::default(), &ask, b, 1);
        stream(&ask, &r)
            .iter()
            .map(|p| match p {
                Piece::Data { bytes, .. } => {
                    let text = std::str::from_utf8(bytes)
                        .unwrap()
                        .trim()
                        .trim_start_matches("data: ")
                        .to_owned();
                    serde_json::from_str(&text).unwrap_or(json!(text))
                }
                other => json!(format!("{other:?}")),
            })
            .collect()
    }

    const BODY: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
        "messages":[{"role":"user","content":"hello"}]}"#;

    fn text_of(events: &[Value]) -> String {
        events
            .iter()
            .filter_map(|e| e.pointer("/choices/0/delta/content")?.as_str())
            .collect()
    }

    #[test]
    fn a_stream_says_what_the_whole_says() {
        let b = Behaviour {
            text: Some("The river keeps its level.".into()),
            ..Behaviour::default()
        };
        let e = events(BODY, &b);
        assert_eq!(text_of(&e), "The river keeps its level.");
        assert_eq!(e.last(), Some(&json!("[DONE]")));
        let tail = &e[e.len() - 2];
        assert_eq!(
            (&tail["choices"], &tail["usage"]["completion_tokens"]),
            (&json!([]), &json!(5))
        );
        assert_eq!(e[1]["usage"], Value::Null);
    }

    #[test]
    fn tool_arguments_concatenate() {
        let call = ToolCall {
            name: "find".into(),
            arguments: json!({"city": "Paris and Rome"}),
        };
        let e = events(
            BODY,
            &Behaviour {
                tool_calls: Some(vec![call]),
                ..Behaviour::default()
            },
        );
        let args: String = e
            .iter()
            .filter_map(|e| {
                e.pointer("/choices/0/delta/tool_calls/0/function/arguments")?
                    .as_str()
            })
            .collect();
        assert_eq!(args, r#"{"city":"Paris and Rome"}"#);
    }

    #[test]
    fn each_ending_ends_as_it_says() {
        let ended = |ending| {
            let b = Behaviour {
                text: Some("a b c d".into()),
                ending: Some(ending),
                ..Behaviour::default()
            };
            let e = events(BODY, &b);
            (
                text_of(&e),
                e.last().unwrap().clone(),
                e.iter()
                    .any(|e| e.pointer("/choices/0/finish_reason") == Some(&json!("stop"))),
            )
        };
        assert_eq!(ended(Ending::Cut), ("a b".into(), json!("Cut"), false));
        assert_eq!(ended(Ending::Stall), ("a b".into(), json!("Stall"), false));
        assert!(
            ended(Ending::Clean)
                .1
                .pointer("/choices/0/delta/content")
                .is_some()
        );
        assert_eq!(ended(Ending::Error).1["error"]["type"], "server_error");
        assert_eq!(
            ended(Ending::NoFinish),
            ("a b c d".into(), json!("[DONE]"), false)
        );
        assert_ne!(ended(Ending::NoDone).1, json!("[DONE]"));
        let bad = ended(Ending::BadJson);
        assert_eq!((bad.0.as_str(), bad.1, bad.2), ("a b c d", json!("[DONE]"), true));
    }
}
