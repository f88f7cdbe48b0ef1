//! The database of stored keys, as commands change it: one file, `keys.sqlite`, beside the secret of its hashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use routing::plan::{Class, Limits};
use routing::units::NanoUsd;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, named_params};

use super::secret::{self, Hash, Mac, NoSecret};
use super::stored::{self, Row};
use crate::sqlite::{self, Trouble};

/// How long a command waits for another one. Each of them takes milliseconds.
const WAIT: Duration = Duration::from_secs(5);

/// Its schema, step by step. A key that was revoked stays, so that records and usage can be read with it; its name is
/// free again.
const SCHEMA: &[&str] = &["
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        tenant TEXT NOT NULL,
        class TEXT NOT NULL,
        routes TEXT,
        requests_per_minute INTEGER,
        tokens_per_minute INTEGER,
        concurrency INTEGER,
        nano_usd_per_day INTEGER,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        revoked_ms INTEGER,
        last_four TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE
    );
    CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked_ms IS NULL;
    CREATE TABLE about (what TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"];

/// Where stored keys are, in a home.
#[derive(Clone, Debug)]
pub struct Places {
    /// The database.
    pub database: PathBuf,
    /// The secret of its hashes.
    pub secret: PathBuf,
}

impl Places {
    /// In the folder for data.
    pub fn of(data: &Path) -> Self {
        Self {
            database: data.join("keys.sqlite"),
            secret: data.join("keys.secret"),
        }
    }
}

/// A key that is to be made.
#[derive(Clone, Debug)]
pub struct New {
    /// Its name.
    pub name: Arc<str>,
    /// Who pays.
    pub tenant: Arc<str>,
    /// Priority.
    pub class: Class,
    /// What it may name; `None` is everything.
    pub routes: Option<Vec<Arc<str>>>,
    /// Its limits.
    pub limits: Limits,
    /// From when on it counts no more.
    pub expires_ms: Option<u64>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum No {
    /// There is a key of this name already.
    Taken,
    /// There is none of this name.
    Unknown,
    /// The secret is gone, or is another one than the keys were made with: for people.
    Secret(String),
    /// The operating system gives no random numbers: for people.
    Random(String),
    /// The database cannot be used.
    Database(Trouble),
}

impl From<Trouble> for No {
    fn from(trouble: Trouble) -> Self {
        No::Database(trouble)
    }
}

impl From<rusqlite::Error> for No {
    fn from(e: rusqlite::Error) -> Self {
        No::Database(e.into())
    }
}

/// Makes a key: what is kept of it, and the key itself, which nobody can show again.
///
/// # Errors
/// See [`No`]; nothing was kept then.
pub fn create(places: &Places, new: New, unix_ms: u64) -> Result<(Row, String), No> {
    let mut db = sqlite::create(&places.database, SCHEMA, WAIT)?;
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mac = mac_to_make_with(&change, places)?;
    let taken: Option<i64> = change
        .query_row(
            "SELECT id FROM keys WHERE name = :name AND revoked_ms IS NULL",
            named_params! { ":name": &*new.name },
            |row| row.get(0),
        )
        .optional()?;
    if taken.is_some() {
        return Err(No::Taken);
    }
    let key = secret::new_key().map_err(|e| No::Random(e.to_string()))?;
    let last_four = key.get(key.len().saturating_sub(4)..).unwrap_or_default();
    let row = Row {
        name: new.name,
        tenant: new.tenant,
        class: new.class,
        routes: new.routes.map(Into::into),
        limits: new.limits,
        created_ms: unix_ms,
        expires_ms: new.expires_ms,
        revoked_ms: None,
        last_four: last_four.into(),
        hash: mac.of(key.as_bytes()),
    };
    put(&change, &row)?;
    change.commit()?;
    Ok((row, key))
}

/// Takes a key back. `false`: that was done before.
///
/// # Errors
/// See [`No`].
pub fn revoke(places: &Places, name: &str, unix_ms: u64) -> Result<bool, No> {
    if !places.database.exists() {
        return Err(No::Unknown);
    }
    let mut db = sqlite::create(&places.database, SCHEMA, WAIT)?;
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let revoked = change.execute(
        "UPDATE keys SET revoked_ms = :now WHERE name = :name AND revoked_ms IS NULL",
        named_params! { ":now": signed(unix_ms), ":name": name },
    )?;
    if revoked == 0 {
        let known: i64 = change.query_row(
            "SELECT count(*) FROM keys WHERE name = :name",
            named_params! { ":name": name },
            |row| row.get(0),
        )?;
        return if known > 0 { Ok(false) } else { Err(No::Unknown) };
    }
    change.commit()?;
    Ok(true)
}

/// All keys that were ever made, in the order in which they were. None when there is no database.
///
/// # Errors
/// The database cannot be used.
pub fn list(places: &Places) -> Result<Vec<Row>, No> {
    if !places.database.exists() {
        return Ok(Vec::new());
    }
    let db = sqlite::open(&places.database, WAIT)?;
    Ok(known(&db)?.map(|known| known.rows).unwrap_or_default())
}

/// What a database says.
#[derive(Debug)]
pub struct Known {
    /// All keys that were ever made.
    pub rows: Vec<Row>,
    /// What the secret of their hashes gives when it is the right one.
    pub check: Option<Hash>,
}

/// Reads all of it. `None`: nothing was ever written to it.
///
/// # Errors
/// It is locked, broken, or a later program has made it.
pub fn known(db: &Connection) -> Result<Option<Known>, Trouble> {
    // One transaction: what is read belongs together.
    let look = db.unchecked_transaction()?;
    let (found, known) = (sqlite::version(&look)?, u32::try_from(SCHEMA.len()).unwrap_or(0));
    if found == 0 {
        return Ok(None);
    }
    if found > known {
        return Err(Trouble::Newer(found, known));
    }
    let mut all = look.prepare("SELECT * FROM keys ORDER BY id")?;
    let rows = all.query_map([], row)?.collect::<Result<Vec<Row>, _>>()?;
    let check = check(&look)?;
    Ok(Some(Known { rows, check }))
}

/// The keyed hash that the database's keys were made with.
///
/// # Errors
/// The secret is gone, unfit, or another one. For people.
pub fn mac(known: &Known, places: &Places) -> Result<Mac, String> {
    let found = secret::read(&places.secret).map(|secret| Mac::new(&secret));
    let made_with = |mac: &Mac| known.check.is_none_or(|check| check == mac.check());
    match found {
        Ok(mac) if made_with(&mac) => Ok(mac),
        Ok(_) => Err(another_secret(places)),
        Err(NoSecret::Absent) => Err(no_secret(places)),
        Err(NoSecret::Unfit(why)) => Err(why),
    }
}

fn mac_to_make_with(db: &Connection, places: &Places) -> Result<Mac, No> {
    let Some(check) = check(db)? else {
        let secret = secret::read_or_make(&places.secret).map_err(No::Secret)?;
        let mac = Mac::new(&secret);
        db.execute(
            "INSERT INTO about (what, value) VALUES ('secret', :check)",
            named_params! { ":check": mac.check() },
        )?;
        return Ok(mac);
    };
    // A new one must not be made in silence: no key that there is would be known any more.
    let known = Known {
        rows: Vec::new(),
        check: Some(check),
    };
    mac(&known, places).map_err(No::Secret)
}

fn no_secret(places: &Places) -> String {
    format!(
        "{} is gone: without it no key of {} can be recognised. Put it back from a backup, or move both away and make new keys",
        places.secret.display(),
        places.database.display()
    )
}

fn another_secret(places: &Places) -> String {
    format!(
        "{} is not the secret that the keys of {} were made with. Put the right one back, or move both away and make new keys",
        places.secret.display(),
        places.database.display()
    )
}

fn check(db: &Connection) -> Result<Option<Hash>, rusqlite::Error> {
    db.query_row("SELECT value FROM about WHERE what = 'secret'", [], |row| {
        row.get(0)
    })
    .optional()
}

fn put(db: &Connection, row: &Row) -> Result<(), rusqlite::Error> {
    let routes = row.routes.as_ref().map(|routes| {
        let routes: Vec<&str> = routes.iter().map(|r| &**r).collect();
        serde_json::to_string(&routes).unwrap_or_default()
    });
    db.execute(
        "INSERT INTO keys (name, tenant, class, routes, requests_per_minute, tokens_per_minute, concurrency,
            nano_usd_per_day, created_ms, expires_ms, last_four, hash)
         VALUES (:name, :tenant, :class, :routes, :requests, :tokens, :concurrency, :money, :created, :expires, :last,
            :hash)",
        named_params! {
            ":name": &*row.name,
            ":tenant": &*row.tenant,
            ":class": stored::word(row.class),
            ":routes": routes,
            ":requests": row.limits.requests_per_minute.map(signed),
            ":tokens": row.limits.tokens_per_minute.map(signed),
            ":concurrency": row.limits.concurrency,
            ":money": row.limits.usd_per_day.map(|money| signed(money.0)),
            ":created": signed(row.created_ms),
            ":expires": row.expires_ms.map(signed),
            ":last": &*row.last_four,
            ":hash": row.hash,
        },
    )?;
    Ok(())
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    let text = |column: &str| row.get::<_, String>(column).map(Arc::<str>::from);
    let number = |column: &str| {
        let found: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(found.map(|n| u64::try_from(n).unwrap_or(0)))
    };
    // What this program does not know must not open what the key was not given.
    let unknown = |what: String| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, what.into());
    let class = text("class")?;
    let class = stored::class(&class).ok_or_else(|| unknown(format!("a key has the class `{class}`")))?;
    let routes = row.get::<_, Option<String>>("routes")?;
    let routes = routes.map(|json| serde_json::from_str::<Vec<Arc<str>>>(&json));
    let routes = routes
        .transpose()
        .map_err(|_| unknown("a key's routes are no list".to_owned()))?;
    Ok(Row {
        name: text("name")?,
        tenant: text("tenant")?,
        class,
        routes: routes.map(Into::into),
        limits: Limits {
            requests_per_minute: number("requests_per_minute")?,
            tokens_per_minute: number("tokens_per_minute")?,
            concurrency: row.get("concurrency")?,
            usd_per_day: number("nano_usd_per_day")?.map(NanoUsd),
            queue: None,
        },
        created_ms: number("created_ms")?.unwrap_or(0),
        expires_ms: number("expires_ms")?,
        revoked_ms: number("revoked_ms")?,
        last_four: text("last_four")?,
        hash: row.get("hash")?,
    })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::stored::State;

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

    #[test]
    fn what_is_made_is_kept_but_for_the_key_itself() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path());
        assert!(list(&places).unwrap().is_empty() && !places.database.exists());
        let full = New {
            class: Class::Low,
            routes: Some(vec!["auto".into(), "a,b".into()]),
            limits: Limits {
                requests_per_minute: Some(1),
                tokens_per_minute: Some(1_000_000_000_000),
                concurrency: Some(3),
                usd_per_day: Some(NanoUsd(1)),
                queue: None,
            },
            expires_ms: Some(99),
            ..new("full")
        };
        let (made, key) = create(&places, full, 5).unwrap();
        let (plain, other) = create(&places, new("plain"), 6).unwrap();
        assert_ne!(key, other);
        assert_eq!(list(&places).unwrap(), [made.clone(), plain]);
        assert!(key.ends_with(&*made.last_four));
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
            assert!(!holds(&key) && !holds(&key[8..]) && !holds(&other[8..]));
        }
        let known = known(&sqlite::open(&places.database, WAIT).unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(mac(&known, &places).unwrap().of(key.as_bytes()), made.hash);
    }

    #[test]
    fn a_name_is_taken_until_its_key_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path());
        assert!(matches!(revoke(&places, "a", 1), Err(No::Unknown)));
        create(&places, new("a"), 1).unwrap();
        assert!(matches!(create(&places, new("a"), 2), Err(No::Taken)));
        assert!(matches!(revoke(&places, "b", 3), Err(No::Unknown)));
        assert!(revoke(&places, "a", 3).unwrap());
        assert!(!revoke(&places, "a", 4).unwrap(), "told, and no mistake");
        create(&places, new("a"), 5).unwrap();
        let states: Vec<State> = list(&places).unwrap().iter().map(|row| row.state(9)).collect();
        assert_eq!(states, [State::Revoked, State::Live]);
        assert_eq!(list(&places).unwrap()[0].revoked_ms, Some(3));
    }

    #[test]
    fn commands_at_the_same_time_make_one_secret_and_every_key() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path());
        let keys: Vec<String> = std::thread::scope(|scope| {
            let places = &places;
            let running: Vec<_> = (0..8)
                .map(|i| scope.spawn(move || create(places, new(&format!("k{i}")), 1).unwrap().1))
                .collect();
            running.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let known = known(&sqlite::open(&places.database, WAIT).unwrap())
            .unwrap()
            .unwrap();
        let mac = mac(&known, &places).unwrap();
        for key in &keys {
            let hash = mac.of(key.as_bytes());
            assert!(known.rows.iter().any(|row| row.hash == hash));
        }
        assert_eq!(known.rows.len(), keys.len());
    }

    #[test]
    fn without_its_secret_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path());
        create(&places, new("a"), 1).unwrap();
        let right = std::fs::read(&places.secret).unwrap();
        std::fs::remove_file(&places.secret).unwrap();
        let Err(No::Secret(why)) = create(&places, new("b"), 2) else {
            panic!("no new secret")
        };
        assert!(why.contains("is gone") && !places.secret.exists(), "{why}");
        std::fs::write(&places.secret, "00".repeat(32)).unwrap();
        let Err(No::Secret(why)) = create(&places, new("b"), 2) else {
            panic!("another secret")
        };
        assert!(why.contains("is not the secret"), "{why}");
        std::fs::write(&places.secret, right).unwrap();
        create(&places, new("b"), 2).unwrap();
    }

    #[test]
    fn a_class_that_is_not_known_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path());
        create(&places, new("a"), 1).unwrap();
        let db = sqlite::open(&places.database, WAIT).unwrap();
        db.execute("UPDATE keys SET class = 'royal'", []).unwrap();
        assert!(matches!(known(&db), Err(Trouble::Broken(_))));
    }
}
