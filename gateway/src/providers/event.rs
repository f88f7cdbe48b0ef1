//! The neutral event: what any provider's answer is made of, whatever its wire looked like.
//!
//! Everything above the providers (driver, verification, accounting, records) reads these; only the provider's own
//! folder knows the bytes they came from. What a caller receives travels beside them in [`Frame::wire`].

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

pub use models::llm::TokenSignal;

use super::json;

/// A piece of text, either plain UTF-8 or the inside of a JSON string still as it stood on the wire.
///
/// Events of a passed-through stream point into the bytes that were read: nobody pays for unescaping unless the text
/// is looked at.
#[derive(Clone, Default)]
pub struct Text {
    bytes: Bytes,
    escaped: bool,
}

impl Text {
    /// Plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            bytes: Bytes::from(text.into().into_bytes()),
            escaped: false,
        }
    }

    /// The inside of a JSON string, without its quotes.
    pub fn json(inside: Bytes) -> Self {
        Self {
            escaped: memchr::memchr(b'\\', &inside).is_some(),
            bytes: inside,
        }
    }

    /// The text itself; borrowed unless it has escapes or is not UTF-8 (then U+FFFD stands for what is broken).
    pub fn as_str(&self) -> Cow<'_, str> {
        if self.escaped {
            json::unescape(&self.bytes)
        } else {
            plain(&self.bytes)
        }
    }

    /// There is no text.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes as it is held: plain ASCII ones, and the others. For an estimate of its tokens: an escaped text counts
    /// its escapes.
    pub fn plain_and_wide(&self) -> (u64, u64) {
        let wide = crate::call::estimate::wide(&self.bytes);
        ((self.bytes.len() as u64).saturating_sub(wide), wide)
    }

    /// Bytes it takes as it is held: a bound for accounting, not the length of the text.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes it as the inside of a JSON string.
    pub fn write_escaped(&self, out: &mut BytesMut) {
        if self.escaped {
            out.put_slice(&self.bytes);
        } else {
            json::escape_into(&plain(&self.bytes), out);
        }
    }
}

/// Bytes as text. Right text, which nearly all of it is, is looked through many bytes at a time.
fn plain(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_str(), f)
    }
}
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::plain(text)
    }
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done, or met a stop string.
    Stop,
    /// The limit on tokens.
    Length,
    /// It calls tools (`tool_calls`, and the older `function_call`).
    ToolCalls,
    /// The provider's filter cut in, or the model refused under one.
    ContentFilter,
    /// A word of the provider that has no counterpart.
    Other(Box<str>),
}

impl FinishReason {
    /// From OpenAI's word.
    pub fn from_openai(word: &str) -> Self {
        match word {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            other => Self::Other(other.into()),
        }
    }

    /// OpenAI's word for it. Unknown words are passed on.
    pub fn as_openai(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other(word) => word,
        }
    }
}

/// Tokens of one answer, as the provider counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, all of them: those read from and written to a cache included.
    pub prompt: u64,
    /// Generated tokens, reasoning included.
    pub completion: u64,
    /// Of `prompt`: read from the provider's cache.
    pub cached: u64,
    /// Of `prompt`: written to the provider's cache (dearer than plain input at some).
    pub cache_write: u64,
    /// Of `cache_write`: to be kept for an hour instead of minutes (dearer still).
    pub cache_write_hour: u64,
    /// Of `completion`: reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// Prompt and completion together.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// Part of a tool call. The first delta of a call carries `id` and `name`, later ones only pieces of `arguments`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolDelta {
    /// The choice it belongs to.
    pub choice: u16,
    /// Which call of that choice.
    pub index: u16,
    /// The call's id.
    pub id: Option<Text>,
    /// The function's name.
    pub name: Option<Text>,
    /// A piece of the arguments' JSON text.
    pub arguments: Text,
}

/// One token's log-probability with its nearest rivals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogprob {
    /// The token's text; U+FFFD where it is part of a character.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Rivals, likeliest first.
    pub top: Vec<TopLogprob>,
}

/// A rival in [`TokenLogprob::top`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogprob {
    /// The token's text.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
}

/// Who an answer says it is. The first event of every answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `id` of the body.
    pub id: Box<str>,
    /// `created` of the body, Unix seconds.
    pub created: u64,
    /// The model that the provider reported.
    pub model: Box<str>,
}

/// One thing that happened in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Id, time and model, once, before anything else of the answer.
    Meta(Box<Meta>),
    /// A choice began. Not content.
    Role {
        /// Which choice.
        choice: u16,
    },
    /// Answer text.
    Text {
        /// Which choice.
        choice: u16,
        /// The piece.
        text: Text,
    },
    /// The model's own refusal (`refusal` of OpenAI's structured outputs). Shown to the caller; a safety refusal.
    Refusal {
        /// Which choice.
        choice: u16,
        /// The piece.
        text: Text,
    },
    /// Thinking: a sign of life, not content.
    Reasoning {
        /// Which choice.
        choice: u16,
        /// The piece.
        text: Text,
    },
    /// Part of a tool call.
    Tool(Box<ToolDelta>),
    /// Log-probabilities that the caller asked for, of the text in the same frame.
    Logprobs {
        /// Which choice.
        choice: u16,
        /// One a token.
        tokens: Vec<TokenLogprob>,
    },
    /// How sure the model was, one a token of the text in the same frame (local models).
    Signal {
        /// Which choice.
        choice: u16,
        /// The figures.
        signal: TokenSignal,
    },
    /// Token counts; may come more than once, the last one counts.
    Usage(Usage),
    /// A choice ended.
    Finish {
        /// Which choice.
        choice: u16,
        /// Why.
        reason: FinishReason,
    },
    /// A sign of life without content (comment lines, `ping`).
    Ping,
    /// The answer is whole: every choice has its finish reason and nothing follows. Only after this event may a stream
    /// be closed with `[DONE]`; an answer that ends without it ends in an error instead.
    Done,
}

impl Event {
    /// What a caller would call the answer itself: once such an event was sent, the target cannot be changed.
    pub fn is_content(&self) -> bool {
        match self {
            Event::Text { text, .. } | Event::Refusal { text, .. } => !text.is_empty(),
            Event::Tool(_) => true,
            _ => false,
        }
    }
}

/// Events that came together; most often one.
pub type Events = SmallVec<[Event; 2]>;

/// One step of an answer.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// What happened.
    pub events: Events,
    /// What an OpenAI-speaking caller is to receive for it, ready to send: for streams one or more whole SSE events
    /// (`data: ...\n\n`; for [`Event::Done`] it is `data: [DONE]\n\n`), for whole answers the body, in the last frame.
    /// `None`: nothing (signs of life, usage that was not asked for, a whole answer that is still growing).
    pub wire: Option<Bytes>,
}

impl Frame {
    /// A frame of events that the caller does not see.
    pub fn silent(event: Event) -> Self {
        Self {
            events: SmallVec::from_iter([event]),
            wire: None,
        }
    }

    /// Holds an event that [`Event::is_content`].
    pub fn has_content(&self) -> bool {
        self.events.iter().any(Event::is_content)
    }

    /// Holds [`Event::Done`].
    pub fn is_done(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_the_same_either_way() {
        let plain = Text::plain("a \"b\"\n\u{1F600}");
        let wire = Text::json(Bytes::from_static(br#"a \"b\"\n\ud83d\ude00"#));
        assert_eq!(plain, wire);
        let mut a = BytesMut::new();
        plain.write_escaped(&mut a);
        assert_eq!(json::unescape(&a), plain.as_str());
    }

    #[test]
    fn a_role_is_not_content() {
        assert!(!Event::Role { choice: 0 }.is_content());
        assert!(
            !Event::Text {
                choice: 0,
                text: "".into()
            }
            .is_content()
        );
        assert!(
            !Event::Reasoning {
                choice: 0,
                text: "hm".into()
            }
            .is_content()
        );
        assert!(
            Event::Text {
                choice: 0,
                text: "x".into()
            }
            .is_content()
        );
    }
}
