//! One pass over the top level of the body: spans of all fields, and the few values that are needed early.

use std::borrow::Cow;
use std::fmt;

use routing::facts::CallKind;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::cut;
use crate::call::fields::{Class, class};
use crate::call::lists::{Item, each};
use crate::call::{Field, Span, Spans};
use crate::error::{Error, Kind, Result};

/// Deepest nesting that is taken. Nobody's schema is deeper; a reader's stack may be shallower.
pub const MAX_DEPTH: usize = 128;
/// Most top-level fields.
const MAX_FIELDS: usize = 256;
/// Most choices, as at OpenAI.
const MAX_CHOICES: u64 = 128;

/// What the pass found.
#[derive(Debug, Default)]
pub struct Scanned {
    pub spans: Spans,
    pub model: Box<str>,
    pub stream: bool,
    pub include_usage: bool,
    pub choices: u16,
    /// The larger one of `max_completion_tokens` and `max_tokens`.
    pub max_output: Option<u32>,
    pub temperature: Option<f64>,
    pub seed: bool,
    pub logprobs: bool,
    /// Rivals of each token were asked for.
    pub rivals: bool,
    pub effects: bool,
    pub provider_fields: bool,
    pub ignorable: SmallVec<[Span; 4]>,
}

/// Reads the top level.
pub fn scan(kind: CallKind, text: &str) -> Result<Scanned> {
    check_depth(text)?;
    let mut fields: SmallVec<[Raw<'_>; 16]> = SmallVec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_map(Top { fields: &mut fields })
        .map_err(|e| not_json(&e, text))?;
    reader.end().map_err(|e| not_json(&e, text))?;

    let mut found = Scanned {
        choices: 1,
        ..Scanned::default()
    };
    found.spans.open = text.find('{').map_or(0, |i| offset(i + 1));
    let mut older_max = None;
    let mut from = found.spans.open as usize;
    for raw in &fields {
        let field = raw.field(text, from);
        from = field.value.end as usize;
        found.take(kind, &raw.name, raw.value, &field, &mut older_max)?;
        found.spans.fields.push(field);
    }
    // Which of the two a server reads is its own affair.
    found.max_output = found.max_output.max(older_max);
    if found.rivals && !found.logprobs {
        return Err(Error::new(
            Kind::BadField,
            "`top_logprobs` needs `logprobs`: send \"logprobs\": true beside it",
        )
        .param("top_logprobs"));
    }
    if found.model.is_empty() {
        return Err(Error::new(
            Kind::MissingField,
            "`model` is missing; `auto` is the default route",
        )
        .param("model"));
    }
    let must = match kind {
        CallKind::Chat => "messages",
        CallKind::Completion => "prompt",
        CallKind::Embeddings => "input",
    };
    if !fields.iter().any(|f| f.name == must && f.value != "null") {
        return Err(Error::new(Kind::MissingField, format!("`{must}` is missing")).param(must));
    }
    Ok(found)
}

impl Scanned {
    /// Takes in one field.
    fn take(
        &mut self,
        kind: CallKind,
        name: &str,
        value: &str,
        field: &Field,
        older_max: &mut Option<u32>,
    ) -> Result<()> {
        match class(kind, name) {
            Class::Known => {}
            Class::Harmless => self.ignorable.push(field.key),
            Class::ProviderOnly => self.provider_fields |= matters(value),
            Class::Effects => {
                self.ignorable.push(field.key);
                self.effects |= value == "true";
            }
        }
        // `null` is absent, everywhere.
        if value == "null" {
            return Ok(());
        }
        match (kind, name) {
            (_, "model") => self.model = string(name, value)?,
            (_, "stream") => self.stream = parse(name, value, "true or false")?,
            (_, "stream_options") => {
                #[derive(Deserialize)]
                struct Options {
                    #[serde(default)]
                    include_usage: Option<bool>,
                }
                let options: Options = object(value).ok_or_else(|| wrong(name, value, "an object"))?;
                self.include_usage = options.include_usage.unwrap_or(false);
            }
            (CallKind::Embeddings, _) => {}
            (_, "n") => {
                let n = whole_number(name, value, 1, MAX_CHOICES)?;
                self.choices = u16::try_from(n).unwrap_or(u16::MAX);
            }
            (_, "max_completion_tokens") => self.max_output = Some(tokens(name, value)?),
            (_, "max_tokens") => *older_max = Some(tokens(name, value)?),
            (_, "temperature") => self.temperature = Some(number(name, value, 0.0, 2.0)?),
            (_, "top_p") => drop(number(name, value, 0.0, 1.0)?),
            (_, "presence_penalty" | "frequency_penalty") => drop(number(name, value, -2.0, 2.0)?),
            (_, "seed") => {
                let _: i64 = parse(name, value, "a whole number of 64 bits")?;
                self.seed = true;
            }
            (CallKind::Chat, "logprobs") => self.logprobs = parse(name, value, "true or false")?,
            (CallKind::Completion, "logprobs") => {
                whole_number(name, value, 0, 20)?;
                self.logprobs = true;
            }
            (CallKind::Chat, "top_logprobs") => self.rivals = whole_number(name, value, 0, 20)? > 0,
            (_, "stop") => check_stop(name, value)?,
            _ => {}
        }
        Ok(())
    }
}

/// A provider-only field that says "nothing" (`{}`, `[]`, `false`, `null`) asks for nothing.
fn matters(value: &str) -> bool {
    let text = value.trim();
    let hollow = text.len() > 1
        && (text.starts_with('{') || text.starts_with('['))
        && text
            .get(1..text.len() - 1)
            .is_some_and(|inner| inner.trim().is_empty());
    !hollow && text != "null" && text != "false"
}

fn parse<'a, T: Deserialize<'a>>(name: &str, value: &'a str, what: &str) -> Result<T> {
    serde_json::from_str(value).map_err(|_| wrong(name, value, what))
}

/// An object, and nothing else: a struct would also be read from a list.
pub fn object<'a, T: Deserialize<'a>>(value: &'a str) -> Option<T> {
    value
        .starts_with('{')
        .then(|| serde_json::from_str(value).ok())
        .flatten()
}

fn string(name: &str, value: &str) -> Result<Box<str>> {
    let text: Cow<'_, str> = if value.starts_with('"') {
        Cow::Owned(parse::<String>(name, value, "a string")?)
    } else {
        Cow::Borrowed("")
    };
    if text.is_empty() {
        return Err(wrong(name, value, "a string that is not empty"));
    }
    Ok(text.into())
}

fn number(name: &str, value: &str, low: f64, high: f64) -> Result<f64> {
    let what = format!("a number from {low} to {high}");
    let n: f64 = parse(name, value, &what)?;
    if (low..=high).contains(&n) {
        Ok(n)
    } else {
        Err(wrong(name, value, &what))
    }
}

fn whole_number(name: &str, value: &str, low: u64, high: u64) -> Result<u64> {
    let what = format!("a whole number from {low} to {high}");
    let n: u64 = parse(name, value, &what)?;
    if (low..=high).contains(&n) {
        Ok(n)
    } else {
        Err(wrong(name, value, &what))
    }
}

fn tokens(name: &str, value: &str) -> Result<u32> {
    let n = whole_number(name, value, 1, u64::from(u32::MAX))?;
    Ok(u32::try_from(n).unwrap_or(u32::MAX))
}

fn check_stop(name: &str, value: &str) -> Result<()> {
    let bad = || wrong(name, value, "a string or a list of at most 4 strings");
    let fine = match value.as_bytes().first() {
        Some(b'"') => true,
        Some(b'[') => each(value, |i, item: Item| match item {
            Item::Text if i < 4 => Ok(()),
            _ => Err(bad()),
        })
        .is_ok(),
        _ => false,
    };
    if fine { Ok(()) } else { Err(bad()) }
}

/// A field that is not what it must be. The value is shown only where it is short: it may be somebody's text.
pub fn wrong(name: &str, value: &str, what: &str) -> Error {
    let shown = match value.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        Some(b'"') => "a string".to_owned(),
        _ => cut(value, 32).to_owned(),
    };
    Error::new(Kind::BadField, format!("`{name}` must be {what}, not {shown}")).param(name.to_owned())
}

fn not_json(e: &serde_json::Error, text: &str) -> Error {
    let says = e.to_string();
    // A name that stands twice is legal JSON that two readers would read differently.
    if let Some(name) = says.strip_prefix(TWICE).and_then(|rest| rest.split('`').next()) {
        return Error::new(
            Kind::BadField,
            format!("`{name}` stands twice in the body; send it once"),
        )
        .param(name.to_owned())
        .code("duplicate_field");
    }
    if !text.trim_start().starts_with('{') {
        return Error::new(
            Kind::BadJson,
            "the body must be a JSON object, such as {\"model\":\"auto\",\"messages\":[...]}",
        );
    }
    let why = if e.is_eof() {
        "it ends too early".to_owned()
    } else {
        cut(&says, 160).to_owned()
    };
    Error::new(Kind::BadJson, format!("the body is not valid JSON: {why}"))
}

const TWICE: &str = "the field `";

/// A field as serde found it.
struct Raw<'a> {
    name: Cow<'a, str>,
    value: &'a str,
}

impl Raw<'_> {
    /// Its spans. `value` is a piece of `text`, so its place follows from the addresses; the key is searched from
    /// `from`, the end of the value before it (or of the opening brace).
    fn field(&self, text: &str, from: usize) -> Field {
        let start = self.value.as_ptr() as usize - text.as_ptr() as usize;
        let value = Span {
            start: offset(start),
            end: offset(start + self.value.len()),
        };
        // Between the value before and this one stand: a comma, white space, the key, a colon.
        let between = text.get(from..start).unwrap_or_default();
        let open = between.find('"').unwrap_or(0);
        let close = between.rfind('"').map_or(between.len(), |i| i + 1);
        let key = Span {
            start: offset(from + open),
            end: offset(from + close),
        };
        let escaped = (key.len() != self.name.len() + 2).then(|| Box::from(&*self.name));
        Field::new(key, value, escaped)
    }
}

/// Bodies are bounded far below 4 GiB.
fn offset(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}

struct Top<'s, 'a> {
    fields: &'s mut SmallVec<[Raw<'a>; 16]>,
}

impl<'a> Visitor<'a> for Top<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(Key(name)) = map.next_key::<Key<'a>>()? {
            let value: &'a RawValue = map.next_value()?;
            if self.fields.iter().any(|f| f.name == name) {
                return Err(serde::de::Error::custom(format_args!(
                    "{TWICE}{}`",
                    cut(&name, 64)
                )));
            }
            if self.fields.len() == MAX_FIELDS {
                return Err(serde::de::Error::custom(format_args!(
                    "more than {MAX_FIELDS} fields"
                )));
            }
            self.fields.push(Raw {
                name,
                value: value.get(),
            });
        }
        Ok(())
    }
}

/// A key: borrowed unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Text)
    }
}

/// Refuses nesting beyond [`MAX_DEPTH`]. Most bodies have fewer brackets than that altogether, which is seen at the
/// speed of memory.
fn check_depth(text: &str) -> Result<()> {
    let brackets = memchr::memchr2_iter(b'{', b'[', text.as_bytes())
        .take(MAX_DEPTH + 1)
        .count();
    if brackets <= MAX_DEPTH {
        return Ok(());
    }
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = behind_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let message = format!("the body is nested deeper than {MAX_DEPTH} levels");
                    return Err(Error::new(Kind::BadJson, message));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Index behind the quote that ends the string whose inside begins at `at`. Most of a body is text, and this steps over
/// it at the speed of memory.
fn behind_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(i) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += i + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_lengths_the_larger_is_expected() {
        let most = |fields: &str| {
            let body = format!(r#"{{"model":"m","messages":[],{fields}}}"#);
            scan(CallKind::Chat, &body).unwrap().max_output
        };
        assert_eq!(
            most(r#""max_completion_tokens":5,"max_tokens":4096"#),
            Some(4_096)
        );
        assert_eq!(
            most(r#""max_tokens":5,"max_completion_tokens":4096"#),
            Some(4_096)
        );
        assert_eq!(most(r#""max_tokens":5,"max_completion_tokens":null"#), Some(5));
        assert_eq!(most(r#""n":1"#), None);
    }
}
