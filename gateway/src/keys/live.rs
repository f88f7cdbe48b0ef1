//! The stored keys of a running gateway: the table that requests look into, and how it stands with the store.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use routing::plan::Plan;
use routing::units::Time;
use serde::Serialize;

use super::secret::Mac;
use super::stored::Row;
use super::table::{StoredKey, Table};
use crate::limits::{self, Owner, Store};

/// Why the store cannot be read; what was read of it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// For people.
    pub text: String,
}

/// A kind of fault: for metrics, a bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Another connection keeps the database.
    Locked,
    /// The database is not there any more.
    Gone,
    /// It cannot be read.
    Broken,
    /// The secret of its hashes is gone, or another one.
    Secret,
}

impl FaultKind {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Locked => "locked",
            FaultKind::Gone => "gone",
            FaultKind::Broken => "broken",
            FaultKind::Secret => "secret",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the store said when it was read last.
#[derive(Debug)]
pub struct Said {
    /// The keyed hash.
    pub mac: Mac,
    /// All keys that were ever made.
    pub rows: Vec<Row>,
}

/// How it stands with stored keys, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Keys that may be sent (expired ones included).
    pub known: usize,
    /// Why the store cannot be read now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Stored keys that do not count because a key of the plan has their name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<Arc<str>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Live {
    table: ArcSwap<Table>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Said>,
    fault: Option<Fault>,
    shadowed: Vec<Arc<str>>,
}

impl Live {
    /// What requests look into.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Takes over what the store says now, beside this plan's keys.
    pub fn read(&self, mut said: Said, plan: &Plan, meters: &dyn Store, now: Time) {
        said.rows.retain(|row| row.revoked_ms.is_none());
        self.state().said = Some(said);
        self.fit(plan, meters, now);
    }

    /// Another plan: its keys go before stored ones of the same name.
    pub fn fit(&self, plan: &Plan, meters: &dyn Store, now: Time) {
        let mut state = self.state();
        let Some(said) = &state.said else { return };
        let of_plan: HashSet<&str> = plan.keys.iter().map(|key| &*key.name).collect();
        let (mut keys, mut shadowed) = (Vec::new(), Vec::new());
        for row in &said.rows {
            if of_plan.contains(&*row.name) {
                shadowed.push(Arc::clone(&row.name));
            } else {
                keys.push((row.hash, Arc::new(key(row, meters, now))));
            }
        }
        let table = Table::new(Some(said.mac.clone()), keys);
        for name in shadowed.iter().filter(|name| !state.shadowed.contains(name)) {
            tracing::warn!(
                "stored key {name} does not count: the plan has a key of the same name, which goes before it; rename one of \
                 them, or `weir keys revoke {name}`"
            );
        }
        state.shadowed = shadowed;
        self.table.store(Arc::new(table));
    }

    /// The store cannot be read (`Some`), or it can again. `true`: that is news.
    pub fn stands(&self, fault: Option<Fault>) -> bool {
        let mut state = self.state();
        let kind = |fault: &Option<Fault>| fault.as_ref().map(|fault| fault.kind);
        let news = kind(&state.fault) != kind(&fault);
        state.fault = fault;
        news
    }

    /// Why a key that is not known here may be one all the same: the store could not be read since the start.
    pub fn unread(&self) -> Option<Fault> {
        let state = self.state();
        let never = state.said.is_none();
        state.fault.clone().filter(|_| never)
    }

    /// For `/readyz`.
    pub fn shown(&self) -> Shown {
        let state = self.state();
        Shown {
            known: self.table.load().len(),
            fault: state.fault.as_ref().map(ToString::to_string),
            shadowed: state.shadowed.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key with its meter, which is kept by name: a key that is made anew under a name goes on with what was used.
fn key(row: &Row, meters: &dyn Store, now: Time) -> StoredKey {
    StoredKey {
        name: Arc::clone(&row.name),
        tenant: Arc::clone(&row.tenant),
        class: row.class,
        routes: row.routes.clone(),
        limits: row.limits.clone(),
        expires_ms: row.expires_ms,
        meter: limits::meter_of(meters, Owner::Key(Arc::clone(&row.name)), &row.limits, now),
    }
}

#[cfg(test)]
mod tests {
    use routing::plan::{Class, Limits};

    use super::*;
    use crate::testing;

    fn row(name: &str, limits: Limits) -> Row {
        Row {
            name: name.into(),
            tenant: "t".into(),
            class: Class::Normal,
            routes: None,
            limits,
            created_ms: 1,
            expires_ms: None,
            revoked_ms: None,
            last_four: "abcd".into(),
            hash: Mac::new(&[1; 32]).of(format!("weir_sk_{name}").as_bytes()),
        }
    }
    fn said(rows: Vec<Row>) -> Said {
        Said {
            mac: Mac::new(&[1; 32]),
            rows,
        }
    }

    #[test]
    fn a_key_of_the_plan_goes_before_a_stored_one_of_its_name() {
        let (live, meters) = (Live::default(), limits::Local::default());
        let plan = |more: &str| testing::plan(&format!("[server]\nauth = \"keys\"\n{more}"));
        let keyed = plan("[[keys]]\nname = \"a\"\nkey = \"env:A\"\n");
        live.read(
            said(vec![row("a", Limits::default()), row("b", Limits::default())]),
            &keyed,
            &meters,
            Time(1),
        );
        assert!(live.table().find(b"weir_sk_a").is_none() && live.table().find(b"weir_sk_b").is_some());
        assert_eq!((live.shown().known, live.shown().shadowed), (1, vec!["a".into()]));
        live.fit(&plan(""), &meters, Time(2));
        assert!(live.table().find(b"weir_sk_a").is_some() && live.shown().shadowed.is_empty());
    }

    #[test]
    fn revoked_keys_are_not_there_and_meters_go_on_by_name() {
        let (live, meters, plan) = (Live::default(), limits::Local::default(), testing::plan(""));
        let limited = Limits {
            requests_per_minute: Some(1),
            ..Limits::default()
        };
        let meter = |live: &Live| live.table().find(b"weir_sk_a").and_then(|key| key.meter.clone());
        live.read(said(vec![row("a", limited.clone())]), &plan, &meters, Time(1));
        meter(&live).unwrap().request(Time(1)).unwrap();
        let revoked = Row {
            revoked_ms: Some(5),
            ..row("a", limited.clone())
        };
        live.read(said(vec![revoked]), &plan, &meters, Time(2));
        assert!(live.table().is_empty());
        live.read(said(vec![row("a", limited)]), &plan, &meters, Time(3));
        assert!(
            meter(&live).unwrap().request(Time(3)).is_err(),
            "made anew, and used all the same"
        );
        live.read(said(vec![row("a", Limits::default())]), &plan, &meters, Time(4));
        assert!(meter(&live).is_none());
    }

    #[test]
    fn a_fault_is_news_once_and_what_is_known_stays() {
        let (live, meters, plan) = (Live::default(), limits::Local::default(), testing::plan(""));
        let fault = |kind, text: &str| {
            Some(Fault {
                kind,
                text: text.to_owned(),
            })
        };
        assert!(!live.stands(None));
        assert!(live.stands(fault(FaultKind::Locked, "locked")));
        assert_eq!(live.unread().map(|f| f.kind), Some(FaultKind::Locked));
        live.read(said(vec![row("a", Limits::default())]), &plan, &meters, Time(1));
        assert!(!live.stands(fault(FaultKind::Locked, "still locked")));
        assert!(live.stands(fault(FaultKind::Gone, "gone")));
        assert_eq!(
            (live.shown().known, live.shown().fault.as_deref()),
            (1, Some("gone"))
        );
        assert_eq!(
            live.unread(),
            None,
            "it was read once: who is not known is not known"
        );
        assert!(live.stands(None) && live.shown().fault.is_none());
    }
}
