//! Roles: from where to where, and who does it to whom.

use super::super::text::Ask;
use super::name::alike;
use super::{language, unit};

/// Words that a role hangs on, by language.
const ROLES: &[(&str, &str, &str)] = &[
    ("en", "from", "to into onto towards"),
    ("de", "von aus ab vom", "nach zu zum zur ins"),
    ("fr", "de du depuis", "a vers au"),
    ("es", "de desde del", "a al hasta hacia"),
    ("it", "da dal dalla", "a al alla"),
    ("pt", "de do da", "para a"),
    ("nl", "van vanuit vanaf", "naar"),
];
/// May stand between such a word and the one it governs.
const BETWEEN: &[&str] = &[
    "the", "a", "an", "my", "our", "der", "dem", "die", "das", "le", "la", "les", "el", "los", "il", "het",
    "central", "us", "one",
];

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let (roles_a, roles_b) = (roles(a), roles(b));
    let exchanged = roles_a.iter().any(|(word, role)| {
        let other = roles_b.iter().filter(|(w, _)| alike(w, word));
        let mut other = other.map(|(_, r)| *r).peekable();
        other.peek().is_some() && other.all(|r| r != *role)
    });
    exchanged || numbers_turned(a, b) || agents_differ(a, b)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Goal,
}

/// Words behind "from" or "to". A unit behind a number is where a conversion begins; one behind "in" or "how many", where it
/// ends.
fn roles(ask: &Ask) -> Vec<(String, Role)> {
    let mut out = Vec::new();
    let word = |at: usize| ask.words.get(at).map_or("", |w| w.low.as_str());
    let language = language::of(ask);
    for at in 0..ask.words.len() {
        let low = word(at);
        let row =
            |row: &&(&str, &str, &str)| language.map_or(matches!(row.0, "en" | "de"), |code| row.0 == code);
        let has = |words: &str| words.split(' ').any(|w| w == low);
        let role = ROLES
            .iter()
            .filter(row)
            .find_map(|(_, source, goal)| match (has(source), has(goal)) {
                (true, _) => Some(Role::Source),
                (_, true) => Some(Role::Goal),
                _ => None,
            });
        let conversion = low == "in" || (matches!(low, "many" | "viele") && at > 0);
        let role = match role {
            Some(role) => role,
            None if low == ">" || (conversion && unit::is_one(word(at + 1))) => Role::Goal,
            None => continue,
        };
        let mut next = at + 1;
        while !conversion && BETWEEN.contains(&word(next)) && next < at + 3 {
            next += 1;
        }
        // "In one second", "5 a day": a measure, not a direction.
        if !word(next).is_empty() && ask.words.get(next).is_none_or(|w| w.number.is_none()) {
            out.push((key(word(next)), role));
        }
    }
    for pair in ask.words.windows(2) {
        if let [number, unit] = pair
            && number.number.is_some()
            && unit::of_pair(number, unit) != 0
            && !unit::is_time(&unit.low)
        {
            out.push((key(&unit.low), Role::Source));
        }
    }
    out
}

/// A unit stands for all its forms.
fn key(low: &str) -> String {
    match unit::row(low) {
        0 => low.to_owned(),
        row => format!("unit {row:x}"),
    }
}

/// "1 to 10" and "10 to 1".
fn numbers_turned(a: &Ask, b: &Ask) -> bool {
    let (a, b) = (spans(a), spans(b));
    a.iter().any(|(from, to)| from != to && b.contains(&(*to, *from)))
}

fn spans(ask: &Ask) -> Vec<(i64, i64)> {
    let spans = ask.words.windows(3).filter_map(|three| match three {
        [from, to, end] if matches!(to.low.as_str(), "to" | "through" | "bis" | "a") => {
            Some((from.number?, end.number?))
        }
        _ => None,
    });
    spans.collect()
}

const MODALS: &[&str] = &[
    "can", "could", "may", "must", "do", "does", "did", "should", "would", "will", "is", "are", "am", "darf",
    "dürfen", "kann", "muss", "soll", "have", "has",
];
const DETERMINERS: &[&str] = &[
    "my", "the", "our", "your", "a", "an", "mein", "meine", "der", "die", "das", "ein", "eine",
];

/// Before the verb of a question.
const ASKING: &[&str] = &[
    "how", "what", "when", "why", "where", "much", "many", "long", "wie", "was", "wann", "warum", "wo",
    "and", "or",
];

/// Who acts: the word behind the first verb of a question, as in "can *my boss* read", "can *I* read".
fn agent(ask: &Ask) -> Option<&str> {
    let word = |at: usize| ask.words.get(at).map(|w| w.low.as_str());
    let begins = |at: usize| {
        ask.words.get(at).is_some_and(|w| w.first)
            || at
                .checked_sub(1)
                .and_then(word)
                .is_some_and(|w| ASKING.contains(&w))
    };
    let at = (0..ask.words.len()).find(|at| word(*at).is_some_and(|w| MODALS.contains(&w)) && begins(*at))?;
    let next = word(at + 1)?;
    if DETERMINERS.contains(&next) {
        word(at + 2)
    } else {
        Some(next)
    }
}

fn is_me(low: &str) -> bool {
    matches!(low, "i" | "we" | "ich" | "wir")
}

/// The one's agent is me, and the other's is somebody of whom the one speaks too.
fn agents_differ(a: &Ask, b: &Ask) -> bool {
    let me_and_other = |me: &Ask, other: &Ask| -> bool {
        let (Some(i), Some(they)) = (agent(me), agent(other)) else {
            return false;
        };
        let person = me.words.windows(2).any(|pair| match pair {
            [before, word] => DETERMINERS.contains(&before.low.as_str()) && alike(&word.low, they),
            _ => false,
        });
        is_me(i) && !is_me(they) && they.len() > 3 && person && speaks_of_me(other)
    };
    me_and_other(a, b) || me_and_other(b, a)
}

fn speaks_of_me(ask: &Ask) -> bool {
    ask.words.iter().any(|w| {
        matches!(
            w.low.as_str(),
            "my" | "me" | "i" | "mein" | "meine" | "meinen" | "mir" | "mich" | "our" | "us"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn from_and_to() {
        assert!(refused(
            "the train from London to Paris",
            "the train from Paris to London"
        ));
        assert!(refused("100 pounds in kilograms", "100 kilograms in pounds"));
        assert!(refused(
            "Wie komme ich von Berlin nach Hamburg",
            "von Hamburg nach Berlin"
        ));
        assert!(!refused(
            "the train from London to Paris",
            "to Paris from London by rail"
        ));
        assert!(!refused(
            "100 pounds in kilograms",
            "How many kilograms are 100 pounds?"
        ));
    }

    #[test]
    fn who_to_whom() {
        assert!(refused(
            "Can my boss read my mails?",
            "Can I read my boss's mails?"
        ));
        assert!(refused(
            "Does my landlord have to pay me?",
            "Do I have to pay my landlord?"
        ));
        assert!(!refused(
            "Can I take ibuprofen with milk?",
            "Is it safe to take ibuprofen with milk?"
        ));
    }
}
