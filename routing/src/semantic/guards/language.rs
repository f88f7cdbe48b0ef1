//! The language of a question, where it shows.

use super::super::text::Ask;

/// Frequent words that stand for one language among those that the guards know.
const WORDS: &[(&str, &str)] = &[
    (
        "en",
        "the what how is are does do my can which who when where why of and i you please to for with an",
    ),
    (
        "de",
        "der die das ist wie was ich mein meine ein eine fur mit und wer wann wo warum kann nicht auf den dem zu wird",
    ),
    (
        "fr",
        "le les est quel quelle comment je mon ma pour avec et qui quand pourquoi une des du sans dans vous",
    ),
    (
        "es",
        "el los las es como que cual mi para con quien cuando donde una del puedo por cuanto se",
    ),
    (
        "it",
        "il gli come che qual mio mia per con chi quando dove una della posso quanto si sono",
    ),
    (
        "pt",
        "os as como qual meu minha para com quem quando onde uma da do posso quanto sao na no",
    ),
    (
        "nl",
        "het een hoe wat mijn kan voor met en wie wanneer waar waarom van ik naar zijn",
    ),
];

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    if !known(a) || !known(b) {
        return true;
    }
    matches!((of(a), of(b)), (Some(a), Some(b)) if a != b)
}

/// Latin letters only: elsewhere there are no word lists.
fn known(ask: &Ask) -> bool {
    let letters = |c: &char| c.is_alphabetic();
    let (mut latin, mut all) = (0_usize, 0_usize);
    for c in ask.plain.chars().filter(letters) {
        all += 1;
        latin += usize::from(c <= '\u{24f}');
    }
    latin * 10 >= all * 9
}

/// The language whose frequent words stand out.
pub(in crate::semantic) fn of(ask: &Ask) -> Option<&'static str> {
    let mut scores: Vec<(usize, &str)> = WORDS
        .iter()
        .map(|(code, words)| {
            let frequent = |low: &str| words.split(' ').any(|w| w == low);
            (ask.words.iter().filter(|w| frequent(&w.low)).count(), *code)
        })
        .collect();
    scores.sort_unstable_by(|a, b| b.cmp(a));
    match scores.as_slice() {
        [(best, code), (second, _), ..] if *best >= 2 && best > second => Some(code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        assert_eq!(of(&Ask::of("How do I reset my password?")), Some("en"));
        assert_eq!(of(&Ask::of("Wie kann ich mein Abo kündigen?")), Some("de"));
        assert_eq!(of(&Ask::of("password reset")), None);
        let differ = |a: &str, b: &str| differ(&Ask::of(a), &Ask::of(b));
        assert!(differ(
            "What is the capital of Canada?",
            "Quelle est la capitale du Canada ?"
        ));
        assert!(!differ("capital canada", "What is the capital of Canada?"));
        assert!(
            differ("中国的首都是哪里?", "中国首都是哪个城市?"),
            "no lists for it"
        );
    }
}
