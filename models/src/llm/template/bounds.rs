//! What one rendering may take: a template comes from outside, and doubling a text in a loop takes a few steps only.
//!
//! The template engine counts steps (its fuel), not bytes. So the code that it compiles a template to is laid out anew
//! before it runs: behind every instruction that makes a value stands a filter of ours that counts what was made, the
//! template's own text goes out the way values do, and multiplication is ours. What remains are filters that can make much
//! out of little: those count before they begin. Filters cannot be shadowed by a template, functions can; hence filters.
//!
//! Bounds hold for values as well: a list in a list in a list ends the thread's stack when it is written, compared or
//! dropped, and a namespace that holds itself never ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, WhitespaceConfig, parse, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, escape_formatter, filters};

/// Bytes that one rendering makes at most, all that it drops again included.
const MOST_MADE: u64 = 256 << 20;

/// Bytes of one value at most, written out.
const MOST_HELD: u64 = 64 << 20;

/// Values that are looked at to know their sizes.
const MOST_LOOKED: u64 = 50_000_000;

/// Lists in lists.
const DEEPEST: usize = 64;

/// What an item of a list takes, beside the bytes that it points to.
const ITEM: u64 = 64;

/// Words of an expression that name nothing.
const WORDS: [&str; 13] = [
    "and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None",
];

const MADE: &str = "weir_made";
const JOINED: &str = "weir_joined";
const KEPT: &str = "weir_kept";
const TIMES: &str = "weir_times";

/// A template as the engine runs it.
pub(super) struct Code<'source> {
    pub main: Instructions<'source>,
    pub blocks: BTreeMap<&'source str, Instructions<'source>>,
}

/// Compiles a template, as Hugging Face's library sets Jinja up (`trim_blocks`, `lstrip_blocks`), with its bounds built in.
pub(super) fn compile(source: &str) -> Result<Code<'_>, Error> {
    let space = || WhitespaceConfig {
        trim_blocks: true,
        lstrip_blocks: true,
        ..WhitespaceConfig::default()
    };
    products(source, space())?;
    let parsed = parse(source, "chat", SyntaxConfig, space())?;
    let mut generator = CodeGenerator::new("chat", source);
    generator.compile_stmt(&parsed);
    let (main, blocks) = generator.finish();
    Ok(Code {
        main: laid_out(&main),
        blocks: blocks
            .iter()
            .map(|(name, code)| (*name, laid_out(code)))
            .collect(),
    })
}

/// Products of constants are made while a template is compiled, where nothing counts: one side of a `*` must have a name in it,
/// or both be plain numbers.
fn products(source: &str, space: WhitespaceConfig) -> Result<(), Error> {
    let number = |token: &Token<'_>| matches!(token, Token::Int(_) | Token::Float(_) | Token::Minus);
    // Of each bracket that is open: is there a name in it, or what it belongs to. And of what ends before this token.
    let (mut open, mut named) = (vec![false], false);
    let (mut before, mut times) = (Token::VariableStart, None);
    for token in tokenize(source, false, SyntaxConfig, space) {
        let (token, _) = token?;
        // What a tag begins with, operators and constants are words, too.
        let is_name = !matches!(before, Token::BlockStart)
            && matches!(token, Token::Ident(name) if !WORDS.contains(&name));
        if let Some((left_is_named, left_is_number)) = times.take()
            && !(left_is_named || is_name || left_is_number && number(&token))
        {
            return Err(refused(
                "it multiplies a text, a list or what stands in brackets by what has no name: give one of them a name with `set`",
            ));
        }
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => open.push(named),
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                named = open.pop().unwrap_or(false);
            }
            Token::Mul => times = Some((named, number(&before))),
            _ => named = is_name,
        }
        if let Some(within) = open.last_mut() {
            *within |= named;
        }
        before = token;
    }
    Ok(())
}

/// The same instructions, with ours between them.
fn laid_out<'s>(code: &Instructions<'s>) -> Instructions<'s> {
    let mut steps = Vec::new();
    let mut starts = Vec::new();
    let mut index = 0;
    while let Some(step) = code.get(index) {
        starts.push(u32::try_from(steps.len()).unwrap_or(u32::MAX));
        let line = code.get_line(index).and_then(|n| u16::try_from(n).ok());
        steps.extend(counted(step).into_iter().map(|step| (step, line)));
        index += 1;
    }
    let end = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let mut out = Instructions::new(code.name(), code.source());
    for (mut step, line) in steps {
        match &mut step {
            Instruction::Iterate(to)
            | Instruction::Jump(to)
            | Instruction::JumpIfFalse(to)
            | Instruction::JumpIfFalseOrPop(to)
            | Instruction::JumpIfTrueOrPop(to)
            | Instruction::BuildMacro(_, to, _) => {
                *to = starts.get(*to as usize).copied().unwrap_or(end);
            }
            _ => {}
        }
        match line {
            Some(line) => out.add_with_line(step, line),
            None => out.add(step),
        };
    }
    out
}

/// An instruction, and what counts for it.
fn counted<'s>(step: &Instruction<'s>) -> Vec<Instruction<'s>> {
    // No slot of the engine's cache of filters: those are given out by the compiler.
    let ours = |name, values| Instruction::ApplyFilter(name, Some(values), u8::MAX);
    match step {
        Instruction::EmitRaw(text) => {
            let text = Value::from_safe_string((*text).to_owned());
            vec![Instruction::LoadConst(text), Instruction::Emit]
        }
        Instruction::Mul => vec![ours(TIMES, 2)],
        Instruction::Add
        | Instruction::StringConcat
        | Instruction::Slice
        | Instruction::BuildList(_)
        | Instruction::BuildMap(_)
        | Instruction::EndCapture => vec![step.clone(), ours(JOINED, 1)],
        Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_) => vec![step.clone(), ours(MADE, 1)],
        // The namespace lies above the value.
        Instruction::SetAttr(_) => vec![Instruction::Swap, ours(KEPT, 1), Instruction::Swap, step.clone()],
        other => vec![other.clone()],
    }
}

/// Sets up what the laid-out code calls.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.set_formatter(|out, state, value| {
        let made = Made::of(state);
        made.add(made.size(value)?)?;
        escape_formatter(out, state, value)
    });
    environment.add_filter(MADE, |state: &State<'_, '_>, value: Value| {
        let made = Made::of(state);
        made.add(made.size(&value)?)?;
        listed(value)
    });
    environment.add_filter(JOINED, |state: &State<'_, '_>, value: Value| {
        let made = Made::of(state);
        made.size(&value)?;
        made.add(alone(&value))?;
        listed(value)
    });
    environment.add_filter(KEPT, |value: Value| match is_namespace(&value) {
        false => Ok(value),
        true => Err(refused("a namespace cannot be kept in a namespace")),
    });
    environment.add_filter(TIMES, times);
    // It writes out all that a template knows.
    environment.remove_global("debug");
    guard(environment, "join", Value::from_function(filters::join), joined);
    guard(
        environment,
        "replace",
        Value::from_function(filters::replace),
        replaced,
    );
    guard(
        environment,
        "indent",
        Value::from_function(filters::indent),
        indented,
    );
    guard(
        environment,
        "batch",
        Value::from_function(filters::batch),
        divided,
    );
    guard(
        environment,
        "slice",
        Value::from_function(filters::slice),
        divided,
    );
    guard(
        environment,
        "format",
        Value::from_function(filters::format),
        formatted,
    );
}

/// Puts `cost` in front of one of the engine's filters: bytes of what it is about to make of these values.
fn guard(
    environment: &mut Environment<'_>,
    name: &'static str,
    filter: Value,
    cost: fn(&[Value]) -> Option<u64>,
) {
    environment.add_filter(name, move |state: &State<'_, '_>, values: Rest<Value>| {
        let made = Made::of(state);
        for value in values.iter() {
            made.size(value)?;
        }
        made.add(cost(&values).unwrap_or(u64::MAX))?;
        filter.call(state, &values)
    });
}

/// What a rendering has made so far.
#[derive(Debug, Default)]
struct Made {
    bytes: AtomicU64,
    looked: AtomicU64,
}

impl Object for Made {}

impl Made {
    fn of(state: &State<'_, '_>) -> std::sync::Arc<Made> {
        state.get_or_set_temp_object("weir", Made::default)
    }

    fn add(&self, bytes: u64) -> Result<(), Error> {
        // A rendering runs on one thread; the engine wants its values to be shareable.
        let all = self.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        self.bytes.store(all, Ordering::Relaxed);
        match all <= MOST_MADE {
            true => Ok(()),
            false => Err(refused("it makes more than 256 MiB of text and lists")),
        }
    }

    /// Bytes of a value, written out.
    fn size(&self, value: &Value) -> Result<u64, Error> {
        let mut size = 0;
        self.look(value, 0, &mut size)?;
        Ok(size)
    }

    fn look(&self, value: &Value, depth: usize, size: &mut u64) -> Result<(), Error> {
        let looked = self.looked.load(Ordering::Relaxed) + 1;
        self.looked.store(looked, Ordering::Relaxed);
        *size = size.saturating_add(value.as_str().map_or_else(
            || value.as_bytes().map_or(ITEM, bytes),
            |text| bytes(text.as_bytes()),
        ));
        if depth > 0 {
            *size = size.saturating_add(ITEM);
        }
        if looked > MOST_LOOKED || *size > MOST_HELD || depth > DEEPEST {
            return Err(refused(
                "it makes a value of more than 64 MiB, or lists in lists without end",
            ));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    self.look(&item, depth + 1, size)?;
                }
            }
            // It can change behind the back of the list that it stands in.
            ValueKind::Map if depth > 0 && is_namespace(value) => {
                return Err(refused("a namespace cannot be kept in a list"));
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    self.look(&key, depth + 1, size)?;
                    if let Ok(item) = value.get_item(&key) {
                        self.look(&item, depth + 1, size)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn bytes(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// What a value takes by itself, whatever its items point to.
fn alone(value: &Value) -> u64 {
    value.as_str().map_or_else(
        || ITEM.saturating_mul(1 + value.len().unwrap_or(0) as u64),
        |text| bytes(text.as_bytes()),
    )
}

/// The engine's namespaces are the only values that change.
fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// What is made anew each time it is looked at becomes a list: a slice of a slice of a slice has a depth, too.
fn listed(value: Value) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::Iterable => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        _ => value,
    })
}

/// `a * b`, of numbers, or a text or list and how often.
fn times(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let repeatable = |v: &Value| matches!(v.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable);
    let pair = match (repeatable(a), repeatable(b)) {
        (true, _) => Some((a, b)),
        (_, true) => Some((b, a)),
        _ => None,
    };
    if let Some((what, count)) = pair {
        let made = Made::of(state);
        let count = usize::try_from(count.clone())?;
        made.add(made.size(what)?.saturating_mul(count as u64))?;
        if let Some(text) = what.as_str() {
            return Ok(Value::from(text.repeat(count)));
        }
        let items: Vec<Value> = what.try_iter()?.collect();
        return Ok(std::iter::repeat_n(items, count).flatten().collect());
    }
    if a.is_integer() && b.is_integer() {
        let product = i128::try_from(a.clone())?.checked_mul(i128::try_from(b.clone())?);
        return product
            .map(Value::from)
            .ok_or_else(|| refused("a product is too large"));
    }
    Ok(Value::from(f64::try_from(a.clone())? * f64::try_from(b.clone())?))
}

/// `values|join(with)`.
fn joined(values: &[Value]) -> Option<u64> {
    let items = values.first()?.len().unwrap_or(0) as u64;
    let with = values.get(1).map_or(0, written);
    items.checked_mul(with)
}

/// `text|replace(old, new)`.
fn replaced(values: &[Value]) -> Option<u64> {
    match values {
        [text, old, new, ..] => replacing(&plain(text), &plain(old), &plain(new)),
        // Too few: the filter says so.
        _ => Some(0),
    }
}

/// Bytes of a text in which something is replaced; `None`: beyond counting.
fn replacing(text: &str, old: &str, new: &str) -> Option<u64> {
    let count = text.matches(old).count() as u64;
    count
        .checked_mul(bytes(new.as_bytes()))?
        .checked_add(bytes(text.as_bytes()))
}

/// Counts what a text's own method `replace` is about to make.
pub(super) fn replace(state: &State<'_, '_>, text: &str, old: &str, new: &str) -> Result<String, Error> {
    Made::of(state).add(replacing(text, old, new).unwrap_or(u64::MAX))?;
    Ok(text.replace(old, new))
}

/// `text|indent(width)`.
fn indented(values: &[Value]) -> Option<u64> {
    let (text, rest) = values.split_first()?;
    let lines = 1 + plain(text).matches('\n').count() as u64;
    largest(rest).checked_mul(lines)
}

/// `values|batch(count, fill)`, `values|slice(count, fill)`.
fn divided(values: &[Value]) -> Option<u64> {
    let (list, rest) = values.split_first()?;
    let items = list.len().unwrap_or(0) as u64;
    largest(rest).checked_add(items)?.checked_mul(2 * ITEM)
}

/// `text|format(values)`: widths are written in the text.
fn formatted(values: &[Value]) -> Option<u64> {
    let text = plain(values.first()?);
    if text.contains('*') {
        return None;
    }
    let (mut width, mut number) = (0_u64, 0_u64);
    for byte in text.bytes() {
        number = match byte {
            b'0'..=b'9' => number.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
            _ => 0,
        };
        width = width.max(number);
    }
    let places = text.matches('%').count() as u64;
    let all = values.iter().map(written).try_fold(0_u64, u64::checked_add)?;
    places.checked_mul(width.checked_add(all)?)
}

/// The largest number among these, and among what they hold by name.
fn largest(values: &[Value]) -> u64 {
    let number = |value: &Value| match value.kind() {
        ValueKind::Number => u64::try_from(value.clone()).unwrap_or(0),
        _ => 0,
    };
    let named = |value: &Value| match value.kind() {
        ValueKind::Map => value.try_iter().map_or(0, |keys| {
            let items = keys.filter_map(|key| value.get_item(&key).ok());
            items.map(|item| number(&item)).max().unwrap_or(0)
        }),
        _ => 0,
    };
    values.iter().map(|v| number(v).max(named(v))).max().unwrap_or(0)
}

/// A value as a text.
fn plain(value: &Value) -> std::borrow::Cow<'_, str> {
    value
        .as_str()
        .map_or_else(|| value.to_string().into(), std::borrow::Cow::Borrowed)
}

fn written(value: &Value) -> u64 {
    bytes(plain(value).as_bytes())
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

#[cfg(test)]
mod tests;
