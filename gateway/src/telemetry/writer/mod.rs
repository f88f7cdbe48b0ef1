//! Records on their way to the disk: a bounded queue and one thread that owns the file.
//!
//! Sending takes a lock for the length of a push and wakes nobody while the writer is at work: it looks by itself every
//! 5 ms, and is woken only out of idleness or when the queue is half full. A full queue drops the record and counts it;
//! a disk that fails is counted and told once; neither ever holds up an answer.

pub(super) mod chain;
pub(super) mod files;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use metrics::Counter;

pub use self::chain::{Limits, Opened};
use super::Telemetry;
use super::names::Name;
use super::record::Record;

/// Records that may wait. At about 1.5 KiB each the queue stays below 8 MiB.
pub const QUEUE: usize = 4_096;
/// Bytes a waiting record takes at most, as `weir check` counts it.
pub const RECORD_BYTES: usize = 2_048;
/// What a `kill -9` can take with it, beside what is being written. Waking the writer for each record would cost every request more.
const LOOK: Duration = Duration::from_millis(5);

/// Where records go. Cheap to clone; [`Sink::none`] swallows them.
#[derive(Clone)]
pub struct Sink(Option<Arc<Shared>>);

/// Sees each record, on the writer's thread, before it is written.
pub trait Tap: Send {
    /// This one.
    fn see(&mut self, record: &Record);
}

struct Shared {
    queue: Mutex<VecDeque<Box<Record>>>,
    idle: AtomicBool,
    closed: AtomicBool,
    dropped: Counter,
    writer: Thread,
}

/// The writer's thread. [`Writer::close`] writes what is left and ends it.
pub struct Writer {
    sink: Sink,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Records are off.
    pub fn none() -> Self {
        Self(None)
    }

    /// Hands a record over; never waits for the disk.
    pub fn send(&self, record: Box<Record>) {
        let Some(shared) = &self.0 else { return };
        let waiting = {
            let mut queue = lock(&shared.queue);
            if queue.len() >= QUEUE {
                drop(queue);
                shared.dropped.increment(1);
                return;
            }
            queue.push_back(record);
            queue.len()
        };
        if shared.idle.swap(false, Ordering::AcqRel) || waiting == QUEUE / 2 {
            shared.writer.unpark();
        }
    }
}

impl Writer {
    /// Opens a chain of files in `dir` and starts the thread. A folder that cannot be used is an error here, so that the
    /// start can say so; serving goes on without records then.
    ///
    /// # Errors
    /// The folder or the lock cannot be made, or no thread started.
    pub fn start(
        dir: &Path,
        limits: Limits,
        clock: chain::Wall,
        telemetry: &Telemetry,
    ) -> std::io::Result<(Self, Opened)> {
        Self::tapped(dir, limits, clock, telemetry, None)
    }

    /// The same, with somebody who sees each record.
    ///
    /// # Errors
    /// As [`Writer::start`].
    pub fn tapped(
        dir: &Path,
        limits: Limits,
        clock: chain::Wall,
        telemetry: &Telemetry,
        tap: Option<Box<dyn Tap>>,
    ) -> std::io::Result<(Self, Opened)> {
        let (chain, opened) = chain::Chain::open(dir, limits, clock)?;
        if opened.torn.is_some() {
            telemetry.counter(Name::RecordFaults, &["torn"]).increment(1);
        }
        Ok((Self::begin(Some(chain), tap, telemetry)?, opened))
    }

    /// Records are off, and somebody sees them all the same.
    ///
    /// # Errors
    /// No thread started.
    pub fn unwritten(telemetry: &Telemetry, tap: Box<dyn Tap>) -> std::io::Result<Self> {
        Self::begin(None, Some(tap), telemetry)
    }

    fn begin(
        chain: Option<chain::Chain>,
        tap: Option<Box<dyn Tap>>,
        telemetry: &Telemetry,
    ) -> std::io::Result<Self> {
        let (hand_over, take) = std::sync::mpsc::sync_channel::<Arc<Shared>>(1);
        let counters = Counters::new(telemetry);
        let thread = std::thread::Builder::new()
            .name("weir-records".into())
            .spawn(move || {
                if let Ok(shared) = take.recv() {
                    run(&shared, chain, tap, &counters);
                }
            })?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(VecDeque::new()),
            idle: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            dropped: telemetry.counter(Name::Records, &["dropped"]),
            writer: thread.thread().clone(),
        });
        let _ = hand_over.send(Arc::clone(&shared));
        Ok(Self {
            sink: Sink(Some(shared)),
            thread: Some(thread),
        })
    }

    /// Where to send.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Writes what is left, syncs, and waits for the thread.
    pub fn close(mut self) {
        if let Some(shared) = &self.sink.0 {
            shared.closed.store(true, Ordering::Release);
            shared.writer.unpark();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Counters {
    written: Counter,
    failed: Counter,
    write_faults: Counter,
    rotate_faults: Counter,
    prune_faults: Counter,
}

impl Counters {
    fn new(t: &Telemetry) -> Self {
        Self {
            written: t.counter(Name::Records, &["written"]),
            failed: t.counter(Name::Records, &["failed"]),
            write_faults: t.counter(Name::RecordFaults, &["write"]),
            rotate_faults: t.counter(Name::RecordFaults, &["rotate"]),
            prune_faults: t.counter(Name::RecordFaults, &["prune"]),
        }
    }
}

fn run(shared: &Shared, mut chain: Option<chain::Chain>, mut tap: Option<Box<dyn Tap>>, counters: &Counters) {
    let mut batch: VecDeque<Box<Record>> = VecDeque::new();
    let mut told = false;
    loop {
        std::mem::swap(&mut *lock(&shared.queue), &mut batch);
        let closed = shared.closed.load(Ordering::Acquire);
        if batch.is_empty() {
            if closed {
                chain.iter_mut().for_each(chain::Chain::sync);
                return;
            }
            wait_idle(shared);
            chain.iter_mut().for_each(|chain| tend(chain, counters));
            continue;
        }
        // First, so that a disk that refuses records takes nothing from who only looks at them.
        if let Some(tap) = &mut tap {
            batch.iter().for_each(|record| tap.see(record));
        }
        match &mut chain {
            Some(chain) => {
                write(chain, &mut batch, counters, &mut told);
                tend(chain, counters);
            }
            None => batch.clear(),
        }
        if !closed {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// `told`: that the disk refuses was said, and is not said again before it obeys.
fn write(chain: &mut chain::Chain, batch: &mut VecDeque<Box<Record>>, counters: &Counters, told: &mut bool) {
    let count = batch.len() as u64;
    match chain.append(batch.drain(..)) {
        Ok(unfit) => {
            counters.written.increment(count.saturating_sub(unfit));
            counters.failed.increment(unfit);
            if std::mem::replace(told, false) {
                tracing::info!("records are written again");
            }
        }
        Err(failed) => {
            counters.failed.increment(failed.lost);
            counters.write_faults.increment(1);
            if !std::mem::replace(told, true) {
                tracing::error!(
                    "records cannot be written to {}: {}; serving goes on, lost records are counted in {}",
                    failed.path.display(),
                    failed.error,
                    Name::Records.spec().name
                );
            }
        }
    }
}

fn tend(chain: &mut chain::Chain, counters: &Counters) {
    let chain::Untended { rotate, prune } = chain.tend();
    if let Some(e) = rotate {
        counters.rotate_faults.increment(1);
        tracing::warn!("no new file of records could be begun: {e}; the present one grows on");
    }
    if let Some(e) = prune {
        counters.prune_faults.increment(1);
        tracing::warn!("old records could not be removed: {e}");
    }
}

/// Sleeps until someone sends, or files may have grown old. `idle` is set before the last look, so that a send in between is not missed.
fn wait_idle(shared: &Shared) {
    shared.idle.store(true, Ordering::Release);
    let nothing = lock(&shared.queue).is_empty();
    if nothing && !shared.closed.load(Ordering::Acquire) {
        std::thread::park_timeout(chain::TEND_EVERY);
    }
    shared.idle.store(false, Ordering::Release);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }
    fn limits() -> Limits {
        Limits {
            max_file_bytes: 1 << 20,
            keep_bytes: 1 << 30,
            keep_days: 30,
        }
    }

    #[test]
    fn what_is_sent_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let t = Telemetry::new();
        let (writer, _) = Writer::start(dir.path(), limits(), wall, &t).unwrap();
        let sink = writer.sink();
        for i in 0..100 {
            sink.send(Box::new(Record::open(&format!("r{i}"), 1, Default::default())));
        }
        writer.close();
        let lines = chain::tests::lines(dir.path());
        assert_eq!(lines.iter().filter(|l| l.contains(r#""id":"r"#)).count(), 100);
        assert!(t.render().contains(r#"weir_records_total{result="written"} 100"#));
        chain::tests::assert_chained(&lines);
    }

    #[test]
    fn an_idle_writer_lets_old_files_go() {
        use std::sync::atomic::AtomicU64;
        static NOW: AtomicU64 = AtomicU64::new(1_700_000_000);
        fn wall() -> SystemTime {
            UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed))
        }
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("chain-0-00000000.jsonl");
        std::fs::write(&old, "{}\n").unwrap();
        let file = std::fs::File::options().write(true).open(&old).unwrap();
        file.set_modified(wall()).unwrap();
        let (writer, _) = Writer::start(dir.path(), limits(), wall, &Telemetry::new()).unwrap();
        assert!(old.exists());
        NOW.fetch_add(31 * 86_400, Ordering::Relaxed);
        // In production its own patience ends; nothing is sent.
        let shared = writer.sink.0.clone().unwrap();
        let gone = (0..200_000).any(|_| {
            shared.writer.unpark();
            std::thread::yield_now();
            !old.exists()
        });
        assert!(gone);
        writer.close();
    }

    #[test]
    fn who_looks_on_sees_every_record_be_they_written_or_not() {
        struct Count(Arc<std::sync::atomic::AtomicU64>);
        impl Tap for Count {
            fn see(&mut self, _: &Record) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (dir, t) = (tempfile::tempdir().unwrap(), Telemetry::new());
        let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let tap = || Box::new(Count(Arc::clone(&seen)));
        let (writer, _) = Writer::tapped(dir.path(), limits(), wall, &t, Some(tap())).unwrap();
        let unwritten = Writer::unwritten(&t, tap()).unwrap();
        for sink in [writer.sink(), unwritten.sink()] {
            (0..10).for_each(|_| sink.send(Box::new(Record::open("r", 1, Default::default()))));
        }
        writer.close();
        unwritten.close();
        assert_eq!(seen.load(Ordering::Relaxed), 20);
        assert!(t.render().contains(r#"weir_records_total{result="written"} 10"#));
    }

    #[test]
    fn nowhere_is_fine() {
        Sink::none().send(Box::new(Record::default()));
    }
}
