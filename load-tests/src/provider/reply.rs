//! From request and behaviour to what is said: text or tool calls for each choice, finish reason, usage. Pure; the dialects
//! only write it down.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::behaviour::{Behaviour, Ending, ErrorBody, ToolCall};
use super::request::Api;
use super::request::Ask;
use super::script::Script;
use super::{go_on, solve, words};

/// What one choice says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text, token by token.
    Text(Vec<String>),
    /// Tool calls with their arguments as text.
    Tools(Vec<(String, String)>),
}

impl Content {
    /// Tokens in it.
    pub fn tokens(&self) -> u32 {
        match self {
            Self::Text(t) => u32::try_from(t.len()).unwrap_or(u32::MAX),
            Self::Tools(calls) => calls
                .iter()
                .map(|(name, args)| words::count(name) + words::count(args))
                .sum(),
        }
    }
}

/// Usage to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: u32,
    /// Completion tokens.
    pub completion: u32,
    /// Prompt tokens read from a cache.
    pub cached: u32,
}

/// The whole reply, before it is written in a dialect.
#[derive(Clone, Debug)]
pub struct Reply {
    /// For `id`s.
    pub number: u64,
    /// The model it claims to come from.
    pub model: String,
    /// One a choice.
    pub choices: Vec<Content>,
    /// Finish reason in OpenAI's words.
    pub finish: String,
    /// `None`: none is reported.
    pub usage: Option<Usage>,
    /// How a stream ends, and after how many tokens.
    pub ending: (Ending, u32),
    /// What an error in its place says.
    pub error: ErrorBody,
    /// To the first token, and between tokens.
    pub pace: (Duration, Duration),
}

/// A part of a streamed body.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// After a pause, these bytes, which carry so many tokens.
    Data {
        /// Pause before them.
        after: Duration,
        /// The bytes.
        bytes: Bytes,
        /// Tokens in them.
        tokens: u32,
    },
    /// The connection breaks here.
    Cut,
    /// Silence from here on.
    Stall,
}

impl Piece {
    /// These bytes ten times a second, so often.
    pub fn pings(bytes: &'static [u8], times: usize) -> Vec<Self> {
        let ping = Self::Data {
            after: Duration::from_millis(100),
            bytes: Bytes::from_static(bytes),
            tokens: 0,
        };
        vec![ping; times]
    }

    /// Half a minute of them, then silence.
    pub fn only_pings(bytes: &'static [u8]) -> Vec<Self> {
        let mut all = Self::pings(bytes, 300);
        all.push(Self::Stall);
        all
    }
}

/// Signs of life in a pause: a second of them.
pub const PAUSE_PINGS: usize = 10;

impl Reply {
    /// Makes the reply to a request.
    pub fn make(script: &Script, ask: &Ask, b: &Behaviour, number: u64) -> Self {
        let mut finish = b.finish_reason.clone().unwrap_or_else(|| "stop".into());
        let choices: Vec<Content> = (0..ask.n)
            .map(|choice| match &b.tool_calls {
                Some(calls) => {
                    finish = b.finish_reason.clone().unwrap_or_else(|| "tool_calls".into());
                    Content::Tools(calls.iter().map(written).collect())
                }
                None => {
                    let (tokens, cut_short) = limited(&text(script, ask, b, choice), ask);
                    if cut_short && b.finish_reason.is_none() {
                        finish = "length".into();
                    }
                    Content::Text(tokens)
                }
            })
            .collect();
        let total: u32 = choices.iter().map(Content::tokens).sum();
        let counted = Usage {
            prompt: ask.prompt_tokens,
            completion: total,
            cached: 0,
        };
        let usage = match b.usage {
            Some(u) if u.none => None,
            Some(u) => Some(Usage {
                prompt: u.prompt.unwrap_or(counted.prompt),
                completion: u.completion.unwrap_or(counted.completion),
                cached: u.cached.unwrap_or(0),
            }),
            None => Some(counted),
        };
        let ms = |v: Option<u64>| Duration::from_millis(v.unwrap_or(0));
        let middle = if b.fault.is_some() {
            total * 2 / 3
        } else {
            total / 2
        };
        Self {
            number,
            model: b.report_model.clone().unwrap_or_else(|| ask.model.clone()),
            choices,
            finish,
            usage,
            ending: (b.ending.unwrap_or_default(), b.end_after.unwrap_or(middle)),
            error: b.error_words(ask.api == Api::Messages),
            pace: (ms(b.first_token_ms), ms(b.token_ms)),
        }
    }

    /// Tokens in all choices.
    pub fn tokens(&self) -> u32 {
        self.choices.iter().map(Content::tokens).sum()
    }

    /// Time that generating the whole takes.
    pub fn generation(&self) -> Duration {
        self.pace.0 + self.pace.1 * self.tokens().saturating_sub(1)
    }
}

fn written(call: &ToolCall) -> (String, String) {
    let arguments = match &call.arguments {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    (call.name.clone(), arguments)
}

fn text(script: &Script, ask: &Ask, b: &Behaviour, choice: u32) -> String {
    let said = match (b.go_on, &ask.partial) {
        (Some(how), Some(partial)) => {
            let whole = answer(script, ask, &partial.question, b, choice);
            go_on::answer(how, partial, &whole, b.go_on_text.as_deref())
        }
        _ => answer(script, ask, &ask.prompt, b, choice),
    };
    match &b.label {
        Some(label) => format!("{label} {said}"),
        None => said,
    }
}

fn answer(script: &Script, ask: &Ask, prompt: &str, b: &Behaviour, choice: u32) -> String {
    if let Some(text) = &b.text {
        text.clone()
    } else if let Some(json) = &b.json {
        json.to_string()
    } else if b.echo == Some(true) {
        prompt.to_owned()
    } else if let Some(known) = script.answer(prompt) {
        known.to_owned()
    } else if let Some(solved) = b.solve.unwrap_or(false).then(|| solve::solve(prompt)).flatten() {
        solved
    } else {
        let seed = words::fnv1a(format!("{}\0{}\0{prompt}\0{choice}", script.seed, ask.model).as_bytes());
        words::generate(seed, b.tokens.unwrap_or(24))
    }
}

/// Stop strings and the token limit, in that order. `true`: the limit cut it.
fn limited(text: &str, ask: &Ask) -> (Vec<String>, bool) {
    let end = ask
        .stop
        .iter()
        .filter(|s| !s.is_empty())
        .filter_map(|s| text.find(s.as_str()))
        .min();
    let text = end.and_then(|at| text.get(..at)).unwrap_or(text);
    let mut tokens: Vec<String> = words::tokens(text).into_iter().map(str::to_owned).collect();
    let max = ask
        .max_tokens
        .and_then(|m| usize::try_from(m).ok())
        .unwrap_or(usize::MAX);
    let cut_short = tokens.len() > max;
    tokens.truncate(max);
    (tokens, cut_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(extra: &str) -> Ask {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"What is 2+3?"}}]{extra}}}"#);
        Ask::read(Api::Chat, body.as_bytes()).unwrap()
    }

    fn said(ask: &Ask, b: &Behaviour) -> String {
        match Reply::make(&Script::default(), ask, b, 1).choices.swap_remove(0) {
            Content::Text(t) => t.concat(),
            Content::Tools(_) => unreachable!(),
        }
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_choices_differ() {
        let b = Behaviour::default();
        assert_eq!(said(&ask(""), &b), said(&ask(""), &b));
        let two = Reply::make(&Script::default(), &ask(r#","n":2"#), &b, 1).choices;
        assert_ne!(two[0], two[1]);
        let other = Script {
            seed: 2,
            ..Script::default()
        };
        assert_ne!(
            Reply::make(&other, &ask(""), &b, 1).choices,
            Reply::make(&Script::default(), &ask(""), &b, 1).choices
        );
    }

    #[test]
    fn sources_of_text_in_order() {
        let solve = Behaviour {
            solve: Some(true),
            label: Some("[scripted]".into()),
            ..Behaviour::default()
        };
        assert_eq!(said(&ask(""), &solve), "[scripted] 2 + 3 = 5.");
        let text = Behaviour {
            text: Some("Four.".into()),
            ..solve
        };
        assert_eq!(said(&ask(""), &text), "[scripted] Four.");
    }

    #[test]
    fn the_token_limit_and_stop_strings_hold() {
        let b = Behaviour {
            text: Some("one two three four".into()),
            ..Behaviour::default()
        };
        let r = Reply::make(&Script::default(), &ask(r#","max_tokens":2"#), &b, 1);
        assert_eq!((r.tokens(), r.finish.as_str()), (2, "length"));
        assert_eq!(said(&ask(r#","stop":["three"]"#), &b), "one two ");
    }
}
