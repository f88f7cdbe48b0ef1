//! `docs/faults.md`, as far as it is made of the catalogue: a table a chapter, a row a name. The README has the rows that
//! matter most. A test compares both with what is made here.

use std::fmt::Write as _;

use super::case::{Case, Chapter, Dialect, Form};
use super::key::Key;
use super::table::Table;
use super::words;

/// A part of a file between two marks, which is made and not written.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// Its name, in the marks.
    pub name: &'static str,
    /// Who makes it.
    pub by: &'static str,
}

/// All tables, in `docs/faults.md`.
pub const PAGE: Part = Part {
    file: "docs/faults.md",
    name: "the wall",
    by: "load-tests faults --markdown",
};
/// The rows that matter most, in the README.
pub const BRIEF: Part = Part {
    file: "README.md",
    name: "the wall in brief",
    by: "load-tests faults --markdown",
};
/// What official clients make of it, in `docs/faults.md`.
pub const CLIENTS: Part = Part {
    file: "docs/faults.md",
    name: "the clients",
    by: "cargo test -p load-tests --test clients_under_faults",
};

/// Rows of the README, in this order.
const MATTER: [&str; 13] = [
    "rate_limited",
    "server_error",
    "hang",
    "slow_first_token",
    "stall",
    "cut",
    "in_band_error",
    "html_answer",
    "unauthorized",
    "context_length",
    "content_filter",
    "both_503",
    "outage_503",
];

impl Chapter {
    /// In the order of the page, with what stands above each table.
    const ALL: [(Self, &'static str); 8] = [
        (
            Self::OneFault,
            "### One fault, and a healthy tier behind it\n\nThe caller asks for a route; the first tier's target is at \
             fault, the second's is well (`routes.NAME.tiers`).",
        ),
        (
            Self::Named,
            "### The caller names the model\n\nA target is a promise: that model, or an error.",
        ),
        (
            Self::Both,
            "### Nobody is left\n\nBoth tiers' targets are at fault.",
        ),
        (
            Self::Nowhere,
            "### Nothing there, or nothing that hears\n\n`named_` is without a second tier.",
        ),
        (
            Self::Join,
            "### A stream that breaks after its first words\n\nStreams only. The first target cuts the connection in the \
             middle of its answer, unless the row says otherwise; `join_other_...` are second providers with words of \
             their own.",
        ),
        (Self::Limits, "### Limits of a request"),
        (
            Self::OverTime,
            "### More than one request\n\nRequests come one after the other, every 40 ms or as fast as they are answered.",
        ),
        (
            Self::Turned,
            "### Keys, turned\n\nThe same faults with one key of the plan changed.",
        ),
    ];
}

const COLUMNS: [(Form, Dialect); 4] = [
    (Form::Stream, Dialect::Openai),
    (Form::Stream, Dialect::Anthropic),
    (Form::Whole, Dialect::Openai),
    (Form::Whole, Dialect::Anthropic),
];

/// All tables and the list of keys. With the outcomes of a run, rows that failed say so.
pub fn page(cases: &[Case], run: Option<&Table>) -> String {
    let mut out = String::new();
    for (chapter, title) in Chapter::ALL {
        let rows = rows(cases.iter().filter(|c| c.chapter == chapter));
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "{title}\n\n{HEAD}");
        for row in rows {
            let _ = writeln!(out, "{}", row.line(run));
        }
        out.push('\n');
    }
    let _ = write!(
        out,
        "### The keys\n\n| key | what it does | turned in |\n|---|---|---|\n"
    );
    for key in Key::ALL {
        let turned = key
            .turned_by()
            .map_or("(no case turns it)".to_owned(), |case| format!("`{case}`"));
        let _ = writeln!(out, "| `{}` | {} | {turned} |", key.name(), key.about());
    }
    out
}

/// The rows that matter most.
pub fn brief(cases: &[Case]) -> String {
    let rows = rows(cases.iter());
    let wanted = MATTER
        .iter()
        .filter_map(|name| rows.iter().find(|r| r.name() == *name));
    wanted.fold(HEAD.to_owned(), |mut out, row| {
        let _ = writeln!(out, "{}", row.line(None));
        out
    })
}

const HEAD: &str = "| | what the provider does | the caller of a stream sees | the caller of a whole answer sees | calls that \
                    it gets | keys |\n|---|---|---|---|---|---|\n";

/// The cases of one name.
struct Row<'a>(Vec<&'a Case>);

fn rows<'a>(cases: impl Iterator<Item = &'a Case>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for case in cases {
        match rows.iter_mut().find(|r| r.name() == case.name) {
            Some(row) => row.0.push(case),
            None => rows.push(Row(vec![case])),
        }
    }
    rows
}

impl Row<'_> {
    fn name(&self) -> &str {
        self.0.first().map_or("", |c| c.name.as_str())
    }

    fn line(&self, run: Option<&Table>) -> String {
        let about = self.0.first().map_or("", |c| c.about.as_str());
        let failed = run.map_or(0, |table| {
            let of_this = |o: &&super::table::Outcome| o.case == self.name() && !o.wrong.is_empty();
            table.outcomes.iter().filter(of_this).count()
        });
        let failed = match failed {
            0 => String::new(),
            n => format!(" **fails: {n} of {}**", self.0.len()),
        };
        format!(
            "| `{}`{failed} | {} | {} | {} | {} | {} |",
            self.name(),
            about.replace('|', "\\|"),
            self.cell(Form::Stream),
            self.cell(Form::Whole),
            self.calls(),
            self.keys()
        )
    }

    fn of(&self, form: Form, dialect: Dialect) -> Option<&Case> {
        self.0
            .iter()
            .copied()
            .find(|c| c.form == form && c.dialect == dialect)
    }

    /// What the caller sees; once where both dialects were played and agree.
    fn cell(&self, form: Form) -> String {
        let told = |dialect| self.of(form, dialect).map(words::caller);
        match (told(Dialect::Openai), told(Dialect::Anthropic)) {
            (Some(a), Some(b)) if a != b => format!("OpenAI: {a}. Anthropic: {b}"),
            (Some(both), Some(_)) => both,
            (Some(one), None) => format!("OpenAI: {one}"),
            (None, Some(one)) => format!("Anthropic: {one}"),
            (None, None) => "-".to_owned(),
        }
    }

    /// The calls, told apart only where they differ.
    fn calls(&self) -> String {
        let mut told: Vec<(String, String)> = Vec::new();
        for (form, dialect) in COLUMNS {
            let Some(case) = self.of(form, dialect) else {
                continue;
            };
            let form = match form {
                Form::Stream => "stream",
                Form::Whole => "whole",
            };
            let dialect = match dialect {
                Dialect::Openai => "OpenAI",
                Dialect::Anthropic => "Anthropic",
            };
            told.push((format!("{form}, {dialect}"), words::calls(case)));
        }
        let by_form = |form: &str| {
            let mut of = told
                .iter()
                .filter(|(who, _)| who.starts_with(form))
                .map(|(_, c)| c);
            let first = of.next();
            (first.cloned(), of.all(|c| Some(c) == first))
        };
        match (told.first(), by_form("stream"), by_form("whole")) {
            (Some((_, one)), ..) if told.iter().all(|(_, c)| c == one) => one.clone(),
            (_, (Some(stream), true), (Some(whole), true)) => format!("stream: {stream}. Whole: {whole}"),
            _ => {
                let all: Vec<String> = told.iter().map(|(who, c)| format!("{who}: {c}")).collect();
                all.join(". ")
            }
        }
    }

    fn keys(&self) -> String {
        let mut keys: Vec<Key> = Vec::new();
        for key in self.0.iter().flat_map(|c| &c.keys) {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        let named: Vec<String> = keys.iter().map(|k| format!("`{}`", k.name())).collect();
        named.join(", ")
    }
}

/// `text` with `made` between this part's marks; `None`: the marks are not there.
pub fn put(text: &str, part: Part, made: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- {}: made by `{}` -->\n", part.name, part.by),
        format!("<!-- end of {} -->", part.name),
    );
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", made.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::super::table::Outcome;
    use super::*;

    #[test]
    fn every_case_is_in_a_row_and_every_row_of_the_readme_is_one_of_the_page() {
        let cases = all();
        let page = page(&cases, None);
        for case in &cases {
            assert!(page.contains(&format!("| `{}` |", case.name)), "{}", case.name);
        }
        let brief = brief(&cases);
        assert_eq!(brief.lines().count(), MATTER.len() + 2);
        assert!(brief.lines().all(|line| page.contains(line)));
    }

    #[test]
    fn a_key_that_is_turned_has_its_case_and_every_key_is_named_in_a_row() {
        let cases = all();
        for key in Key::ALL {
            if let Some(case) = key.turned_by() {
                let named = cases.iter().any(|c| c.name == case);
                assert!(named, "{} says it is turned by {case}", key.name());
            }
            assert!(cases.iter().any(|c| c.keys.contains(key)), "{}", key.name());
        }
    }

    #[test]
    fn a_row_says_once_what_is_the_same_and_marks_what_failed() {
        let cases = all();
        let hang: Vec<&Case> = cases.iter().filter(|c| c.name == "hang").collect();
        assert_eq!(hang.len(), 4);
        let row = Row(hang.clone());
        assert_eq!(row.cell(Form::Stream), "the next tier's answer, whole");
        assert_eq!(row.calls(), "1, let go; next tier 1");
        assert_eq!(row.keys(), "`timeouts.first_token_ms`, `timeouts.attempt_ms`");
        let mut run = Table {
            who: String::new(),
            outcomes: hang.iter().map(|c| Outcome::of(c, Vec::new(), 1)).collect(),
            seconds: 0.0,
        };
        assert_eq!(row.line(Some(&run)), row.line(None));
        run.outcomes[0].wrong.push("late".into());
        assert!(row.line(Some(&run)).contains("**fails: 1 of 4**"));
    }

    #[test]
    fn a_row_has_one_text_for_both_dialects_only_where_both_were_played() {
        let cases = all();
        let row = |name: &str| Row(cases.iter().filter(|c| c.name == name).collect());
        for (name, text) in [
            ("outage_silent", "each time one whole answer"),
            ("turned_breaker", "each time one whole answer"),
            ("turned_backoff", "OpenAI: each time one whole answer"),
            ("effects", "OpenAI: error 502, 503 or 504"),
        ] {
            assert_eq!(row(name).cell(Form::Whole), text, "{name}");
        }
        for case in cases.iter().filter(|c| c.chapter == Chapter::OverTime) {
            assert!(
                row(&case.name).of(case.form, Dialect::Anthropic).is_some(),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn what_is_made_goes_between_the_marks() {
        let part = Part {
            file: "f",
            name: "n",
            by: "m",
        };
        let text = "a\n<!-- n: made by `m` -->\nold\n<!-- end of n -->\nb";
        let new = put(text, part, "new\n").unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("-->\nb"));
        assert!(new.contains("\nnew\n") && !new.contains("old"));
        assert_eq!(put(&new, part, "new").as_deref(), Some(new.as_str()));
        assert_eq!(put("nothing", part, "new"), None);
    }
}
