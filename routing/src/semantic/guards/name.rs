//! Names: people, places, products, abbreviations.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;
use super::{code, date, language, unit};

/// Names with more than one form.
const SAME: &[&[&str]] = &[
    &["us", "usa", "america", "american", "americans", "united states"],
    &["uk", "britain", "british", "united kingdom", "great britain"],
    &["eu", "european union"],
    &["france", "french"],
    &["spain", "spanish"],
    &["switzerland", "swiss"],
    &["netherlands", "dutch", "holland"],
    &["ireland", "irish"],
    &["england", "english"],
    &["turkey", "turkish"],
    &["greece", "greek"],
    &["finland", "finnish"],
    &["denmark", "danish"],
    &["sweden", "swedish"],
    &["china", "chinese"],
    &["ww2", "wwii", "second world war", "world war two", "world war 2"],
    &["ww1", "wwi", "first world war", "world war one", "world war 1"],
    &["nyc", "new york"],
    &["vat", "value added tax"],
    &["2fa", "two-factor", "two factor"],
];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(SAME));

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    // German writes every noun with a capital: there a name is nothing that shows.
    if [a, b]
        .into_iter()
        .any(|ask| language::of(ask) == Some("de") || german(ask))
    {
        return false;
    }
    let (same_a, same_b) = (TABLE.of(a), TABLE.of(b));
    same_a & !same_b != 0 && same_b & !same_a != 0 || lacks(a, b) || lacks(b, a)
}

/// More capitals than an English question has, and umlauts or German endings would not say more.
fn german(ask: &Ask) -> bool {
    let inside = ask.words.iter().filter(|w| !w.first && w.number.is_none());
    let (all, capital) = inside.fold((0, 0), |(all, n), w| (all + 1, n + usize::from(w.capital)));
    all >= 6 && capital * 3 >= all && language::of(ask) != Some("en")
}

/// A name in `a` that `b` does not have in any form.
fn lacks(a: &Ask, b: &Ask) -> bool {
    let aliases = TABLE.of(b);
    let mut covered = vec![false; a.words.len()];
    for (at, bits) in TABLE.found(a) {
        // Longest phrase: up to three words.
        if bits & aliases != 0 {
            covered.iter_mut().skip(at).take(3).for_each(|c| *c = true);
        }
    }
    a.words.iter().zip(covered).any(|(word, covered)| {
        // Units, tools, days and languages have guards of their own, which know their other forms.
        let known = unit::is_one(&word.low) || code::is_tool(&word.low) || date::is_one(&word.low);
        let name = word.capital && !word.first && !known && !is_plain(&word.low);
        name && !covered && !b.words.iter().any(|w| alike(&word.low, &w.low))
    })
}

/// Words that are written with a capital and are no names.
fn is_plain(low: &str) -> bool {
    matches!(
        low,
        "i" | "ok"
            | "please"
            | "hello"
            | "hi"
            | "thanks"
            | "faq"
            | "dear"
            | "no"
            | "yes"
            | "the"
            | "what"
            | "how"
            | "is"
            | "in"
    )
}

/// The same name, or a form of it: "Canada" and "Canadian", "Jupiter" and "Jupiter's".
pub(super) fn alike(a: &str, b: &str) -> bool {
    if a == b || a.strip_suffix('s') == Some(b) || b.strip_suffix('s') == Some(a) {
        return true;
    }
    let shared: usize = a
        .chars()
        .zip(b.chars())
        .take_while(|(x, y)| x == y)
        .map(|(x, _)| x.len_utf8())
        .sum();
    if shared < 4 {
        return false;
    }
    let end = |text: &str| text.get(shared..).map(str::to_owned).unwrap_or_default();
    let (a, b) = (end(a), end(b));
    let form = |end: &str| {
        matches!(
            end,
            "" | "s"
                | "n"
                | "an"
                | "ans"
                | "ian"
                | "ians"
                | "ese"
                | "er"
                | "ers"
                | "es"
                | "a"
                | "y"
                | "e"
                | "en"
                | "i"
                | "ish"
        )
    };
    let place = |end: &str| matches!(end, "" | "a" | "y" | "e");
    (form(&a) && place(&b)) || (place(&a) && form(&b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_names() {
        assert!(refused(
            "What is the capital of Australia?",
            "What is the capital of Austria?"
        ));
        assert!(refused("Who was Mozart?", "Who was Beethoven?"));
        assert!(refused("the VAT rate in France", "the VAT rate in Denmark"));
        assert!(refused("the weather", "the weather in Rome"));
        assert!(refused("the capital of Niger", "the capital of Nigeria"));
    }

    #[test]
    fn the_same_name_in_another_form() {
        assert!(!refused(
            "What is the capital of Australia?",
            "the Australian capital"
        ));
        assert!(!refused(
            "What is the capital of Australia?",
            "capital of australia?"
        ));
        assert!(!refused("tip in the US", "tips in the United States"));
        assert!(!refused(
            "How many moons does Jupiter have?",
            "number of Jupiter's moons"
        ));
    }
}
