//! Filters that can make much out of little, with what they are about to make counted before they begin; products and slices.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value, filters};

use super::{ITEM, Made, SLICE, TIMES, bytes, listed, refused};

/// As long as the engine's own.
const LONGEST_RANGE: usize = 100_000;

/// Sets up the filters.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter(TIMES, times);
    environment.add_filter(SLICE, slice);
    // What they make is made anew at each look; Jinja has neither.
    environment.remove_filter("chain");
    environment.remove_filter("zip");
    environment.add_test("divisibleby", divisible);
    environment.add_function("range", range);
    let mut guard = |name, filter, cost| guard(environment, name, filter, cost);
    guard("join", Value::from_function(filters::join), joined as Cost);
    guard("replace", Value::from_function(filters::replace), replaced);
    guard("indent", Value::from_function(filters::indent), indented);
    guard("batch", Value::from_function(filters::batch), divided);
    guard("slice", Value::from_function(filters::slice), divided);
    guard("format", Value::from_function(filters::format), formatted);
    // A text is a list of its characters to these, and a filter's filter may make a list of each.
    guard("list", Value::from_function(filters::list), items);
    guard("sort", Value::from_function(filters::sort), items);
    guard("reverse", Value::from_function(filters::reverse), items);
    guard("items", Value::from_function(filters::items), items);
    guard("dictsort", Value::from_function(filters::dictsort), items);
    guard("unique", Value::from_function(filters::unique), items);
    guard("select", Value::from_function(filters::select), items);
    guard("reject", Value::from_function(filters::reject), items);
    guard("selectattr", Value::from_function(filters::selectattr), items);
    guard("rejectattr", Value::from_function(filters::rejectattr), items);
    guard("split", Value::from_function(filters::split), items);
    guard("lines", Value::from_function(filters::lines), items);
    guard("groupby", Value::from_function(filters::groupby), lists_of_items);
    guard("map", Value::from_function(filters::map), lists_of_items);
}

/// Bytes of what a filter is about to make of these values; `None`: beyond counting.
type Cost = fn(&[Value]) -> Option<u64>;

/// Puts `cost` in front of one of the engine's filters.
fn guard(environment: &mut Environment<'_>, name: &'static str, filter: Value, cost: Cost) {
    environment.add_filter(name, move |state: &State<'_, '_>, values: Rest<Value>| {
        let made = Made::of(state);
        for value in values.iter() {
            made.size(value)?;
        }
        made.add(cost(&values).unwrap_or(u64::MAX))?;
        filter.call(state, &values).and_then(listed)
    });
}

/// `range(first, end, step)`, or `range(end)`.
fn range(first: i64, end: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (first, end) = end.map_or((0, first), |end| (first, end));
    let (first, end, step) = (i128::from(first), i128::from(end), i128::from(step.unwrap_or(1)));
    if step == 0 {
        return Err(refused("cannot create range with step of 0"));
    }
    let within = |place: &i128| if step > 0 { *place < end } else { *place > end };
    let places = std::iter::successors(Some(first), |place| Some(place + step)).take_while(within);
    let list: Vec<i128> = places.take(LONGEST_RANGE + 1).collect();
    if list.len() > LONGEST_RANGE {
        return Err(refused("a range has more than 100,000 elements"));
    }
    Ok(Value::from(list))
}

/// `number is divisibleby(other)`; by nothing, nothing is.
fn divisible(number: &Value, by: &Value) -> bool {
    match (i128::try_from(number.clone()), i128::try_from(by.clone())) {
        (Ok(number), Ok(by)) => number.checked_rem(by) == Some(0),
        _ => false,
    }
}

/// `value[start:stop:step]`, as Python has it.
fn slice(
    state: &State<'_, '_>,
    value: &Value,
    start: &Value,
    stop: &Value,
    step: &Value,
) -> Result<Value, Error> {
    let place = |value: &Value| match value.is_none() {
        true => Ok(None),
        false => i64::try_from(value.clone()).map(|n| Some(i128::from(n))),
    };
    let (start, stop, step) = (place(start)?, place(stop)?, place(step)?.unwrap_or(1));
    if step == 0 {
        return Err(refused("cannot slice by step size of 0"));
    }
    if value.is_undefined() || value.is_none() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    // A list is as long as what it is cut from, at most, and is counted behind this; a text has its characters laid out.
    if let Some(text) = value.as_str() {
        Made::of(state).add(bytes(text.as_bytes()).saturating_mul(4))?;
        let chars: Vec<char> = text.chars().collect();
        let picked = places(chars.len(), start, stop, step).filter_map(|i| chars.get(i));
        return Ok(Value::from(picked.collect::<String>()));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(refused("only texts and lists can be sliced"));
    }
    let list: Vec<Value> = value.try_iter()?.collect();
    let picked = places(list.len(), start, stop, step).filter_map(|i| list.get(i).cloned());
    Ok(picked.collect())
}

/// The places of a slice.
fn places(len: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> impl Iterator<Item = usize> {
    let len = len as i128;
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let within = |place: i128| (if place < 0 { place + len } else { place }).clamp(least, most);
    let (first, end) = if step > 0 { (least, most) } else { (most, least) };
    let (first, end) = (start.map_or(first, within), stop.map_or(end, within));
    let on = move |place: &i128| if step > 0 { *place < end } else { *place > end };
    std::iter::successors(Some(first), move |place| Some(place + step))
        .take_while(on)
        .filter_map(|place| usize::try_from(place).ok())
}

/// A list of as many items.
fn items(values: &[Value]) -> Option<u64> {
    count(values.first()?).checked_mul(ITEM)
}

/// A list of as many lists.
fn lists_of_items(values: &[Value]) -> Option<u64> {
    let value = values.first()?;
    let each = match value.as_str() {
        Some(_) => 4,
        None => 2,
    };
    count(value).checked_mul(each * ITEM)
}

/// Items of a value, or bytes of a text.
fn count(value: &Value) -> u64 {
    match value.as_str() {
        Some(text) => bytes(text.as_bytes()),
        None => value.try_iter().map_or(0, |items| items.count() as u64),
    }
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
    let whole = |v: &Value| v.is_integer() || v.kind() == ValueKind::Bool;
    if whole(a) && whole(b) {
        let number = |v: &Value| match v.kind() {
            ValueKind::Bool => Ok(i128::from(v.is_true())),
            _ => i128::try_from(v.clone()),
        };
        let product = number(a)?.checked_mul(number(b)?);
        return product
            .map(Value::from)
            .ok_or_else(|| refused("a product is too large"));
    }
    Ok(Value::from(f64::try_from(a.clone())? * f64::try_from(b.clone())?))
}

/// `values|join(with)`.
fn joined(values: &[Value]) -> Option<u64> {
    let with = values.get(1).map_or(0, written);
    count(values.first()?).checked_mul(with)
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

/// Counts what a text's own method `split` is about to make.
pub(in super::super) fn splits(state: &State<'_, '_>, text: &str, at: Option<&str>) -> Result<(), Error> {
    let pieces = match at {
        Some(at) => text.matches(at).count() + 1,
        None => text.split_whitespace().count(),
    };
    Made::of(state).add((pieces as u64).saturating_mul(ITEM))
}

/// A text's own method `replace`.
pub(in super::super) fn replace(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
) -> Result<String, Error> {
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
    largest(rest).checked_add(count(list))?.checked_mul(2 * ITEM)
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
