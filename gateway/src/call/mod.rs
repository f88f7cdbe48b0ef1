//! A call as the caller wrote it: the raw bytes, a few fields, and the spans where fields stand.
//!
//! Where caller and provider speak the same dialect the bytes themselves pass on, spliced at a few spans. Dialects that
//! differ ask for the typed view ([`Call::chat`]), which is parsed once and only then. [`crate::steps::decode`] makes
//! calls; nothing else does.

mod again;
pub mod chat;
pub mod estimate;
pub mod fields;
pub mod lists;

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
pub use routing::facts::CallKind;
use smallvec::SmallVec;

use crate::error::Result;

/// A piece of [`Call::raw`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl Span {
    /// The piece itself; empty when it does not lie inside `raw` (it always does in the call it came from).
    pub fn of(self, raw: &[u8]) -> &[u8] {
        raw.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
    /// Its length.
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
    /// Nothing in it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A top-level field: where its key and its value stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name without escapes.
    name: Name,
    /// The key as it was written, quotes included.
    pub key: Span,
    /// The value as it was written.
    pub value: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// Written without escapes: the key's span without its quotes.
    Plain,
    /// Written with escapes (`"mod\u0065l"`).
    Escaped(Box<str>),
}

impl Field {
    /// A field; `escaped` is its name when the key holds escapes.
    pub fn new(key: Span, value: Span, escaped: Option<Box<str>>) -> Self {
        Self {
            name: escaped.map_or(Name::Plain, Name::Escaped),
            key,
            value,
        }
    }
    /// Its name without escapes.
    pub fn name<'a>(&'a self, raw: &'a [u8]) -> &'a str {
        match &self.name {
            Name::Plain => {
                let inner = Span {
                    start: self.key.start + 1,
                    end: self.key.end.saturating_sub(1),
                };
                std::str::from_utf8(inner.of(raw)).unwrap_or_default()
            }
            Name::Escaped(name) => name,
        }
    }
}

/// The top-level fields in the order they were written, each name once.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// Just behind the opening brace: where a field can be put in front (followed by a comma, when there are others).
    pub open: u32,
    /// Fields in order.
    pub fields: SmallVec<[Field; 12]>,
}

impl Spans {
    /// The field of that name.
    pub fn get(&self, raw: &[u8], name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name(raw) == name)
    }
    /// Bytes to leave out so that the field at `index` is gone and the object still parses: the member and one comma
    /// beside it.
    pub fn cut(&self, index: usize) -> Option<Span> {
        let field = self.fields.get(index)?;
        if index > 0 {
            // From the end of the member before it: takes the comma in front along.
            let before = self.fields.get(index - 1)?;
            return Some(Span {
                start: before.value.end,
                end: field.value.end,
            });
        }
        // The first member: up to the next key, so that the comma behind it goes.
        let end = self.fields.get(1).map_or(field.value.end, |next| next.key.start);
        Some(Span {
            start: field.key.start,
            end,
        })
    }
}

/// One request, decoded once.
pub struct Call {
    /// The endpoint.
    pub kind: CallKind,
    /// The body as it came; valid UTF-8, one JSON object, no top-level name twice.
    pub raw: Bytes,
    /// Where its fields stand.
    pub spans: Spans,
    /// `model`, unescaped.
    pub model: Box<str>,
    /// `stream`.
    pub stream: bool,
    /// `stream_options.include_usage`: the caller wants the extra chunk.
    pub include_usage: bool,
    /// Answers: `n` (1 when absent), for each prompt of a list of them.
    pub choices: u16,
    /// Prompts of a completion, 1 elsewhere: as many answers as there are at least, where a target is not told of `n`.
    pub prompts: u16,
    /// The larger of `max_completion_tokens` and `max_tokens`.
    pub max_output: Option<u32>,
    /// Content of the last user turn (chat: a string or parts; completions: the prompt), as it was written.
    pub last_turn: Option<Span>,
    /// Top-level fields that are harmless where they are not known (`user`, `metadata`, unknown ones, ...), for
    /// `x-weir-ignored` when a target inside this process answers.
    pub ignorable: SmallVec<[Span; 4]>,
    /// The last turn is the model's own, and it is to go on from there ([`Call::to_go_on`]).
    pub begun: bool,
    typed: OnceLock<Result<chat::ChatRequest>>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it says.
        let (kind, bytes, fields) = (self.kind, self.raw.len(), self.spans.fields.len());
        write!(
            f,
            "Call({kind:?}, {bytes} bytes, {fields} fields, stream {})",
            self.stream
        )
    }
}

/// What [`Call::new`] is made of.
#[derive(Default)]
pub struct Parts {
    /// See [`Call::kind`].
    pub kind: CallKind,
    /// See [`Call::raw`].
    pub raw: Bytes,
    /// See [`Call::spans`].
    pub spans: Spans,
    /// See [`Call::model`].
    pub model: Box<str>,
    /// See [`Call::stream`].
    pub stream: bool,
    /// See [`Call::include_usage`].
    pub include_usage: bool,
    /// See [`Call::choices`].
    pub choices: u16,
    /// See [`Call::prompts`].
    pub prompts: u16,
    /// See [`Call::max_output`].
    pub max_output: Option<u32>,
    /// See [`Call::last_turn`].
    pub last_turn: Option<Span>,
    /// See [`Call::ignorable`].
    pub ignorable: SmallVec<[Span; 4]>,
}

impl Call {
    /// From its parts; the caller vouches that the spans belong to `raw`.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            kind,
            raw,
            spans,
            model,
            stream,
            include_usage,
            choices,
            prompts,
            max_output,
            last_turn,
            ignorable,
        } = parts;
        Self {
            kind,
            raw,
            spans,
            model,
            stream,
            include_usage,
            choices,
            prompts,
            max_output,
            last_turn,
            ignorable,
            begun: false,
            typed: OnceLock::new(),
        }
    }

    /// A top-level value as it was written.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.spans.get(&self.raw, name).map(|f| f.value.of(&self.raw))
    }

    /// A top-level value, parsed. `None` when absent, `null` or of another type ([`crate::steps::decode`] has refused
    /// wrong types of the fields it knows).
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self, name: &str) -> Option<T> {
        serde_json::from_slice::<Option<T>>(self.value(name)?)
            .ok()
            .flatten()
    }

    /// The typed view of a chat or completions call, parsed at the first asking. A completions call reads as one user
    /// turn.
    ///
    /// # Errors
    /// [`crate::error::Kind::BadField`] naming the field that has a wrong shape.
    pub fn chat(&self) -> Result<&chat::ChatRequest> {
        self.typed
            .get_or_init(|| chat::parse(self.kind, &self.raw))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Text of the last user turn, unescaped; several text parts are joined by line feeds. Empty when there is none.
    pub fn last_turn_text(&self) -> Cow<'_, str> {
        let Some(span) = self.last_turn else {
            return Cow::Borrowed("");
        };
        chat::text_of(span.of(&self.raw))
    }

    /// Names of the harmless fields, for `x-weir-ignored`.
    pub fn ignorable_names(&self) -> impl Iterator<Item = &str> {
        self.ignorable.iter().filter_map(|span| {
            self.spans
                .fields
                .iter()
                .find(|f| f.key == *span)
                .map(|f| f.name(&self.raw))
        })
    }
}
