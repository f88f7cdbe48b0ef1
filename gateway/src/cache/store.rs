//! Answers that are kept: by question (exact), and by the name that a caller gave its request (`idempotency-key`).
//!
//! moka bounds both by weight. Age is read from the one clock; moka's own expiry only frees what nobody could use any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use routing::plan::Plan;
use routing::plan::memory::{NAMED_PART, SEMANTIC_PART};
use routing::units::Time;

use super::key::Key;
use crate::providers::render::Kept;

/// How long an answer is kept under its caller's name for it.
pub const NAMED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// What an entry takes beside its key and answer.
const OVERHEAD: usize = 256;
/// One entry takes at most so much of its store.
const LARGEST_PART: u64 = 8;

/// An answer with all that is told of it.
#[derive(Debug)]
pub struct Entry {
    /// What was said.
    pub kept: Kept,
    /// Name of the target that said it.
    pub target: Arc<str>,
    /// Its tier in the cascade that was used.
    pub tier: u8,
    /// `x-weir-verified` and `x-weir-verdict`.
    pub verified: Box<str>,
    /// See `verified`.
    pub verdict: Box<str>,
    /// Its figures, for the record.
    pub usage: Option<crate::telemetry::record::Usage>,
    /// When it was whole.
    pub born: Time,
    /// After that nobody may have it, stale or not.
    pub lives: Duration,
    /// Hash of the body that it answers, where its key is only a name.
    pub body: [u8; 32],
}

impl Entry {
    /// How old it is.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.born)
    }
}

struct Lives;

impl Expiry<Key, Arc<Entry>> for Lives {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.lives)
    }
}

/// One store with its bound.
#[derive(Clone)]
pub struct Store {
    entries: Cache<Key, Arc<Entry>>,
    max_bytes: u64,
}

impl Store {
    fn new(max_bytes: u64, policy: EvictionPolicy) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, entry: &Arc<Entry>| weight(key, entry))
            .eviction_policy(policy)
            .expire_after(Lives)
            .build();
        Self { entries, max_bytes }
    }

    /// The answer under this key, fresh or not.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// Keeps an answer, unless it is too large for one.
    pub fn put(&self, key: Key, entry: Arc<Entry>) -> bool {
        let fits = u64::from(weight(&key, &entry)) <= self.max_bytes / LARGEST_PART;
        if fits {
            self.entries.insert(key, entry);
        }
        fits
    }

    /// How many there are, and their bytes. Brings what is pending up to date first.
    pub fn held(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.entries.invalidate_all();
        self.entries.run_pending_tasks();
    }
}

fn weight(key: &Key, entry: &Entry) -> u32 {
    let told = entry.verified.len() + entry.verdict.len() + entry.target.len();
    u32::try_from(OVERHEAD + key.held_bytes() + entry.kept.held_bytes() + told).unwrap_or(u32::MAX)
}

/// Both stores, for one bound, and what of it is left to questions that mean the same.
#[derive(Clone)]
pub struct Stores {
    /// By question: what is asked often stays.
    pub exact: Store,
    /// By name: the oldest goes first, since a name is asked for again soon or never.
    pub named: Store,
    /// How much is kept.
    pub size: Size,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// `[cache] max_bytes`.
    pub max_bytes: u64,
    /// A part of it is for questions that mean the same.
    pub semantic: bool,
}

impl Size {
    /// As the plan says.
    pub fn of(plan: &Plan) -> Self {
        Self {
            max_bytes: plan.cache.max_bytes,
            semantic: plan.routes.iter().any(|r| r.cache.semantic),
        }
    }

    /// Bytes for questions that mean the same.
    pub fn semantic_bytes(self) -> u64 {
        if self.semantic {
            self.max_bytes / SEMANTIC_PART
        } else {
            0
        }
    }
}

impl Stores {
    /// Empty ones.
    pub fn new(size: Size) -> Self {
        let named = size.max_bytes / NAMED_PART;
        let exact = size.max_bytes - named - size.semantic_bytes();
        Self {
            exact: Store::new(exact, EvictionPolicy::tiny_lfu()),
            named: Store::new(named, EvictionPolicy::lru()),
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            kept: Kept::wire(&vec![b'x'; bytes]),
            target: "m".into(),
            tier: 0,
            verified: "full".into(),
            verdict: "pass".into(),
            usage: None,
            born: Time(1),
            lives: Duration::from_secs(60),
            body: [0; 32],
        })
    }

    fn key(n: usize) -> Key {
        Key::named("t", &n.to_string())
    }

    #[test]
    fn bytes_are_bounded_and_what_is_too_large_is_not_kept() {
        let stores = Stores::new(Size {
            max_bytes: 80_000,
            semantic: false,
        });
        for n in 0..1_000 {
            stores.exact.put(key(n), entry(1_000));
            stores.named.put(key(n), entry(500));
        }
        let ((_, exact), (count, named)) = (stores.exact.held(), stores.named.held());
        assert!(exact <= 70_000 && exact > 35_000, "{exact}");
        assert!(named <= 10_000 && count > 4, "{named} in {count}");
        assert!(
            stores.named.get(&key(999)).is_some(),
            "the newest of the named stays"
        );
        assert!(!stores.exact.put(key(0), entry(10_000)));
        stores.exact.clear();
        assert_eq!(stores.exact.held(), (0, 0));
    }
}
