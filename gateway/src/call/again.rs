//! The same call once more, to go on with an answer that broke off.

use bytes::{BufMut, Bytes, BytesMut};
use routing::continuation::{Sent, Way};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, CallKind, Field, Parts, Span, Spans};

/// What a model is told that cannot be given a text as its own beginning.
const GO_ON: &str = "Your last message broke off. Write what comes next and nothing else: begin in the middle of the \
                     sentence, or of the word, where it stopped. Repeat nothing and announce nothing.";

/// Completions end after so many tokens unless told otherwise.
const COMPLETION_DEFAULT: u64 = 16;

/// What is left of the caller's limit is asked for; of nothing, one token.
const LEAST_TOKENS: u64 = 1;

impl Call {
    /// The call that asks for the rest of what was sent, of which the caller has received `delivered` tokens. `None`: it
    /// cannot be said in this way.
    pub fn to_go_on(&self, way: Way, sent: &Sent, delivered: u64) -> Option<Call> {
        if way == Way::Whole {
            return Some(self.with(&[], false));
        }
        let body = match self.kind {
            CallKind::Chat => ("messages", self.turns(way, sent)?),
            CallKind::Completion if way == Way::Prefill => ("prompt", self.prompt(sent)?),
            CallKind::Completion | CallKind::Embeddings => return None,
        };
        let mut values = vec![body];
        let default = (self.kind == CallKind::Completion).then_some(COMPLETION_DEFAULT);
        for (name, default) in [("max_tokens", default), ("max_completion_tokens", None)] {
            if let Some(most) = self.parse::<u64>(name).or(default) {
                let left = most.saturating_sub(delivered).max(LEAST_TOKENS);
                values.push((name, Bytes::from(left.to_string())));
            }
        }
        Some(self.with(&values, way == Way::Prefill))
    }

    /// The conversation with the text so far behind it.
    fn turns(&self, way: Way, sent: &Sent) -> Option<Bytes> {
        #[derive(Deserialize)]
        struct Turn<'a> {
            #[serde(borrow)]
            role: std::borrow::Cow<'a, str>,
            #[serde(default, borrow)]
            content: Option<&'a RawValue>,
        }
        let mut turns: Vec<&RawValue> = serde_json::from_slice(self.value("messages")?).ok()?;
        let last: Turn<'_> = serde_json::from_str(turns.last()?.get()).ok()?;
        // The caller began the model's turn itself: that beginning stays in front.
        let mut text = String::new();
        if last.role == "assistant" {
            text = serde_json::from_str(last.content?.get()).ok()?;
            turns.pop();
        }
        text.push_str(match way {
            Way::Prefill => sent.prefill(),
            Way::Whole | Way::Instruct => sent.all_text(),
        });
        let mut out = BytesMut::with_capacity(self.raw.len() + text.len() + 512);
        out.put_u8(b'[');
        for turn in turns {
            out.put_slice(turn.get().as_bytes());
            out.put_u8(b',');
        }
        turn("assistant", &text, &mut out);
        if way == Way::Instruct {
            out.put_u8(b',');
            turn("user", GO_ON, &mut out);
        }
        out.put_u8(b']');
        Some(out.freeze())
    }

    /// The bare prompt with the text so far behind it. Not where the prompt is part of the answer, or is followed by
    /// something, or is given in tokens.
    fn prompt(&self, sent: &Sent) -> Option<Bytes> {
        let speaks = |name: &str| {
            self.value(name)
                .is_some_and(|v| !matches!(v, b"null" | b"false" | b"\"\"" | b"1"))
        };
        if ["echo", "suffix", "best_of"].into_iter().any(speaks) {
            return None;
        }
        let mut prompt: String = match self.parse("prompt") {
            Some(prompt) => prompt,
            None => {
                let mut many: Vec<String> = self.parse("prompt")?;
                many.pop().filter(|_| many.is_empty())?
            }
        };
        prompt.push_str(sent.prefill());
        serde_json::to_vec(&prompt).ok().map(Bytes::from)
    }

    /// This call with other values of some fields; those that it does not have are added.
    fn with(&self, values: &[(&str, Bytes)], begun: bool) -> Call {
        let mut raw = BytesMut::with_capacity(self.raw.len() + 1_024);
        raw.put_u8(b'{');
        let mut spans = Spans {
            open: 1,
            ..Spans::default()
        };
        let mut ignorable = smallvec::SmallVec::new();
        for (i, field) in self.spans.fields.iter().enumerate() {
            if i > 0 {
                raw.put_u8(b',');
            }
            let name = field.name(&self.raw);
            let other = values.iter().find(|(n, _)| *n == name);
            let key = put(&mut raw, field.key.of(&self.raw));
            raw.put_u8(b':');
            let value = put(&mut raw, other.map_or(field.value.of(&self.raw), |(_, v)| v));
            if self.ignorable.contains(&field.key) {
                ignorable.push(key);
            }
            spans.fields.push(Field {
                name: field.name.clone(),
                key,
                value,
            });
        }
        for (name, value) in values {
            if self.value(name).is_some() {
                continue;
            }
            if !spans.fields.is_empty() {
                raw.put_u8(b',');
            }
            let key = put(&mut raw, format!("\"{name}\"").as_bytes());
            raw.put_u8(b':');
            let value = put(&mut raw, value);
            spans.fields.push(Field::new(key, value, None));
        }
        raw.put_u8(b'}');
        let mut call = Call::new(Parts {
            kind: self.kind,
            raw: raw.freeze(),
            spans,
            model: self.model.clone(),
            stream: self.stream,
            include_usage: self.include_usage,
            choices: self.choices,
            prompts: self.prompts,
            max_output: self.max_output,
            last_turn: None,
            ignorable,
        });
        call.begun = begun;
        call
    }
}

fn put(raw: &mut BytesMut, bytes: &[u8]) -> Span {
    let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let start = at(raw.len());
    raw.put_slice(bytes);
    Span {
        start,
        end: at(raw.len()),
    }
}

fn turn(role: &str, text: &str, out: &mut BytesMut) {
    out.put_slice(b"{\"role\":\"");
    out.put_slice(role.as_bytes());
    out.put_slice(b"\",\"content\":");
    // A text is always written.
    out.put_slice(&serde_json::to_vec(text).unwrap_or_default());
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::call;
    use serde_json::{Value, json};

    fn sent(text: &str) -> Sent {
        let mut sent = Sent::default();
        sent.text(text);
        sent
    }
    fn asked(kind: CallKind, body: &str, way: Way, text: &str, delivered: u64) -> Option<Value> {
        let again = call(kind, body).to_go_on(way, &sent(text), delivered)?;
        // Its spans are those of its own bytes.
        for field in &again.spans.fields {
            let name = field.name(&again.raw).to_owned();
            let value: Value = serde_json::from_slice(again.value(&name).unwrap()).unwrap();
            let whole: Value = serde_json::from_slice(&again.raw).unwrap();
            assert_eq!(whole[&name], value);
        }
        Some(serde_json::from_slice(&again.raw).unwrap())
    }

    const CHAT: &str =
        r#"{ "messages" : [ {"role":"user","content":"hi"} ], "model":"m", "max_tokens": 10, "x": [1] }"#;

    #[test]
    fn a_conversation_is_gone_on_from() {
        let got = asked(CallKind::Chat, CHAT, Way::Prefill, "Once \"upon ", 4).unwrap();
        assert_eq!(
            got["messages"],
            json!([{"role":"user","content":"hi"},{"role":"assistant","content":"Once \"upon"}])
        );
        assert_eq!((&got["max_tokens"], &got["x"]), (&json!(6), &json!([1])));
        let got = asked(CallKind::Chat, CHAT, Way::Instruct, "Once ", 40).unwrap();
        assert_eq!(got["messages"][1]["content"], "Once ");
        assert_eq!(got["messages"][2]["role"], "user");
        assert_eq!(got["max_tokens"], 1);
        let got = asked(CallKind::Chat, CHAT, Way::Whole, "Once ", 4).unwrap();
        assert_eq!(got, serde_json::from_str::<Value>(CHAT).unwrap());
    }

    #[test]
    fn a_turn_that_the_caller_began_stays_in_front() {
        let body = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"So: "}],"model":"m"}"#;
        let got = asked(CallKind::Chat, body, Way::Prefill, "one, two", 2).unwrap();
        assert_eq!(got["messages"][1]["content"], "So: one, two");
        assert_eq!(got["messages"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_bare_prompt_is_made_longer() {
        let body = r#"{"model":"m","prompt":["Once"],"best_of":1}"#;
        let got = asked(CallKind::Completion, body, Way::Prefill, " upon a time ", 2).unwrap();
        assert_eq!(got["prompt"], "Once upon a time");
        assert_eq!(got["max_tokens"], 14, "of the sixteen that are usual");
        assert!(asked(CallKind::Completion, body, Way::Instruct, "x", 2).is_none());
        for body in [
            r#"{"model":"m","prompt":"a","echo":true}"#,
            r#"{"model":"m","prompt":"a","suffix":"z"}"#,
            r#"{"model":"m","prompt":[1,2]}"#,
        ] {
            assert!(asked(CallKind::Completion, body, Way::Prefill, "x", 2).is_none());
        }
    }
}
