//! What `/admin/usage` can be asked: its query string.

use crate::civil;

/// What sums can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// UTC day.
    Day,
    /// Who pays.
    Tenant,
    /// Name of the key.
    Key,
    /// Tag.
    Tag,
    /// Route.
    Route,
    /// Target that was asked.
    Model,
}

impl By {
    /// All of them.
    pub const ALL: [By; 6] = [By::Day, By::Tenant, By::Key, By::Tag, By::Route, By::Model];

    /// Its word, which is also its column.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Day => "day",
            By::Tenant => "tenant",
            By::Key => "key",
            By::Tag => "tag",
            By::Route => "route",
            By::Model => "model",
        }
    }
}

/// In which form the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The default.
    Json,
    /// RFC 4180, with a first line of names.
    Csv,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What rows are told apart by, in this order.
    pub by: Vec<By>,
    /// The first day; `None`: the oldest that is kept.
    pub from: Option<u32>,
    /// The last day, itself included; `None`: today.
    pub to: Option<u32>,
    /// Only what has this name there; never a day.
    pub only: Vec<(By, String)>,
    /// Form of the answer.
    pub format: Format,
}

/// What is allowed, for who asked for something else.
pub const ALLOWED: &str = "by=LIST of day, tenant, key, tag, route, model (default tenant); from=YYYY-MM-DD and to=YYYY-MM-DD (UTC, both included); \
     tenant=, key=, tag=, route=, model= to see only that one; format=json or csv";

impl Query {
    /// Reads a query string.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut by, mut from, mut to, mut format) = (None, None, None, None);
        let mut only: Vec<(By, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                unescape(value).ok_or_else(|| format!("`{}` is not escaped as a URL is", shown(pair)))?;
            let twice = match name {
                "by" => by.replace(dimensions(&value)?).is_some(),
                "from" => from.replace(day(&value)?).is_some(),
                "to" => to.replace(day(&value)?).is_some(),
                "format" => format.replace(form(&value)?).is_some(),
                _ => {
                    let named = By::ALL.into_iter().find(|b| *b != By::Day && b.as_str() == name);
                    let by = named.ok_or_else(|| format!("there is no `{}`", shown(name)))?;
                    let twice = only.iter().any(|(known, _)| *known == by);
                    only.push((by, value));
                    twice
                }
            };
            if twice {
                return Err(format!("`{name}` stands there twice"));
            }
        }
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err("`from` is later than `to`".to_owned());
        }
        Ok(Self {
            by: by.unwrap_or_else(|| vec![By::Tenant]),
            from,
            to,
            only,
            format: format.unwrap_or(Format::Json),
        })
    }

    /// Sums must be read from the rows of tags.
    pub fn looks_at_tags(&self) -> bool {
        self.by.contains(&By::Tag) || self.only.iter().any(|(by, _)| *by == By::Tag)
    }
}

fn dimensions(value: &str) -> Result<Vec<By>, String> {
    let mut by = Vec::new();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let found = By::ALL.into_iter().find(|by| by.as_str() == word);
        let found = found.ok_or_else(|| format!("nothing is told apart by `{}`", shown(word)))?;
        if by.contains(&found) {
            return Err(format!("`{word}` stands twice in `by`"));
        }
        by.push(found);
    }
    Ok(by)
}

fn day(value: &str) -> Result<u32, String> {
    civil::day(value).ok_or_else(|| format!("`{}` is no day", shown(value)))
}

fn form(value: &str) -> Result<Format, String> {
    match value {
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        other => Err(format!("there is no format `{}`", shown(other))),
    }
}

/// What somebody has sent, short.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// `%41` and `+` back to what they stand for; `None`: it is not escaped well, or not UTF-8.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read() {
        let plain = Query::parse("").unwrap();
        assert_eq!(
            (plain.by.as_slice(), plain.format),
            (&[By::Tenant][..], Format::Json)
        );
        let all = "by=model,day&from=2026-11-01&to=2026-11-30&format=csv&tag=team%3Da%20b+c&tenant=";
        let all = Query::parse(all).unwrap();
        assert_eq!(all.by, [By::Model, By::Day]);
        assert_eq!(
            (all.from, all.to),
            (civil::day("2026-11-01"), civil::day("2026-11-30"))
        );
        assert_eq!(
            all.only,
            [(By::Tag, "team=a b c".to_owned()), (By::Tenant, String::new())]
        );
        assert!(all.looks_at_tags() && !plain.looks_at_tags());
        assert_eq!(Query::parse("by=").unwrap().by, [], "one row of everything");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, told) in [
            ("by=tenant,user", "`user`"),
            ("by=tenant,tenant", "twice"),
            ("by=day&by=key", "`by` stands there twice"),
            ("from=2026-02-30", "`2026-02-30` is no day"),
            ("from=yesterday", "is no day"),
            ("from=2026-11-02&to=2026-11-01", "later"),
            ("format=xml", "`xml`"),
            ("day=2026-11-01", "there is no `day`"),
            ("limit=5", "there is no `limit`"),
            ("tenant=%zz", "not escaped"),
            ("tenant=%f", "not escaped"),
            ("tenant=%ff", "not escaped"),
        ] {
            let why = Query::parse(text).unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
        let long = format!("{}=1", "x".repeat(5_000));
        assert!(Query::parse(&long).unwrap_err().len() < 200);
    }
}
