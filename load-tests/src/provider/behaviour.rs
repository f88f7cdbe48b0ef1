//! How one request is answered, as data. Layers are laid over each other, the later winning field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::Fault;
use super::go_on::GoOn;
use super::raw::Raw;
use super::sse_style::SseStyle;
use super::wire::WirePlan;

/// How an answer comes to its end. Whole answers have most of them as far as they can: a body that breaks off, is short,
/// stops coming, is an error object under status 200, or is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Finish reason, usage where asked for, `[DONE]`.
    #[default]
    Normal,
    /// The connection breaks after `end_after` tokens.
    Cut,
    /// The body ends cleanly after `end_after` tokens: no finish reason, no `[DONE]`.
    Clean,
    /// Silence after `end_after` tokens, for as long as the other side waits.
    Stall,
    /// Nothing but signs of life (comments; Anthropic's pings) after `end_after` tokens, ten a second for half a minute.
    Pings,
    /// Signs of life for a second after `end_after` tokens, then the rest as if nothing had been.
    Pause,
    /// An error event after `end_after` tokens, then the end.
    Error,
    /// One event after `end_after` tokens is not JSON; the rest comes as if nothing had been.
    BadJson,
    /// All of it but `[DONE]`.
    NoDone,
    /// All of it but the finish reason; `[DONE]` comes.
    NoFinish,
}

/// How one request is answered. Every field is optional, so that entries can be laid over each other.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Behaviour {
    /// Before the response's head, in milliseconds.
    pub headers_ms: Option<u64>,
    /// From the head to the first token (streams), in milliseconds; for whole answers added to `headers_ms`.
    pub first_token_ms: Option<u64>,
    /// Between tokens, in milliseconds; a whole answer waits for all of them before its head.
    pub token_ms: Option<u64>,
    /// Tokens of generated text, where nothing says what to answer.
    pub tokens: Option<u32>,
    /// The answer, word for word.
    pub text: Option<String>,
    /// Put before every answer, so that a reader sees at once that no model wrote it.
    pub label: Option<String>,
    /// Answer sums and products of two whole numbers that occur in the question.
    pub solve: Option<bool>,
    /// Answer with the last user message.
    pub echo: Option<bool>,
    /// A JSON value: the answer is its compact text.
    pub json: Option<Value>,
    /// Tool calls in place of text.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Status of the response; from 400 on an error body goes with it.
    pub status: Option<u16>,
    /// Parts of the error body; the missing ones follow from the status.
    pub error: Option<ErrorBody>,
    /// Sent as the body in place of any of our own, with this text (an HTML error page, truncated JSON).
    pub raw_body: Option<String>,
    /// `retry-after` in seconds, sent with any status.
    pub retry_after: Option<u64>,
    /// `retry-after` as a date that lies so many seconds ahead, or up to one more: dates have no smaller parts.
    pub retry_after_date: Option<u64>,
    /// Further response headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// Finish reason in OpenAI's words; the Anthropic dialect translates it.
    pub finish_reason: Option<String>,
    /// Usage to report in place of the counted one.
    pub usage: Option<UsageScript>,
    /// Report this model name in place of the one asked for.
    pub report_model: Option<String>,
    /// How a stream ends.
    pub ending: Option<Ending>,
    /// After how many tokens that happens; absent: half of them, and two thirds where a `fault` is set.
    pub end_after: Option<u32>,
    /// Length of embedding vectors.
    pub dimensions: Option<u32>,
    /// A fault by its name; the fields beside it win over what it sets.
    pub fault: Option<Fault>,
    /// The request is read and never answered.
    pub hang: Option<bool>,
    /// The body goes out compressed, though nobody asked for it.
    pub gzip: Option<bool>,
    /// `content-type` in place of the right one.
    pub content_type: Option<String>,
    /// How events are written.
    pub sse: Option<SseStyle>,
    /// How it takes a request that asks it to go on with an answer that is there in part.
    pub go_on: Option<GoOn>,
    /// What it says when it goes on, word for word; absent: the rest of its own answer where that begins with the part.
    pub go_on_text: Option<String>,
    /// The response is written by hand, past every HTTP library, in this way.
    pub raw: Option<Raw>,
    /// What happens below HTTP.
    pub wire: Option<WirePlan>,
}

/// A scripted tool call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: an object, or a string that is sent as it is (it need not be JSON).
    pub arguments: Value,
}

/// Parts of an error body.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorBody {
    /// For people.
    pub message: Option<String>,
    /// `type`.
    pub r#type: Option<String>,
    /// `param`.
    pub param: Option<String>,
    /// `code`.
    pub code: Option<String>,
}

/// Scripted usage.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageScript {
    /// Prompt tokens; absent: counted.
    pub prompt: Option<u32>,
    /// Completion tokens; absent: counted.
    pub completion: Option<u32>,
    /// Of the prompt's tokens, those read from the provider's cache.
    pub cached: Option<u32>,
    /// No usage is reported at all, whatever was asked for.
    pub none: bool,
}

macro_rules! overlay {
    ($into:ident, $from:ident: $($field:ident)*) => {
        $(if $from.$field.is_some() { $into.$field = $from.$field.clone(); })*
    };
}

impl Behaviour {
    /// Nothing but this fault.
    pub fn of(fault: Fault) -> Self {
        let mut b = Self::default();
        b.overlay(&Self {
            fault: Some(fault),
            ..Self::default()
        });
        b
    }

    /// What its error says: the explicit words, else those of its fault, as this kind of provider has them.
    pub(super) fn error_words(&self, anthropic: bool) -> ErrorBody {
        match (&self.error, self.fault) {
            (Some(error), _) => error.clone(),
            (None, Some(fault)) => fault.words(anthropic),
            (None, None) => ErrorBody::default(),
        }
    }

    /// The status to answer with.
    pub(super) fn status_at(&self, anthropic: bool) -> u16 {
        let of_fault = || self.fault.and_then(|f| f.status(anthropic));
        self.status.or_else(of_fault).unwrap_or(200)
    }

    /// Takes every field that `over` sets, first those of its fault.
    pub fn overlay(&mut self, over: &Self) {
        if let Some(fault) = over.fault {
            self.overlay(&fault.behaviour());
        }
        overlay!(self, over: headers_ms first_token_ms token_ms tokens text label solve echo json tool_calls status error
            raw_body retry_after retry_after_date headers finish_reason usage report_model ending end_after dimensions fault hang gzip
            content_type sse go_on go_on_text raw wire);
    }
}
