//! What one rendering may take: a template comes from outside, and doubling a text in a loop takes a few steps only.
//!
//! The template engine counts steps (its fuel), not bytes. So the code that it compiles a template to is laid out anew
//! before it runs: behind every instruction that makes a value stands a filter of ours that counts what was made, the
//! template's own text goes out the way values do, products and slices are ours. Filters that can make much out of little
//! count before they begin (`bounds/filters.rs`); what the compiler itself cannot be given is refused before that
//! (`bounds/source.rs`). Filters cannot be shadowed by a template, functions can; hence filters.
//!
//! Bounds hold for depth as well: a list in a list in a list ends the thread's stack when it is written, compared or
//! dropped, and a namespace that holds itself never ends. So namespaces, loops and macros are not kept in anything.
//!
//! Little is refused that models' templates do: a walk over what is left of a long conversation in each of its turns is
//! counted as often, and ends at some 2,800 turns.

mod filters;
mod source;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, WhitespaceConfig, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, escape_formatter};

pub(super) use filters::{replace, splits};

/// Bytes that one rendering makes at most, all that it drops again included.
const MOST_MADE: u64 = 256 << 20;

/// Bytes of one value at most, written out.
const MOST_HELD: u64 = 64 << 20;

/// Values that are looked at to know their sizes.
const MOST_LOOKED: u64 = 200_000_000;

/// Macros of one template. Each keeps what it sees.
const MOST_MACROS: usize = 250;

/// Lists in lists.
const DEEPEST: usize = 64;

/// What an item of a list takes, beside the bytes that it points to.
const ITEM: u64 = 64;

const MADE: &str = "weir_made";
const JOINED: &str = "weir_joined";
const KEPT: &str = "weir_kept";
const LOOKED: &str = "weir_looked";
const TIMES: &str = "weir_times";
const SLICE: &str = "weir_slice";

/// A template as the engine runs it.
pub(super) struct Code<'source> {
    pub main: Instructions<'source>,
    /// None; the engine wants to see them.
    pub blocks: BTreeMap<&'source str, Instructions<'source>>,
}

/// Compiles a template, as Hugging Face's library sets Jinja up (`trim_blocks`, `lstrip_blocks`), with its bounds built in.
pub(super) fn compile(source: &str) -> Result<Code<'_>, Error> {
    let space = || WhitespaceConfig {
        trim_blocks: true,
        lstrip_blocks: true,
        ..WhitespaceConfig::default()
    };
    source::check(source, space())?;
    let parsed = parse(source, "chat", SyntaxConfig, space())?;
    let mut generator = CodeGenerator::new("chat", source);
    generator.compile_stmt(&parsed);
    let (main, blocks) = generator.finish();
    if !blocks.is_empty() {
        return Err(refused("`block` is not supported"));
    }
    Ok(Code {
        main: laid_out(&main)?,
        blocks,
    })
}

/// The same instructions, with ours between them.
fn laid_out<'s>(code: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    let mut macros = 0;
    let mut steps = Vec::new();
    let mut starts = Vec::new();
    let mut index = 0;
    while let Some(step) = code.get(index) {
        starts.push(u32::try_from(steps.len()).unwrap_or(u32::MAX));
        let line = code.get_line(index).and_then(|n| u16::try_from(n).ok());
        macros += usize::from(matches!(step, Instruction::BuildMacro(..)));
        if macros > MOST_MACROS {
            return Err(refused("it has more than 250 macros"));
        }
        steps.extend(counted(step)?.into_iter().map(|step| (step, line)));
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
    Ok(out)
}

/// An instruction, and what counts for it.
fn counted<'s>(step: &Instruction<'s>) -> Result<Vec<Instruction<'s>>, Error> {
    // No slot of the engine's cache of filters: those are given out by the compiler.
    let ours = |name, values| Instruction::ApplyFilter(name, Some(values), u8::MAX);
    Ok(match step {
        Instruction::EmitRaw(text) => {
            let text = Value::from_safe_string((*text).to_owned());
            vec![Instruction::LoadConst(text), Instruction::Emit]
        }
        Instruction::Mul => vec![ours(TIMES, 2)],
        Instruction::Slice => vec![ours(SLICE, 4), ours(JOINED, 1)],
        Instruction::Add
        | Instruction::StringConcat
        | Instruction::BuildList(_)
        | Instruction::BuildMap(_)
        | Instruction::EndCapture => vec![step.clone(), ours(JOINED, 1)],
        // They keep what they are given, out of sight.
        Instruction::CallMethod("changed" | "cycle", _) => {
            return Err(refused("`loop.changed` and `loop.cycle` are not supported"));
        }
        Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(_) => vec![step.clone(), ours(MADE, 1)],
        // The namespace lies above the value, and is as large as all that is in it.
        Instruction::SetAttr(_) => vec![
            Instruction::Swap,
            ours(KEPT, 1),
            Instruction::Swap,
            ours(LOOKED, 1),
            step.clone(),
        ],
        Instruction::UnpackLists(_) => {
            return Err(refused(
                "lists in the place of arguments (`*list`) are not supported",
            ));
        }
        Instruction::PushAutoEscape => return Err(refused("`autoescape` is not supported")),
        other => vec![other.clone()],
    })
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
    environment.add_filter(KEPT, |value: Value| match is_plain(&value) {
        true => Ok(value),
        false => Err(refused(
            "a namespace, a loop or a macro cannot be kept in a namespace",
        )),
    });
    environment.add_filter(LOOKED, |state: &State<'_, '_>, value: Value| {
        Made::of(state).size(&value)?;
        Ok(value)
    });
    // It writes out all that a template knows.
    environment.remove_global("debug");
    filters::install(environment);
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
            // It can change, or holds things, behind the back of the list that it stands in.
            _ if depth > 0 && !is_plain(value) => {
                return Err(refused("a namespace, a loop or a macro cannot be kept in a list"));
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

/// Neither one of the engine's namespaces, the only values that change, nor an object that has more in it than it shows.
fn is_plain(value: &Value) -> bool {
    let kept = ["::Namespace", "::Loop", "::Macro", "::Closure", "::Module"];
    let named = |name: &str| kept.iter().any(|end| name.ends_with(end));
    value.kind() != ValueKind::Plain && value.as_object().is_none_or(|object| !named(object.type_name()))
}

/// What is made anew each time it is looked at becomes a list: a slice of a slice of a slice has a depth, too.
fn listed(value: Value) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::Iterable => Value::from(value.try_iter()?.collect::<Vec<_>>()),
        _ => value,
    })
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

#[cfg(test)]
mod tests;
