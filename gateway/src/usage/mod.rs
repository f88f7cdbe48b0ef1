//! Who spends what: by UTC day, tenant, key, tag, route and model.
//!
//! The thread that writes records adds each of them up in memory; a thread of its own writes the sums to a database, a
//! batch a second in one transaction, and answers questions. No request waits for it. A process that is killed loses the
//! last batch at most, a second's requests; an orderly end loses nothing. While the database cannot be written the sums
//! wait, and what is too much is counted as lost.

mod book;
mod page;
mod pending;
mod query;
mod sums;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::oneshot;

pub use self::book::MOST_ROWS;
pub use self::query::{ALLOWED, By, Format, Query};
pub use self::sums::{MEASURES, Measure, Sums};

use self::book::{Book, NoAnswer};
use self::pending::Pending;
use self::sums::Told;
use crate::clock::Clock;
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;
use crate::telemetry::record::Record;
use crate::telemetry::writer::Tap;

/// How long sums wait for their batch.
const BATCH: Duration = Duration::from_secs(1);
/// Questions that may wait.
const QUESTIONS: usize = 16;
const DAY_MS: u64 = 86_400_000;

/// Adds records up. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

/// Asks. Cheap to clone.
#[derive(Clone)]
pub struct Asker {
    shared: Arc<Shared>,
    words: SyncSender<Word>,
}

/// The thread. [`Keeper::close`] writes what is left and ends it.
pub struct Keeper {
    asker: Asker,
    thread: JoinHandle<()>,
}

struct Shared {
    pending: Mutex<Pending>,
    lost: AtomicU64,
    lost_counter: Counter,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Word {
    Ask(Query, oneshot::Sender<Result<String, NoAnswer>>),
    Close,
}

/// Why a question has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// There is more to answer than one answer may have.
    TooMany,
    /// For people.
    NotNow(String),
}

impl Tap for Feed {
    fn see(&mut self, record: &Record) {
        let told = Told::of(record);
        if !self.0.pending().add(told) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            self.0.lost_counter.increment(1);
        }
    }
}

impl Asker {
    /// Answers with all that has come so far, in the form that is asked for; requests that ended in the last tenth of a
    /// second may be missing.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn ask(&self, query: Query) -> Result<String, Unanswered> {
        let (back, answer) = oneshot::channel();
        let busy = |_| Unanswered::NotNow("too many questions wait already".to_owned());
        self.words.try_send(Word::Ask(query, back)).map_err(busy)?;
        match answer.await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(NoAnswer::TooMany)) => Err(Unanswered::TooMany),
            Ok(Err(NoAnswer::Trouble(trouble))) => Err(Unanswered::NotNow(trouble.to_string())),
            Err(_) => Err(Unanswered::NotNow("the gateway ends".to_owned())),
        }
    }
}

impl Keeper {
    /// Opens the database in the folder for data and starts the thread. Where it cannot be opened, that is told, and tried
    /// again with each batch. `keep_days`: older days are removed.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(data: &Path, keep_days: u32, clock: &Clock, telemetry: &Telemetry) -> std::io::Result<Self> {
        let mut writer = Writer {
            book: Book::new(data),
            keep_days,
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            failing: false,
            forgot: None,
        };
        let shared = Arc::new(Shared {
            pending: Mutex::new(writer.resume()),
            lost: AtomicU64::new(0),
            lost_counter: telemetry.counter(Name::UsageLost, &[]),
        });
        let (words, heard) = sync_channel(QUESTIONS);
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weir-usage".into())
            .spawn(move || run(&own, writer, &heard))?;
        Ok(Self {
            asker: Asker { shared, words },
            thread,
        })
    }

    /// What adds records up.
    pub fn feed(&self) -> Feed {
        Feed(Arc::clone(&self.asker.shared))
    }

    /// What asks.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Writes what is left and waits for the thread. What feeds it must have ended before.
    pub fn close(self) {
        if self.asker.words.send(Word::Close).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn run(shared: &Shared, mut writer: Writer, words: &Receiver<Word>) {
    loop {
        match words.recv_timeout(BATCH) {
            Ok(Word::Ask(query, back)) => {
                let written = writer.batch(shared);
                let answer = written.and_then(|()| writer.book.answer(&query));
                let lost = shared.lost.load(Ordering::Relaxed);
                let _ = back.send(answer.map(|answer| page::render(&query, &answer, lost)));
            }
            Err(RecvTimeoutError::Timeout) => {
                let _ = writer.batch(shared);
            }
            Ok(Word::Close) | Err(RecvTimeoutError::Disconnected) => {
                let _ = writer.batch(shared);
                return;
            }
        }
    }
}

/// What the thread has.
struct Writer {
    book: Book,
    keep_days: u32,
    clock: Clock,
    telemetry: Telemetry,
    /// That it cannot be written was told.
    failing: bool,
    /// The day on which old days were removed last.
    forgot: Option<u32>,
}

impl Writer {
    fn today(&self) -> u32 {
        u32::try_from(self.clock.unix_ms() / DAY_MS).unwrap_or(u32::MAX)
    }

    fn path(&self) -> PathBuf {
        self.book.path().to_owned()
    }

    /// Sums that go on from what is there.
    fn resume(&mut self) -> Pending {
        let since = self.today().saturating_sub(1);
        match self.book.tags(since) {
            Ok(known) => Pending::resumed(known),
            Err(trouble) => {
                self.failed("open", &trouble.to_string());
                Pending::default()
            }
        }
    }

    /// Writes what waits.
    fn batch(&mut self, shared: &Shared) -> Result<(), NoAnswer> {
        let rows = shared.pending().take();
        if !rows.is_empty()
            && let Err(trouble) = self.book.add(&rows)
        {
            shared.pending().back(rows);
            self.failed("write", &trouble.to_string());
            return Err(trouble.into());
        }
        let today = self.today();
        if self.forgot != Some(today) {
            if let Err(trouble) = self.book.forget(today.saturating_sub(self.keep_days)) {
                self.failed("prune", &trouble.to_string());
                return Ok(());
            }
            self.forgot = Some(today);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("usage is written again");
        }
        Ok(())
    }

    /// Told once, until it is well again.
    fn failed(&mut self, what: &'static str, why: &str) {
        self.telemetry.counter(Name::UsageFaults, &[what]).increment(1);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                "usage cannot be kept in {}: {why}. Serving goes on; sums wait in memory, and what is too much is counted in {}",
                self.path().display(),
                Name::UsageLost.spec().name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;
    use crate::telemetry::record::End;

    fn record(id: usize, time_ms: u64) -> Record {
        Record {
            end: End::Whole,
            route: Some("auto".into()),
            ..Record::open(&id.to_string(), time_ms, Default::default())
        }
    }

    async fn asked(asker: &Asker, query: &str) -> serde_json::Value {
        let page = asker.ask(Query::parse(query).unwrap()).await.unwrap();
        serde_json::from_str(&page).unwrap()
    }
    async fn requests(asker: &Asker, query: &str) -> u64 {
        asked(asker, query).await["total"]["requests"].as_u64().unwrap()
    }

    fn keeper(dir: &Path, telemetry: &Telemetry) -> Keeper {
        Keeper::start(dir, 30, &Clock::system(), telemetry).unwrap()
    }

    #[tokio::test]
    async fn what_is_fed_is_answered_and_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let now = Clock::system().unix_ms();
        let first = keeper(dir.path(), &Telemetry::new());
        let mut feed = first.feed();
        (0..100).for_each(|i| feed.see(&record(i, now)));
        assert_eq!(requests(&first.asker(), "").await, 100);
        (0..11).for_each(|i| feed.see(&record(i, now)));
        first.close();
        let second = keeper(dir.path(), &Telemetry::new());
        assert_eq!(requests(&second.asker(), "route=auto").await, 111);
        second.close();
    }

    #[tokio::test]
    async fn days_that_are_too_old_go() {
        let dir = tempfile::tempdir().unwrap();
        let now = Clock::system().unix_ms();
        let first = keeper(dir.path(), &Telemetry::new());
        let mut feed = first.feed();
        feed.see(&record(1, now));
        feed.see(&record(2, now - 29 * DAY_MS));
        feed.see(&record(3, now - 31 * DAY_MS));
        let _ = requests(&first.asker(), "").await;
        first.close();
        let second = keeper(dir.path(), &Telemetry::new());
        let _ = requests(&second.asker(), "").await;
        assert_eq!(requests(&second.asker(), "").await, 2);
        second.close();
    }

    #[tokio::test]
    async fn sums_wait_while_the_database_is_locked_and_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new();
        let keeper = keeper(dir.path(), &telemetry);
        let mut feed = keeper.feed();
        feed.see(&record(1, Clock::system().unix_ms()));
        assert_eq!(requests(&keeper.asker(), "").await, 1);
        let other = sqlite::open(&dir.path().join("usage.sqlite"), Duration::ZERO).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        feed.see(&record(2, Clock::system().unix_ms()));
        let refused = keeper.asker().ask(Query::parse("").unwrap()).await.unwrap_err();
        assert!(
            matches!(refused, Unanswered::NotNow(ref why) if why.contains("locked")),
            "{refused:?}"
        );
        other.execute_batch("COMMIT").unwrap();
        let answer = asked(&keeper.asker(), "").await;
        assert_eq!(
            (&answer["total"]["requests"], &answer["lost_requests"]),
            (&2.into(), &0.into())
        );
        let text = telemetry.render();
        assert!(
            text.contains(r#"weir_usage_faults_total{fault="write"}"#),
            "{text}"
        );
        keeper.close();
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let telemetry = Telemetry::new();
        let keeper = keeper(&file.join("below"), &telemetry);
        let mut feed = keeper.feed();
        let now = Clock::system().unix_ms();
        let sent = pending::MOST_WAITING + 100;
        for i in 0..sent {
            let route = Some(i.to_string().into());
            feed.see(&Record {
                route,
                ..record(i, now)
            });
        }
        assert!(keeper.asker().ask(Query::parse("").unwrap()).await.is_err());
        std::fs::remove_file(&file).unwrap();
        let answer = asked(&keeper.asker(), "").await;
        let figure = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let lost = figure(&answer["lost_requests"]);
        assert!(
            lost >= 100 && figure(&answer["total"]["requests"]) + lost == sent,
            "{answer}"
        );
        assert!(
            telemetry
                .render()
                .contains(&format!("weir_usage_lost_total {lost}"))
        );
        assert_eq!(asked(&keeper.asker(), "by=day").await["rows"][0]["errors"], 0);
        keeper.close();
    }
}
