//! A whole answer in OpenAI's dialect: gathered, scanned once, passed on as it came.

use bytes::{Bytes, BytesMut};

use super::in_band;
use super::scan::{Scanned, scan};
use crate::call::{Call, CallKind};
use crate::providers::event::{Event, Events, FinishReason, Frame};
use crate::providers::failure::{AttemptError, Fault};
use crate::providers::render::Chunks;
use crate::providers::upstream::Ends;

/// Largest whole answer, in bytes. (2,048 embeddings of 1,536 dimensions are about 40 MB as text.)
pub const MAX_WHOLE_BYTES: usize = 64 << 20;

/// Decodes a whole answer: bytes in, one frame out.
#[derive(Debug)]
pub struct WholeDecoder {
    at: Box<str>,
    kind: CallKind,
    /// The caller asked for a stream, and the server did not give one.
    as_stream: Option<bool>,
    first: Bytes,
    more: BytesMut,
    ended: Option<Option<String>>,
}

impl WholeDecoder {
    /// For one answer; `at` names the target in messages.
    pub fn new(call: &Call, at: &str) -> Self {
        Self {
            at: at.into(),
            kind: call.kind,
            as_stream: call.stream.then_some(call.include_usage),
            first: Bytes::new(),
            more: BytesMut::new(),
            ended: None,
        }
    }

    /// Hands over what was read.
    pub fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(self.first.len() + data.len());
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&data);
    }

    /// The input is over; `broken` says how, when it did not end well.
    pub fn end(&mut self, broken: Option<String>) {
        self.ended = Some(broken);
    }

    /// The frame, once the input is over.
    pub fn pull(&mut self) -> Result<Option<Frame>, AttemptError> {
        if self.first.len() + self.more.len() > MAX_WHOLE_BYTES {
            let detail = format!("the answer of {} is larger than {MAX_WHOLE_BYTES} bytes", self.at);
            return Err(AttemptError::new(Fault::TooLarge, detail));
        }
        let Some(broken) = &self.ended else {
            return Ok(None);
        };
        if let Some(how) = broken {
            let detail = format!("the answer of {} broke off: {how}", self.at);
            return Err(AttemptError::new(Fault::Cut, detail));
        }
        let body = if self.more.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            self.more.split().freeze()
        };
        self.whole(body).map(Some)
    }

    fn whole(&self, body: Bytes) -> Result<Frame, AttemptError> {
        let bad =
            |what: String| AttemptError::new(Fault::BadAnswer, format!("the answer of {} {what}", self.at));
        let scanned = scan(&body, true).map_err(|e| bad(format!("is {e}")))?;
        if scanned.is_error {
            return Err(in_band(&body, &self.at));
        }
        let complete = match self.kind {
            CallKind::Embeddings => scanned.has_data,
            _ => scanned.choices.is_some_and(|n| n > 0),
        };
        if !complete {
            let what = if self.kind == CallKind::Embeddings {
                "data"
            } else {
                "choices"
            };
            return Err(bad(format!(
                "has no `{what}`; does base_url end in /v1, and is this an OpenAI-compatible server?"
            )));
        }
        let mut ends = Ends::of(1);
        for event in &scanned.events {
            ends.note(event);
        }
        if self.kind != CallKind::Embeddings && ends.none() {
            return Err(bad(
                "has `choices` that neither say anything nor have ended".to_owned()
            ));
        }
        let events = told(scanned, &ends);
        let wire = match self.as_stream {
            None => Some(body),
            Some(include_usage) => as_chunks(self.kind, include_usage, &events),
        };
        Ok(Frame { events, wire })
    }
}

fn told(scanned: Scanned, ends: &Ends) -> Events {
    let mut events = Events::new();
    events.push(Event::Meta(Box::new(scanned.meta)));
    events.extend(scanned.events);
    // A body that is there to its last brace is whole; some servers leave the reason out.
    events.extend(ends.open().map(|choice| Event::Finish {
        choice,
        reason: FinishReason::Other("unknown".into()),
    }));
    events.extend(scanned.usage.map(Event::Usage));
    events.push(Event::Done);
    events
}

fn as_chunks(kind: CallKind, include_usage: bool, events: &[Event]) -> Option<Bytes> {
    let meta = events.iter().find_map(|e| {
        if let Event::Meta(m) = e {
            Some((**m).clone())
        } else {
            None
        }
    });
    Chunks::new(kind, include_usage, &meta.unwrap_or_default()).bytes(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::call;

    /// Asked for as a stream it would be one that ends without having begun.
    #[test]
    fn choices_that_say_nothing_are_no_answer() {
        for stream in ["", r#","stream":true"#] {
            let call = call(
                CallKind::Chat,
                &format!(r#"{{"model":"auto","messages":[]{stream}}}"#),
            );
            let told = |body: &'static str| {
                let mut decoder = WholeDecoder::new(&call, "a");
                decoder.push(Bytes::from_static(body.as_bytes()));
                decoder.end(None);
                decoder.pull()
            };
            assert!(told(r#"{"id":"c","choices":[{"index":0,"massage":{"content":"x"}}]}"#).is_err());
            let figures = r#"{"id":"c","choices":[{"index":0,"logprobs":{"content":[{"logprob":-1}]}}]}"#;
            assert!(told(figures).is_err());
            assert!(told(r#"{"id":"c","choices":[{"index":0,"finish_reason":"stop"}]}"#).is_ok());
            assert!(told(r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant"}}]}"#).is_ok());
        }
    }

    /// Some servers leave the reason out. As a stream it would never have ended, whatever it says.
    #[test]
    fn a_choice_without_a_reason_has_ended_whatever_it_says() {
        let call = call(CallKind::Chat, r#"{"model":"auto","messages":[],"stream":true}"#);
        for said in [
            r#""content":"x""#,
            r#""refusal":"no""#,
            r#""reasoning_content":"hm""#,
            r#""role":"assistant""#,
            r#""tool_calls":[{"id":"t","function":{"name":"f","arguments":"{}"}}]"#,
        ] {
            let body = format!(r#"{{"id":"c","choices":[{{"index":3,"message":{{{said}}}}}]}}"#);
            let mut decoder = WholeDecoder::new(&call, "a");
            decoder.push(Bytes::from(body));
            decoder.end(None);
            let frame = decoder.pull().unwrap().unwrap();
            let ended = |e: &Event| matches!(e, Event::Finish { choice: 3, .. });
            assert_eq!(frame.events.iter().filter(|e| ended(e)).count(), 1, "{said}");
            let wire = String::from_utf8(frame.wire.unwrap().to_vec()).unwrap();
            assert!(wire.contains(r#""finish_reason":"unknown""#), "{wire}");
        }
    }

    /// However the connection ends, cleanly or not: a truncated body is never an answer.
    #[test]
    fn a_body_cut_at_any_byte_is_no_answer() {
        let body = br#"{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"a {\"b\": 1}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;
        let call = call(CallKind::Chat, r#"{"model":"auto","messages":[]}"#);
        for at in 0..=body.len() {
            for broken in [None, Some("the connection was reset".to_owned())] {
                let cut = at < body.len() || broken.is_some();
                let mut decoder = WholeDecoder::new(&call, "a");
                decoder.push(Bytes::copy_from_slice(&body[..at]));
                decoder.end(broken);
                assert_eq!(decoder.pull().is_err(), cut, "{at}");
            }
        }
    }
}
