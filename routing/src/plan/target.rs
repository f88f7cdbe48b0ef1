//! Who serves: `[providers.NAME]` and `[targets.NAME]`.

use std::sync::Arc;

use serde::Serialize;

use super::{Limits, SecretOrText, SecretRef, Timeouts};
use crate::facts::{CallKind, Needs};
use crate::ids::{Fingerprint, ProviderId};
use crate::units::PricePerToken;

/// The dialect a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// Any OpenAI-compatible server.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
    /// Inside this process.
    Local,
}

/// `[providers.NAME]`.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderConfig {
    /// Name in the file.
    pub name: Arc<str>,
    /// Dialect.
    pub kind: ProviderKind,
    /// Without trailing slash; empty for `local`.
    pub base_url: Arc<str>,
    /// `None`: no key is sent.
    pub api_key: Option<SecretRef>,
    /// `None`: `HTTPS_PROXY`/`HTTP_PROXY`/`NO_PROXY` of the environment are heard.
    pub proxy: Option<SecretOrText>,
    /// Further trusted CA (PEM).
    pub ca_file: Option<Arc<str>>,
    /// Extra request headers.
    pub headers: Vec<(Arc<str>, SecretOrText)>,
}

/// What a target costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Price {
    /// Not in the plan: unknown, not zero.
    Unknown,
    /// `price = "unmetered"`: known to cost nothing per token.
    Unmetered,
    /// Per token.
    PerToken {
        /// Prompt tokens.
        input: PricePerToken,
        /// Completion tokens that are no reasoning.
        output: PricePerToken,
        /// Prompt tokens from the provider's cache; `input` when absent from the file.
        cached_input: PricePerToken,
        /// Reasoning tokens, which are told among those of the completion; `output` when absent from the file.
        reasoning: PricePerToken,
    },
}

/// `[targets.NAME]`.
#[derive(Clone, Debug, Serialize)]
pub struct TargetConfig {
    /// Name in the file; what `x-weir-model` says.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: ProviderId,
    /// The provider's dialect, copied here because everybody asks.
    pub kind: ProviderKind,
    /// The upstream's name for it (remote); the artifact's name (local).
    pub model: Arc<str>,
    /// Local: which artifact of the manifest.
    pub artifact: Option<Arc<str>>,
    /// Context length in tokens; `None`: unknown, never excluded by length.
    pub context: Option<u32>,
    /// Longest answer in tokens.
    pub max_output: Option<u32>,
    /// Price; local models are [`Price::Unmetered`] unless the file says otherwise.
    pub price: Price,
    /// What it can do (absent in the file: remote everything but prefill; local none).
    pub capabilities: Needs,
    /// Endpoints it serves (remote: all; local: by the kind of artifact).
    pub serves: Vec<CallKind>,
    /// Share inside its tier.
    pub weight: u32,
    /// Which embedding vectors are alike.
    pub embedding_space: Option<Arc<str>>,
    /// Its own limits.
    pub limits: Limits,
    /// `[timeouts]` with its own keys laid over them.
    pub timeouts: Timeouts,
    /// How the request body is bent for it.
    pub params: Params,
    /// Over everything of this target and its provider that can change an answer.
    pub fingerprint: Fingerprint,
}

impl TargetConfig {
    /// Runs inside this process.
    pub fn is_local(&self) -> bool {
        self.kind == ProviderKind::Local
    }
}

/// `[targets.NAME] params`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Params {
    /// Top-level field to its name at this target.
    pub rename: Vec<(Arc<str>, Arc<str>)>,
    /// Top-level fields that are left out.
    pub drop: Vec<Arc<str>>,
    /// Top-level fields added when absent: JSON text.
    pub default: Vec<(Arc<str>, Arc<str>)>,
}
