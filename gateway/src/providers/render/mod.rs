//! Neutral events as the bytes an OpenAI-speaking caller expects: chunks of a stream, and whole bodies.
//!
//! Used for answers that did not come in that form (a local model, another dialect) and for what the gateway writes
//! itself (a continuation). `id`, `created` and `model` are written alike in every chunk of one answer.

mod kept;
mod whole;

use bytes::{BufMut, Bytes, BytesMut};
use routing::facts::CallKind;

use super::event::{Event, FinishReason, Meta, Text, TokenLogprob, ToolDelta, TopLogprob, Usage};
use super::json::{int_into, string_into};
pub use kept::{Form, Kept};
pub use whole::{WholeAnswer, WholeChoice, WholeTool};

/// The end of a stream that is whole.
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// Writes the chunks of one streamed answer.
#[derive(Clone, Debug)]
pub struct Chunks {
    kind: CallKind,
    include_usage: bool,
    /// `"id":..,"object":..,"created":..,"model":..,`, the same in every chunk.
    head: Bytes,
}

impl Chunks {
    /// For a chat or completions stream; `include_usage` as the caller asked.
    pub fn new(kind: CallKind, include_usage: bool, meta: &Meta) -> Self {
        let object = if kind == CallKind::Completion {
            "text_completion"
        } else {
            "chat.completion.chunk"
        };
        Self {
            kind,
            include_usage,
            head: head(object, meta),
        }
    }

    /// Chunks for these events, ready to send; empty when a caller is to see nothing of them. Several events of one
    /// choice that came together become one chunk.
    pub fn write(&self, events: &[Event], out: &mut BytesMut) {
        let mut open: Option<Delta<'_>> = None;
        for event in events {
            match event {
                Event::Usage(usage) => {
                    self.flush(open.take(), out);
                    self.usage(usage, out);
                }
                Event::Done => {
                    self.flush(open.take(), out);
                    out.put_slice(&DONE);
                }
                Event::Meta(_) | Event::Ping | Event::Signal { .. } => {}
                // The older endpoint knows text only.
                Event::Role { .. } | Event::Reasoning { .. } | Event::Refusal { .. } | Event::Tool(_)
                    if self.kind == CallKind::Completion => {}
                other => {
                    let choice = choice_of(other);
                    let fits = open
                        .as_ref()
                        .is_some_and(|d| d.choice == choice && d.takes(other));
                    if !fits {
                        self.flush(open.replace(Delta::new(choice)), out);
                    }
                    if let Some(delta) = &mut open {
                        delta.add(other);
                    }
                }
            }
        }
        self.flush(open, out);
    }

    /// The same as one piece; `None` when a caller is to see nothing.
    pub fn bytes(&self, events: &[Event]) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(self.head.len() + 192);
        self.write(events, &mut out);
        (!out.is_empty()).then(|| out.freeze())
    }

    fn flush(&self, delta: Option<Delta<'_>>, out: &mut BytesMut) {
        let Some(delta) = delta else { return };
        out.put_slice(b"data: {");
        out.put_slice(&self.head);
        out.put_slice(b"\"choices\":[{\"index\":");
        int_into(u64::from(delta.choice), out);
        match self.kind {
            CallKind::Completion => delta.write_text(out),
            _ => delta.write_chat(out),
        }
        out.put_slice(b"}]");
        if self.include_usage {
            out.put_slice(b",\"usage\":null");
        }
        out.put_slice(b"}\n\n");
    }

    fn usage(&self, usage: &Usage, out: &mut BytesMut) {
        if !self.include_usage {
            return;
        }
        out.put_slice(b"data: {");
        out.put_slice(&self.head);
        out.put_slice(b"\"choices\":[],\"usage\":");
        usage_into(usage, out);
        out.put_slice(b"}\n\n");
    }
}

fn head(object: &str, meta: &Meta) -> Bytes {
    let mut out = BytesMut::with_capacity(96 + meta.id.len() + meta.model.len());
    out.put_slice(b"\"id\":");
    string_into(&meta.id, &mut out);
    out.put_slice(b",\"object\":");
    string_into(object, &mut out);
    out.put_slice(b",\"created\":");
    int_into(meta.created, &mut out);
    out.put_slice(b",\"model\":");
    string_into(&meta.model, &mut out);
    out.put_u8(b',');
    out.freeze()
}

fn choice_of(event: &Event) -> u16 {
    match event {
        Event::Role { choice }
        | Event::Text { choice, .. }
        | Event::Refusal { choice, .. }
        | Event::Reasoning { choice, .. }
        | Event::Logprobs { choice, .. }
        | Event::Signal { choice, .. }
        | Event::Finish { choice, .. } => *choice,
        Event::Tool(delta) => delta.choice,
        Event::Meta(_) | Event::Usage(_) | Event::Ping | Event::Done => 0,
    }
}

/// What goes into one chunk of one choice.
struct Delta<'a> {
    choice: u16,
    role: bool,
    text: Option<&'a Text>,
    refusal: Option<&'a Text>,
    reasoning: Option<&'a Text>,
    tools: smallvec::SmallVec<[&'a ToolDelta; 1]>,
    logprobs: Option<&'a [TokenLogprob]>,
    finish: Option<&'a FinishReason>,
}

impl<'a> Delta<'a> {
    fn new(choice: u16) -> Self {
        Self {
            choice,
            role: false,
            text: None,
            refusal: None,
            reasoning: None,
            tools: smallvec::SmallVec::new(),
            logprobs: None,
            finish: None,
        }
    }

    /// There is still room for this event; nothing goes behind a finish reason, and official clients expect that in a
    /// chunk of its own.
    fn takes(&self, event: &Event) -> bool {
        let content = self.text.is_some()
            || self.refusal.is_some()
            || self.reasoning.is_some()
            || !self.tools.is_empty()
            || self.role;
        self.finish.is_none()
            && match event {
                Event::Role { .. } => !content,
                Event::Text { .. } => self.text.is_none() && self.tools.is_empty(),
                Event::Refusal { .. } => self.refusal.is_none(),
                Event::Reasoning { .. } => self.reasoning.is_none() && self.text.is_none(),
                Event::Logprobs { .. } => self.logprobs.is_none(),
                Event::Finish { .. } => !content,
                _ => true,
            }
    }

    fn add(&mut self, event: &'a Event) {
        match event {
            Event::Role { .. } => self.role = true,
            Event::Text { text, .. } => self.text = Some(text),
            Event::Refusal { text, .. } => self.refusal = Some(text),
            Event::Reasoning { text, .. } => self.reasoning = Some(text),
            Event::Tool(delta) => self.tools.push(delta),
            Event::Logprobs { tokens, .. } => self.logprobs = Some(tokens),
            Event::Finish { reason, .. } => self.finish = Some(reason),
            _ => {}
        }
    }

    fn write_chat(&self, out: &mut BytesMut) {
        out.put_slice(b",\"delta\":{");
        let mut list = Members::default();
        if self.role {
            list.key("role", out);
            out.put_slice(b"\"assistant\"");
            if self.text.is_none() && self.tools.is_empty() && self.reasoning.is_none() {
                list.key("content", out);
                out.put_slice(b"\"\"");
            }
        }
        for (key, text) in [
            ("reasoning_content", self.reasoning),
            ("content", self.text),
            ("refusal", self.refusal),
        ] {
            if let Some(text) = text {
                list.key(key, out);
                text_into(text, out);
            }
        }
        if !self.tools.is_empty() {
            list.key("tool_calls", out);
            out.put_u8(b'[');
            for (i, tool) in self.tools.iter().enumerate() {
                if i > 0 {
                    out.put_u8(b',');
                }
                tool_delta_into(tool, out);
            }
            out.put_u8(b']');
        }
        out.put_slice(b"},\"logprobs\":");
        match self.logprobs {
            Some(tokens) => chat_logprobs_into(tokens, out),
            None => out.put_slice(b"null"),
        }
        self.write_finish(out);
    }

    fn write_text(&self, out: &mut BytesMut) {
        out.put_slice(b",\"text\":");
        match self.text {
            Some(text) => text_into(text, out),
            None => out.put_slice(b"\"\""),
        }
        out.put_slice(b",\"logprobs\":");
        match self.logprobs {
            Some(tokens) => text_logprobs_into(tokens, 0, out),
            None => out.put_slice(b"null"),
        }
        self.write_finish(out);
    }

    fn write_finish(&self, out: &mut BytesMut) {
        out.put_slice(b",\"finish_reason\":");
        finish_into(self.finish, out);
    }
}

/// Commas between members.
#[derive(Default)]
struct Members {
    any: bool,
}

impl Members {
    fn key(&mut self, key: &str, out: &mut BytesMut) {
        if std::mem::replace(&mut self.any, true) {
            out.put_u8(b',');
        }
        out.put_u8(b'"');
        out.put_slice(key.as_bytes());
        out.put_slice(b"\":");
    }
}

fn text_into(text: &Text, out: &mut BytesMut) {
    out.put_u8(b'"');
    text.write_escaped(out);
    out.put_u8(b'"');
}

fn tool_delta_into(tool: &ToolDelta, out: &mut BytesMut) {
    out.put_slice(b"{\"index\":");
    int_into(u64::from(tool.index), out);
    if let Some(id) = &tool.id {
        out.put_slice(b",\"id\":");
        text_into(id, out);
        out.put_slice(b",\"type\":\"function\"");
    }
    out.put_slice(b",\"function\":{");
    let mut list = Members::default();
    if let Some(name) = &tool.name {
        list.key("name", out);
        text_into(name, out);
    }
    list.key("arguments", out);
    text_into(&tool.arguments, out);
    out.put_slice(b"}}");
}

fn finish_into(reason: Option<&FinishReason>, out: &mut BytesMut) {
    match reason {
        Some(reason) => string_into(reason.as_openai(), out),
        None => out.put_slice(b"null"),
    }
}

/// Writes OpenAI's `usage` object.
pub fn usage_into(usage: &Usage, out: &mut BytesMut) {
    out.put_slice(b"{\"prompt_tokens\":");
    int_into(usage.prompt, out);
    out.put_slice(b",\"completion_tokens\":");
    int_into(usage.completion, out);
    out.put_slice(b",\"total_tokens\":");
    int_into(usage.total(), out);
    out.put_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
    int_into(usage.cached, out);
    out.put_slice(b"},\"completion_tokens_details\":{\"reasoning_tokens\":");
    int_into(usage.reasoning, out);
    out.put_slice(b"}}");
}

fn float_into(value: f32, out: &mut BytesMut) {
    // JSON has no infinities; OpenAI writes -9999.0 for a token of no probability.
    let value = if value.is_finite() { value } else { -9999.0 };
    out.put_slice(format!("{value:?}").as_bytes());
}

fn bytes_into(bytes: &[u8], out: &mut BytesMut) {
    out.put_u8(b'[');
    for (i, b) in bytes.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        int_into(u64::from(*b), out);
    }
    out.put_u8(b']');
}

fn logprob_into(token: &str, logprob: f32, bytes: &[u8], out: &mut BytesMut) {
    out.put_slice(b"{\"token\":");
    string_into(token, out);
    out.put_slice(b",\"logprob\":");
    float_into(logprob, out);
    out.put_slice(b",\"bytes\":");
    bytes_into(bytes, out);
}

/// `logprobs` of a chat choice.
fn chat_logprobs_into(tokens: &[TokenLogprob], out: &mut BytesMut) {
    out.put_slice(b"{\"content\":[");
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        logprob_into(&token.token, token.logprob, &token.bytes, out);
        out.put_slice(b",\"top_logprobs\":[");
        for (
            j,
            TopLogprob {
                token,
                logprob,
                bytes,
            },
        ) in token.top.iter().enumerate()
        {
            if j > 0 {
                out.put_u8(b',');
            }
            logprob_into(token, *logprob, bytes, out);
            out.put_u8(b'}');
        }
        out.put_slice(b"]}");
    }
    out.put_slice(b"],\"refusal\":null}");
}

/// `logprobs` of a completions choice; offsets count characters from `offset`.
fn text_logprobs_into(tokens: &[TokenLogprob], offset: u64, out: &mut BytesMut) {
    let list = |out: &mut BytesMut, write: &mut dyn FnMut(&TokenLogprob, &mut BytesMut)| {
        out.put_u8(b'[');
        for (i, token) in tokens.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            write(token, out);
        }
        out.put_u8(b']');
    };
    out.put_slice(b"{\"tokens\":");
    list(out, &mut |t, out| string_into(&t.token, out));
    out.put_slice(b",\"token_logprobs\":");
    list(out, &mut |t, out| float_into(t.logprob, out));
    out.put_slice(b",\"top_logprobs\":");
    list(out, &mut |t, out| {
        out.put_u8(b'{');
        for (i, top) in t.top.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            string_into(&top.token, out);
            out.put_u8(b':');
            float_into(top.logprob, out);
        }
        out.put_u8(b'}');
    });
    out.put_slice(b",\"text_offset\":");
    let mut at = offset;
    list(out, &mut |t, out| {
        int_into(at, out);
        at += t.token.chars().count() as u64;
    });
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn meta() -> Meta {
        Meta {
            id: "i\"d".into(),
            created: 7,
            model: "m".into(),
        }
    }

    fn chunks(text: &str) -> Vec<Value> {
        let data = text
            .split_terminator("\n\n")
            .filter_map(|e| e.strip_prefix("data: "));
        data.filter(|d| *d != "[DONE]")
            .map(|d| serde_json::from_str(d).unwrap())
            .collect()
    }

    #[test]
    fn a_completions_stream_has_text_only() {
        let chunks = Chunks::new(CallKind::Completion, false, &meta());
        assert_eq!(chunks.bytes(&[Event::Role { choice: 0 }]), None);
        let bytes = chunks
            .bytes(&[
                Event::Text {
                    choice: 1,
                    text: "a".into(),
                },
                Event::Done,
            ])
            .unwrap();
        assert_eq!(
            bytes,
            "data: {\"id\":\"i\\\"d\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\",\"choices\":[{\"index\":1,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null}]}\n\ndata: [DONE]\n\n"
        );
    }

    #[test]
    fn usage_is_for_who_asked() {
        let usage = Event::Usage(Usage {
            prompt: 1,
            completion: 2,
            ..Usage::default()
        });
        assert_eq!(
            Chunks::new(CallKind::Chat, false, &meta()).bytes(std::slice::from_ref(&usage)),
            None
        );
        let bytes = Chunks::new(CallKind::Chat, true, &meta())
            .bytes(&[usage])
            .unwrap();
        let [chunk] = chunks(std::str::from_utf8(&bytes).unwrap()).try_into().unwrap();
        assert_eq!(chunk["choices"], serde_json::json!([]));
        assert_eq!(chunk["usage"]["total_tokens"], 3);
    }

    proptest! {
        /// Deltas concatenate to the whole: in the stream's bytes and in the body alike.
        #[test]
        fn deltas_concatenate_to_the_whole(
            pieces in proptest::collection::vec((0u16..3, 0u8..3, any::<String>()), 1..20),
            together in 1usize..5,
        ) {
            let events: Vec<Event> = pieces.iter().map(|(choice, what, text)| match what {
                0 => Event::Text { choice: *choice, text: text.as_str().into() },
                1 => Event::Reasoning { choice: *choice, text: text.as_str().into() },
                _ => Event::Tool(Box::new(ToolDelta { choice: *choice, arguments: text.as_str().into(), ..ToolDelta::default() })),
            }).collect();
            let mut whole = WholeAnswer::default();
            let mut wire = BytesMut::new();
            let writer = Chunks::new(CallKind::Chat, false, &meta());
            for group in events.chunks(together) {
                group.iter().for_each(|e| whole.push(e));
                writer.write(group, &mut wire);
            }
            let body: Value = serde_json::from_slice(&whole.body(CallKind::Chat)).unwrap();
            for choice in body["choices"].as_array().unwrap() {
                let index = &choice["index"];
                let of = |path: &str| -> String {
                    chunks(std::str::from_utf8(&wire).unwrap()).iter()
                        .filter(|c| &c["choices"][0]["index"] == index)
                        .filter_map(|c| c["choices"][0]["delta"].pointer(path).and_then(|v| v.as_str()).map(str::to_owned))
                        .collect()
                };
                let message = &choice["message"];
                prop_assert_eq!(of("/content"), message["content"].as_str().unwrap_or_default());
                prop_assert_eq!(of("/reasoning_content"), message["reasoning_content"].as_str().unwrap_or_default());
            }
        }
    }
}
