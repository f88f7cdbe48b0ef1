//! Who, when, where, why: what is asked about a thing.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

const ROWS: &[&[&str]] = &[
    &[
        "who",
        "whose",
        "whom",
        "author",
        "writer",
        "painter",
        "artist",
        "by whom",
        "wer",
        "von wem",
        "autor",
        "qui",
        "quien",
        "de quién",
        "chi",
        "wie heisst der autor",
        "quem",
    ],
    &[
        "when",
        "what year",
        "which year",
        "what date",
        "wann",
        "seit wann",
        "quand",
        "cuando",
        "quando",
        "en que año",
        "in che anno",
        "wanneer",
        "until when",
        "since when",
        "ab wann",
        "bis wann",
    ],
    &[
        "where", "wo", "woher", "wohin", "donde", "dove", "onde", "waar", "où",
    ],
    &[
        "why",
        "reason",
        "how come",
        "what causes",
        "what makes",
        "warum",
        "wieso",
        "weshalb",
        "pourquoi",
        "por que",
        "perche",
        "waarom",
    ],
    &[
        "how many",
        "number of",
        "wie viele",
        "wieviele",
        "combien de",
        "cuantos",
        "cuantas",
        "quanti",
        "quante",
        "hoeveel",
        "quantos",
    ],
    &[
        "how much",
        "price",
        "cost",
        "costs",
        "wie viel",
        "wieviel",
        "was kostet",
        "cuanto cuesta",
        "quanto costa",
    ],
    &[
        "how long",
        "how many minutes",
        "how many hours",
        "how many days",
        "what time",
        "duration",
        "wie lange",
        "wie viele minuten",
        "quante ore",
        "quanti minuti",
        "combien d heures",
        "cuantos minutos",
        "cuantas horas",
        "combien de temps",
        "cuanto tiempo",
        "quanto dura",
    ],
    &["how far", "distance"],
    &["how old", "what age", "age at"],
    &["how often"],
];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(ROWS));

/// Rows of quantities: which one is asked for shows in the unit, not in the words of the question.
const QUANTITIES: u128 = 0b11_1111 << 4;
const COST: u128 = 1 << 5;
const LONG: u128 = 1 << 6;

/// Who, when, where, why, how long.
const OPEN: u128 = 0b1111 | LONG;

/// Begins like a question that is answered with yes or no. "Can you tell me ..." is none.
fn is_yes_or_no(ask: &Ask) -> bool {
    let word = |at: usize| ask.words.get(at).map_or("", |w| w.low.as_str());
    let verb = matches!(
        word(0),
        "can"
            | "could"
            | "may"
            | "must"
            | "do"
            | "does"
            | "did"
            | "is"
            | "are"
            | "am"
            | "should"
            | "will"
            | "darf"
            | "kann"
            | "muss"
            | "ist"
            | "sind"
            | "puedo"
            | "es"
    );
    verb && !matches!(word(1), "you" | "not" | "no" | "there" | "sie" | "du")
}

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let (yes_a, yes_b) = (is_yes_or_no(a), is_yes_or_no(b));
    let (a, b) = (TABLE.of(a), TABLE.of(b));
    // Whether something may be, and when, where, why or for how long.
    if (yes_a && b & OPEN != 0 && a & OPEN == 0) || (yes_b && a & OPEN != 0 && b & OPEN == 0) {
        return true;
    }
    if a == 0 || b == 0 || a & b != 0 {
        return false;
    }
    let quantities = a & QUANTITIES != 0 && b & QUANTITIES != 0;
    !quantities || ((a | b) & COST != 0 && (a | b) & LONG != 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_questions() {
        assert!(refused("Who wrote Faust?", "When was Faust written?"));
        assert!(refused("Why does it rain?", "Where does it rain?"));
        assert!(!refused("Who painted it?", "Which painter made it?"));
        assert!(!refused("Who painted it?", "it was painted"));
        assert!(refused(
            "Can I change the name?",
            "Until when can I change the name?"
        ));
        assert!(!refused("Can you tell me who did it?", "Who did it?"));
        assert!(!refused("How far is it in km?", "How many km is it?"));
        assert!(refused(
            "How long does shipping take?",
            "What is the price of shipping?"
        ));
    }
}
