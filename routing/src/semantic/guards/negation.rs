//! Negation: one of the two says no.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

const NO: &[&[&str]] = &[&[
    "not", "no", "never", "without", "none", "neither", "nor", "cannot", "cant", "dont", "doesnt", "isnt",
    "wont", "didnt", "except", "nicht", "kein", "keine", "keinen", "keiner", "keinem", "keines", "ohne",
    "nie", "niemals", "ausser", "pas", "sans", "aucun", "aucune", "jamais", "sin", "nunca", "ningun",
    "ninguna", "non", "senza", "mai piu", "nao", "sem", "niet", "geen", "zonder", "nooit", "unable",
    "nothing", "nobody", "nichts", "niemand",
]];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(NO));

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    says_no(a) != says_no(b)
}

fn says_no(ask: &Ask) -> bool {
    TABLE.found(ask).any(|(at, _)| {
        let word = |at: Option<usize>| at.and_then(|at| ask.words.get(at)).map_or("", |w| w.low.as_str());
        // "Order no 5", "yes or no": not a negation.
        let number = ask.words.get(at + 1).is_some_and(|w| w.number.is_some());
        let choice = matches!(word(at.checked_sub(1)), "or" | "oder" | "ou" | "o");
        // "I do not understand" is said around a question, and is no part of it.
        let around =
            word(Some(at)) == "not" && matches!(word(Some(at + 1)), "understand" | "know" | "get" | "see");
        let alike = word(Some(at)) == "not" && word(Some(at + 1)) == "the" && word(Some(at + 2)) == "same";
        !(word(Some(at)) == "no" && (number || choice) || around || alike)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_no() {
        for no in [
            "I can't pay",
            "recipe without eggs",
            "ohne Sahne",
            "no es posible",
            "je ne peux pas",
            "Don't do it",
        ] {
            assert!(says_no(&Ask::of(no)), "{no}");
        }
        for yes in [
            "I can pay",
            "order no 48213",
            "allowed, yes or no?",
            "a note",
            "I don't understand it",
        ] {
            assert!(!says_no(&Ask::of(yes)), "{yes}");
        }
    }

    #[test]
    fn the_same_no_in_other_words() {
        let (a, b) = (Ask::of("pancakes without eggs"), Ask::of("pancakes, no eggs"));
        assert!(!differ(&a, &b));
    }
}
