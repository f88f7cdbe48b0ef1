//! The cheap facts: what a decision may know at once. One look at the conversation's outline; texts are measured and
//! skimmed where they stand, not unescaped.

use routing::facts::{CallKind, Facts, Needs};
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::scan::{Scanned, object, wrong};
use crate::call::lists::{Item, each};
use crate::call::{Span, estimate};
use crate::error::{Error, Kind, Result};

/// What a message costs beyond its text, in tokens.
const MESSAGE_TOKENS: u64 = 4;
/// What a picture costs, in tokens: a customary figure for one of ordinary size.
const IMAGE_TOKENS: u64 = 765;
/// Bytes at the head and at the tail of a turn that are skimmed for code and sums: what is asked stands there, and what
/// stands between them is mostly material.
const SKIM: usize = 4 * 1024;

/// Tools that are taken: far more than any provider does. The typed view of one takes many times its bytes.
const MAX_TOOLS: usize = 4_096;

/// Cheap facts of a body, and where its last user turn stands.
pub fn facts(
    kind: CallKind,
    text: &str,
    scanned: &Scanned,
    session_key: u64,
) -> Result<(Facts, Option<Span>)> {
    let raw = text.as_bytes();
    let value = |name: &str| {
        let span = scanned.spans.get(raw, name)?.value;
        text.get(span.start as usize..span.end as usize)
            .filter(|v| *v != "null")
    };
    let mut outline = match kind {
        CallKind::Chat => conversation(value("messages").unwrap_or_default())?,
        CallKind::Completion => prompt("prompt", value("prompt").unwrap_or_default())?,
        CallKind::Embeddings => prompt("input", value("input").unwrap_or_default())?,
    };
    if kind == CallKind::Chat {
        outline.needs = outline.needs.with(chat_needs(&value)?);
        outline.tokens += ["tools", "functions", "response_format"]
            .iter()
            .filter_map(|name| value(name))
            .map(estimated)
            .sum::<u64>();
    }
    for (yes, need) in [
        (scanned.logprobs, Needs::LOGPROBS),
        (scanned.provider_fields, Needs::PROVIDER_FIELDS),
        (scanned.effects, Needs::EFFECTS),
    ] {
        if yes {
            outline.needs = outline.needs.with(need);
        }
    }
    let last = outline.last.unwrap_or_default();
    let (head, tail) = skimmed(last);
    let facts = Facts {
        kind,
        needs: outline.needs,
        stream: scanned.stream,
        prompt_tokens: u32::try_from(outline.tokens).unwrap_or(u32::MAX),
        max_output: scanned.max_output,
        turns: outline.turns,
        choices: scanned.choices,
        // Servers that take 8.0 or 8e0 for eight are billed so.
        best_of: value("best_of")
            .and_then(|v| v.trim().parse::<f64>().ok())
            .map_or(0, |n| n.ceil() as u16),
        service_tier: value("service_tier").is_some_and(priced_apart),
        last_turn_bytes: u32::try_from(last.len().saturating_sub(2)).unwrap_or(u32::MAX),
        has_code: looks_like_code(head) || looks_like_code(tail),
        has_math: looks_like_sums(head) || looks_like_sums(tail),
        deterministic: scanned.temperature == Some(0.0) || scanned.seed,
        session: session(
            value("prompt_cache_key"),
            outline.system,
            outline.first,
            session_key,
        ),
        ..Facts::default()
    };
    let span = outline.last.map(|piece| span_of(text, piece));
    Ok((facts, span))
}

/// A `service_tier` (JSON) that a provider may bill at another price than its usual one, or below it by no more than a plan's
/// price says.
fn priced_apart(tier: &str) -> bool {
    let usual = ["null", "\"auto\"", "\"default\"", "\"flex\"", "\"standard_only\""];
    !usual.contains(&tier.trim())
}

/// What can be said of a conversation without keeping it.
#[derive(Default)]
struct Outline<'a> {
    turns: u32,
    tokens: u64,
    needs: Needs,
    system: Option<&'a str>,
    first: Option<&'a str>,
    last: Option<&'a str>,
}

/// A message's outline.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

fn conversation(value: &str) -> Result<Outline<'_>> {
    let (mut outline, mut last_role) = (Outline::default(), "");
    let listed = each(value, |i, raw: &RawValue| {
        let at = |field: &str| format!("messages[{i}]{field}");
        let message: Message<'_> = object(raw.get()).ok_or_else(|| not_a_message(raw.get(), &at("")))?;
        let role = message.role.map_or("", RawValue::get);
        last_role = match role {
            "\"system\"" | "\"developer\"" | "\"user\"" | "\"assistant\"" | "\"tool\"" | "\"function\"" => {
                role
            }
            other => {
                let what = "`system`, `developer`, `user`, `assistant` or `tool`";
                let shown = if other.is_empty() { "null" } else { other };
                return Err(wrong(&at(".role"), shown, what));
            }
        };
        let content = message.content.map(RawValue::get).filter(|c| *c != "null");
        outline.take(role, content, &|| at(".content"))?;
        let calls = message
            .tool_calls
            .is_some_and(|t| !matches!(t.get(), "null" | "[]"));
        if calls || matches!(role, "\"tool\"" | "\"function\"") {
            outline.needs = outline.needs.with(Needs::TOOLS);
        }
        outline.tokens += message.tool_calls.map_or(0, |t| estimated(t.get()));
        Ok(())
    });
    let messages = listed.map_err(|e| e.unwrap_or_else(|| wrong("messages", value, "a list of messages")))?;
    if messages == 0 {
        return Err(
            Error::new(Kind::BadField, "`messages` is empty; send at least one message").param("messages"),
        );
    }
    outline.turns = u32::try_from(messages).unwrap_or(u32::MAX);
    if last_role == "\"assistant\"" {
        outline.needs = outline.needs.with(Needs::PREFILL);
    }
    Ok(outline)
}

/// Says what is wrong with a message: no object, or a field that stands twice.
fn not_a_message(raw: &str, at: &str) -> Error {
    let says = serde_json::from_str::<Message<'_>>(raw)
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    if raw.starts_with('{') && says.starts_with("duplicate field") {
        return Error::new(Kind::BadField, format!("`{at}` has a field twice: {says}")).param(at.to_owned());
    }
    wrong(at, raw, "an object with `role` and `content`")
}

impl<'a> Outline<'a> {
    fn take(&mut self, role: &str, content: Option<&'a str>, name: &dyn Fn() -> String) -> Result<()> {
        self.tokens += MESSAGE_TOKENS;
        let Some(content) = content else {
            // A turn that only calls tools has none; a person's turn must say something.
            return match role {
                "\"assistant\"" => Ok(()),
                _ => Err(wrong(&name(), "null", "a string or a list of parts")),
            };
        };
        match content.as_bytes().first() {
            Some(b'"') => self.tokens += estimated(content),
            Some(b'[') => self.parts(content, name)?,
            _ => return Err(wrong(&name(), content, "a string or a list of parts")),
        }
        match role {
            "\"system\"" | "\"developer\"" => self.system = self.system.or(Some(content)),
            "\"user\"" => {
                self.first = self.first.or(Some(content));
                self.last = Some(content);
            }
            _ => {}
        }
        Ok(())
    }

    fn parts(&mut self, content: &'a str, name: &dyn Fn() -> String) -> Result<()> {
        #[derive(Deserialize)]
        struct Part<'a> {
            #[serde(rename = "type", borrow)]
            kind: Option<&'a RawValue>,
            #[serde(borrow)]
            text: Option<&'a RawValue>,
        }
        let bad = || wrong(&name(), content, "a string or a list of parts");
        let listed = each(content, |_, raw: &RawValue| {
            let part: Part<'_> = object(raw.get()).ok_or_else(bad)?;
            let need = match part.kind.map_or("", RawValue::get) {
                "\"text\"" => {
                    let text = part.text.map_or("null", RawValue::get);
                    if !text.starts_with('"') {
                        return Err(wrong(&format!("{}.text", name()), text, "a string"));
                    }
                    self.tokens += estimated(text);
                    return Ok(());
                }
                "\"refusal\"" => return Ok(()),
                "\"image_url\"" => {
                    self.tokens += IMAGE_TOKENS;
                    Needs::VISION
                }
                "\"input_audio\"" => Needs::AUDIO,
                "\"file\"" => Needs::FILES,
                "" => return Err(wrong(&format!("{}.type", name()), "null", "a string")),
                // A kind nobody here knows: only a provider can.
                _ => Needs::PROVIDER_FIELDS,
            };
            self.needs = self.needs.with(need);
            Ok(())
        });
        match listed.map_err(|e| e.unwrap_or_else(bad))? {
            0 => Err(Error::new(Kind::BadField, format!("`{}` is an empty list", name())).param(name())),
            _ => Ok(()),
        }
    }
}

/// `prompt` or `input`: a string, strings, or token ids (one list or several).
fn prompt<'a>(name: &str, value: &'a str) -> Result<Outline<'a>> {
    let what = "a string, a list of strings, or token ids";
    let mut outline = Outline {
        turns: 1,
        last: Some(value),
        ..Outline::default()
    };
    match value.as_bytes().first() {
        Some(b'"') => {
            let empty = value == "\"\"" && name == "input";
            if empty {
                return Err(wrong(name, value, "a string that is not empty"));
            }
            outline.tokens = estimated(value);
        }
        Some(b'[') => {
            let (mut texts, mut ids, mut single) = (false, 0_u64, false);
            let listed = each(value, |_, item: Item| {
                match item {
                    Item::Text => texts = true,
                    Item::Token => {
                        ids += 1;
                        single = true;
                    }
                    Item::Tokens(n) => ids += n,
                }
                Ok(())
            });
            let items = listed.map_err(|_| wrong(name, value, what))?;
            if items == 0 {
                return Err(
                    Error::new(Kind::BadField, format!("`{name}` is an empty list")).param(name.to_owned())
                );
            }
            if texts && ids > 0 {
                return Err(wrong(name, value, what));
            }
            outline.tokens = if texts { estimated(value) } else { ids };
            outline.turns = if single {
                1
            } else {
                u32::try_from(items).unwrap_or(u32::MAX)
            };
        }
        _ => return Err(wrong(name, value, what)),
    }
    Ok(outline)
}

/// Needs that stand in top-level fields of a chat.
fn chat_needs<'a>(value: &impl Fn(&str) -> Option<&'a str>) -> Result<Needs> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: Option<&'a RawValue>,
    }
    let mut needs = Needs::default();
    for name in ["tools", "functions"] {
        let Some(list) = value(name) else { continue };
        let mut hosted = false;
        let bad = || wrong(name, list, "a list of at most 4096 objects");
        let listed = each(list, |i, tool: Typed<'_>| {
            hosted |= !matches!(
                tool.kind.map(RawValue::get),
                None | Some("\"function\"" | "\"custom\"")
            );
            if i < MAX_TOOLS { Ok(()) } else { Err(bad()) }
        });
        if listed.map_err(|_| bad())? > 0 {
            needs = needs.with(Needs::TOOLS);
        }
        if name == "tools" && hosted {
            needs = needs.with(Needs::PROVIDER_FIELDS).with(Needs::EFFECTS);
        }
    }
    if let Some(format) = value("response_format") {
        let typed: Typed<'_> =
            object(format).ok_or_else(|| wrong("response_format", format, "an object with a `type`"))?;
        needs = needs.with(match typed.kind.map(RawValue::get) {
            Some("\"text\"") => Needs::default(),
            Some("\"json_object\"") => Needs::JSON_MODE,
            Some("\"json_schema\"") => Needs::JSON_SCHEMA,
            None => {
                return Err(wrong(
                    "response_format.type",
                    "null",
                    "`text`, `json_object` or `json_schema`",
                ));
            }
            Some(_) => Needs::PROVIDER_FIELDS,
        });
    }
    Ok(needs)
}

/// Tokens of a text as it stands: a quarter of its ASCII bytes, a half of the others.
fn estimated(text: &str) -> u64 {
    let wide = estimate::wide(text.as_bytes());
    estimate::tokens((text.len() as u64).saturating_sub(wide + 2), wide)
}

/// The head and the tail of a turn; of a short one all of it, and nothing.
fn skimmed(turn: &str) -> (&str, &str) {
    if turn.len() <= 2 * SKIM {
        return (turn, "");
    }
    let (head, rest) = turn.split_at(turn.floor_char_boundary(SKIM));
    (
        head,
        rest.get(rest.ceil_char_boundary(rest.len() - SKIM)..)
            .unwrap_or_default(),
    )
}

/// A code fence, or what only source has. Line feeds stand as `\n` in what is skimmed.
fn looks_like_code(text: &str) -> bool {
    const SIGNS: [&str; 14] = [
        "```",
        "def ",
        "fn ",
        "class ",
        "#include",
        "import ",
        "function ",
        "=> {",
        "){",
        ") {",
        "SELECT ",
        "</",
        "console.",
        "public static",
    ];
    const STRONG: [&str; 3] = ["```", "#include", "public static"];
    STRONG.iter().any(|sign| text.contains(sign))
        || (SIGNS.iter().filter(|sign| text.contains(**sign)).count() >= 1
            && [";\\n", "{\\n", ":\\n", "();", "return ", "let ", "const "]
                .iter()
                .any(|sign| text.contains(sign)))
}

/// Words of calculation, in lower case.
pub(super) const SUM_WORDS: [&[u8]; 16] = [
    b"calculat",
    b"compute",
    b"how many",
    b"how much",
    b"percent",
    b"equation",
    b"integral",
    b"derivative",
    b"solve",
    b"sum of",
    b"average",
    b"divided by",
    b"multipl",
    b"square root",
    b"probability",
    b"remainder",
];

/// By first byte in either case: which second letters (bit = its low five bits) begin one of [`SUM_WORDS`]. One glance
/// rules out almost every place in a text.
static BEGINNINGS: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < SUM_WORDS.len() {
        let (first, second) = (SUM_WORDS[i][0], SUM_WORDS[i][1]);
        let bit = 1 << (second & 31);
        table[first as usize] |= bit;
        table[first.to_ascii_uppercase() as usize] |= bit;
        i += 1;
    }
    table
};

/// Digits beside an operator, or words of calculation.
fn looks_like_sums(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(2).enumerate().any(|(i, pair)| {
        let &[first, second] = pair else { return false };
        match first {
            b'+' | b'*' | b'^' | b'=' => between_digits(bytes, i, false),
            // Dates and ranges have these without spaces.
            b'-' | b'/' => between_digits(bytes, i, true),
            _ => {
                BEGINNINGS[usize::from(first)] >> (second & 31) & 1 == 1
                    && bytes.get(i..).is_some_and(begins_a_sum_word)
            }
        }
    })
}

fn begins_a_sum_word(text: &[u8]) -> bool {
    SUM_WORDS.iter().any(|word| {
        text.get(..word.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(word))
    })
}

/// The byte at `i` stands between digits, with at most one space on either side (`spaced`: exactly one).
fn between_digits(bytes: &[u8], i: usize, spaced: bool) -> bool {
    let digit = |step: isize| {
        let at = |n: isize| bytes.get(i.checked_add_signed(step * n)?).copied();
        match at(1)? {
            b' ' => Some(at(2)?.is_ascii_digit()),
            near => Some(near.is_ascii_digit() && !spaced),
        }
    };
    digit(-1) == Some(true) && digit(1) == Some(true)
}

/// A keyed hash that stays the same over a conversation.
fn session(cache_key: Option<&str>, system: Option<&str>, first: Option<&str>, key: u64) -> Option<u64> {
    let mut hash = Xxh3::with_seed(key);
    match (cache_key, system, first) {
        (None, None, None) => return None,
        (Some(named), ..) => hash.update(named.as_bytes()),
        (None, system, first) => {
            hash.update(system.unwrap_or_default().as_bytes());
            hash.update(&[0]);
            hash.update(first.unwrap_or_default().as_bytes());
        }
    }
    Some(hash.digest())
}

fn span_of(text: &str, piece: &str) -> Span {
    let start = piece.as_ptr() as usize - text.as_ptr() as usize;
    let offset = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
    Span {
        start: offset(start),
        end: offset(start + piece.len()),
    }
}
