//! Answers of the Messages API, whole and streamed, as neutral events.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::smallvec;

use super::wire::{Block, Delta, Message, StreamEvent, Usage as WireUsage};
use crate::call::Call;
use crate::providers::event::{Event, Events, FinishReason, Frame, Meta, Text, ToolDelta, Usage};
use crate::providers::failure::{AttemptError, Fault};
use crate::providers::openai::whole::MAX_WHOLE_BYTES;
use crate::providers::sse::{Parser, Sse};
use crate::providers::translate::Translator;
use crate::providers::upstream::{error_of, implied_status};

/// An error event or body, with the status that its type stands for.
fn in_band(data: &[u8], at: &str) -> AttemptError {
    let upstream = serde_json::from_slice::<Value>(data)
        .ok()
        .as_ref()
        .and_then(error_of)
        .unwrap_or_default();
    let detail = format!("{at} reported an error inside its answer");
    AttemptError::new(Fault::InBand(implied_status(&upstream)), detail).with_upstream(upstream)
}

/// What is wrong with a text: where it is JSON of another shape, the parser's own words would quote it.
fn why(e: &serde_json::Error) -> String {
    if e.is_data() {
        format!("another shape at line {} column {}", e.line(), e.column())
    } else {
        e.to_string()
    }
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        other => FinishReason::Other(other.into()),
    }
}

/// Text, thinking, or a sign of life.
fn piece(text: &str, thinking: &str) -> Event {
    match (text, thinking) {
        ("", "") => Event::Ping,
        ("", thinking) => Event::Reasoning {
            choice: 0,
            text: thinking.into(),
        },
        (text, _) => Event::Text {
            choice: 0,
            text: text.into(),
        },
    }
}

/// The beginning of a tool call.
fn tool(index: u16, block: &Block<'_>, arguments: Text) -> Event {
    let id = Some(block.id.as_ref().into());
    let name = Some(block.name.as_ref().into());
    Event::Tool(Box::new(ToolDelta {
        choice: 0,
        index,
        id,
        name,
        arguments,
    }))
}

/// OpenAI counts cached tokens among the prompt's, Anthropic beside them. No figure at all is no usage: it is not zero.
fn usage(wire: WireUsage) -> Option<Event> {
    if wire.is_silent() {
        return None;
    }
    let cached = wire.cache_read_input_tokens.unwrap_or_default();
    let (cache_write, cache_write_hour) = wire.written();
    Some(Event::Usage(Usage {
        prompt: wire
            .input_tokens
            .unwrap_or_default()
            .saturating_add(cached)
            .saturating_add(cache_write),
        completion: wire.output_tokens.unwrap_or_default(),
        cached,
        cache_write,
        cache_write_hour,
        reasoning: 0,
    }))
}

/// Decodes a stream: bytes in, frames out.
#[derive(Debug)]
pub struct StreamDecoder {
    at: Box<str>,
    created: u64,
    sse: Parser,
    out: Translator,
    ready: VecDeque<Frame>,
    usage: WireUsage,
    /// The tool call of each open block: block index, call index, and whether arguments came.
    tools: Vec<(u32, u16, bool)>,
    calls: u16,
    stopped: bool,
    ended: Option<Option<String>>,
}

impl StreamDecoder {
    /// For one answer; `created` (Unix seconds) because the API tells no time.
    pub fn new(call: &Call, at: &str, created: u64) -> Self {
        Self {
            at: at.into(),
            created,
            sse: Parser::default(),
            out: Translator::new(call),
            ready: VecDeque::new(),
            usage: WireUsage::default(),
            tools: Vec::new(),
            calls: 0,
            stopped: false,
            ended: None,
        }
    }

    /// Hands over what was read.
    pub fn push(&mut self, data: Bytes) {
        self.sse.push(data);
    }

    /// The input is over; `broken` says how, when it did not end well.
    pub fn end(&mut self, broken: Option<String>) {
        self.ended = Some(broken);
    }

    /// The next frame; rules as for every decoder.
    pub fn pull(&mut self) -> Result<Option<Frame>, AttemptError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            if self.stopped {
                return self.conclude("it stopped without a stop_reason").map(Some);
            }
            match self.sse.pull() {
                Ok(Some(Sse::Event(event))) => self.event(&event.data)?,
                Ok(Some(Sse::Comment)) => return Ok(Some(Frame::silent(Event::Ping))),
                Err(too_long) => {
                    let detail = format!("{} sent an event longer than {} bytes", self.at, too_long.max);
                    return Err(AttemptError::new(Fault::TooLarge, detail));
                }
                Ok(None) => {
                    let Some(broken) = self.ended.clone() else {
                        return Ok(None);
                    };
                    let how = broken.unwrap_or_else(|| "its body ended without a stop_reason".to_owned());
                    return self.conclude(&how).map(Some);
                }
            }
        }
    }

    fn conclude(&mut self, otherwise: &str) -> Result<Frame, AttemptError> {
        if self.out.complete() {
            return Ok(self.out.frame(smallvec![Event::Done]));
        }
        Err(AttemptError::new(
            Fault::Cut,
            format!("the stream of {} broke off: {otherwise}", self.at),
        ))
    }

    fn say(&mut self, events: Events) {
        let frame = self.out.frame(events);
        self.ready.push_back(frame);
    }

    fn event(&mut self, data: &Bytes) -> Result<(), AttemptError> {
        let event: StreamEvent<'_> = serde_json::from_slice(data).map_err(|e| {
            let detail = format!(
                "an event of {} is not one of the Messages API: {}",
                self.at,
                why(&e)
            );
            AttemptError::new(Fault::BadAnswer, detail)
        })?;
        match (&*event.kind, event.message, event.content_block, event.delta) {
            ("message_start", Some(message), ..) => self.start(&message),
            ("content_block_start", _, Some(block), _) => self.open(event.index, &block),
            ("content_block_delta", _, _, Some(delta)) => self.delta(event.index, &delta),
            ("content_block_stop", ..) => self.close(event.index),
            ("message_delta", _, _, delta) => {
                self.usage = event.usage.unwrap_or_default().over(self.usage);
                let mut events: Events = usage(self.usage).into_iter().collect();
                let reason = delta.and_then(|d| d.stop_reason);
                events.extend(reason.map(|r| Event::Finish {
                    choice: 0,
                    reason: finish(&r),
                }));
                self.say(events);
            }
            ("message_stop", ..) => self.stopped = true,
            ("error", ..) => return Err(in_band(data, &self.at)),
            _ => self.say(smallvec![Event::Ping]),
        }
        Ok(())
    }

    fn start(&mut self, message: &Message<'_>) {
        self.usage = message.usage;
        let meta = Meta {
            id: message.id.as_ref().into(),
            created: self.created,
            model: message.model.as_ref().into(),
        };
        let mut events: Events = smallvec![Event::Meta(Box::new(meta)), Event::Role { choice: 0 }];
        events.extend(usage(self.usage));
        self.say(events);
    }

    fn open(&mut self, index: u32, block: &Block<'_>) {
        let event = match &*block.kind {
            "tool_use" => {
                let call = self.calls;
                self.calls = self.calls.saturating_add(1);
                self.tools.push((index, call, false));
                tool(call, block, "".into())
            }
            _ => piece(&block.text, &block.thinking),
        };
        self.say(smallvec![event]);
    }

    fn delta(&mut self, index: u32, delta: &Delta<'_>) {
        let event = match &*delta.kind {
            "input_json_delta" => self.arguments(index, &delta.partial_json),
            _ => piece(&delta.text, &delta.thinking),
        };
        self.say(smallvec![event]);
    }

    fn arguments(&mut self, index: u32, piece: &str) -> Event {
        let Some((_, call, any)) = self.tools.iter_mut().find(|(block, ..)| *block == index) else {
            return Event::Ping;
        };
        if piece.is_empty() {
            return Event::Ping;
        }
        *any = true;
        Event::Tool(Box::new(ToolDelta {
            choice: 0,
            index: *call,
            arguments: piece.into(),
            ..ToolDelta::default()
        }))
    }

    /// A call without arguments is an empty object to OpenAI's clients, not an empty text.
    fn close(&mut self, index: u32) {
        let at = self.tools.iter().position(|(block, ..)| *block == index);
        if let Some((_, call, false)) = at.map(|at| self.tools.swap_remove(at)) {
            let delta = ToolDelta {
                choice: 0,
                index: call,
                arguments: "{}".into(),
                ..ToolDelta::default()
            };
            self.say(smallvec![Event::Tool(Box::new(delta))]);
        }
    }
}

/// Decodes a whole answer: bytes in, one frame out. Also for a stream that was answered whole.
#[derive(Debug)]
pub struct WholeDecoder {
    at: Box<str>,
    created: u64,
    out: Translator,
    body: BytesMut,
    ended: Option<Option<String>>,
}

impl WholeDecoder {
    /// For one answer; `created` (Unix seconds) because the API tells no time.
    pub fn new(call: &Call, at: &str, created: u64) -> Self {
        Self {
            at: at.into(),
            created,
            out: Translator::new(call),
            body: BytesMut::new(),
            ended: None,
        }
    }

    /// Hands over what was read.
    pub fn push(&mut self, data: Bytes) {
        self.body.extend_from_slice(&data);
    }

    /// The input is over; `broken` says how, when it did not end well.
    pub fn end(&mut self, broken: Option<String>) {
        self.ended = Some(broken);
    }

    /// The frame, once the input is over.
    pub fn pull(&mut self) -> Result<Option<Frame>, AttemptError> {
        if self.body.len() > MAX_WHOLE_BYTES {
            let detail = format!("the answer of {} is larger than {MAX_WHOLE_BYTES} bytes", self.at);
            return Err(AttemptError::new(Fault::TooLarge, detail));
        }
        match &self.ended {
            None => Ok(None),
            Some(Some(how)) => Err(AttemptError::new(
                Fault::Cut,
                format!("the answer of {} broke off: {how}", self.at),
            )),
            Some(None) => {
                let body = self.body.split().freeze();
                let events = self.whole(&body)?;
                Ok(Some(self.out.frame(events)))
            }
        }
    }

    fn whole(&self, body: &Bytes) -> Result<Events, AttemptError> {
        let message: Message<'_> = match serde_json::from_slice(body) {
            Ok(message) => message,
            Err(_) if is_error(body) => return Err(in_band(body, &self.at)),
            Err(e) => {
                let detail = format!(
                    "the answer of {} is not one of the Messages API: {}",
                    self.at,
                    why(&e)
                );
                return Err(AttemptError::new(Fault::BadAnswer, detail));
            }
        };
        let meta = Meta {
            id: message.id.as_ref().into(),
            created: self.created,
            model: message.model.as_ref().into(),
        };
        let mut events: Events = smallvec![Event::Meta(Box::new(meta)), Event::Role { choice: 0 }];
        let mut calls = 0u16;
        for block in &message.content {
            match &*block.kind {
                "tool_use" => {
                    events.push(tool(calls, block, block.input.map_or("{}", RawValue::get).into()));
                    calls = calls.saturating_add(1);
                }
                _ => events.push(piece(&block.text, &block.thinking)),
            }
        }
        events.retain(|e| *e != Event::Ping);
        let reason = message
            .stop_reason
            .map_or(FinishReason::Other("unknown".into()), |r| finish(&r));
        events.push(Event::Finish { choice: 0, reason });
        events.extend(usage(message.usage));
        events.push(Event::Done);
        Ok(events)
    }
}

fn is_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|v| error_of(&v).is_some())
}
