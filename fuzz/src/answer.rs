//! What the targets of answers share: a decoder is driven to its end, and what it told is compared.

use std::sync::Arc;

use bytes::Bytes;
use gateway::call::{Call, CallKind};
use gateway::providers::anthropic::decode as anthropic;
use gateway::providers::event::{Event, FinishReason, Frame, Usage};
use gateway::providers::failure::AttemptError;
use gateway::providers::openai::{stream, whole};
use gateway::providers::sse::{Parser, Sse};

/// A chat call; `stream`: with the caller's wish for figures.
pub fn call(stream: Option<bool>) -> Arc<Call> {
    let more = stream.map_or(String::new(), |usage| {
        format!(r#","stream":true,"stream_options":{{"include_usage":{usage}}}"#)
    });
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
    match gateway::steps::decode::decode(CallKind::Chat, Bytes::from(body), 1) {
        Ok((call, _)) => call,
        Err(e) => panic!("{e}"),
    }
}

/// Any decoder.
pub enum Decoder {
    OpenaiStream(stream::StreamDecoder),
    OpenaiWhole(whole::WholeDecoder),
    AnthropicStream(anthropic::StreamDecoder),
    AnthropicWhole(anthropic::WholeDecoder),
}

macro_rules! each {
    ($self:expr, $d:ident => $call:expr) => {
        match $self {
            Decoder::OpenaiStream($d) => $call,
            Decoder::OpenaiWhole($d) => $call,
            Decoder::AnthropicStream($d) => $call,
            Decoder::AnthropicWhole($d) => $call,
        }
    };
}

impl Decoder {
    fn pull(&mut self) -> Result<Option<Frame>, AttemptError> {
        each!(self, d => d.pull())
    }
}

/// What a decoder told, so far as it does not depend on how its input was cut.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// Text, refusal, reasoning and calls, by choice, in order; pieces of one kind joined.
    pub content: Vec<(u16, &'static str, String)>,
    /// Ends of choices.
    pub ends: Vec<(u16, FinishReason)>,
    /// The last figures.
    pub usage: Option<Usage>,
    /// It came to its end.
    pub done: bool,
    /// How it failed.
    pub fault: Option<String>,
    /// What the caller gets.
    pub wire: Vec<u8>,
}

impl Told {
    fn add(&mut self, choice: u16, kind: &'static str, text: &str) {
        // Nothing is no piece; where it stood does not matter.
        if text.is_empty() {
            return;
        }
        match self.content.iter_mut().rev().find(|(c, ..)| *c == choice) {
            Some((_, last, all)) if *last == kind => all.push_str(text),
            _ => self.content.push((choice, kind, text.to_owned())),
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Text { choice, text } => self.add(*choice, "text", &text.as_str()),
            Event::Refusal { choice, text } => self.add(*choice, "refusal", &text.as_str()),
            Event::Reasoning { choice, text } => self.add(*choice, "reasoning", &text.as_str()),
            Event::Tool(delta) => {
                let said = |text: &Option<gateway::providers::event::Text>| {
                    text.as_ref().map_or(String::new(), |t| t.as_str().into_owned())
                };
                let head = (said(&delta.id), said(&delta.name));
                if head != Default::default() {
                    let line = format!("\n{} {head:?} ", delta.index);
                    self.add(delta.choice, "tool", &line);
                }
                self.add(delta.choice, "tool", &delta.arguments.as_str());
            }
            Event::Finish { choice, reason } => self.ends.push((*choice, reason.clone())),
            Event::Usage(usage) => self.usage = Some(*usage),
            _ => {}
        }
    }
}

/// Drives a decoder over pieces of an answer that ends cleanly, or in a break.
pub fn drive(mut decoder: Decoder, pieces: &[&[u8]], broken: bool) -> Told {
    let mut told = Told::default();
    for piece in pieces {
        each!(&mut decoder, d => d.push(Bytes::copy_from_slice(piece)));
        if pull(&mut decoder, &mut told) {
            return told;
        }
    }
    each!(&mut decoder, d => d.end(broken.then(|| "it broke".to_owned())));
    assert!(
        pull(&mut decoder, &mut told),
        "an answer that has ended has no end"
    );
    told
}

/// Pulls until it wants more (`false`), or is over.
fn pull(decoder: &mut Decoder, told: &mut Told) -> bool {
    loop {
        match decoder.pull() {
            Ok(None) => return false,
            Ok(Some(frame)) => {
                for event in &frame.events {
                    told.take(event);
                }
                if let Some(wire) = &frame.wire {
                    told.wire.extend_from_slice(wire);
                }
                if frame.is_done() {
                    told.done = true;
                    return true;
                }
            }
            Err(error) => {
                // A sentence with a place in it: where it was cut may change the place, not the kind.
                told.fault = Some(error.fault().label().to_owned());
                let _ = (error.graded(), error.detail().len());
                return true;
            }
        }
    }
}

/// What goes to a caller of a stream: whole events of valid JSON, `[DONE]` last and only at the end of a whole answer.
pub fn is_sound(told: &Told) {
    let mut parser = Parser::default();
    parser.push(Bytes::copy_from_slice(&told.wire));
    let mut done = false;
    while let Some(sse) = parser.pull().expect("what was read fits") {
        let Sse::Event(event) = sse else { continue };
        assert!(!done, "something behind [DONE]");
        done = &*event.data == b"[DONE]";
    }
    assert_eq!(parser.held_bytes(), 0, "events are whole");
    assert_eq!(done, told.done);
}
