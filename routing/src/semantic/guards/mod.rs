//! Guards against near misses: questions that look alike and want another answer.
//!
//! Each guard is one pure function over two questions, symmetric, and says only "these are not comparable". It is wrong
//! to the careful side at will: what it refuses costs a call of the model, what it lets through costs a wrong answer. No
//! guard is needed for the bound ([`super::governor`]); they leave it more room for hits. Word lists are in English,
//! German, French, Spanish, Italian, Portuguese and Dutch; in other scripts nothing is compared at all.

mod code;
mod date;
mod direction;
pub(super) mod language;
mod name;
mod negation;
pub(super) mod number;
mod opposite;
mod question;
mod scope;
pub(super) mod swap;
mod table;
mod task;
pub(super) mod unit;

use serde::Serialize;

use super::text::Ask;

/// Which guard refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Other languages, or one that the lists do not know.
    Language,
    /// Other numbers, in digits or words.
    Number,
    /// Other units or currencies.
    Unit,
    /// Other days, months, seasons, times of day.
    Date,
    /// One says no.
    Negation,
    /// The opposite is asked for: on and off, buy and sell.
    Opposite,
    /// Other programming languages or tools, other code, other quoted text.
    Code,
    /// Another person, place or thing with a name.
    Name,
    /// Roles are exchanged: from and to, who does it to whom.
    Direction,
    /// All, some, first, last, only, most.
    Scope,
    /// Another task, form of answer or target language.
    Task,
    /// Who, when, where, why.
    Question,
    /// The same sentence with one thing exchanged or added.
    Swap,
}

impl Guard {
    /// In the order in which they are asked, the cheap and certain ones first.
    pub const ALL: [Guard; 13] = [
        Guard::Language,
        Guard::Number,
        Guard::Unit,
        Guard::Date,
        Guard::Negation,
        Guard::Opposite,
        Guard::Code,
        Guard::Name,
        Guard::Direction,
        Guard::Scope,
        Guard::Task,
        Guard::Question,
        Guard::Swap,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Guard::Language => "language",
            Guard::Number => "number",
            Guard::Unit => "unit",
            Guard::Date => "date",
            Guard::Negation => "negation",
            Guard::Opposite => "opposite",
            Guard::Code => "code",
            Guard::Name => "name",
            Guard::Direction => "direction",
            Guard::Scope => "scope",
            Guard::Task => "task",
            Guard::Question => "question",
            Guard::Swap => "swap",
        }
    }

    /// Does this guard refuse the pair.
    pub fn refuses(self, a: &Ask, b: &Ask) -> bool {
        match self {
            Guard::Language => language::differ(a, b),
            Guard::Number => number::differ(a, b),
            Guard::Unit => unit::differ(a, b),
            Guard::Date => date::differ(a, b),
            Guard::Negation => negation::differ(a, b),
            Guard::Opposite => opposite::differ(a, b),
            Guard::Code => code::differ(a, b),
            Guard::Name => name::differ(a, b),
            Guard::Direction => direction::differ(a, b),
            Guard::Scope => scope::differ(a, b),
            Guard::Task => task::differ(a, b),
            Guard::Question => question::differ(a, b),
            Guard::Swap => swap::differ(a, b),
        }
    }
}

/// The first guard that refuses the pair.
pub fn refuse(a: &Ask, b: &Ask) -> Option<Guard> {
    Guard::ALL.into_iter().find(|guard| guard.refuses(a, b))
}

#[cfg(test)]
mod tests;
