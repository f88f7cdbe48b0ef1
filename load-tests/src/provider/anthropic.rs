//! Anthropic's dialect: messages, whole and as named events, errors.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::{Ending, ErrorBody};
use super::reply::{Content, PAUSE_PINGS, Piece, Reply, Usage};
use super::words;

fn stop_reason(finish: &str) -> &str {
    match finish {
        "stop" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        other => other,
    }
}

/// A sign of life.
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

fn usage(u: Option<Usage>) -> Value {
    let u = u.unwrap_or(Usage {
        prompt: 0,
        completion: 0,
        cached: 0,
    });
    json!({"input_tokens": u.prompt.saturating_sub(u.cached), "cache_creation_input_tokens": 0,
           "cache_read_input_tokens": u.cached, "output_tokens": u.completion})
}

fn tool_id(r: &Reply, index: usize) -> String {
    format!("toolu_lab{}_{index}", r.number)
}

/// A whole answer; of several choices only the first exists here.
pub fn whole(r: &Reply) -> Bytes {
    let content: Vec<Value> = match r.choices.first() {
        Some(Content::Text(t)) => vec![json!({"type": "text", "text": t.concat()})],
        Some(Content::Tools(calls)) => calls
            .iter()
            .enumerate()
            .map(|(i, (name, args))| {
                let input: Value = serde_json::from_str(args).unwrap_or_else(|_| json!({}));
                json!({"type": "tool_use", "id": tool_id(r, i), "name": name, "input": input})
            })
            .collect(),
        None => Vec::new(),
    };
    let v = json!({"id": format!("msg_lab{}", r.number), "type": "message", "role": "assistant", "model": r.model,
        "content": content, "stop_reason": stop_reason(&r.finish), "stop_sequence": null, "usage": usage(r.usage)});
    Bytes::from(v.to_string())
}

struct Writer<'a> {
    r: &'a Reply,
    pieces: Vec<Piece>,
    tokens: u32,
    over: bool,
}

impl Writer<'_> {
    fn event(&mut self, after: Duration, tokens: u32, v: &Value) {
        let name = v.get("type").and_then(Value::as_str).unwrap_or("ping");
        let bytes = Bytes::from(format!("event: {name}\ndata: {v}\n\n"));
        self.pieces.push(Piece::Data { after, bytes, tokens });
    }

    fn say(&mut self, v: &Value) {
        if !self.over {
            self.event(Duration::ZERO, 0, v);
        }
    }

    fn delta(&mut self, index: usize, delta: Value) {
        if self.over {
            return;
        }
        let (ending, at) = self.r.ending;
        if self.tokens >= at {
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
        self.event(
            after,
            1,
            &json!({"type": "content_block_delta", "index": index, "delta": delta}),
        );
    }

    fn fault(&mut self, ending: Ending) {
        match ending {
            Ending::Cut => self.pieces.push(Piece::Cut),
            Ending::Stall => self.pieces.push(Piece::Stall),
            Ending::Pings => self.pieces.extend(Piece::only_pings(PING)),
            Ending::Pause => {
                if self.tokens == self.r.ending.1 {
                    self.pieces.extend(Piece::pings(PING, PAUSE_PINGS));
                }
                return;
            }
            Ending::Clean => {}
            Ending::Error => {
                let body = error_body(529, &self.r.error, "Overloaded");
                self.event(Duration::ZERO, 0, &body);
            }
            Ending::BadJson => {
                if self.tokens == self.r.ending.1 {
                    let bytes =
                        Bytes::from_static(b"event: content_block_delta\ndata: {\"type\":\"content_blo\n\n");
                    self.pieces.push(Piece::Data {
                        after: Duration::ZERO,
                        bytes,
                        tokens: 0,
                    });
                }
                return;
            }
            Ending::Normal | Ending::NoDone | Ending::NoFinish => return,
        }
        self.over = true;
    }

    fn block(&mut self, index: usize, opening: Value, deltas: impl Iterator<Item = Value>) {
        self.say(&json!({"type": "content_block_start", "index": index, "content_block": opening}));
        if index == 0 {
            self.say(&json!({"type": "ping"}));
        }
        for d in deltas {
            self.delta(index, d);
        }
        self.say(&json!({"type": "content_block_stop", "index": index}));
    }
}

/// The events of a streamed answer.
pub fn stream(r: &Reply) -> Vec<Piece> {
    let mut w = Writer {
        r,
        pieces: Vec::new(),
        tokens: 0,
        over: false,
    };
    let opening = Usage {
        completion: 1,
        ..r.usage.unwrap_or(Usage {
            prompt: 0,
            completion: 0,
            cached: 0,
        })
    };
    w.say(
        &json!({"type": "message_start", "message": {"id": format!("msg_lab{}", r.number), "type": "message",
        "role": "assistant", "model": r.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": usage(Some(opening))}}),
    );
    match r.choices.first() {
        Some(Content::Text(t)) => {
            let deltas = t.iter().map(|t| json!({"type": "text_delta", "text": t}));
            w.block(0, json!({"type": "text", "text": ""}), deltas);
        }
        Some(Content::Tools(calls)) => {
            for (i, (name, args)) in calls.iter().enumerate() {
                let deltas = words::tokens(args)
                    .into_iter()
                    .map(|t| json!({"type": "input_json_delta", "partial_json": t}));
                w.block(
                    i,
                    json!({"type": "tool_use", "id": tool_id(r, i), "name": name, "input": {}}),
                    deltas,
                );
            }
        }
        None => {}
    }
    let (ending, _) = r.ending;
    let goes_on = matches!(
        ending,
        Ending::Normal | Ending::NoDone | Ending::NoFinish | Ending::Pause
    );
    if !w.over && !goes_on {
        w.fault(ending);
    }
    if ending != Ending::NoFinish {
        w.say(&json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(&r.finish), "stop_sequence": null},
            "usage": {"output_tokens": r.usage.map_or(0, |u| u.completion)}}));
    }
    if ending != Ending::NoDone {
        w.say(&json!({"type": "message_stop"}));
    }
    w.pieces
}

/// An error body.
pub fn error_body(status: u16, e: &ErrorBody, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {
        "type": e.r#type.as_deref().unwrap_or(kind),
        "message": e.message.as_deref().unwrap_or(message),
    }})
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::Behaviour;
    use super::super::request::{Api, Ask};
    use super::super::script::Script;
    use super::*;

    fn events(b: &Behaviour) -> Vec<String> {
        let ask = Ask::read(
            Api::Messages,
            br#"{"model":"m","messages":[{"role":"user","content":"hello there"}]}"#,
        )
        .unwrap();
        stream(&Reply::make(&Script::default(), &ask, b, 1))
            .iter()
            .map(|p| match p {
                Piece::Data { bytes, .. } => String::from_utf8(bytes.to_vec()).unwrap(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_order_of_events() {
        let e = events(&Behaviour {
            text: Some("Good day.".into()),
            ..Behaviour::default()
        });
        let names: Vec<&str> = e
            .iter()
            .filter_map(|e| e.lines().next()?.strip_prefix("event: "))
            .collect();
        let expected = [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names, expected);
        assert!(e[3].contains(r#""text":"Good""#), "{}", e[3]);
        assert!(
            e[6].contains("end_turn") && e[6].contains(r#""output_tokens":2"#),
            "{}",
            e[6]
        );
    }

    #[test]
    fn a_cut_ends_without_a_stop() {
        let e = events(&Behaviour {
            text: Some("a b c d".into()),
            ending: Some(Ending::Cut),
            ..Behaviour::default()
        });
        assert_eq!(e.last().map(String::as_str), Some("Cut"));
        let e = events(&Behaviour {
            ending: Some(Ending::Error),
            ..Behaviour::default()
        });
        assert!(e.last().unwrap().starts_with("event: error\n"));
    }
}
