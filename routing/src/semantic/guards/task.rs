//! What is to be done, in which form, into which language.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

/// What to do with something. Where both texts name one, one must be shared.
const TASKS: &[&[&str]] = &[
    &[
        "translate",
        "translation",
        "übersetze",
        "übersetzen",
        "traduis",
        "traduce",
        "traduire",
    ],
    &[
        "summarise",
        "summarize",
        "summary",
        "sum up",
        "shorten",
        "condense",
        "fasse",
        "zusammenfassung",
        "zusammen",
        "tl dr",
        "in short",
        "one line",
        "one-line",
        "resume",
    ],
    &["fix", "correct", "repair", "mend", "debug", "korrigiere"],
    &["rewrite", "refactor", "polite", "rephrase"],
    &["test", "tests", "unit test"],
    &[
        "explain",
        "explanation",
        "purpose",
        "understand",
        "erkläre",
        "erklär",
    ],
    &["sort", "alphabetically", "alphabetical", "alphabetise"],
    &["count", "zähle"],
    &["extract"],
    &["classify", "sentiment"],
    &["example", "examples", "beispiel"],
    &["quiz", "exercises"],
];

/// The form of the answer. Named on one side only, it is another task.
const FORMS: &[&[&str]] = &[
    &["table", "tabelle"],
    &["bullet", "bullets", "bullet points"],
    &["numbered", "numbers list"],
    &["poem", "gedicht", "poème", "limerick"],
    &["haiku"],
    &["essay"],
    &["email", "e-mail", "mail"],
    &["letter", "brief"],
    &["slogan", "slogans", "headline"],
    &["shopping list"],
    &["diagram", "chart"],
    &["cv"],
    &["joke", "jokes", "witz"],
    &["fact", "facts"],
    &["contract", "vertrag"],
    &["docstring", "comment"],
    &["pdf"],
    &["sentences", "sätzen", "sätze"],
];

/// Languages that may be asked for.
const LANGUAGES: &[&[&str]] = &[
    &[
        "english",
        "englisch",
        "englische",
        "anglais",
        "anglaise",
        "inglés",
        "inglese",
    ],
    &["german", "deutsch", "deutsche", "allemand", "alemán", "tedesco"],
    &[
        "french",
        "französisch",
        "französische",
        "français",
        "francés",
        "francese",
    ],
    &["spanish", "spanisch", "espagnol", "español", "spagnolo"],
    &["italian", "italienisch", "italien", "italiano"],
    &["portuguese", "portugiesisch", "portugués", "portugais"],
    &["dutch", "niederländisch"],
    &["polish", "polnisch", "polonais"],
    &["russian", "russisch", "russe"],
    &["japanese", "japanisch", "japonais"],
    &["chinese", "chinesisch", "chinois"],
    &["korean", "koreanisch"],
    &["turkish", "türkisch"],
    &["greek", "griechisch"],
    &["catalan"],
    &["arabic", "arabisch"],
    &["latin", "latein"],
    &["swedish", "schwedisch"],
    &["cyrillic"],
];

static TABLES: LazyLock<[Table; 3]> =
    LazyLock::new(|| [Table::new(TASKS), Table::new(FORMS), Table::new(LANGUAGES)]);

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let [tasks, forms, languages] = &*TABLES;
    let (task_a, task_b) = (tasks.of(a), tasks.of(b));
    let other_task = task_a != 0 && task_b != 0 && task_a & task_b == 0;
    let (all_a, all_b) = (languages.of(a), languages.of(b));
    let other_language = wanted(a, languages) & !all_b != 0 || wanted(b, languages) & !all_a != 0;
    other_task || forms.of(a) != forms.of(b) || other_language || (all_a != all_b && all_a != 0 && all_b != 0)
}

/// Languages that something is to be in: "into Spanish", "spanish for", not "Spanish trains".
fn wanted(ask: &Ask, languages: &Table) -> u128 {
    let word = |at: Option<usize>| at.and_then(|at| ask.words.get(at)).map_or("", |w| w.low.as_str());
    let found = languages.found(ask).filter(|(at, _)| {
        matches!(
            word(at.checked_sub(1)),
            "in" | "into" | "to" | "from" | "auf" | "ins" | "aus" | "en" | "al" | "a" | "du" | "em" | "het"
        ) || matches!(
            word(Some(at + 1)),
            "for" | "please" | "version" | "word" | "bitte" | "fur" | "translation" | ""
        )
    });
    found.fold(0, |all, (_, bits)| all | bits)
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_tasks() {
        assert!(refused(
            "explain this function: f",
            "write tests for this function: f, fix it"
        ));
        assert!(refused("translate it into Spanish", "translate it into Italian"));
        assert!(refused(
            "pros of solar power as bullets",
            "pros of solar power as a table"
        ));
    }

    #[test]
    fn the_same_task() {
        assert!(!refused(
            "summarise the plot of Hamlet",
            "give me a summary of Hamlet"
        ));
        assert!(!refused("spanish for: hello", "How do you say hello in Spanish?"));
    }
}
