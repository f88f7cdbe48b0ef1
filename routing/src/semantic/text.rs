//! A question as the guards see it: words, numbers, quotes.

/// One word or mark of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Lower case, without accents.
    pub low: String,
    /// Begins with a capital.
    pub capital: bool,
    /// Begins a sentence.
    pub first: bool,
    /// Its number, where it is one in digits; in thousandths.
    pub number: Option<i64>,
    /// Is made of marks, or has marks or digits among its letters: code, a version, an option, an order's number.
    pub code: bool,
}

/// A question, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// In order.
    pub words: Vec<Word>,
    /// Text in quotation marks, lower case, without accents and closing marks.
    pub quotes: Vec<String>,
    /// All of it in lower case and without accents, words separated by single blanks.
    pub plain: String,
}

impl Ask {
    /// Takes a text apart. Linear in its length.
    pub fn of(text: &str) -> Ask {
        let mut ask = Ask {
            quotes: quotes(text),
            ..Ask::default()
        };
        let chars: Vec<char> = text.chars().map(straight).collect();
        let mut at = 0;
        let mut first = true;
        while let Some(&c) = chars.get(at) {
            let end = if c.is_alphanumeric() {
                word_end(&chars, at)
            } else if is_mark(c) {
                run(&chars, at, is_mark)
            } else {
                if matches!(c, '.' | '?' | '!' | ':' | '\n' | '¿' | '¡' | '"' | '«' | '“') {
                    first = true;
                }
                at += 1;
                continue;
            };
            let piece: String = chars.get(at..end).unwrap_or_default().iter().collect();
            ask.push(&piece, std::mem::take(&mut first));
            at = end;
        }
        ask.plain = ask
            .words
            .iter()
            .map(|w| w.low.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        ask
    }

    fn push(&mut self, piece: &str, first: bool) {
        let capital = piece.chars().next().is_some_and(char::is_uppercase);
        let low = fold(piece);
        if let Some((value, rest)) = leading_number(&low) {
            self.words.push(Word {
                low: low.get(..low.len() - rest.len()).unwrap_or(&low).to_owned(),
                capital: false,
                first,
                number: Some(value),
                code: false,
            });
            // "5th" is 5; "30gb" is 30 and gb.
            if !rest.is_empty() && !matches!(rest, "st" | "nd" | "rd" | "th" | "k" | "er" | "e" | "º" | "ª")
            {
                self.words.push(word(rest.to_owned(), false, false));
            }
            return;
        }
        for (n, part) in apart(&low).into_iter().enumerate() {
            self.words
                .push(word(part.to_owned(), capital && n == 0, first && n == 0));
        }
    }
}

fn word(low: String, capital: bool, first: bool) -> Word {
    let letters = low.chars().filter(|c| c.is_alphabetic()).count();
    let all = low.chars().filter(|c| *c != '\'').count();
    Word {
        code: letters < all,
        low,
        capital,
        first,
        number: None,
    }
}

/// Where a word that begins at `at` ends: letters and digits, an apostrophe, a point or a comma between them, `c++`, `c#`.
fn word_end(chars: &[char], at: usize) -> usize {
    let digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let letter = |i: usize| chars.get(i).is_some_and(|c| c.is_alphanumeric());
    let mut end = at;
    while let Some(&c) = chars.get(end) {
        let inside = match c {
            '\'' => letter(end + 1) && end > at,
            '.' | ',' => digit(end.wrapping_sub(1)) && digit(end + 1),
            '_' => true,
            '#' => chars.get(end + 1).is_none_or(|c| !c.is_alphanumeric()),
            '+' => chars.get(end + 1) == Some(&'+') || chars.get(end.wrapping_sub(1)) == Some(&'+'),
            c => c.is_alphanumeric(),
        };
        if !inside {
            break;
        }
        end += 1;
    }
    end.max(at + 1)
}

fn run(chars: &[char], at: usize, of: impl Fn(char) -> bool) -> usize {
    let more = chars
        .get(at..)
        .unwrap_or_default()
        .iter()
        .take_while(|c| of(**c))
        .count();
    at + more.max(1)
}

/// Marks that mean something: operators, currencies, percent.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '=' | '<'
            | '>'
            | '+'
            | '*'
            | '%'
            | '&'
            | '|'
            | '^'
            | '~'
            | '@'
            | '$'
            | '€'
            | '£'
            | '°'
            | '!'
            | '{'
            | '}'
            | '['
            | ']'
    ) && c != '!'
}

/// Typographic apostrophes made plain.
fn straight(c: char) -> char {
    match c {
        '’' | '‘' | 'ʼ' | '`' => '\'',
        c => c,
    }
}

/// Parts of a word with an apostrophe. English endings fall off, "n't" stays as "not".
fn apart(low: &str) -> Vec<&str> {
    if !low.contains('\'') {
        return vec![low];
    }
    if let Some(verb) = low.strip_suffix("n't") {
        return vec![verb, "not"];
    }
    low.split('\'')
        .filter(|part| {
            !matches!(
                *part,
                "" | "s" | "m" | "re" | "ve" | "ll" | "d" | "l" | "j" | "c" | "t" | "n"
            )
        })
        .collect()
}

/// Lower case, without the accents of Latin letters.
pub(super) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        let plain = match c {
            'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' => 'a',
            'ç' => 'c',
            'è' | 'é' | 'ê' | 'ë' => 'e',
            'ì' | 'í' | 'î' | 'ï' => 'i',
            'ñ' => 'n',
            'ò' | 'ó' | 'ô' | 'õ' | 'ö' => 'o',
            'ù' | 'ú' | 'û' | 'ü' => 'u',
            'ß' => {
                out.push('s');
                's'
            }
            'œ' => {
                out.push('o');
                'e'
            }
            '’' | '‘' | 'ʼ' | '`' => '\'',
            c => c,
        };
        out.push(plain);
    }
    out
}

/// The number that a word begins with, in thousandths, and what follows it.
fn leading_number(low: &str) -> Option<(i64, &str)> {
    let length = low
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','))
        .unwrap_or(low.len());
    let (digits, rest) = low.split_at_checked(length)?;
    let digits = digits.trim_end_matches(['.', ',']);
    // A word like "3d2" or "48213a7" is a name, not a number.
    if digits.is_empty() || rest.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = thousandths(digits)?;
    Some((
        if rest == "k" {
            value.saturating_mul(1_000)
        } else {
            value
        },
        rest,
    ))
}

/// "1,234.5", "1.234", "0,5": three digits behind a separator are thousands, anything else is a fraction.
fn thousandths(digits: &str) -> Option<i64> {
    let mut parts = digits.split(['.', ',']);
    let mut whole = parts.next()?.parse::<i64>().ok()?;
    let rest: Vec<&str> = parts.collect();
    let mut fraction = 0;
    for (n, part) in rest.iter().enumerate() {
        let value = part.parse::<i64>().ok()?;
        if part.len() == 3 {
            whole = whole.checked_mul(1_000)?.checked_add(value)?;
        } else if n + 1 == rest.len() && part.len() < 3 {
            fraction = if part.len() == 1 { value * 100 } else { value * 10 };
        } else {
            return None;
        }
    }
    whole.checked_mul(1_000)?.checked_add(fraction)
}

/// Text between quotation marks of any kind; an apostrophe is none.
fn quotes(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open: Option<(char, String)> = None;
    for c in text.chars() {
        match &mut open {
            Some((end, inside)) => {
                if c == *end || (*end == '“' && c == '”') {
                    out.push(std::mem::take(inside));
                    open = None;
                } else {
                    inside.push(c);
                }
            }
            None => {
                let end = match c {
                    '"' => '"',
                    '“' => '”',
                    '„' => '“',
                    '«' => '»',
                    _ => continue,
                };
                open = Some((end, String::new()));
            }
        }
    }
    out.into_iter()
        .map(|quote| Ask::of(&quote).plain)
        .filter(|quote| !quote.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lows(text: &str) -> Vec<String> {
        Ask::of(text).words.into_iter().map(|w| w.low).collect()
    }

    #[test]
    fn words_and_marks() {
        assert_eq!(lows("What's c++ == C#?"), ["what", "c++", "==", "c#"]);
        assert_eq!(lows("I don’t want it"), ["i", "do", "not", "want", "it"]);
        assert_eq!(lows("pâte à crêpes"), ["pate", "a", "crepes"]);
        assert_eq!(lows("-Xmx4g 30GB"), ["xmx4g", "30", "gb"]);
    }

    #[test]
    fn numbers() {
        let numbers = |text: &str| {
            Ask::of(text)
                .words
                .iter()
                .filter_map(|w| w.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            numbers("60,000 60k 1.5 3rd 0,25 1,234.5"),
            [60_000_000, 60_000_000, 1_500, 3_000, 250, 1_234_500]
        );
        assert_eq!(numbers("E05 in 3.2."), [3_200]);
        assert!(Ask::of("error E05").words[1].code);
    }

    #[test]
    fn capitals_and_sentences() {
        let ask = Ask::of("Tell me. Is Rome big?");
        let capitals: Vec<(&str, bool)> = ask
            .words
            .iter()
            .filter(|w| w.capital)
            .map(|w| (w.low.as_str(), w.first))
            .collect();
        assert_eq!(capitals, [("tell", true), ("is", true), ("rome", false)]);
    }

    #[test]
    fn quotations() {
        assert_eq!(Ask::of("Say \"Good day!\" and «Oui»").quotes, ["good day", "oui"]);
        assert_eq!(Ask::of("don't quote it's").quotes, Vec::<String>::new());
    }
}
