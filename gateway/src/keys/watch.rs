//! A thread that watches the store of keys for a running gateway: what a command changes there counts within a quarter of
//! a second. Requests never wait for it, and what it cannot read leaves the keys that are known as they are.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Counter, Gauge};
use rusqlite::Connection;

use super::live::{Fault, FaultKind, Live, Said};
use super::store::{self, Places};
use crate::sqlite::{self, FileId, Trouble};
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);
/// How long a command may keep the database before that is told.
const WAIT: Duration = Duration::from_millis(400);
/// Faults, for metrics.
const FAULTS: [FaultKind; 4] = [
    FaultKind::Locked,
    FaultKind::Gone,
    FaultKind::Broken,
    FaultKind::Secret,
];

/// The thread. Dropping it ends it.
pub struct Watcher {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Reads the store in the folder for data, so that its keys count from the first request on, and watches it from then
    /// on. `hear` takes over what it says.
    ///
    /// # Errors
    /// No thread could be started. What was read counts all the same.
    pub fn start(
        data: &Path,
        live: Arc<Live>,
        telemetry: Telemetry,
        hear: impl Fn(Said) + Send + 'static,
    ) -> io::Result<Self> {
        let mut eye = Eye::new(Places::of(data), WAIT);
        let handles = Handles::new(&telemetry);
        let mut look = move || {
            let seen = eye.look().map(|said| said.map(&hear));
            tell(&live, &handles, seen);
        };
        look();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("weir-keys".into())
            .spawn(move || {
                while !until.load(Ordering::Acquire) {
                    std::thread::park_timeout(EVERY);
                    look();
                }
            })?;
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Handles {
    known: Gauge,
    ok: Gauge,
    faults: [(FaultKind, Counter); FAULTS.len()],
}

impl Handles {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            known: telemetry.gauge(Name::StoredKeys, &[]),
            ok: telemetry.gauge(Name::KeyStoreOk, &[]),
            faults: FAULTS.map(|kind| (kind, telemetry.counter(Name::KeyStoreFaults, &[kind.as_str()]))),
        }
    }
}

/// Says once what is wrong, and once that it is well again. `Some`: something new was heard.
fn tell(live: &Live, handles: &Handles, seen: Result<Option<()>, Fault>) {
    let known = live.shown().known;
    if let Ok(Some(())) = seen {
        tracing::info!("{known} stored keys may call");
    }
    let fault = seen.err();
    handles.known.set(known as f64);
    handles.ok.set(if fault.is_none() { 1.0 } else { 0.0 });
    if !live.stands(fault.clone()) {
        return;
    }
    match fault {
        Some(fault) => {
            if let Some((_, counter)) = handles.faults.iter().find(|(kind, _)| *kind == fault.kind) {
                counter.increment(1);
            }
            tracing::error!(
                "stored keys cannot be read: {fault}. The {known} that are known go on; what is created or revoked now \
                 counts once they can be read"
            );
        }
        None => tracing::info!("stored keys can be read again"),
    }
}

/// What looks.
struct Eye {
    places: Places,
    wait: Duration,
    open: Option<Open>,
    /// Keys were read since the start.
    read: bool,
}

/// An open database, and what was read of it.
struct Open {
    db: Connection,
    file: FileId,
    /// SQLite's own count of what others have changed.
    version: Option<i64>,
}

impl Eye {
    fn new(places: Places, wait: Duration) -> Self {
        Self {
            places,
            wait,
            open: None,
            read: false,
        }
    }

    /// `Some`: it says something new.
    fn look(&mut self) -> Result<Option<Said>, Fault> {
        let database = &self.places.database;
        let of = |trouble: Trouble| {
            let kind = match trouble {
                Trouble::Locked => FaultKind::Locked,
                Trouble::Newer(..) | Trouble::Broken(_) => FaultKind::Broken,
            };
            Fault {
                kind,
                text: format!("{}: {trouble}", database.display()),
            }
        };
        let file = match FileId::of(database) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.open = None;
                return self.nothing(format!("{} is not there any more", database.display()));
            }
            Err(e) => return Err(of(Trouble::Broken(e.to_string()))),
        };
        if self.open.as_ref().is_none_or(|open| open.file != file) {
            // A connection to a file that is gone would go on reading it.
            self.open = None;
            let db = sqlite::open(database, self.wait).map_err(of)?;
            self.open = Some(Open {
                db,
                file,
                version: None,
            });
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        // Looked at before it is read: what changes in between is read again.
        let version: i64 = open
            .db
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(|e| of(e.into()))?;
        if open.version == Some(version) {
            return Ok(None);
        }
        let Some(known) = store::known(&open.db).map_err(of)? else {
            return self.nothing(format!("{} is empty", self.places.database.display()));
        };
        let mac = store::mac(&known, &self.places).map_err(|text| Fault {
            kind: FaultKind::Secret,
            text,
        })?;
        open.version = Some(version);
        self.read = true;
        Ok(Some(Said {
            mac,
            rows: known.rows,
        }))
    }

    /// There are no keys: as it should be before the first one is made, and a fault after that.
    fn nothing(&self, text: String) -> Result<Option<Said>, Fault> {
        if self.read || self.places.secret.exists() {
            return Err(Fault {
                kind: FaultKind::Gone,
                text,
            });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use routing::plan::{Class, Limits};

    use super::*;
    use crate::keys::store::{New, create, revoke};

    fn new(name: &str) -> New {
        New {
            name: name.into(),
            tenant: "t".into(),
            class: Class::Normal,
            routes: None,
            limits: Limits::default(),
            expires_ms: None,
        }
    }

    struct Home {
        dir: tempfile::TempDir,
        places: Places,
        eye: Eye,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let places = Places::of(dir.path());
            let eye = Eye::new(places.clone(), Duration::ZERO);
            Self { dir, places, eye }
        }
        /// How many keys are told that are not revoked; `None`: nothing new.
        fn looks(&mut self) -> Result<Option<usize>, FaultKind> {
            let seen = self.eye.look().map_err(|fault| fault.kind)?;
            Ok(seen.map(|said| said.rows.iter().filter(|row| row.revoked_ms.is_none()).count()))
        }
    }

    #[test]
    fn what_changes_is_seen_once() {
        let mut home = Home::new();
        assert_eq!(home.looks(), Ok(None), "no key was ever made");
        create(&home.places, new("a"), 1).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
        assert_eq!(home.looks(), Ok(None));
        create(&home.places, new("b"), 1).unwrap();
        assert_eq!(home.looks(), Ok(Some(2)));
        revoke(&home.places, "a", 2).unwrap();
        assert_eq!((home.looks(), home.looks()), (Ok(Some(1)), Ok(None)));
        revoke(&home.places, "a", 3).unwrap();
        assert_eq!(home.looks(), Ok(None), "nothing was changed");
    }

    #[test]
    fn a_locked_store_is_a_fault_until_it_is_let_go() {
        let mut home = Home::new();
        create(&home.places, new("a"), 1).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
        let other = sqlite::open(&home.places.database, Duration::ZERO).unwrap();
        other
            .execute_batch("BEGIN EXCLUSIVE; UPDATE keys SET revoked_ms = 7")
            .unwrap();
        assert_eq!(home.looks(), Err(FaultKind::Locked));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(home.looks(), Ok(Some(0)));
    }

    #[test]
    fn a_store_that_is_gone_is_a_fault_and_one_that_comes_back_is_read() {
        let mut home = Home::new();
        create(&home.places, new("a"), 1).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
        let away = home.dir.path().join("away");
        std::fs::rename(&home.places.database, &away).unwrap();
        assert_eq!(home.looks(), Err(FaultKind::Gone));
        // Another process begins a file in its place, and has not come far.
        std::fs::write(&home.places.database, "").unwrap();
        assert_eq!(home.looks(), Err(FaultKind::Gone));
        std::fs::rename(&away, &home.places.database).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
        // Gone before the start: its secret tells that there were keys.
        std::fs::remove_file(&home.places.database).unwrap();
        let mut after = Eye::new(home.places.clone(), Duration::ZERO);
        assert_eq!(after.look().unwrap_err().kind, FaultKind::Gone);
    }

    #[test]
    fn what_is_no_database_is_a_fault() {
        let mut home = Home::new();
        create(&home.places, new("a"), 1).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
        std::fs::write(home.dir.path().join("noise"), "noise ".repeat(4_000)).unwrap();
        std::fs::rename(home.dir.path().join("noise"), &home.places.database).unwrap();
        assert_eq!(home.looks(), Err(FaultKind::Broken));
        assert_eq!(home.looks(), Err(FaultKind::Broken), "again and again");
    }

    #[test]
    fn another_secret_is_a_fault() {
        let mut home = Home::new();
        create(&home.places, new("a"), 1).unwrap();
        let right = std::fs::read(&home.places.secret).unwrap();
        std::fs::write(&home.places.secret, "11".repeat(32)).unwrap();
        assert_eq!(home.looks(), Err(FaultKind::Secret));
        std::fs::write(&home.places.secret, right).unwrap();
        assert_eq!(home.looks(), Ok(Some(1)));
    }
}
