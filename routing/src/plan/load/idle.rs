//! Parts of a plan that have no effect yet. **One table**: what gets built loses its row here.
//!
//! Such a part is read and checked like any other, so that a plan written today keeps its meaning; `weir check`, start
//! and `/readyz` say that nothing comes of it for now.

use toml::de::{DeTable, DeValue};

use super::super::problem::Weight;
use super::source::{At, Source};
use super::table::join;

/// When a row speaks.
#[derive(Clone, Copy)]
enum When {
    /// The key is there.
    Set,
    /// Its value switches something on: not `false`, 0 or empty.
    On,
    /// It is a list that names this.
    Names(&'static str),
}

/// A path (`*` stands for a name or an index), when it matters, how loudly, and what is missing.
type Row = (&'static str, When, Weight, &'static str);

const TABLE: &[Row] = &[
    (
        "records.prompts",
        When::On,
        Weight::Loud,
        "records hold no prompt and no answer text yet; all that this switches on is that the message of a crash may quote one",
    ),
    (
        "routes.*.verify",
        When::Names("confidence"),
        Weight::Loud,
        "\"confidence\" never fails an answer yet: it needs thresholds of the target's own, and no target has any",
    ),
    (
        "targets.*.timeouts.client_write_ms",
        When::Set,
        Weight::Plain,
        "this is a clock of the caller's connection, not of a target: only the one under [timeouts] counts",
    ),
    (
        "telemetry.otlp_endpoint",
        When::On,
        Weight::Plain,
        "nothing is sent over OTLP yet; /metrics and the records are there",
    ),
];

/// Notes every part of the file that has no effect yet.
pub(super) fn note(source: &Source<'_>, root: &DeTable<'_>) {
    for row in TABLE {
        let segments: Vec<&str> = row.0.split('.').collect();
        Walk { source, row }.descend(root, &segments, String::new());
    }
}

#[derive(Clone, Copy)]
struct Walk<'a, 't> {
    source: &'a Source<'t>,
    row: &'static Row,
}

impl Walk<'_, '_> {
    fn descend(self, table: &DeTable<'_>, segments: &[&str], path: String) {
        let Some((first, rest)) = segments.split_first() else {
            return;
        };
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            if *first != "*" && *first != name {
                continue;
            }
            let path = join(&path, name);
            if rest.is_empty() {
                self.speak(
                    At {
                        path,
                        span: key.span(),
                    },
                    value.get_ref(),
                );
            } else {
                self.step(value.get_ref(), rest, path);
            }
        }
    }

    fn step(self, value: &DeValue<'_>, rest: &[&str], path: String) {
        match value {
            DeValue::Table(table) => self.descend(table, rest, path),
            DeValue::Array(items) if rest.first() == Some(&"*") => {
                for (i, item) in items.iter().enumerate() {
                    if let DeValue::Table(table) = item.get_ref() {
                        self.descend(table, rest.get(1..).unwrap_or(&[]), format!("{path}[{i}]"));
                    }
                }
            }
            _ => {}
        }
    }

    fn speak(self, at: At, value: &DeValue<'_>) {
        let (_, when, weight, text) = self.row;
        let on = match when {
            When::Set => true,
            When::On => is_on(value),
            When::Names(name) => names(value, name),
        };
        if on {
            self.source.note(&at, *weight, *text);
        }
    }
}

fn names(value: &DeValue<'_>, name: &str) -> bool {
    let DeValue::Array(items) = value else {
        return false;
    };
    items
        .iter()
        .any(|item| matches!(item.get_ref(), DeValue::String(text) if text == name))
}

fn is_on(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Boolean(b) => *b,
        DeValue::Integer(i) => i.as_str().bytes().any(|b| (b'1'..=b'9').contains(&b)),
        DeValue::Float(f) => f.as_str().parse::<f64>().is_ok_and(|f| f != 0.0),
        DeValue::String(s) => !s.is_empty(),
        DeValue::Array(items) => !items.is_empty(),
        DeValue::Table(_) | DeValue::Datetime(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, TABLE, note};
    use toml::de::DeTable;

    /// A plan in which every row has something to say: a row with a slip in its path would be silent.
    const EVERYTHING: &str = r#"
        telemetry.otlp_endpoint = "http://127.0.0.1:4318"
        records.prompts = true
        [targets.r]
        provider = "openai"
        timeouts = { client_write_ms = 1_000 }
        [routes.a]
        verify = ["finish", "confidence"]
        degrade = ["stale_cache"]
        cache = { exact_ttl_s = 1, sampled = true }
    "#;

    fn told(text: &str) -> Vec<String> {
        let source = Source::new(text);
        note(&source, DeTable::parse(text).unwrap().get_ref());
        source.finish(&[]).1.into_iter().map(|n| n.text).collect()
    }

    #[test]
    fn every_row_can_speak() {
        let told = told(EVERYTHING);
        for (path, _, _, text) in TABLE {
            assert!(told.iter().any(|t| t == text), "{path} is silent");
        }
    }

    #[test]
    fn what_is_switched_off_or_local_is_no_matter() {
        let off = r#"
            telemetry.otlp_endpoint = ""
            records.prompts = false
            timeouts.client_write_ms = 1_000
            rules = [{ when = { pii = true } }]
            targets.l = { provider = "local", limits = { concurrency = 1, queue = 1 }, timeouts = { idle_ms = 5 } }
            routes.a = { verify = ["finish", "repetition"], degrade = ["weaker"], cache = { exact_ttl_s = 0, sampled = false, semantic = { enabled = false } } }
        "#;
        assert!(told(off).is_empty(), "{:?}", told(off));
    }
}
