//! Calls that run now and may be joined, one for each question.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flight::{Flight, Reader};
use super::key::Key;

/// Tables, so that cores seldom meet at one.
const SHARDS: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Flights {
    shards: [Mutex<HashMap<Key, Arc<Flight>>>; SHARDS],
}

/// A place at a question.
pub enum Boarded {
    /// Somebody asks the same: read along.
    Joined(Reader),
    /// Nobody does: this one leads.
    Leads(Reader),
}

impl Flights {
    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        // The index is below the array's length.
        let at = key.shard() % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight to this question, or begins one (`begin` makes it, with its first reader); who waits for a flight that
    /// has come to nothing leads the next.
    pub fn board(&self, key: &Key, begin: impl FnOnce() -> Reader) -> Boarded {
        let mut shard = self.shard(key);
        if let Entry::Occupied(entry) = shard.entry(key.clone())
            && let Some(reader) = entry.get().join()
        {
            return Boarded::Joined(reader);
        }
        let reader = begin();
        shard.insert(key.clone(), Arc::clone(reader.flight()));
        Boarded::Leads(reader)
    }

    /// Somebody asks this now, and it may be joined.
    pub fn has(&self, key: &Key) -> bool {
        self.shard(key).get(key).is_some_and(|flight| flight.is_open())
    }

    /// This flight can no longer be joined.
    pub fn remove(&self, key: &Key, flight: &Arc<Flight>) {
        let mut shard = self.shard(key);
        if shard.get(key).is_some_and(|f| Arc::ptr_eq(f, flight)) {
            shard.remove(key);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sum(HashMap::len)
    }

    /// How many requests read them.
    pub fn readers(&self) -> usize {
        self.sum(|flights| flights.values().map(|f| f.readers()).sum())
    }

    fn sum(&self, of: impl Fn(&HashMap<Key, Arc<Flight>>) -> usize) -> usize {
        let shards = self.shards.iter();
        shards
            .map(|s| of(&s.lock().unwrap_or_else(PoisonError::into_inner)))
            .sum()
    }

    /// None runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
