//! Programming languages and tools, code, quoted text.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

const TOOLS: &[&[&str]] = &[
    &["python", "py"],
    &["javascript", "js"],
    &["typescript", "ts"],
    &["java"],
    &["kotlin"],
    &["rust"],
    &["golang", "go"],
    &["c++"],
    &["c#", "csharp"],
    &["ruby"],
    &["php"],
    &["perl"],
    &["swift"],
    &["haskell"],
    &["scala"],
    &["julia"],
    &["fortran"],
    &["lua"],
    &["elixir"],
    &["bash", "shell"],
    &["powershell"],
    &["fish"],
    &["sql"],
    &["mysql", "mariadb"],
    &["postgresql", "postgres"],
    &["sqlite"],
    &["mongodb", "mongo"],
    &["redis"],
    &["excel"],
    &["google sheets", "sheets"],
    &["html"],
    &["css"],
    &["tailwind"],
    &["react"],
    &["vue"],
    &["angular"],
    &["svelte"],
    &["django"],
    &["flask"],
    &["express"],
    &["node", "nodejs"],
    &["docker", "dockerfile"],
    &["docker compose"],
    &["kubernetes", "k8s"],
    &["git"],
    &["mercurial"],
    &["curl"],
    &["wget"],
    &["scp"],
    &["rsync"],
    &["ssh"],
    &["nginx"],
    &["apache"],
    &["ubuntu"],
    &["fedora"],
    &["debian"],
    &["linux"],
    &["windows"],
    &["macos", "mac"],
    &["android"],
    &["iphone", "ios"],
    &["pandas"],
    &["numpy"],
    &["json"],
    &["xml"],
    &["yaml"],
    &["toml"],
    &["csv"],
    &["pdf"],
    &["string", "strings", "str"],
    &["integer", "integers", "int", "ints"],
    &["float", "floats"],
    &["double", "doubles"],
    &["list", "lists", "liste", "listen", "lista"],
    &["array", "arrays", "tableau"],
    &["dict", "dictionary", "dictionaries"],
    &["hashmap", "map"],
    &["vector", "vectors"],
    &["tuple", "tuples"],
    &["key", "keys"],
    &["value", "values"],
    &["branch", "branches"],
    &["commit", "commits"],
    &["column", "columns"],
    &["row", "rows"],
    &["index", "indexes", "indices"],
    &["get", "http get"],
    &["post"],
    &["put"],
    &["rename"],
    &["drop"],
    &["filter", "filtrer"],
    &["sort", "trier", "sortieren"],
    &["max", "maximum"],
    &["min", "minimum"],
];

/// Rows that are tools and languages: what is named on one side only makes another question of it.
const NAMED: u32 = 68;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(TOOLS));
static WORDS_TOO: LazyLock<u128> = LazyLock::new(|| {
    [
        "get", "post", "put", "drop", "key", "value", "map", "list", "filter", "index", "row", "branch",
        "string",
    ]
    .iter()
    .fold(0, |all, word| all | TABLE.word(word))
});

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let named = (1_u128 << NAMED) - 1;
    let (of_a, of_b) = (of(a), of(b));
    if of_a & named != of_b & named {
        return true;
    }
    // The rest are everyday words as well: they count where code is spoken of, and both sides have one that the other lacks.
    let rest = if of_a & named == 0 {
        !named & !*WORDS_TOO
    } else {
        !named
    };
    let (more_a, more_b) = (of_a & !of_b & rest, of_b & !of_a & rest);
    (more_a != 0 && more_b != 0) || lacks(a, b) || lacks(b, a) || operators_differ(a, b)
}

/// The word is a language or a tool.
pub(super) fn is_tool(low: &str) -> bool {
    TABLE.word(low) & ((1 << NAMED) - 1) != 0
}

fn of(ask: &Ask) -> u128 {
    let mut all = 0;
    for (at, bits) in TABLE.found(ask) {
        // "I want to go", "how should I react": the verb is more frequent than the tool.
        let before = at.checked_sub(1).and_then(|at| ask.words.get(at));
        let verb = before.is_some_and(|w| {
            matches!(
                w.low.as_str(),
                "i" | "to" | "should" | "we" | "you" | "can" | "not"
            )
        });
        let small = ask.words.get(at).is_some_and(|w| !w.capital);
        if !(verb && small) {
            all |= bits;
        }
    }
    all
}

/// Code or a quotation of `a` is not in `b`.
fn lacks(a: &Ask, b: &Ask) -> bool {
    let code = a.words.iter().filter(|w| w.code && !is_sign(&w.low));
    let code = code
        .map(|w| w.low.as_str())
        .any(|low| !b.words.iter().any(|w| w.low == low));
    let quoted = a.quotes.iter().any(|quote| {
        let space = |text: &str| format!(" {text} ");
        !space(&b.plain).contains(&space(quote))
    });
    code || quoted
}

/// Both have a formula or code with several operators, and not the same ones.
fn operators_differ(a: &Ask, b: &Ask) -> bool {
    let operators = |ask: &Ask| -> Vec<String> {
        let mut found: Vec<String> = ask
            .words
            .iter()
            .filter(|w| w.low.starts_with(['=', '<', '>', '+', '*', '|', '^', '~']))
            .map(|w| w.low.clone())
            .collect();
        found.sort_unstable();
        found
    };
    let (a, b) = (operators(a), operators(b));
    a.len() > 1 && b.len() > 1 && a != b
}

/// Signs of everyday writing, and of units.
fn is_sign(low: &str) -> bool {
    matches!(
        low,
        "%" | "$"
            | "€"
            | "£"
            | "°"
            | "&"
            | "+"
            | ">"
            | "->"
            | "="
            | "<"
            | "~"
            | "*"
            | "c++"
            | "c#"
            | "k8s"
            | "@"
            | "["
            | "]"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_code() {
        assert!(refused(
            "reverse a list in Python",
            "reverse a list in JavaScript"
        ));
        assert!(refused("reverse a list in Python", "reverse a string in Python"));
        assert!(refused("error E05", "error E08"));
        assert!(refused(
            "what is f(n) = n * f(n) + 1",
            "what is f(n) = f(n) + f(n)"
        ));
        assert!(refused("what does \"ox\" mean", "what does \"fox\" mean"));
        assert!(refused("what does == do", "what does === do"));
        assert!(refused("started with -Xmx4g", "started with -Xmx16g"));
    }

    #[test]
    fn the_same_code() {
        assert!(!refused("reverse a list in JS", "javascript: reverse a list"));
        assert!(!refused("plural of ox", "what is the plural of \"ox\"?"));
        assert!(!refused("I want to go home", "the way home"));
    }
}
