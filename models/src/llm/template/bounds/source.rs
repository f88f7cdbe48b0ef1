//! What is looked at in a template's text before it is compiled: the compiler follows chains of operators by calling itself, makes
//! products of constants at once, and takes for granted that nobody jumps out of a block that is not a loop.

use minijinja::Error;
use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::refused;

/// Words, numbers and signs of one tag. Five thousand were still followed on a thread's stack, a hundred thousand were not.
const LONGEST_TAG: usize = 1_000;
/// Branches of all its conditions.
const MOST_ELIFS: usize = 250;
/// Bytes of a name. Closures keep copies.
const LONGEST_NAME: usize = 256;
/// Bytes of a text and a number multiplied where both are written out.
const LARGEST_PRODUCT: u64 = 1 << 16;
/// Words of an expression that name nothing.
const WORDS: [&str; 13] = [
    "and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None",
];

/// Refuses what the compiler cannot be given.
pub(super) fn check(source: &str, space: WhitespaceConfig) -> Result<(), Error> {
    let (mut tag, mut blocks, mut elifs) = (Tag::default(), Blocks::default(), 0);
    let mut first = false;
    for token in tokenize(source, false, SyntaxConfig, space) {
        let (token, _) = token?;
        if matches!(token, Token::BlockStart | Token::VariableStart) {
            tag = Tag::default();
            first = matches!(token, Token::BlockStart);
            continue;
        }
        let word = match &token {
            Token::Ident(name) => *name,
            _ => "",
        };
        tag.words += 1;
        elifs += usize::from(first && word == "elif");
        if tag.words > LONGEST_TAG || elifs > MOST_ELIFS || word.len() > LONGEST_NAME {
            return Err(refused(
                "it has a tag of more than 1,000 words, a name of more than 256 bytes or more than 250 branches",
            ));
        }
        // What a tag begins with names nothing.
        if !first {
            tag.product(&token)?;
        }
        blocks.take(&token, word, first)?;
        first = false;
    }
    Ok(())
}

/// A side of a `*`, as far as it stands there.
#[derive(Clone, Copy, Default, PartialEq)]
enum Side {
    /// It has a name in it: its product is made when the template runs.
    Named,
    /// A number; the largest where it is not known.
    Number(u64),
    /// A text of so many bytes.
    Text(u64),
    /// Anything else.
    #[default]
    Other,
}

/// One tag, as it is read.
#[derive(Default)]
struct Tag {
    words: usize,
    /// Of each bracket that is open: is there a name in it, or what it belongs to; is there a text or a list in it.
    open: Vec<(bool, bool)>,
    /// What ended just now.
    last: Side,
    /// What stands left of the `*` just now.
    left: Option<Side>,
    /// The same of brackets that are still open, and how many were open around each.
    owed: Vec<(usize, Side)>,
}

impl Tag {
    fn product(&mut self, token: &Token<'_>) -> Result<(), Error> {
        let side = match token {
            Token::Ident(name) if !WORDS.contains(name) => Side::Named,
            Token::Int(n) => Side::Number(*n),
            Token::Float(_) | Token::Minus => Side::Number(u64::MAX),
            Token::Str(text) => Side::Text(text.len() as u64),
            Token::String(text) => Side::Text(text.len() as u64),
            _ => Side::Other,
        };
        let left = self.left.take();
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                if let Some(left) = left {
                    self.owed.push((self.open.len(), left));
                }
                let list = !matches!(token, Token::ParenOpen);
                self.open.push((self.last == Side::Named, list));
                self.last = Side::Other;
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                let (named, text) = self.open.pop().unwrap_or_default();
                self.last = match (named, text) {
                    (true, _) => Side::Named,
                    (_, true) => Side::Other,
                    _ => Side::Number(u64::MAX),
                };
                if let Some((named_around, text_around)) = self.open.last_mut() {
                    *named_around |= named;
                    *text_around |= text;
                }
                while let Some((_, left)) = self.owed.pop_if(|(around, _)| *around >= self.open.len()) {
                    self.last = multiplied(left, self.last)?;
                }
            }
            Token::Mul => self.left = Some(self.last),
            _ => {
                self.last = match left {
                    Some(left) => multiplied(left, side)?,
                    None => side,
                };
                if let Some((named, text)) = self.open.last_mut() {
                    *named |= side == Side::Named;
                    *text |= matches!(side, Side::Text(_));
                }
            }
        }
        Ok(())
    }
}

/// What a product stands for, left of another `*`.
fn multiplied(left: Side, right: Side) -> Result<Side, Error> {
    match (left, right) {
        (Side::Named, _) | (_, Side::Named) => Ok(Side::Named),
        (Side::Number(_), Side::Number(_)) => Ok(Side::Number(u64::MAX)),
        (Side::Text(bytes), Side::Number(times)) | (Side::Number(times), Side::Text(bytes))
            if bytes.saturating_mul(times) <= LARGEST_PRODUCT =>
        {
            Ok(Side::Other)
        }
        _ => Err(refused(
            "it multiplies a text or a list by what has no name: give one of them a name with `set`",
        )),
    }
}

/// Blocks that are open, of those that matter to who leaves a loop.
#[derive(Default)]
struct Blocks<'a> {
    open: Vec<&'a str>,
    /// A `set` whose end may stand far behind it.
    set: bool,
}

impl<'a> Blocks<'a> {
    fn take(&mut self, token: &Token<'a>, word: &'a str, first: bool) -> Result<(), Error> {
        match token {
            Token::Assign => self.set = false,
            Token::BlockEnd if std::mem::take(&mut self.set) => self.open.push("set"),
            _ => {}
        }
        if !first {
            return Ok(());
        }
        match word {
            "for" | "with" | "filter" | "call" | "macro" => self.open.push(word),
            "set" => self.set = true,
            "break" | "continue" if self.open.last().is_some_and(|block| *block != "for") => {
                return Err(refused(
                    "it leaves a loop from within a block that is none (`with`, `set`, `filter`, `call`)",
                ));
            }
            _ => {
                let ends = word.strip_prefix("end");
                if ends.is_some() {
                    self.open.pop_if(|block| Some(*block) == ends);
                }
            }
        }
        Ok(())
    }
}
