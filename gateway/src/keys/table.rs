//! Stored keys in memory, as step 3 looks into them: immutable, swapped whole.
//!
//! They are sorted by their keyed hash and found by halving: where a look-up goes, and so how long it takes, hangs on the
//! hash of what was sent under a secret that the sender does not have, and tells him nothing. The hash itself is compared
//! to its end.

use std::sync::Arc;

use routing::plan::{Class, Limits};

use super::secret::{Hash, Mac, PREFIX};
use crate::limits::Meter;

/// A stored key that may be sent.
#[derive(Debug)]
pub struct StoredKey {
    /// Its name.
    pub name: Arc<str>,
    /// Who pays.
    pub tenant: Arc<str>,
    /// Priority.
    pub class: Class,
    /// What it may name; `None` is everything.
    pub routes: Option<Arc<[Arc<str>]>>,
    /// Its own limits.
    pub limits: Limits,
    /// From when on it counts no more, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Its meter, when it has a limit.
    pub meter: Option<Arc<Meter>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    mac: Option<Mac>,
    keys: Vec<(Hash, Arc<StoredKey>)>,
}

impl Table {
    /// Of these keys, hashed so.
    pub fn new(mac: Option<Mac>, mut keys: Vec<(Hash, Arc<StoredKey>)>) -> Self {
        keys.sort_by_key(|(hash, _)| *hash);
        Self { mac, keys }
    }

    /// The key that was sent; expired ones too.
    pub fn find(&self, sent: &[u8]) -> Option<&Arc<StoredKey>> {
        let mac = self.mac.as_ref().filter(|_| may_be_stored(sent))?;
        let asked = mac.of(sent);
        let from = self.keys.partition_point(|(hash, _)| front(hash) < front(&asked));
        let near = self.keys.get(from..).unwrap_or_default();
        let near = near.iter().take_while(|(hash, _)| front(hash) == front(&asked));
        let mut found = None;
        for (hash, key) in near {
            let differs = hash.iter().zip(asked).fold(0_u8, |acc, (a, b)| acc | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(key);
            }
        }
        found
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// It begins as stored keys do. No secret is in that.
pub fn may_be_stored(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}

/// The first eight bytes: no two hashes have the same, as good as never.
fn front(hash: &Hash) -> u64 {
    let (front, _) = hash.split_at(8);
    front.iter().fold(0, |acc, byte| acc << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Arc<StoredKey> {
        Arc::new(StoredKey {
            name: name.into(),
            tenant: "t".into(),
            class: Class::Normal,
            routes: None,
            limits: Limits::default(),
            expires_ms: None,
            meter: None,
        })
    }

    #[test]
    fn every_key_is_found_and_nothing_else() {
        let mac = Mac::new(&[7; 32]);
        let sent: Vec<String> = (0..500).map(|i| format!("{PREFIX}{i}")).collect();
        let keys = sent.iter().map(|key| (mac.of(key.as_bytes()), named(key)));
        let table = Table::new(Some(mac.clone()), keys.collect());
        assert_eq!(table.len(), 500);
        for key in &sent {
            assert_eq!(*table.find(key.as_bytes()).unwrap().name, **key);
        }
        for no in ["", PREFIX, "weir_sk_500", "weir_sk_7 ", "WEIR_SK_7", "7"] {
            assert!(table.find(no.as_bytes()).is_none(), "{no}");
        }
        assert!(Table::default().find(b"weir_sk_7").is_none());
        let elsewhere = Table::new(Some(Mac::new(&[8; 32])), vec![(mac.of(b"weir_sk_7"), named("a"))]);
        assert!(elsewhere.find(b"weir_sk_7").is_none(), "another secret");
    }

    #[test]
    fn the_whole_hash_is_compared() {
        let mac = Mac::new(&[7; 32]);
        let right = mac.of(b"weir_sk_a");
        // All but one bit, at every byte; those with the same first eight bytes stand beside it.
        for at in 0..32 {
            let mut wrong = right;
            wrong[at] ^= 1;
            let table = Table::new(Some(mac.clone()), vec![(wrong, named("wrong"))]);
            assert!(table.find(b"weir_sk_a").is_none(), "{at}");
            let both = vec![(wrong, named("wrong")), (right, named("right"))];
            let table = Table::new(Some(mac.clone()), both);
            assert_eq!(&*table.find(b"weir_sk_a").unwrap().name, "right", "{at}");
        }
    }
}
