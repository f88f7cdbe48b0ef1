//! Facts: all that a decision may look at before anything is generated. Cheap ones are there at once; dear ones (an
//! encoder run) only when [`crate::decide`] asks for them.

use std::sync::Arc;

use serde::Serialize;

/// Which endpoint the call came by; a target must be able to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// `POST /v1/chat/completions`.
    #[default]
    Chat,
    /// `POST /v1/completions` (a bare prompt).
    Completion,
    /// `POST /v1/embeddings`.
    Embeddings,
}

/// What a request needs of a target beyond text in, text out. A set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Needs(pub u16);

impl Needs {
    /// Function calling (`tools`, `functions`).
    pub const TOOLS: Needs = Needs(1);
    /// `response_format` of type `json_schema`.
    pub const JSON_SCHEMA: Needs = Needs(1 << 1);
    /// `response_format` of type `json_object`.
    pub const JSON_MODE: Needs = Needs(1 << 2);
    /// Image parts in a message.
    pub const VISION: Needs = Needs(1 << 3);
    /// Audio in or out.
    pub const AUDIO: Needs = Needs(1 << 4);
    /// File parts in a message.
    pub const FILES: Needs = Needs(1 << 5);
    /// A last message from the assistant that is to be continued.
    pub const PREFILL: Needs = Needs(1 << 6);
    /// `logprobs`.
    pub const LOGPROBS: Needs = Needs(1 << 7);
    /// Known fields that change the answer and that only the provider itself can honour (`logit_bias`,
    /// `web_search_options`, `reasoning_effort`, `prediction`, `modalities`, ...).
    pub const PROVIDER_FIELDS: Needs = Needs(1 << 8);
    /// Effects upstream: `store`, hosted tools, `background`. Never sent twice.
    pub const EFFECTS: Needs = Needs(1 << 9);

    /// Every bit with the name a plan and an error message use for it.
    pub const NAMES: [(Needs, &'static str); 10] = [
        (Self::TOOLS, "tools"),
        (Self::JSON_SCHEMA, "json_schema"),
        (Self::JSON_MODE, "json_mode"),
        (Self::VISION, "vision"),
        (Self::AUDIO, "audio"),
        (Self::FILES, "files"),
        (Self::PREFILL, "prefill"),
        (Self::LOGPROBS, "logprobs"),
        (Self::PROVIDER_FIELDS, "provider_fields"),
        (Self::EFFECTS, "effects"),
    ];

    /// All of `other` are in `self`.
    pub fn contains(self, other: Needs) -> bool {
        self.0 & other.0 == other.0
    }
    /// Both sets together.
    pub fn with(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }
    /// What is in `self` and not in `other`.
    pub fn without(self, other: Needs) -> Needs {
        Needs(self.0 & !other.0)
    }
    /// Nothing is needed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Names of the set bits, in fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(bit, _)| self.contains(*bit))
            .map(|(_, name)| name)
    }
}

impl Facts {
    /// Prompts that are answered, each for itself: those of a completion's list, 1 else.
    pub fn prompts(&self) -> u32 {
        match self.kind {
            CallKind::Completion => self.turns.max(1),
            CallKind::Chat | CallKind::Embeddings => 1,
        }
    }
}

impl Serialize for Needs {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.names())
    }
}

/// A fact that costs something to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DearFact {
    /// [`Dear::category`].
    Category,
    /// [`Dear::difficulty`].
    Difficulty,
    /// [`Dear::language`].
    Language,
    /// [`Dear::pii`].
    Pii,
}

/// Where a dear fact came from; the careful side is taken for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The encoder and its heads.
    Encoder,
    /// A rule of thumb over the cheap facts (also when the encoder was not worth asking).
    Heuristic,
    /// The classifier failed or did not answer in time.
    Failed,
}

/// A dear fact with its origin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// Who said so.
    pub source: Source,
}

/// Dear facts, each absent until it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Dear {
    /// One of the category head's labels (`math`, `health`, `law`, ...).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Known<Arc<str>>>,
    /// Difficulty on the logit scale that abilities are measured on: P(good) = sigmoid(ability - difficulty).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<Known<f32>>,
    /// ISO 639-1 code of the last user turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Known<[u8; 2]>>,
    /// Personal data seen in the last user turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pii: Option<Known<bool>>,
}

/// What is known of a request before generation. No prompt text: safe to record.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Who pays; `default` with `auth = "none"`.
    pub tenant: Arc<str>,
    /// Name of the key, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// That key is a stored one (the plan does not know it) and has a `usd_per_day`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub key_has_budget: bool,
    /// From `x-weir-tags`, in the order given (bounded by the gateway).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// The endpoint.
    pub kind: CallKind,
    /// What the answer needs of a target.
    pub needs: Needs,
    /// A streamed answer is wanted.
    pub stream: bool,
    /// Estimated prompt tokens (bytes and a ratio; exact ones only where a local model counts them).
    pub prompt_tokens: u32,
    /// The caller's `max_tokens` or `max_completion_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u32>,
    /// Messages in the conversation; texts of a list of prompts or of `input`.
    pub turns: u32,
    /// Choices asked for.
    pub choices: u16,
    /// Completions: `best_of`, answers that are made (and billed) to choose from. 0: as many as choices.
    #[serde(skip_serializing_if = "is_zero")]
    pub best_of: u16,
    /// A `service_tier` is asked for that may cost other than what the plan says.
    #[serde(skip_serializing_if = "is_false")]
    pub service_tier: bool,
    /// Bytes of the last user turn.
    pub last_turn_bytes: u32,
    /// The last user turn has a code fence or looks like source.
    pub has_code: bool,
    /// The last user turn has digits next to an arithmetic operator or words of calculation.
    pub has_math: bool,
    /// Temperature is zero, or a seed was given.
    pub deterministic: bool,
    /// Keyed hash of `prompt_cache_key`, else of system prompt and first turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Dear facts known so far.
    pub dear: Dear,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(yes: &bool) -> bool {
    !*yes
}
