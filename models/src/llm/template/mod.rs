//! The chat template that comes with the model, run as its makers run it.

mod bounds;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::machinery::{Vm, make_string_output};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, context};
use self_cell::self_cell;

use super::api::ChatMessage;
use super::load::{LoadError, unsupported};
use super::tokenizer::Tokenizer;
use bounds::Code;

/// Loops in a template end here: a file from outside must not keep a thread for ever.
const FUEL: u64 = 5_000_000;

self_cell! {
    /// A template's text, and what it is compiled to.
    struct Compiled {
        owner: String,
        #[covariant]
        dependent: Code,
    }
}

/// A compiled chat template.
pub(super) struct Template {
    environment: Environment<'static>,
    compiled: Compiled,
}

impl Template {
    /// `text`: the template; `None` when the model has none, then only bare prompts can be served.
    pub fn compile(text: &str) -> Result<Template, LoadError> {
        let compiled = Compiled::try_new(text.to_owned(), |text| bounds::compile(text)).or_else(|error| {
            unsupported(format!(
                "its chat template cannot be compiled: {}",
                explain(&error)
            ))
        })?;
        let mut environment = environment();
        bounds::install(&mut environment);
        Ok(Template {
            environment,
            compiled,
        })
    }

    /// What the template makes of these values.
    fn run(&self, values: Value) -> Result<String, String> {
        let code = self.compiled.borrow_dependent();
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let mut text = String::new();
            Vm::new(&self.environment)
                .eval(
                    &code.main,
                    values,
                    &code.blocks,
                    &mut make_string_output(&mut text),
                    AutoEscape::None,
                )
                .map(|_| text)
        }));
        // Nothing that lives on was being changed: each rendering has a state of its own.
        rendered
            .map_err(|_| "the template engine failed on it".to_owned())?
            .map_err(|error| explain(&error))
    }

    /// The conversation in the model's own form, with the model's next turn open and `begun` standing in it already.
    /// Returns the text and the character that masks the names of control tokens in what came from the caller.
    pub fn render(
        &self,
        turns: &[ChatMessage],
        begun: &str,
        tokenizer: &Tokenizer,
    ) -> Result<(String, char), String> {
        let (values, mask) = values(turns, begun, tokenizer)?;
        let mut text = self.run(values)?;
        text.push_str(&tokenizer.mask(begun, mask));
        Ok((text, mask))
    }
}

/// What a template finds, and the character that masks what came from the caller.
fn values(turns: &[ChatMessage], begun: &str, tokenizer: &Tokenizer) -> Result<(Value, char), String> {
    let texts = turns
        .iter()
        .flat_map(|turn| [turn.role.as_str(), turn.content.as_str()])
        .chain([begun]);
    let Some(mask) = Tokenizer::free_mask(texts) else {
        return Err("the messages use every one of the characters U+FDD0 to U+FDEF".to_owned());
    };
    let messages: Vec<Value> = turns
        .iter()
        .map(|turn| {
            context! {
                role => tokenizer.mask(&turn.role, mask),
                content => tokenizer.mask(&turn.content, mask),
            }
        })
        .collect();
    let (bos_token, eos_token) = tokenizer.edge_names();
    let values = context! { messages, add_generation_prompt => true, bos_token, eos_token };
    Ok((values, mask))
}

/// The functions and filters that templates expect.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise);
    environment.add_function("strftime_now", |format: &str| strftime(format, wall_seconds()));
    environment.add_filter("tojson", to_json);
    environment
}

/// What a template makes without its bounds: of use beside one that kept them only. `None`: it fails.
#[cfg(fuzzing)]
pub(super) fn unbounded(
    template: &str,
    turns: &[ChatMessage],
    begun: &str,
    tokenizer: &Tokenizer,
) -> Option<String> {
    let (values, mask) = values(turns, begun, tokenizer).ok()?;
    let mut environment = environment();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.remove_global("debug");
    environment.add_template("chat", template).ok()?;
    let mut text = environment.get_template("chat").ok()?.render(values).ok()?;
    text.push_str(&tokenizer.mask(begun, mask));
    Some(text)
}

/// What a template's author said, or what went wrong in it.
fn explain(error: &Error) -> String {
    error.detail().map_or_else(|| error.to_string(), str::to_owned)
}

fn raise(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python writes it: the filter that is built in escapes for HTML.
fn to_json(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let text = match indent {
        Some(_) => serde_json::to_string_pretty(&value),
        None => serde_json::to_string(&value),
    };
    text.map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// The methods of Python's strings and dictionaries that templates use.
fn method(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || {
        Error::new(
            ErrorKind::UnknownMethod,
            format!("{} has no method {name}", value.kind()),
        )
    };
    if let Some(text) = value.as_str() {
        if let ("replace", [old, new]) = (name, args)
            && let (Some(old), Some(new)) = (old.as_str(), new.as_str())
        {
            return bounds::replace(state, text, old, new).map(Value::from);
        }
        if name == "split" {
            bounds::splits(state, text, args.first().and_then(Value::as_str))?;
        }
        return text_method(text, name, args).ok_or_else(unknown);
    }
    if value.kind() != ValueKind::Map {
        return Err(unknown());
    }
    match (name, args) {
        ("get", [key]) => Ok(value
            .get_item(key)
            .ok()
            .filter(|v| !v.is_undefined())
            .unwrap_or(Value::from(()))),
        ("get", [key, other]) => Ok(value
            .get_item(key)
            .ok()
            .filter(|v| !v.is_undefined())
            .unwrap_or_else(|| other.clone())),
        ("keys", []) => Ok(value.try_iter()?.collect()),
        ("values", []) => value
            .try_iter()?
            .map(|key| value.get_item(&key))
            .collect::<Result<Value, _>>(),
        ("items", []) => value
            .try_iter()?
            .map(|key| value.get_item(&key).map(|item| Value::from(vec![key, item])))
            .collect::<Result<Value, _>>(),
        _ => Err(unknown()),
    }
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Option<Value> {
    let arg = args.first().and_then(Value::as_str);
    // A set: it may be long.
    let set: Option<HashSet<char>> = arg
        .filter(|_| name.ends_with("strip"))
        .map(|set| set.chars().collect());
    let strips = |c: char| set.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
    Some(match (name, args.len()) {
        ("strip", 0 | 1) => text.trim_matches(strips).into(),
        ("lstrip", 0 | 1) => text.trim_start_matches(strips).into(),
        ("rstrip", 0 | 1) => text.trim_end_matches(strips).into(),
        ("startswith", 1) => text.starts_with(arg?).into(),
        ("endswith", 1) => text.ends_with(arg?).into(),
        ("split", 0) => text.split_whitespace().map(Value::from).collect(),
        ("split", 1) => text.split(arg?).map(Value::from).collect(),
        ("upper", 0) => text.to_uppercase().into(),
        ("lower", 0) => text.to_lowercase().into(),
        ("title" | "capitalize", 0) => {
            let mut chars = text.chars();
            chars
                .next()
                .map(|first| first.to_uppercase().chain(chars).collect::<String>())
                .unwrap_or_default()
                .into()
        }
        _ => return None,
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "a template may ask for today's date; nothing is measured with it"
)]
fn wall_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

/// The part of C's `strftime` that templates use, in UTC.
fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let month_name = MONTHS[month - 1];
    let day_name = usize::try_from(days.rem_euclid(7)).map_or("", |n| DAYS[n]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &format!("{:02}", time / 3_600),
            Some('M') => out += &format!("{:02}", time / 60 % 60),
            Some('S') => out += &format!("{:02}", time % 60),
            Some('%') => out.push('%'),
            other => {
                let what = format!(
                    "strftime_now does not know %{}",
                    other.map_or(String::new(), String::from)
                );
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
    }
    Ok(out)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, usize, i64) {
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    // 400 years are 146,097 days, whatever year they begin with.
    let (mut year, mut left) = (1970 + days.div_euclid(146_097) * 400, days.rem_euclid(146_097));
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if left < len {
            break;
        }
        left -= len;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_c_writes_them() {
        assert_eq!(strftime("%d %b %Y", 1_722_000_000).unwrap(), "26 Jul 2024");
        assert_eq!(
            strftime("%A %H:%M:%S %%", 951_782_400 + 3_661).unwrap(),
            "Tuesday 01:01:01 %"
        );
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert!(strftime("%Q", 0).is_err());
    }

    fn run(template: &str, messages: Value) -> Result<String, String> {
        Template::compile(template).unwrap().run(context! { messages })
    }

    #[test]
    fn python_methods_that_templates_use_are_there() {
        let template = "{% for m in messages %}
    {% if m.content.startswith('a') and m.get('x') is none %}
{{ m.content.split('|')[-1].strip('\\n').lstrip() }};{{ m | tojson }}
    {% endif %}
{% endfor %}";
        let out = run(template, Value::from(vec![context! { content => "a|b| <c>\n" }])).unwrap();
        assert_eq!(out, "<c>;{\"content\":\"a|b| <c>\\n\"}\n");
    }

    #[test]
    fn what_a_template_raises_reaches_the_caller() {
        let error = run(
            "{{ raise_exception('roles must alternate') }}",
            Value::from(Vec::<Value>::new()),
        )
        .unwrap_err();
        assert_eq!(error, "roles must alternate");
    }

    #[test]
    fn a_template_cannot_run_for_ever() {
        let endless =
            "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}";
        assert!(run(endless, Value::from(Vec::<Value>::new())).is_err());
    }
}
