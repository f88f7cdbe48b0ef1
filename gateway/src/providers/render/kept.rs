//! A whole answer as neutral events, kept to be told again in whatever form a caller asks for.
//!
//! What was said together is joined into pieces of some hundred bytes, copied out of the buffers that it was read into (a
//! slice would keep all of such a buffer alive), and held as the inside of a JSON string: telling it again is copying.

use bytes::{Bytes, BytesMut};

use super::super::event::{Event, FinishReason, Text, TokenLogprob, ToolDelta};
use super::{Chunks, WholeAnswer};
use crate::call::{Call, CallKind};

/// Bytes of one piece of text: a replayed stream comes in pieces of about this size.
const PIECE: usize = 512;

/// How a caller wants an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The endpoint.
    pub kind: CallKind,
    /// Server-sent events.
    pub stream: bool,
    /// With the chunk of figures. Always `false` where nothing is streamed.
    pub include_usage: bool,
}

impl Form {
    /// Of a call.
    pub fn of(call: &Call) -> Self {
        Self {
            kind: call.kind,
            stream: call.stream,
            include_usage: call.stream && call.include_usage,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Kept {
    what: What,
    bytes: usize,
}

#[derive(Debug)]
enum What {
    /// Neutral events.
    Events(Box<[Event]>),
    /// The very bytes of one form, for what events cannot say (embeddings), or for a caller that can only ask in this form.
    Wire(Bytes),
}

impl Kept {
    /// The whole answer from its events. `None` when they are not those of a whole one.
    pub fn gather<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        let mut gathering = Gathering::default();
        for event in events {
            gathering.take(event);
        }
        gathering.end()
    }

    /// The bytes themselves.
    pub fn wire(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len(),
            what: What::Wire(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Bytes that it takes, roughly: for a bound.
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Its events; none where only bytes were kept.
    pub fn events(&self) -> &[Event] {
        match &self.what {
            What::Events(events) => events,
            What::Wire(_) => &[],
        }
    }

    /// All of it as a caller of this form is to receive it.
    pub fn told(&self, form: Form) -> Bytes {
        let events = match &self.what {
            What::Wire(bytes) => return bytes.clone(),
            What::Events(events) => events,
        };
        if !form.stream {
            let mut whole = WholeAnswer::default();
            events.iter().for_each(|event| whole.push(event));
            return whole.body(form.kind);
        }
        let mut out = BytesMut::with_capacity(self.bytes + 1_024);
        let mut chunks = None;
        // Official clients expect a role or a finish reason in a chunk of its own; log-probabilities stand beside their text.
        let mut at = 0;
        while let Some(event) = events.get(at) {
            let with_next = matches!(
                (event, events.get(at + 1)),
                (Event::Text { choice: a, .. }, Some(Event::Logprobs { choice: b, .. })) if a == b
            );
            let end = at + 1 + usize::from(with_next);
            if let Event::Meta(meta) = event {
                chunks = Some(Chunks::new(form.kind, form.include_usage, meta));
            } else if let (Some(chunks), Some(run)) = (&chunks, events.get(at..end)) {
                chunks.write(run, &mut out);
            }
            at = end;
        }
        out.freeze()
    }
}

/// Joins what belongs together.
#[derive(Default)]
struct Gathering {
    events: Vec<Event>,
    open: Option<(Voice, u16, BytesMut)>,
    usage: Option<Event>,
    bytes: usize,
    begun: bool,
    done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Text,
    Refusal,
    Reasoning,
}

impl Gathering {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Text { choice, text } => self.text(Voice::Text, *choice, text),
            Event::Refusal { choice, text } => self.text(Voice::Refusal, *choice, text),
            Event::Reasoning { choice, text } => self.text(Voice::Reasoning, *choice, text),
            // The last figures count, and stand at the end.
            Event::Usage(_) => self.usage = Some(event.clone()),
            Event::Ping | Event::Signal { .. } => {}
            Event::Done => self.done = true,
            Event::Meta(meta) => {
                self.begun = true;
                self.push(event.clone(), 64 + meta.id.len() + meta.model.len());
            }
            Event::Tool(delta) => self.tool(delta),
            Event::Logprobs { choice, tokens } => {
                let bytes = tokens.iter().map(logprob_bytes).sum();
                let (choice, tokens) = (*choice, tokens.clone());
                self.push(Event::Logprobs { choice, tokens }, bytes);
            }
            Event::Role { .. } => self.push(event.clone(), 0),
            Event::Finish { reason, .. } => {
                let bytes = match reason {
                    FinishReason::Other(word) => word.len(),
                    _ => 0,
                };
                self.push(event.clone(), bytes);
            }
        }
    }

    fn text(&mut self, voice: Voice, choice: u16, text: &Text) {
        if text.is_empty() {
            return;
        }
        let goes_on =
            matches!(&self.open, Some((v, c, held)) if (*v, *c) == (voice, choice) && held.len() < PIECE);
        if !goes_on {
            self.flush();
            self.open = Some((voice, choice, BytesMut::with_capacity(PIECE)));
        }
        if let Some((_, _, held)) = &mut self.open {
            text.write_escaped(held);
        }
    }

    /// Pieces of one call's arguments are joined; its name and id stay what they were.
    fn tool(&mut self, delta: &ToolDelta) {
        self.flush();
        let plain = delta.id.is_none() && delta.name.is_none();
        if let (true, Some(Event::Tool(last))) = (plain, self.events.last_mut())
            && (last.choice, last.index) == (delta.choice, delta.index)
        {
            let mut joined =
                BytesMut::with_capacity(last.arguments.held_bytes() + delta.arguments.held_bytes());
            last.arguments.write_escaped(&mut joined);
            delta.arguments.write_escaped(&mut joined);
            self.bytes += delta.arguments.held_bytes();
            last.arguments = Text::json(joined.freeze());
            return;
        }
        let delta = ToolDelta {
            choice: delta.choice,
            index: delta.index,
            id: delta.id.as_ref().map(copied),
            name: delta.name.as_ref().map(copied),
            arguments: copied(&delta.arguments),
        };
        let bytes = 128 + delta.arguments.held_bytes();
        self.push(Event::Tool(Box::new(delta)), bytes);
    }

    fn push(&mut self, event: Event, bytes: usize) {
        self.flush();
        self.bytes += size_of::<Event>() + bytes;
        self.events.push(event);
    }

    fn flush(&mut self) {
        let Some((voice, choice, held)) = self.open.take() else {
            return;
        };
        self.bytes += size_of::<Event>() + held.len();
        // Room that was not used goes back.
        let text = Text::json(Bytes::copy_from_slice(&held));
        self.events.push(match voice {
            Voice::Text => Event::Text { choice, text },
            Voice::Refusal => Event::Refusal { choice, text },
            Voice::Reasoning => Event::Reasoning { choice, text },
        });
    }

    fn end(mut self) -> Option<Kept> {
        if !(self.begun && self.done) {
            return None;
        }
        self.flush();
        self.events.extend(self.usage.take());
        self.events.push(Event::Done);
        Some(Kept {
            bytes: self.bytes + 2 * size_of::<Event>(),
            what: What::Events(self.events.into_boxed_slice()),
        })
    }
}

fn copied(text: &Text) -> Text {
    let mut out = BytesMut::with_capacity(text.held_bytes());
    text.write_escaped(&mut out);
    Text::json(out.freeze())
}

fn logprob_bytes(token: &TokenLogprob) -> usize {
    let top = token.top.iter().map(|t| 64 + t.token.len() + t.bytes.len());
    96 + token.token.len() + token.bytes.len() + top.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::providers::event::{Meta, Usage};

    const CHAT: Form = Form {
        kind: CallKind::Chat,
        stream: false,
        include_usage: false,
    };

    fn answer() -> Vec<Event> {
        let meta = Meta {
            id: "c-1".into(),
            created: 7,
            model: "m".into(),
        };
        let mut events = vec![Event::Meta(Box::new(meta)), Event::Role { choice: 0 }];
        for word in ["A \"weir\"", "\n", "is a wall", " in \u{1F30A}."] {
            events.push(Event::Text {
                choice: 0,
                text: word.into(),
            });
            events.push(Event::Ping);
        }
        let tool = |id: Option<&str>, arguments: &str| {
            Event::Tool(Box::new(ToolDelta {
                choice: 0,
                index: 0,
                id: id.map(Into::into),
                name: id.map(|_| "look".into()),
                arguments: arguments.into(),
            }))
        };
        events.extend([tool(Some("t-1"), ""), tool(None, "{\"a\""), tool(None, ":1}")]);
        events.push(Event::Usage(Usage {
            prompt: 3,
            completion: 5,
            ..Usage::default()
        }));
        events.push(Event::Finish {
            choice: 0,
            reason: FinishReason::ToolCalls,
        });
        events.push(Event::Done);
        events
    }

    fn chunks(text: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(text).unwrap();
        let lines = text.split("\n\n").filter(|l| !l.is_empty());
        let data = lines.map(|l| l.strip_prefix("data: ").unwrap());
        data.filter(|d| *d != "[DONE]")
            .map(|d| serde_json::from_str(d).unwrap())
            .collect()
    }

    #[test]
    fn told_whole_or_streamed_it_is_the_same_answer() {
        let kept = Kept::gather(&answer()).unwrap();
        let whole: Value = serde_json::from_slice(&kept.told(CHAT)).unwrap();
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["content"], "A \"weir\"\nis a wall in \u{1F30A}.");
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(whole["usage"]["total_tokens"], 8);
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

        for include_usage in [false, true] {
            let form = Form {
                stream: true,
                include_usage,
                ..CHAT
            };
            let told = kept.told(form);
            assert!(told.ends_with(b"data: [DONE]\n\n"));
            let chunks = chunks(&told);
            let text: String = chunks
                .iter()
                .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
                .collect();
            assert_eq!(text, "A \"weir\"\nis a wall in \u{1F30A}.");
            let last = chunks.last().unwrap();
            assert_eq!(last["usage"].is_object(), include_usage, "{last}");
            assert!(chunks.iter().all(|c| c["id"] == "c-1" && c["created"] == 7));
        }
    }

    #[test]
    fn a_part_is_not_kept() {
        let all = answer();
        for at in 0..all.len() {
            assert!(Kept::gather(&all[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn long_texts_come_in_pieces() {
        let mut events = answer();
        let long = Event::Text {
            choice: 0,
            text: "x".repeat(300).into(),
        };
        events.splice(2..2, std::iter::repeat_n(long, 10));
        let kept = Kept::gather(&events).unwrap();
        let pieces = kept
            .events()
            .iter()
            .filter(|e| matches!(e, Event::Text { .. }))
            .count();
        assert!((5..=6).contains(&pieces), "{pieces}");
        assert!(kept.held_bytes() >= 3_000);
    }
}
