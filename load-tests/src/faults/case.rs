//! What a case is: who stands behind a route, what is asked, and what both sides must see.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::key::Key;
use crate::provider::{Behaviour, Ended, State, fnv1a, generate_text};

/// A stream, or a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Server-sent events.
    Stream,
    /// One body.
    Whole,
}

/// What the providers behind the gateway speak. The caller speaks OpenAI's dialect always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Chat completions.
    Openai,
    /// Messages.
    Anthropic,
}

/// Where a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The scripted provider that all cases share.
    #[default]
    Shared,
    /// A port on which nobody listens.
    Dead,
    /// A port that takes connections and never reads.
    Deaf,
    /// A port that takes connections and resets them.
    Resetting,
    /// A scripted provider for this case alone, whose state the case changes.
    Own,
}

/// A target of a case.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Where it is.
    pub at: At,
    /// How it answers, over saying the case's text.
    pub behaviour: Behaviour,
    /// Only its first so many requests are answered so; then it is healthy. `None`: until it is healed.
    pub times: Option<u64>,
    /// The plan says that it takes a prefill.
    pub prefill: bool,
    /// The plan's context length.
    pub context: Option<u32>,
    /// Further lines of the plan for it.
    pub lines: &'static str,
}

impl Target {
    /// A healthy one.
    pub fn healthy() -> Self {
        Self::default()
    }

    /// One at the shared provider that behaves so.
    pub fn that(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            ..Self::default()
        }
    }
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The first target's.
    First,
    /// The second's.
    Second,
    /// Either's.
    Either,
}

/// What the caller must get.
#[derive(Clone, Debug)]
pub enum Caller {
    /// One whole right answer, once, with the model and the usage of whoever gave it.
    Whole(By),
    /// One whole right answer that somebody else finished: begun by the first, its usage covering what was received.
    Joined,
    /// A join, or an in-band error behind a right beginning. These endings are right too, behind what the first sent.
    JoinedOrInBand(Vec<String>),
    /// A right beginning, then an in-band error, no finish reason and no `[DONE]`.
    InBand,
    /// A whole answer that says by its finish reason that a filter ended it.
    Filtered,
    /// An error of one of these statuses, with all four keys, before anything of an answer.
    Error(Vec<u16>),
    /// The provider's own refusal: this status, and its words.
    PassedOn(u16, &'static str),
}

/// How true the usage must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// What the answering provider said.
    True,
    /// It had to be counted by somebody who has another tokenizer: prompt once, and what the caller received.
    Counted,
    /// Nobody told: none, or a figure as good as [`Usage::Counted`].
    Untold,
}

/// How a case is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// One request, then a healthy one.
    Once,
    /// Requests one after the other for so many milliseconds; the expectation is about all of them together.
    Series(u64),
    /// So many requests one after the other; the expectation is about all of them together.
    Count(usize),
    /// The first target's provider is in this state for so many milliseconds while requests go on, then healthy.
    Outage(State, u64),
    /// The caller leaves after so many tokens, 0 meaning before the head.
    Leave(usize),
}

/// What kind of trouble a case is: a table of the page `docs/faults.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chapter {
    /// One fault at the first target of a route whose second is healthy.
    OneFault,
    /// The caller names the target.
    Named,
    /// Both targets are at fault.
    Both,
    /// Nothing is at the address, or nothing hears.
    Nowhere,
    /// A stream that breaks, and who goes on with it.
    Join,
    /// Deadlines, effects, late answers.
    Limits,
    /// More than one request.
    OverTime,
    /// A key of the plan is turned.
    Turned,
}

/// Which gateway plays a case: some keys of the plan are one for all of its routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum House {
    /// The one with the plan as it is in `data/faults-plan.toml`.
    #[default]
    Usual,
    /// No repeats at the same target, no wait for a provider's word, a breaker that opens at the second failure.
    Curt,
    /// One try a request.
    OneTry,
    /// Repeats are a tenth of first tries, the backoff goes on to a second, and no breaker steps in.
    Thrifty,
}

/// What both sides must see.
#[derive(Clone, Debug)]
pub struct Expect {
    /// The caller's side.
    pub caller: Caller,
    /// Its usage.
    pub usage: Usage,
    /// The answer has ended after this.
    pub within: Duration,
    /// Requests that reach the first target.
    pub first: RangeInclusive<usize>,
    /// And the second.
    pub second: RangeInclusive<usize>,
    /// How the first target's first request ended, where that matters.
    pub first_ends: Option<Ended>,
    /// The error says `x-should-retry: false`: the tries are spent, and the caller's own would multiply them. (Not where it
    /// says truly when to come back.)
    pub spent: bool,
    /// The least time between two requests to the first target.
    pub gap: Duration,
    /// Requests that reach the first target when a healthy request follows; `None`: whatever.
    pub then_first: Option<RangeInclusive<usize>>,
    /// A healthy request that follows is answered within this; `None`: there is none that could be.
    pub then: Option<Duration>,
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called, without form and dialect.
    pub name: String,
    /// What happens, in a sentence.
    pub about: String,
    /// Where it stands on the page.
    pub chapter: Chapter,
    /// Keys of the plan that change what comes of it.
    pub keys: Vec<Key>,
    /// Who plays it.
    pub house: House,
    /// Further lines of the plan for its route.
    pub lines: &'static str,
    /// Stream or whole.
    pub form: Form,
    /// What the providers speak.
    pub dialect: Dialect,
    /// The first tier.
    pub first: Target,
    /// The second; without one the caller names the first target itself, which is a promise.
    pub second: Option<Target>,
    /// What the answer says.
    pub text: String,
    /// Arguments of the tool call that the answer is, in place of text.
    pub arguments: Option<Value>,
    /// Further fields of the request.
    pub extra: Value,
    /// `x-weir-deadline-ms`.
    pub deadline_ms: Option<u64>,
    /// Another gateway stands in front, to which every name is a target.
    pub fronted: bool,
    /// How it is played.
    pub play: Play,
    /// What must be.
    pub expect: Expect,
}

/// A healthy request that follows a fault is answered within this.
pub const AT_ONCE: Duration = Duration::from_millis(1_500);
/// No case may take longer.
pub const IN_TIME: Duration = Duration::from_millis(4_000);

impl Expect {
    /// This for the caller, one request each to these targets.
    pub fn new(caller: Caller, first: RangeInclusive<usize>, second: RangeInclusive<usize>) -> Self {
        Self {
            usage: match caller {
                Caller::Joined | Caller::JoinedOrInBand(_) => Usage::Counted,
                _ => Usage::True,
            },
            caller,
            within: IN_TIME,
            first,
            second,
            first_ends: None,
            spent: false,
            gap: Duration::ZERO,
            then_first: None,
            then: Some(AT_ONCE),
        }
    }

    /// A whole answer of the first, and nobody else is asked.
    pub fn first() -> Self {
        Self::new(Caller::Whole(By::First), 1..=1, 0..=0)
    }

    /// A whole answer of the second, after so many requests to the first.
    pub fn second(first: RangeInclusive<usize>) -> Self {
        Self::new(Caller::Whole(By::Second), first, 1..=1)
    }
}

impl Case {
    /// A route of two targets, the second healthy and saying the same.
    pub fn route(
        name: &str,
        about: &str,
        form: Form,
        dialect: Dialect,
        first: Target,
        expect: Expect,
    ) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            chapter: Chapter::OneFault,
            keys: Vec::new(),
            house: House::Usual,
            lines: "",
            form,
            dialect,
            first,
            second: Some(Target::healthy()),
            text: generate_text(fnv1a(name.as_bytes()), 24),
            arguments: None,
            extra: json!({}),
            deadline_ms: None,
            fronted: false,
            play: Play::Once,
            expect,
        }
    }

    /// One target, named by the caller.
    pub fn named(
        name: &str,
        about: &str,
        form: Form,
        dialect: Dialect,
        first: Target,
        expect: Expect,
    ) -> Self {
        Self {
            second: None,
            ..Self::route(name, about, form, dialect, first, expect)
        }
    }

    /// In this table of the page, with these keys.
    pub fn told(self, chapter: Chapter, keys: &[Key]) -> Self {
        Self {
            chapter,
            keys: keys.to_vec(),
            ..self
        }
    }

    /// With another second target.
    pub fn with_second(self, second: Target) -> Self {
        Self {
            second: Some(second),
            ..self
        }
    }

    /// Another gateway stands in front of the one that is tried.
    pub fn put_behind_another(&mut self) {
        self.fronted = true;
        // To the one in front a 500 is a provider's fault, whoever worded it.
        if matches!(self.expect.caller, Caller::PassedOn(500, _)) {
            self.expect.caller = Caller::Error(vec![502]);
        }
        // A true retry-after is waited for by each of the two, which doubles the tries and not their rate.
        if matches!(&self.expect.caller, Caller::Error(statuses) if statuses.contains(&429)) {
            for calls in [&mut self.expect.first, &mut self.expect.second] {
                *calls = *calls.start()..=calls.end() * 2;
            }
            self.expect.within = self.expect.within.max(IN_TIME);
        }
    }

    /// One word for it.
    pub fn id(&self) -> String {
        let form = match self.form {
            Form::Stream => "stream",
            Form::Whole => "whole",
        };
        let dialect = match self.dialect {
            Dialect::Openai => "openai",
            Dialect::Anthropic => "anthropic",
        };
        format!("{}-{form}-{dialect}", self.name)
    }

    /// The first (0) or second (1) target's name in the plan.
    pub fn target(&self, at: usize) -> String {
        format!(
            "{}-{}",
            self.id(),
            ["first", "second"].get(at).unwrap_or(&"other")
        )
    }

    /// What that target's provider calls the model.
    pub fn model(&self, at: usize) -> String {
        format!("lab-{}", self.target(at))
    }

    /// What the caller asks for.
    pub fn asks_for(&self) -> String {
        match &self.second {
            Some(_) => self.id(),
            None => self.target(0),
        }
    }

    /// What the caller says: plain words, of which every tokenizer finds about as many.
    pub fn prompt(&self) -> String {
        "Say the lines of this case, all of them and no others, in the same words and order as before."
            .to_owned()
    }

    /// The targets, in order.
    pub fn targets(&self) -> impl Iterator<Item = (usize, &Target)> {
        std::iter::once(&self.first).chain(&self.second).enumerate()
    }
}
