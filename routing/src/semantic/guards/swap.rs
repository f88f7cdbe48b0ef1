//! The same sentence with one thing exchanged or added.
//!
//! Who asks the same thing again in other words changes more than one place. Where two questions are word by word the
//! same but for one place, and a word with a meaning stands there, that word is what the question is about.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::super::text::Ask;
use super::name;

/// Words that carry no subject: articles, pronouns, auxiliaries, and what people say around a question.
const EMPTY: &str = "a an the this that these those it its is are was were be been being am do does did done can could may might must \
    should would will shall i me my mine we us our you your he she they them their what which who how when where why there here \
    of to in on at by for from with about as into onto out up over per and or but if so than then too also any some \
    have has had get got getting need needs want wants like please pls tell give show know explain say write make let help \
    want wanted looking find me hi hello hey thanks thank just really exactly actually possible possibly ok way ways best good right \
    allowed permitted fine required necessary needed recommend recommended easiest easy simplest idiomatic common usual usually \
    normal normally statement command method according available question answer following text people person someone somebody \
    take takes see come look mean means meaning called name named order say says order many much number amount regarding \
    does doing go goes using use used work works thing things one ones way kind sort case \
    der die das den dem des ein eine einen einem einer ist sind war wird werden kann konnen darf muss soll ich mir mich mein meine meinen \
    meiner wir uns sie ihr es man was wie wer wo wann warum welche welcher welches und oder aber fur mit von zu im in auf an aus bei nach \
    bitte geht gibt mal denn dass ob wenn als auch noch \
    le la les un une des du de et ou est sont je mon ma mes vous votre il elle on que qui quoi comment quel quelle pour avec dans sur au \
    el los las unos unas y o es son mi mis su se que como cual para con en por del al lo \
    il lo gli uno e di da che come quale per con nel della mi si sono ho \
    os as um uma da do das dos em no na para com que como meu minha \
    het een en van ik mijn hoe wat kan voor met te op naar er";

static EMPTY_WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| EMPTY.split_whitespace().collect());

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    one_exchanged(a, b) || one_added(&lows(a), &lows(b))
}

/// Word by word the same but for one place, not the beginning, and a word with a meaning stands there.
pub(in crate::semantic) fn one_exchanged(a: &Ask, b: &Ask) -> bool {
    let (a, b) = (lows(a), lows(b));
    let ahead = a.iter().zip(&b).take_while(|(x, y)| same(x, y)).count();
    let left = a.len().min(b.len()) - ahead;
    let behind = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| same(x, y))
        .count()
        .min(left);
    let middle = |words: &[&str]| {
        let inside = words.get(ahead..words.len() - behind).unwrap_or_default();
        (inside.len(), inside.iter().filter(|w| !is_empty(w)).count())
    };
    let ((length_a, filled_a), (length_b, filled_b)) = (middle(&a), middle(&b));
    let frame = ahead + behind;
    // At the very beginning stands how somebody asks, not what for.
    ahead > 0 && frame >= 2 && length_a.max(length_b) <= frame && filled_a + filled_b > 0
}

/// Everything that the one speaks of the other does too, and something more besides.
fn one_added(a: &[&str], b: &[&str]) -> bool {
    let lacking = |from: &[&str], to: &[&str]| {
        from.iter()
            .filter(|w| !is_empty(w) && !to.iter().any(|o| same(w, o)))
            .count()
    };
    let (more_a, more_b) = (lacking(a, b), lacking(b, a));
    let filled = |words: &[&str]| words.iter().filter(|w| !is_empty(w)).count();
    let shared = (filled(a) - more_a).min(filled(b) - more_b);
    shared >= 2 && ((more_a == 0 && more_b >= 2) || (more_b == 0 && more_a >= 2))
}

fn lows(ask: &Ask) -> Vec<&str> {
    ask.words.iter().map(|w| w.low.as_str()).collect()
}

pub(in crate::semantic) fn is_empty(low: &str) -> bool {
    EMPTY_WORDS.contains(low) || (low.len() < 2 && !low.chars().all(char::is_alphanumeric))
}

/// The same word, a form of it, or it with a typing error.
pub(in crate::semantic) fn same(a: &str, b: &str) -> bool {
    a == b || name::alike(a, b) || inflected(a, b) || slip(a, b)
}

/// Forms of one word, as far as endings go.
fn inflected(a: &str, b: &str) -> bool {
    let shared: usize = a
        .chars()
        .zip(b.chars())
        .take_while(|(x, y)| x == y)
        .map(|(x, _)| x.len_utf8())
        .sum();
    let end = |text: &str| {
        matches!(
            text.get(shared..).unwrap_or("?"),
            "" | "s"
                | "es"
                | "e"
                | "ed"
                | "d"
                | "ing"
                | "ting"
                | "ning"
                | "y"
                | "ies"
                | "n"
                | "en"
                | "er"
                | "em"
                | "t"
                | "te"
                | "ly"
                | "ion"
                | "ation"
                | "ment"
        )
    };
    (shared >= 4 && end(a) && end(b)) || a.strip_suffix('s') == Some(b) || b.strip_suffix('s') == Some(a)
}

/// One letter too many, too few, wrong, or two exchanged, in a long word without digits.
fn slip(a: &str, b: &str) -> bool {
    let long = |text: &str| text.len() >= 7 && text.chars().all(char::is_alphabetic);
    long(a) && long(b) && a.chars().next() == b.chars().next() && strsim::damerau_levenshtein(a, b) <= 1
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn one_thing_exchanged() {
        assert!(refused(
            "Does the warranty cover a broken screen?",
            "Does the warranty cover a broken battery?"
        ));
        assert!(refused(
            "What helps against a headache?",
            "What helps against a stomach ache?"
        ));
        assert!(refused(
            "Tell me a joke about cats.",
            "Tell me a joke about dogs."
        ));
    }

    #[test]
    fn one_thing_added() {
        assert!(refused(
            "What is your return policy?",
            "What is your return policy for opened items?"
        ));
        assert!(!refused("h b h", "h"), "twice the same word is one");
    }

    #[test]
    fn other_words_for_the_same() {
        assert!(!refused("I forgot my password", "i forgott my passwords"));
        assert!(!refused(
            "How do I get rid of a headache?",
            "headache, what helps?"
        ));
        assert!(!refused("reverse a list", "reverse the list please"));
    }
}
