//! From neutral events to what an OpenAI-speaking caller receives, for answers that did not come in that form.

use bytes::{Bytes, BytesMut};

use super::event::{Event, Events, Frame, Meta, Usage};
use super::render::{Chunks, DONE, Form, WholeAnswer};
use super::upstream::Ends;
use crate::call::{Call, CallKind};

/// Renders one answer, frame by frame. Usage is written once, right before the end, whenever it came.
#[derive(Debug)]
pub struct Translator {
    kind: CallKind,
    stream: bool,
    include_usage: bool,
    chunks: Chunks,
    whole: WholeAnswer,
    ends: Ends,
    usage: Option<Usage>,
}

impl Translator {
    /// For one answer to `call`.
    pub fn new(call: &Call) -> Self {
        Self::of(Form::of(call), call.choices)
    }

    /// For one answer of so many choices in this form.
    pub fn of(form: Form, choices: u16) -> Self {
        Self {
            kind: form.kind,
            stream: form.stream,
            include_usage: form.include_usage,
            chunks: Chunks::new(form.kind, form.include_usage, &Meta::default()),
            whole: WholeAnswer::default(),
            ends: Ends::of(choices),
            usage: None,
        }
    }

    /// Every choice that was seen has its finish reason.
    pub fn complete(&self) -> bool {
        self.ends.complete()
    }

    /// Bytes of a whole answer held so far: for a bound.
    pub fn held_bytes(&self) -> usize {
        self.whole.held_bytes()
    }

    /// The figures seen last.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Events with the bytes that the caller gets for them.
    pub fn frame(&mut self, events: Events) -> Frame {
        for event in &events {
            self.ends.note(event);
            match event {
                Event::Meta(meta) => self.chunks = Chunks::new(self.kind, self.include_usage, meta),
                Event::Usage(usage) => self.usage = Some(*usage),
                _ => {}
            }
            if !self.stream {
                self.whole.push(event);
            }
        }
        let done = events.iter().any(|e| matches!(e, Event::Done));
        let wire = if self.stream {
            self.chunk(&events, done)
        } else {
            done.then(|| self.whole.body(self.kind))
        };
        Frame { events, wire }
    }

    fn chunk(&self, events: &[Event], done: bool) -> Option<Bytes> {
        let mut out = BytesMut::new();
        for run in events.split(|e| matches!(e, Event::Usage(_) | Event::Done)) {
            self.chunks.write(run, &mut out);
        }
        if done {
            if let Some(usage) = self.usage {
                self.chunks.write(&[Event::Usage(usage)], &mut out);
            }
            out.extend_from_slice(&DONE);
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}
