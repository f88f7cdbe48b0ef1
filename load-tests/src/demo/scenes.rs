//! Scenes as data.

use serde::Deserialize;

use crate::provider::{ScriptError, State};

/// All of them, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenes {
    /// In order.
    pub scene: Vec<Scene>,
}

/// One scene.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// One line.
    pub title: String,
    /// What to look at.
    pub about: String,
    /// The strong tier is brought into this state first.
    pub state: Option<State>,
    /// The first question is asked again for so long until it goes as meant (a provider that comes back is noticed when
    /// it is next tried).
    #[serde(default)]
    pub retry_for_ms: u64,
    /// What is asked, in order.
    pub ask: Vec<Ask>,
}

/// One question and what must come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The request's `model`.
    pub model: String,
    /// The user's message.
    pub prompt: String,
    /// The request's `max_tokens`.
    pub max_tokens: u32,
    /// As a stream.
    #[serde(default)]
    pub stream: bool,
    /// Statuses that are as meant.
    #[serde(default = "fine")]
    pub status: Vec<u16>,
    /// `x-weir-model` must be this.
    pub answered_by: Option<String>,
    /// `x-weir-verdict` must begin with this.
    pub verdict: Option<String>,
    /// The answer contains this.
    pub contains: Option<String>,
    /// The answer is this, to the letter.
    pub is: Option<String>,
    /// The answer does not contain this.
    pub lacks: Option<String>,
    /// `x-weir-attempts` must be this.
    pub attempts: Option<u32>,
    /// Calls that the strong tier must have seen for this question.
    pub strong_calls: Option<usize>,
    /// The answer must have this form: a JSON schema, as text.
    pub schema: Option<String>,
    /// Models that the provider must have been asked for, in this order.
    pub asked: Option<Vec<String>>,
    /// All of it within this time.
    pub within_ms: Option<u64>,
    /// So many callers ask it at once, as streams and whole answers in turn; what is meant holds for each, and the calls of
    /// the strong tier are those of all together.
    pub crowd: Option<usize>,
}

fn fine() -> Vec<u16> {
    vec![200]
}

impl Scenes {
    /// Reads TOML.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        toml::from_str(text).map_err(|e| ScriptError(format!("the scenes are not valid: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_scenes_are_valid() {
        let s = Scenes::parse(include_str!("../../data/demo.toml")).unwrap();
        assert!(s.scene.len() >= 3 && s.scene.iter().all(|s| !s.ask.is_empty()));
    }
}
