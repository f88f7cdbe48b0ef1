//! A stored key, without the key.

use std::sync::Arc;

use routing::plan::{Class, Limits};
use serde::Serialize;

use super::secret::Hash;

/// What is kept of a key. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// For records, metrics and its meter; no two keys that are not revoked have the same.
    pub name: Arc<str>,
    /// Who pays.
    pub tenant: Arc<str>,
    /// Priority.
    pub class: Class,
    /// What it may name; `None` is everything.
    pub routes: Option<Arc<[Arc<str>]>>,
    /// Its own limits.
    pub limits: Limits,
    /// When it was made.
    pub created_ms: u64,
    /// From when on it counts no more.
    pub expires_ms: Option<u64>,
    /// Since when it counts no more.
    pub revoked_ms: Option<u64>,
    /// The last four characters of the key, to tell it by.
    pub last_four: Arc<str>,
    /// Its keyed hash.
    pub hash: Hash,
}

/// Does a key count now?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Yes.
    Live,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl Row {
    /// At this time.
    pub fn state(&self, unix_ms: u64) -> State {
        if self.revoked_ms.is_some() {
            State::Revoked
        } else if self.expires_ms.is_some_and(|at| unix_ms >= at) {
            State::Expired
        } else {
            State::Live
        }
    }
}

/// Classes by the words for them.
const CLASSES: [(&str, Class); 3] = [
    ("high", Class::High),
    ("normal", Class::Normal),
    ("low", Class::Low),
];

/// The word for a class.
pub fn word(class: Class) -> &'static str {
    CLASSES
        .iter()
        .find(|(_, c)| *c == class)
        .map_or("normal", |(word, _)| word)
}

/// The class of a word.
pub fn class(word: &str) -> Option<Class> {
    CLASSES.iter().find(|(w, _)| *w == word).map(|(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_their_words() {
        for (text, it) in CLASSES {
            assert_eq!((word(it), class(text)), (text, Some(it)));
        }
        assert_eq!(class("urgent"), None);
    }
}
