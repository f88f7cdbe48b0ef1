//! Our SQLite files: opened, brought up to the present schema, and what a failure of theirs means.
//!
//! No request ever waits for one of them: each belongs to a thread of its own, or to a command.

use std::fmt;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// Why a database cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another connection keeps it, for longer than was waited.
    Locked,
    /// A later program has made it: its schema, and the latest that this program knows.
    Newer(u32, u32),
    /// Anything else, for people.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Locked => f.write_str("another connection keeps it locked"),
            Trouble::Newer(found, known) => {
                write!(
                    f,
                    "a later weir made it (schema {found}, and {known} is the latest here)"
                )
            }
            Trouble::Broken(why) => f.write_str(why),
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(e: rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Locked,
            _ => Trouble::Broken(e.to_string()),
        }
    }
}

/// Opens a file that is there. `wait`: for as long another connection may keep it.
///
/// # Errors
/// It is not there, or is no database.
pub fn open(path: &Path, wait: Duration) -> Result<Connection, Trouble> {
    // To write, also for who only reads: what a killed writer has left half-done is taken back by the next one who opens it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(wait)?;
    Ok(db)
}

/// Opens a file, made where it is absent and readable for its owner alone, and brings its schema up to date: `schema`
/// has one step for each version, in order.
///
/// # Errors
/// It cannot be made, is no database, or a later program has made it.
pub fn create(path: &Path, schema: &[&str], wait: Duration) -> Result<Connection, Trouble> {
    let broken = |e: std::io::Error| Trouble::Broken(e.to_string());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(broken)?;
    }
    // SQLite would make it readable for everybody; its journals take over what it has.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(broken)?;
    let mut db = open(path, wait)?;
    migrate(&mut db, schema)?;
    Ok(db)
}

/// The schema's version: 0 for a file that nothing was written to yet.
///
/// # Errors
/// As any look into it.
pub fn version(db: &Connection) -> Result<u32, Trouble> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Tells a file from another one that has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of the file that is there now.
    ///
    /// # Errors
    /// None is, or it cannot be looked at.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let about = std::fs::metadata(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self(about.dev(), about.ino()))
        }
        #[cfg(not(unix))]
        Ok(Self(
            0,
            about
                .created()
                .map_or(0, |t| t.elapsed().map_or(0, |d| d.as_secs())),
        ))
    }
}

fn migrate(db: &mut Connection, schema: &[&str]) -> Result<(), Trouble> {
    let known = u32::try_from(schema.len()).unwrap_or(u32::MAX);
    if version(db)? == known {
        return Ok(());
    }
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again: another process may have been quicker.
    let found = version(&step)?;
    if found > known {
        return Err(Trouble::Newer(found, known));
    }
    for statements in schema.iter().skip(found as usize) {
        step.execute_batch(statements)?;
    }
    step.pragma_update(None, "user_version", known)?;
    step.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE t (a INTEGER);";
    const SECOND: &str = "ALTER TABLE t ADD COLUMN b INTEGER;";

    #[test]
    fn a_file_is_brought_up_to_date_once_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/x.sqlite");
        let db = create(&path, &[FIRST], Duration::ZERO).unwrap();
        db.execute("INSERT INTO t VALUES (7)", []).unwrap();
        drop(db);
        let db = create(&path, &[FIRST, SECOND], Duration::ZERO).unwrap();
        let kept: i64 = db
            .query_row("SELECT a FROM t WHERE b IS NULL", [], |r| r.get(0))
            .unwrap();
        assert_eq!((kept, version(&db)), (7, Ok(2)));
        drop(db);
        let older = create(&path, &[FIRST], Duration::ZERO).unwrap_err();
        assert_eq!(older, Trouble::Newer(2, 1));
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        let broken = create(&path, &[FIRST, "no SQL"], Duration::ZERO).unwrap_err();
        assert!(matches!(broken, Trouble::Broken(_)), "{broken}");
        assert_eq!(version(&create(&path, &[FIRST], Duration::ZERO).unwrap()), Ok(1));
    }

    #[test]
    fn locked_and_broken_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        let holder = create(&path, &[FIRST], Duration::ZERO).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let other = open(&path, Duration::ZERO).unwrap();
        assert_eq!(version(&other), Err(Trouble::Locked));
        drop(holder);
        std::fs::write(&path, "not a database at all, for many bytes".repeat(100)).unwrap();
        let other = open(&path, Duration::ZERO).and_then(|db| version(&db));
        assert!(matches!(other, Err(Trouble::Broken(_))), "{other:?}");
        assert!(open(&dir.path().join("absent"), Duration::ZERO).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        create(&path, &[FIRST], Duration::ZERO).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
