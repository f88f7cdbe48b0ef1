//! Numbers: digits, words, ordinals.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::text::{Ask, fold};

const WORDS: &[(i64, &str)] = &[
    (
        2,
        "two zwei deux dos dois duas twee twice double doppelt zweimal zweite zweiten zweiter zweites deuxieme segundo segunda secondo seconda tweede",
    ),
    (
        3,
        "three drei trois tres tre drie third dritte dritten dritter troisieme tercero tercera terzo terceiro derde thrice triple",
    ),
    (
        4,
        "four vier quatre cuatro quattro quatro fourth vierte vierten quatrieme cuarto quarto",
    ),
    (5, "five fünf cinq cinco cinque vijf fifth fünfte fünften"),
    (6, "six sechs seis zes sixth sechste sechsten"),
    (
        7,
        "seven sieben sept siete sette sete zeven seventh siebte siebten",
    ),
    (8, "eight acht huit ocho otto oito eighth achte achten"),
    (9, "nine neun neuf nueve nove negen ninth neunte neunten"),
    (10, "ten zehn dix diez dieci dez tien tenth zehnte zehnten"),
    (11, "eleven elf onze undici"),
    (12, "twelve zwölf douze doce dodici doze twaalf dozen dutzend"),
    (13, "thirteen dreizehn"),
    (14, "fourteen vierzehn quatorze catorce fourteenth"),
    (15, "fifteen fünfzehn quinze quince"),
    (16, "sixteen sechzehn"),
    (17, "seventeen siebzehn"),
    (18, "eighteen achtzehn"),
    (19, "nineteen neunzehn"),
    (20, "twenty zwanzig vingt veinte venti vinte twintig"),
    (30, "thirty dreissig trente treinta trenta trinta dertig"),
    (40, "forty vierzig quarante cuarenta quaranta veertig"),
    (50, "fifty fünfzig cinquante cincuenta cinquanta vijftig"),
    (60, "sixty sechzig soixante sesenta"),
    (70, "seventy siebzig setenta"),
    (80, "eighty achtzig ochenta"),
    (90, "ninety neunzig noventa"),
    (100, "hundred hundert cien ciento cento cem honderd"),
    (1_000, "thousand tausend mille mil duizend"),
    (1_000_000, "million millionen"),
];

static VALUES: LazyLock<HashMap<String, i64>> = LazyLock::new(|| {
    let rows = WORDS
        .iter()
        .flat_map(|(value, words)| words.split(' ').map(|w| (fold(w), *value)));
    rows.collect()
});

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    numbers(a) != numbers(b)
}

/// All numbers of a text but ones, in thousandths, sorted. "One" is as often an article as a number, and "a cup" is "1 cup".
pub(in crate::semantic) fn numbers(ask: &Ask) -> Vec<i64> {
    let mut out = all(ask);
    out.retain(|n| *n != 1_000);
    out
}

/// All numbers of a text, in thousandths, sorted.
pub(in crate::semantic) fn all(ask: &Ask) -> Vec<i64> {
    let mut out = Vec::new();
    // A number in words that is still being put together, in whole units.
    let mut open: Option<i64> = None;
    for (at, word) in ask.words.iter().enumerate() {
        if let Some(n) = word.number {
            close(&mut open, &mut out);
            out.push(n);
            continue;
        }
        let value = if is_ordinal_second(ask, at) {
            Some(2)
        } else {
            VALUES.get(&word.low).copied()
        };
        match (open, value) {
            (Some(sum), Some(100)) if sum < 100 => open = Some(sum * 100),
            (Some(sum), Some(v)) if v >= 1_000 && sum < v => open = Some(sum.saturating_mul(v)),
            (Some(sum), Some(v)) if v < 10 && sum % 10 == 0 && sum >= 20 => open = Some(sum + v),
            (Some(sum), Some(v)) if v < 100 && sum % 100 == 0 => open = Some(sum + v),
            (_, Some(v)) => {
                close(&mut open, &mut out);
                open = Some(v);
            }
            (Some(sum), None) if word.low == "and" && sum % 100 == 0 => {}
            (_, None) => close(&mut open, &mut out),
        }
    }
    close(&mut open, &mut out);
    out.sort_unstable();
    out.dedup();
    out
}

fn close(open: &mut Option<i64>, out: &mut Vec<i64>) {
    if let Some(n) = open.take() {
        out.push(n.saturating_mul(1_000));
    }
}

/// "The second commit", not "per second" or "one second".
fn is_ordinal_second(ask: &Ask, at: usize) -> bool {
    let word = |at: Option<usize>| at.and_then(|at| ask.words.get(at));
    if word(Some(at)).is_none_or(|w| w.low != "second") {
        return false;
    }
    let before = word(at.checked_sub(1));
    // "Second-hand" is none either.
    if word(Some(at + 1)).is_some_and(|w| w.low == "hand") {
        return false;
    }
    !before.is_some_and(|w| {
        w.number.is_some() || matches!(w.low.as_str(), "per" | "a" | "one" | "each" | "every")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<i64> {
        numbers(&Ask::of(text)).into_iter().map(|n| n / 1_000).collect()
    }

    #[test]
    fn digits_and_words_are_the_same() {
        assert_eq!(of("two hundred and fifty euros"), of("250 euros"));
        assert_eq!(of("twenty five"), [25]);
        assert_eq!(of("four and five"), [4, 5]);
        assert_eq!(of("zwei Tassen, dreißig Minuten"), [2, 30]);
        assert_eq!(of("60k"), of("60,000"));
        assert_eq!(of("five thousand"), [5_000]);
    }

    #[test]
    fn a_second_is_no_number() {
        assert_eq!(of("km per second, in one second"), Vec::<i64>::new());
        assert_eq!(of("the second largest"), [2]);
    }

    #[test]
    fn one_is_an_article() {
        assert!(!differ(&Ask::of("a cup"), &Ask::of("1 cup")));
        assert!(!differ(&Ask::of("one cup"), &Ask::of("1 cup")));
        assert!(differ(&Ask::of("a cup"), &Ask::of("3 cups")));
    }
}
