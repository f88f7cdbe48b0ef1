//! Quantifiers: all, some, only, first, last, most.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

const ROWS: &[&[&str]] = &[
    &[
        "all",
        "everything",
        "alle",
        "allen",
        "aller",
        "alles",
        "tous",
        "toutes",
        "todos",
        "todas",
        "tutti",
        "tutte",
        "alle",
    ],
    &[
        "only",
        "just the",
        "nur",
        "seulement",
        "solo",
        "solamente",
        "soltanto",
        "alleen",
    ],
    &[
        "first", "erste", "ersten", "erster", "premier", "premiere", "primero", "primera", "primo",
        "primeiro", "eerste",
    ],
    &[
        "last",
        "latest",
        "most recent",
        "newest",
        "letzte",
        "letzten",
        "letzter",
        "neueste",
        "dernier",
        "derniere",
        "ultimo",
        "ultima",
        "laatste",
    ],
    &[
        "some of",
        "partly",
        "partial",
        "part of the",
        "part of my",
        "einige",
        "teilweise",
        "algunos",
        "half",
        "hälfte",
    ],
    &[
        "whole", "entire", "complete", "full", "in total", "ganz", "ganze", "ganzen", "entier", "entero",
    ],
    &[
        "at least",
        "minimum",
        "mindestens",
        "wenigstens",
        "al menos",
        "au moins",
    ],
    &["at most", "maximum", "höchstens", "au plus", "como mucho"],
    &["always", "immer", "toujours", "siempre"],
    &["compulsory", "mandatory"],
    &[
        "child",
        "children",
        "kids",
        "kinder",
        "kindern",
        "enfant",
        "enfants",
        "niños",
        "toddler",
        "toddlers",
        "säuglingen",
    ],
    &["adult", "adults", "erwachsene"],
    &["automatically", "automatic", "automatisch"],
    &["special"],
    &["reduced", "reducido", "ermäßigt"],
];

/// Phrases around a quantifier that quantify nothing.
const FILLING: &[&[&str]] = &[&[
    "of all",
    "than all others",
    "once and for all",
    "all my data",
    "child of",
    "not all",
    "made of",
    "at all",
]];

static FILLER: LazyLock<Table> = LazyLock::new(|| Table::new(FILLING));
static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(ROWS));

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    of(a) != of(b)
}

fn of(ask: &Ask) -> u128 {
    let fillers: Vec<usize> = FILLER.found(ask).map(|(at, _)| at).collect();
    let found = TABLE
        .found(ask)
        .filter(|(at, _)| !fillers.iter().any(|filler| (*filler..filler + 4).contains(at)));
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
    fn other_scopes() {
        assert!(refused("delete the branch", "delete all branches"));
        assert!(refused("the first element", "the last element"));
        assert!(refused("center it", "center it only vertically"));
        assert!(refused("sleep for everybody", "sleep for children"));
    }

    #[test]
    fn the_same_scope() {
        assert!(!refused("the last commit", "the most recent commit"));
        assert!(!refused("alle Nutzer", "all die Nutzer"));
    }
}
