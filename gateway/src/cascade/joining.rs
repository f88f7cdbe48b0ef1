//! A continuation on its way to the caller: what it may say, under whose name, and what it adds to the bill.

use bytes::BytesMut;
use routing::continuation::{End, Joiner, New, Piece, Sent, Unfit, Way};
use routing::facts::CallKind;
use smallvec::SmallVec;

use super::watch::Watch;
use crate::providers::event::{Event, Events, FinishReason, Frame, Meta, ToolDelta, Usage};
use crate::providers::render::Chunks;

/// Notes what the caller receives of an answer of one choice.
pub fn note(sent: &mut Sent, frame: &Frame) {
    for event in &frame.events {
        match event {
            Event::Text { text, .. } => sent.text(&text.as_str()),
            Event::Refusal { text, .. } => sent.refusal(&text.as_str()),
            Event::Tool(delta) => sent.tool(
                delta.index,
                delta.name.as_ref().map(|n| n.as_str()).as_deref(),
                &delta.arguments.as_str(),
            ),
            _ => {}
        }
    }
}

/// What the caller has received of a stream that broke.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its words.
    pub sent: Sent,
    /// `id` and `created` of the answer: they stay.
    pub meta: Meta,
    /// Tokens of it, and who counted them.
    pub usage: Option<(Usage, &'static str)>,
    /// The provider has told how long the prompt is.
    pub prompt_told: bool,
}

impl Received {
    /// Tokens of the answer so far.
    pub fn delivered(&self) -> u64 {
        self.usage.map_or(0, |(u, _)| u.completion)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Joining {
    /// How it was asked for.
    pub way: Way,
    /// Its words go to the caller.
    pub adopted: bool,
    /// Why it does not go on with what was sent.
    pub unfit: Option<Unfit>,
    joiner: Joiner,
    meta: Meta,
    kind: CallKind,
    include_usage: bool,
    /// May be shown once it is adopted.
    pending: Vec<Event>,
    /// [`Joining::take`] has said that it joins.
    told: bool,
    before: Option<(Usage, &'static str)>,
    prompt_told: bool,
    /// Bytes of each piece of content, until it joins.
    pieces: SmallVec<[usize; 16]>,
    count: u64,
    swallowed: u64,
}

impl Joining {
    /// Goes on from what was received. `json`: the text is to be one JSON value.
    pub fn new(received: &Received, way: Way, json: bool, kind: CallKind, include_usage: bool) -> Self {
        Self {
            way,
            adopted: false,
            unfit: None,
            joiner: Joiner::new(&received.sent, way, json),
            meta: received.meta.clone(),
            kind,
            include_usage,
            pending: Vec::new(),
            told: false,
            before: received.usage,
            prompt_told: received.prompt_told,
            pieces: SmallVec::new(),
            count: 0,
            swallowed: 0,
        }
    }

    /// Takes in what it says. `Ok(true)`, once: it joins.
    ///
    /// # Errors
    /// It does not go on with what was sent.
    pub fn take(&mut self, frame: &Frame) -> Result<bool, Unfit> {
        let taken = frame.events.iter().try_for_each(|event| self.event(event));
        if let Err(why) = taken {
            self.unfit = Some(why);
            return Err(why);
        }
        let joins = self.joiner.is_joined() && !self.told;
        if joins {
            self.told = true;
            self.count_swallowed();
        }
        Ok(joins)
    }

    fn event(&mut self, event: &Event) -> Result<(), Unfit> {
        let mut new = Vec::new();
        match event {
            Event::Meta(meta) => self.meta.model = meta.model.clone(),
            Event::Text { text, .. } if !text.is_empty() => {
                let text = text.as_str();
                self.piece(text.len());
                self.joiner.push(Piece::Text(&text), &mut new)?;
            }
            Event::Refusal { text, .. } if !text.is_empty() => {
                let text = text.as_str();
                self.piece(text.len());
                self.joiner.push(Piece::Refusal(&text), &mut new)?;
            }
            Event::Tool(delta) => {
                let (id, name) = (delta.id.as_ref(), delta.name.as_ref());
                let (id, name) = (id.map(|t| t.as_str()), name.map(|t| t.as_str()));
                let arguments = delta.arguments.as_str();
                self.piece(arguments.len());
                let piece = Piece::Tool {
                    index: delta.index,
                    id: id.as_deref(),
                    name: name.as_deref(),
                    arguments: &arguments,
                };
                self.joiner.push(piece, &mut new)?;
            }
            Event::Finish { reason, .. } => {
                let end = match reason {
                    FinishReason::Length | FinishReason::ContentFilter => End::Limit,
                    FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Other(_) => End::Done,
                };
                self.joiner.end(end, &mut new)?;
                self.say(new);
                self.pending.push(event.clone());
                return Ok(());
            }
            // The caller has the role; what the model thought about going on is none of the answer.
            _ => {}
        }
        self.say(new);
        Ok(())
    }

    fn piece(&mut self, bytes: usize) {
        self.count += 1;
        if !self.told {
            self.pieces.push(bytes);
        }
    }

    fn say(&mut self, new: Vec<New>) {
        self.pending.extend(new.into_iter().map(|new| match new {
            New::Text(text) => Event::Text {
                choice: 0,
                text: text.into(),
            },
            New::Refusal(text) => Event::Refusal {
                choice: 0,
                text: text.into(),
            },
            New::Tool {
                index,
                id,
                name,
                arguments,
            } => Event::Tool(Box::new(ToolDelta {
                choice: 0,
                index,
                id: id.map(Into::into),
                name: name.map(Into::into),
                arguments: arguments.into(),
            })),
        }));
    }

    /// Pieces that were skipped whole.
    fn count_swallowed(&mut self) {
        let new: usize = self
            .pending
            .iter()
            .map(|event| match event {
                Event::Text { text, .. } | Event::Refusal { text, .. } => text.as_str().len(),
                Event::Tool(delta) => delta.arguments.as_str().len(),
                _ => 0,
            })
            .sum();
        let all: usize = self.pieces.iter().sum();
        let mut skipped = all.saturating_sub(new);
        for bytes in std::mem::take(&mut self.pieces) {
            if bytes > skipped {
                break;
            }
            skipped -= bytes;
            self.swallowed += 1;
        }
    }

    /// What may be shown, with its bytes for the caller: under the answer's `id` and `created`, and the name of who wrote it.
    pub fn release(&mut self) -> Option<Frame> {
        let events = std::mem::take(&mut self.pending);
        // Each in a chunk of its own: official clients expect the finish reason in one without content.
        let chunks = Chunks::new(self.kind, self.include_usage, &self.meta);
        let mut out = BytesMut::new();
        events
            .iter()
            .for_each(|event| chunks.write(std::slice::from_ref(event), &mut out));
        (!out.is_empty()).then(|| Frame {
            // Who reads along in another form is to see the same name over it.
            events: std::iter::once(Event::Meta(Box::new(self.meta.clone())))
                .chain(events)
                .collect(),
            wire: Some(out.freeze()),
        })
    }

    /// The end of the stream, with the figures of the whole answer where the caller asked for them.
    pub fn end(&self, usage: Option<Usage>) -> Option<Frame> {
        let mut events = Events::from_iter(usage.map(Event::Usage));
        events.push(Event::Done);
        let wire = Chunks::new(self.kind, self.include_usage, &self.meta).bytes(&events);
        Some(Frame { events, wire })
    }

    /// Tokens of the whole answer that the caller received: the prompt once, what was delivered before, and what this try
    /// (whose own figures are `own`) has added.
    pub fn usage(&self, own: Option<(Usage, &'static str)>) -> Option<(Usage, &'static str)> {
        let Some((own, from)) = own else {
            return self.before;
        };
        // It said the whole answer, from its first word, to the same prompt.
        let Some((before, _)) = self.before.filter(|_| self.way != Way::Whole) else {
            return Some((own, from));
        };
        let said = own.completion.saturating_sub(own.reasoning);
        let added = said.saturating_mul(self.count.saturating_sub(self.swallowed)) / self.count.max(1);
        // It read what was delivered as well; and where it was told to go on, also that, which is no part of the prompt.
        let read = match (own.prompt.saturating_sub(before.completion), self.way) {
            (read, Way::Instruct) if before.prompt > 0 => read.min(before.prompt),
            (read, _) => read,
        };
        let prompt = if self.prompt_told { before.prompt } else { read };
        let usage = Usage {
            prompt,
            completion: before.completion.saturating_add(added),
            cached: if self.prompt_told {
                before.cached
            } else {
                own.cached.min(prompt)
            },
            ..before
        };
        Some((usage, "counted"))
    }

    /// What there is to go on from, should this break as well.
    pub fn received(self, watch: &Watch, usage: Option<(Usage, &'static str)>) -> Received {
        Received {
            prompt_told: self.prompt_told || (self.way == Way::Whole && watch.told_prompt()),
            usage: self.usage(usage),
            sent: self.joiner.into_sent(),
            meta: self.meta,
        }
    }

    /// What became of it.
    pub fn result(&self, outcome: routing::outcome::Outcome) -> &'static str {
        match self.unfit {
            Some(why) => why.label(),
            None if self.adopted => "joined",
            None => outcome.label(),
        }
    }
}
