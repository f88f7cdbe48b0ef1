//! The database of usage: one row for each day, tenant, key, route, model and tag.
//!
//! Its journal is a write-ahead log that is not synced with each batch: what was written survives the end of the process,
//! however it ends; a power cut may lose the last of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params_from_iter};

use super::pending::{MadeUp, Rows};
use super::query::{By, Query};
use super::sums::{MEASURES, NO_TAG, Sums};
use crate::civil;
use crate::sqlite::{self, FileId, Trouble};

/// How long a batch waits for another connection before it is tried again later.
const WAIT: Duration = Duration::from_millis(500);
/// A figure at most: sums of it do not overflow.
const MOST: i64 = 1 << 61;
/// Rows of an answer at most.
pub const MOST_ROWS: usize = 50_000;

const SCHEMA: &[&str] = &["
    CREATE TABLE usage (
        day INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        route TEXT NOT NULL,
        model TEXT NOT NULL,
        tag TEXT NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        gone INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        cost_nano_usd INTEGER NOT NULL,
        unpriced_tries INTEGER NOT NULL,
        PRIMARY KEY (day, tenant, key, route, model, tag)
    ) WITHOUT ROWID;
"];

/// See the module.
pub struct Book {
    path: PathBuf,
    open: Option<(Connection, FileId)>,
}

/// Rows and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Names in the order of [`Query::by`], and sums.
    pub rows: Vec<(Vec<Arc<str>>, Sums)>,
    /// Over all requests that were asked for, each once.
    pub total: Sums,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It would have more than [`MOST_ROWS`].
    TooMany,
    /// The database cannot be used.
    Trouble(Trouble),
}

impl From<Trouble> for NoAnswer {
    fn from(trouble: Trouble) -> Self {
        NoAnswer::Trouble(trouble)
    }
}

impl From<rusqlite::Error> for NoAnswer {
    fn from(e: rusqlite::Error) -> Self {
        NoAnswer::Trouble(e.into())
    }
}

impl Book {
    /// In the folder for data; opened when it is needed.
    pub fn new(data: &Path) -> Self {
        Self {
            path: data.join("usage.sqlite"),
            open: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn db(&mut self) -> Result<&mut Connection, Trouble> {
        // A connection to a file that is gone would go on writing it.
        let here = FileId::of(&self.path).ok();
        if self.open.as_ref().is_some_and(|(_, file)| here != Some(*file)) {
            tracing::warn!(
                "{} is another one now, or gone: its sums begin anew",
                self.path.display()
            );
            self.open = None;
        }
        if self.open.is_none() {
            let db = sqlite::create(&self.path, SCHEMA, WAIT)?;
            db.pragma_update(None, "journal_mode", "wal")?;
            db.pragma_update(None, "synchronous", "normal")?;
            let file = FileId::of(&self.path).map_err(|e| Trouble::Broken(e.to_string()))?;
            self.open = Some((db, file));
        }
        match &mut self.open {
            Some((db, _)) => Ok(db),
            None => Err(Trouble::Broken("it is not open".to_owned())),
        }
    }

    /// Adds rows, all of them or none.
    ///
    /// # Errors
    /// It cannot be written now.
    pub fn add(&mut self, rows: &Rows) -> Result<(), Trouble> {
        let added = self.db().and_then(|db| add(db, rows).map_err(Trouble::from));
        if matches!(added, Err(Trouble::Broken(_))) {
            self.open = None;
        }
        added
    }

    /// Removes days before this one.
    ///
    /// # Errors
    /// It cannot be written now.
    pub fn forget(&mut self, before: u32) -> Result<(), Trouble> {
        self.db()?.execute("DELETE FROM usage WHERE day < ?", [before])?;
        Ok(())
    }

    /// Tags that callers have made up since this day.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn tags(&mut self, since: u32) -> Result<Vec<MadeUp>, Trouble> {
        let sql = "SELECT DISTINCT day, tenant, tag FROM usage WHERE day >= ? AND tag LIKE '%=%'";
        let mut all = self.db()?.prepare(sql)?;
        let text = |row: &rusqlite::Row<'_>, at| row.get::<_, String>(at).map(Arc::<str>::from);
        let found = all.query_map([since], |row| Ok((row.get(0)?, text(row, 1)?, text(row, 2)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Answers a question.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub fn answer(&mut self, query: &Query) -> Result<Answer, NoAnswer> {
        let db = self.db()?;
        let rows = groups(db, &query.by, query, query.looks_at_tags())?;
        // A request with two tags stands in two rows; in the sum it counts once.
        let of_tag = query.only.iter().any(|(by, _)| *by == By::Tag);
        let total = groups(db, &[], query, of_tag)?;
        Ok(Answer {
            rows: rows.into_iter().collect(),
            total: total.into_values().next().unwrap_or_default(),
        })
    }
}

fn add(db: &mut Connection, rows: &Rows) -> Result<(), rusqlite::Error> {
    let batch = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let more: Vec<String> = MEASURES
        .iter()
        .map(|name| format!("{name} = min({name} + excluded.{name}, {MOST})"))
        .collect();
    let places = vec!["?"; By::ALL.len() + MEASURES.len()].join(", ");
    let sql = format!(
        "INSERT INTO usage (day, tenant, key, route, model, tag, {}) VALUES ({places}) ON CONFLICT DO UPDATE SET {}",
        MEASURES.join(", "),
        more.join(", ")
    );
    let mut put = batch.prepare(&sql)?;
    for (place, sums) in rows {
        let names = [&place.tenant, &place.key, &place.route, &place.model, &place.tag];
        let names = names.map(|name| Value::Text(name.to_string()));
        let figures = sums.figures();
        let figures = figures
            .iter()
            .map(|&n| Value::Integer(i64::try_from(n).unwrap_or(MOST).min(MOST)));
        let day = std::iter::once(Value::Integer(place.day.into()));
        put.execute(params_from_iter(day.chain(names).chain(figures)))?;
    }
    drop(put);
    batch.commit()
}

/// Sums by these, of the rows that are asked for. Added up here and not by SQLite, which fails where a sum overflows.
fn groups(
    db: &Connection,
    by: &[By],
    query: &Query,
    of_tags: bool,
) -> Result<BTreeMap<Vec<Arc<str>>, Sums>, NoAnswer> {
    let mut sql = "SELECT ".to_owned();
    for by in by {
        sql.push_str(by.as_str());
        sql.push_str(", ");
    }
    sql.push_str(&MEASURES.join(", "));
    sql.push_str(" FROM usage WHERE day BETWEEN ? AND ? AND ");
    let tags = if of_tags {
        "tag <> ''".to_owned()
    } else {
        format!("tag IN ('', '{NO_TAG}')")
    };
    sql.push_str(&tags);
    let days = [query.from.unwrap_or(0), query.to.unwrap_or(u32::MAX)];
    let mut values: Vec<Value> = days.into_iter().map(|day| Value::Integer(day.into())).collect();
    for (only, name) in &query.only {
        sql.push_str(&format!(" AND {} = ?", only.as_str()));
        values.push(Value::Text(name.clone()));
    }
    let mut look = db.prepare(&sql)?;
    let mut rows = look.query(params_from_iter(values))?;
    let mut groups: BTreeMap<Vec<Arc<str>>, Sums> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let mut names = Vec::with_capacity(by.len());
        for (at, by) in by.iter().enumerate() {
            names.push(match by {
                By::Day => Arc::from(civil::date(row.get(at)?)),
                _ => Arc::from(row.get::<_, String>(at)?),
            });
        }
        let mut figures = [0; MEASURES.len()];
        for (at, figure) in figures.iter_mut().enumerate() {
            *figure = u64::try_from(row.get::<_, i64>(by.len() + at)?).unwrap_or(0);
        }
        groups.entry(names).or_default().add(&Sums::of(figures));
        if groups.len() > MOST_ROWS {
            return Err(NoAnswer::TooMany);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::sums::{Measure, Place};

    fn place(day: u32, tenant: &str, model: &str, tag: &str) -> Place {
        Place {
            day,
            tenant: tenant.into(),
            key: "k".into(),
            route: "auto".into(),
            model: model.into(),
            tag: tag.into(),
        }
    }
    fn sums(requests: u64, cost: u64) -> Sums {
        let mut sums = Sums::default();
        sums.more(Measure::Requests, requests);
        sums.more(Measure::Cost, cost);
        sums
    }
    fn book() -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::new(dir.path());
        let rows = [
            (place(20_000, "a", "small", NO_TAG), sums(1, 10)),
            (place(20_000, "a", "large", ""), sums(2, 200)),
            (place(20_000, "a", "large", "x=1"), sums(2, 200)),
            (place(20_000, "a", "large", "y=2"), sums(1, 150)),
            (place(20_001, "b", "large", NO_TAG), sums(5, 1_000)),
        ];
        book.add(&rows.into_iter().collect()).unwrap();
        (dir, book)
    }
    /// Names, requests and cost of each row; then those of the sum.
    fn asked(book: &mut Book, query: &str) -> Vec<(String, u64, u64)> {
        let answer = book.answer(&Query::parse(query).unwrap()).unwrap();
        let told = |names: &[Arc<str>], sums: &Sums| {
            (
                names.join(" "),
                sums.get(Measure::Requests),
                sums.get(Measure::Cost),
            )
        };
        let rows = answer.rows.iter().map(|(names, sums)| told(names, sums));
        rows.chain([told(&["all".into()], &answer.total)]).collect()
    }
    fn row(name: &str, requests: u64, cost: u64) -> (String, u64, u64) {
        (name.to_owned(), requests, cost)
    }

    #[test]
    fn sums_are_told_apart_as_asked() {
        let (_dir, mut book) = book();
        let all = row("all", 8, 1_210);
        assert_eq!(
            asked(&mut book, ""),
            [row("a", 3, 210), row("b", 5, 1_000), all.clone()]
        );
        assert_eq!(
            asked(&mut book, "by=model,tenant"),
            [
                row("large a", 2, 200),
                row("large b", 5, 1_000),
                row("small a", 1, 10),
                all.clone()
            ]
        );
        assert_eq!(
            asked(&mut book, "by=day"),
            [
                row("2024-10-04", 3, 210),
                row("2024-10-05", 5, 1_000),
                all.clone()
            ]
        );
        assert_eq!(
            asked(&mut book, "by=tag"),
            [row(NO_TAG, 6, 1_010), row("x=1", 2, 200), row("y=2", 1, 150), all],
            "two tags: in both rows, once in the sum"
        );
        assert_eq!(
            asked(&mut book, "to=2024-10-04&by=key"),
            [row("k", 3, 210), row("all", 3, 210)]
        );
        assert_eq!(
            asked(&mut book, "tag=y%3D2"),
            [row("a", 1, 150), row("all", 1, 150)]
        );
        assert_eq!(asked(&mut book, "tenant=a'%20OR%201%3D1"), [row("all", 0, 0)]);
        assert_eq!(
            asked(&mut book, "by=&model=small"),
            [row("", 1, 10), row("all", 1, 10)]
        );
    }

    #[test]
    fn more_is_added_and_old_days_go() {
        let (dir, mut book) = book();
        let again = [(place(20_000, "a", "small", NO_TAG), sums(1, 10))];
        book.add(&again.into_iter().collect()).unwrap();
        let huge = [(place(20_000, "h", "m", NO_TAG), sums(u64::MAX, u64::MAX))];
        for _ in 0..3 {
            book.add(&huge.clone().into_iter().collect()).unwrap();
        }
        let mut book = Book::new(dir.path());
        assert_eq!(asked(&mut book, "tenant=a")[0], row("a", 4, 220));
        let most = MOST as u64;
        assert_eq!(
            asked(&mut book, "tenant=h")[0],
            row("h", most, most),
            "it stays whole"
        );
        book.forget(20_001).unwrap();
        assert_eq!(asked(&mut book, ""), [row("b", 5, 1_000), row("all", 5, 1_000)]);
    }

    #[test]
    fn tags_that_were_made_up_are_known_again() {
        let (_dir, mut book) = book();
        assert_eq!(
            book.tags(20_000).unwrap(),
            [
                (20_000, "a".into(), "x=1".into()),
                (20_000, "a".into(), "y=2".into())
            ]
        );
        assert!(book.tags(20_001).unwrap().is_empty());
    }

    #[test]
    fn a_batch_is_written_whole_or_not_at_all() {
        let (dir, mut book) = book();
        let other = sqlite::open(&dir.path().join("usage.sqlite"), WAIT).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let rows: Rows = [(place(20_000, "c", "m", NO_TAG), sums(1, 1))]
            .into_iter()
            .collect();
        assert_eq!(book.add(&rows), Err(Trouble::Locked));
        assert_eq!(
            asked(&mut book, "tenant=c"),
            [row("all", 0, 0)],
            "it can be read meanwhile"
        );
        other.execute_batch("COMMIT").unwrap();
        book.add(&rows).unwrap();
        assert_eq!(asked(&mut book, "tenant=c")[0], row("c", 1, 1));
    }

    #[test]
    fn a_file_that_is_gone_is_begun_anew() {
        let (dir, mut book) = book();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        let rows: Rows = [(place(20_000, "c", "m", NO_TAG), sums(1, 1))]
            .into_iter()
            .collect();
        book.add(&rows).unwrap();
        assert_eq!(asked(&mut Book::new(dir.path()), "")[0], row("c", 1, 1));
    }
}
