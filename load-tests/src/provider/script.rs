//! What the fake provider does, as data: TOML or JSON, read at start or sent to `/admin/script`.
//!
//! For one request the behaviour is built up in this order, the later winning field by field: `[default]`, the model's
//! entry (a model that has none and is called `fault-NAME` has that fault), the first matching rule that was armed by an
//! admin call, else the first matching rule of the script, and the directive in the last user message
//! (`[[lab: status=429 retry_after=1]]`).

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::behaviour::Behaviour;
use super::capacity::Capacity;
use super::directive::directive;
use super::fault::Fault;
use super::rule::{Rule, Rules};
use crate::clock::Instant;

/// The whole script.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Seed of all generated text; the same seed, model and prompt give the same answer.
    pub seed: u64,
    /// If set, requests without this key (`authorization: Bearer K` or `x-api-key: K`) get 401.
    pub api_key: Option<String>,
    /// Larger bodies get 413; absent: 64 MiB.
    pub max_body_bytes: Option<usize>,
    /// Keep each request's body in the log (tests of what a gateway forwards need the very bytes).
    pub log_bodies: bool,
    /// Entries kept in the log; the oldest go first.
    pub log_capacity: usize,
    /// What it can do at once; absent: everything.
    pub capacity: Option<Capacity>,
    /// What holds for every model unless its entry says otherwise.
    pub default: Behaviour,
    /// Known models. A model that is not listed is answered with `default`, unless `strict`.
    pub models: Vec<ModelScript>,
    /// Answer 404 `model_not_found` for models that are not listed.
    pub strict: bool,
    /// First match wins.
    pub rules: Vec<Rule>,
    /// Known questions and their answers, tried after explicit `text`; matched against the last user message.
    pub answers: Vec<Answer>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            seed: 1,
            api_key: None,
            max_body_bytes: None,
            log_bodies: false,
            log_capacity: 100_000,
            capacity: None,
            default: Behaviour::default(),
            models: Vec::new(),
            strict: false,
            rules: Vec::new(),
            answers: Vec::new(),
        }
    }
}

/// One model's entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ModelScript {
    /// The name that a request's `model` must equal.
    pub name: String,
    /// How it behaves.
    #[serde(flatten)]
    pub behaviour: Behaviour,
}

/// A known question.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The last user message contains this, letter case and runs of white space aside.
    pub question: String,
    /// What is answered.
    pub answer: String,
}

/// Why a script could not be read.
#[derive(Debug)]
pub struct ScriptError(pub String);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Reads TOML, or JSON when the text begins with `{`.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| ScriptError(format!("the script is not valid: {e}")))
        } else {
            toml::from_str(text).map_err(|e| ScriptError(format!("the script is not valid: {e}")))
        }
    }

    /// Reads a file; see [`Script::parse`].
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ScriptError(format!("cannot read the script {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| ScriptError(format!("{}: {e}", path.display())))
    }

    /// The entry of a model.
    pub fn model(&self, name: &str) -> Option<&ModelScript> {
        self.models.iter().find(|m| m.name == name)
    }

    /// The behaviour for a request that came at `now`; counts the turns of its rules.
    pub(super) fn behaviour(
        &self,
        model: &str,
        prompt: &str,
        stream: bool,
        rules: &mut Rules,
        now: Instant,
    ) -> Behaviour {
        let mut b = self.default.clone();
        if let Some(m) = self.model(model) {
            b.overlay(&m.behaviour);
        } else if let Some(fault) = model.strip_prefix("fault-").and_then(Fault::named) {
            b.overlay(&Behaviour::of(fault));
        }
        if let Some(rule) = rules.first(self, (model, prompt, stream), now) {
            b.overlay(&rule.behaviour);
        }
        if let Some(d) = directive(prompt) {
            b.overlay(&d);
        }
        b
    }

    /// The answer to a known question.
    pub fn answer(&self, prompt: &str) -> Option<&str> {
        let asked = squeeze(prompt);
        self.answers
            .iter()
            .find(|a| asked.contains(&squeeze(&a.question)))
            .map(|a| a.answer.as_str())
    }
}

fn squeeze(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::Ending;
    use super::*;
    use crate::clock::now;

    const SCRIPT: &str = r#"
        seed = 7
        [default]
        tokens = 5
        [[models]]
        name = "slow"
        first_token_ms = 900
        [[rules]]
        contains = "once"
        times = 1
        status = 500
        [[rules]]
        model = "slow"
        after = 1
        tokens = 2
        [[answers]]
        question = "capital of  France"
        answer = "Paris."
    "#;

    fn asked(s: &Script, model: &str, prompt: &str, rules: &mut Rules) -> Behaviour {
        s.behaviour(model, prompt, true, rules, now())
    }

    #[test]
    fn the_later_layer_wins_field_by_field() {
        let s = Script::parse(SCRIPT).unwrap();
        let prompt = "x [[lab: tokens=9 text=\"a b\" ending=cut]]";
        let b = asked(&s, "slow", prompt, &mut Rules::default());
        assert_eq!(
            (b.first_token_ms, b.tokens, b.text.as_deref()),
            (Some(900), Some(9), Some("a b"))
        );
        assert_eq!(b.ending, Some(Ending::Cut));
    }

    #[test]
    fn a_rule_counts_its_turns() {
        let s = Script::parse(SCRIPT).unwrap();
        let mut rules = Rules::default();
        let status = |rules: &mut Rules| asked(&s, "m", "once", rules).status;
        assert_eq!([status(&mut rules), status(&mut rules)], [Some(500), None]);
        let tokens = |rules: &mut Rules| asked(&s, "slow", "x", rules).tokens;
        assert_eq!([tokens(&mut rules), tokens(&mut rules)], [Some(5), Some(2)]);
    }

    #[test]
    fn a_model_named_after_a_fault_has_it_and_an_explicit_field_wins_over_the_faults() {
        let s = Script::default();
        let named = |model| asked(&s, model, "x", &mut Rules::default());
        assert_eq!(named("fault-cut").ending, Some(Ending::Cut));
        assert_eq!(named("fault-no-such-thing").fault, None);
        let b = asked(
            &s,
            "fault-role_only",
            "[[lab: end_after=7]]",
            &mut Rules::default(),
        );
        assert_eq!((b.ending, b.end_after), (Some(Ending::Stall), Some(7)));
    }

    #[test]
    fn questions_match_whatever_their_white_space_and_case() {
        let s = Script::parse(SCRIPT).unwrap();
        assert_eq!(s.answer("What is the Capital\nof France?"), Some("Paris."));
        assert_eq!(s.answer("What is the capital of Spain?"), None);
    }

    #[test]
    fn an_unknown_key_is_refused_and_json_is_read() {
        assert!(Script::parse("sed = 1").unwrap_err().0.contains("sed"));
        assert_eq!(Script::parse(r#"{"seed": 3}"#).unwrap().seed, 3);
    }
}
