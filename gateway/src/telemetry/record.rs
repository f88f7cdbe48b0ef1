//! The one line that is written per request, when its body has ended.
//!
//! Schema version 1, complete from the first day: replay, training and calibration live on it. No prompt text, no answer
//! text, no error text of a provider (those quote prompts). Scores are integers, so that a line is the same everywhere.

use std::sync::Arc;

use routing::facts::{CallKind, Facts};
use routing::ids::Fingerprint;
use serde::Serialize;

/// How a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The record was dropped before an answer began (the caller left, or the process stopped).
    #[default]
    Gone,
    /// The whole answer was handed over.
    Whole,
    /// An error was answered.
    Error,
    /// A stream ended in an in-band error.
    Cut,
}

/// One try.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Attempt {
    /// Target.
    pub target: Arc<str>,
    /// Tier in the cascade that was used.
    pub tier: u8,
    /// `first`, `retry`, `failover`, `escalate`, `degrade`, `again`, `continue`, `hedge`.
    pub kind: &'static str,
    /// The breaker looked with it whether the target is back.
    #[serde(skip_serializing_if = "is_false")]
    pub probe: bool,
    /// `ok`, `target_fault`, `caller_fault`, `neutral`.
    pub outcome: &'static str,
    /// The exact fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<str>>,
    /// Provider's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Start, in microseconds from the request's head.
    pub start_us: u64,
    /// To the first content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_content_us: Option<u64>,
    /// To its end.
    pub end_us: u64,
    /// A kept connection was used.
    #[serde(skip_serializing_if = "is_false")]
    pub reused: bool,
    /// A kept connection had closed under it and was dialled again.
    #[serde(skip_serializing_if = "is_false")]
    pub redialled: bool,
    /// The body was sent and the answer lost: it may be on the bill.
    #[serde(skip_serializing_if = "is_false")]
    pub maybe_billed: bool,
    /// It went on with a stream that broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continued: Option<Continued>,
    /// What was thought of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Its cost in nano-dollars; absent when the price is unknown, or nothing was used. More than its usage where `maybe_billed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
}

/// How a try went on with a stream that broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Continued {
    /// `prefill`, `whole`, `instruct`.
    pub way: &'static str,
    /// `joined`; else why what it said did not belong to the answer, or how it failed.
    pub result: &'static str,
}

/// A verdict, as recorded.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// `pass`, `fail`, `unchecked`.
    pub result: &'static str,
    /// The check that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<&'static str>,
    /// `full`, `prefix:N`, `none`.
    pub seen: Box<str>,
    /// P(good) in millionths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_good_ppm: Option<u32>,
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// Prompt, cached included.
    pub prompt: u64,
    /// Completion, reasoning included.
    pub completion: u64,
    /// Of the prompt: read from the provider's cache.
    pub cached: u64,
    /// Of the prompt: written to the provider's cache, where that is charged apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Of the completion.
    pub reasoning: u64,
    /// `provider`, `local`, `counted` (by us, from bytes and a ratio, where the provider gave no figure or a cut took it).
    pub from: &'static str,
}

/// A target that could have been chosen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Eligible {
    /// Target.
    pub target: Arc<str>,
    /// Tier.
    pub tier: u8,
    /// P(good) in millionths; absent: uncalibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_good_ppm: Option<u32>,
    /// Expected value, in millionths of a good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
    /// Usable, latency and queue as the decision saw them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<routing::signals::TargetSignal>,
}

/// A look for questions that mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Semantic {
    /// `repeat`, `hit`, `explore`, `refused`, `miss`.
    pub came_to: &'static str,
    /// Of the question and the kept one, in millionths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity_ppm: Option<u32>,
    /// Explored: with which probability the kept answer would have been given, in millionths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ventured_ppm: Option<u32>,
    /// Refused: by which guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<&'static str>,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Who {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Name of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
}

/// Version 1.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    /// Schema version.
    pub v: u8,
    /// `x-request-id`.
    pub id: Box<str>,
    /// `traceparent` of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Box<str>>,
    /// `idempotency-key` was sent.
    #[serde(skip_serializing_if = "is_false")]
    pub idempotent: bool,
    /// Wall time of the head, milliseconds since 1970.
    pub time_ms: u64,
    /// Endpoint, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<CallKind>,
    /// What the caller's `model` said (cut at 128 bytes).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub model: Box<str>,
    /// Route, when one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// The model was pinned: a promise.
    #[serde(skip_serializing_if = "is_false")]
    pub pinned: bool,
    /// Rules that matched or denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Tags that rules set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule_tags: Vec<Arc<str>>,
    /// Fingerprint of the plan.
    pub plan: Fingerprint,
    /// Fingerprint of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Fingerprint>,
    /// Versions of the heads that were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Arc<str>>,
    /// Who asked, of a request that ended before its facts were noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// Tenant, key, tags, session and all other facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Who could have been asked, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eligible: Vec<Eligible>,
    /// Who was left out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<(Arc<str>, Box<str>)>,
    /// The first choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Arc<str>>,
    /// Its propensity in millionths (1,000,000: no randomness).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propensity_ppm: Option<u32>,
    /// Seed of whatever was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Reasons of the decision, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Box<str>>,
    /// Every try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<Arc<str>>,
    /// Its tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u8>,
    /// What was thought of the answer that the caller got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Tokens of the answer that the caller got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Cost of all tries in nano-dollars; absent when a price is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
    /// `hit`, `semantic`, `coalesced`, `miss`, `bypass`.
    pub cache: &'static str,
    /// What a look for questions that mean the same came to, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<Semantic>,
    /// Step and reason of a degraded answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Box<str>>,
    /// HTTP status (499: the caller left before the head went out).
    pub status: u16,
    /// Error label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// How the body ended.
    pub end: End,
    /// The last step that was entered.
    pub step: &'static str,
    /// Steps with the microseconds they took.
    pub steps_us: Vec<(&'static str, u64)>,
    /// Microseconds to the first content sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_us: Option<u64>,
    /// Microseconds until the cascade released the first content (it may wait for a slow caller after that).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_release_us: Option<u64>,
    /// Microseconds that were our own.
    pub overhead_us: u64,
    /// Microseconds in all.
    pub total_us: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
}

/// A share in millionths.
pub fn ppm(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 1e6).round() as u32
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl Record {
    /// A record that says so far only who and when.
    pub fn open(id: &str, time_ms: u64, plan: Fingerprint) -> Self {
        Self {
            v: 1,
            id: id.into(),
            time_ms,
            plan,
            cache: "bypass",
            status: 499,
            step: "intake",
            ..Self::default()
        }
    }
}
