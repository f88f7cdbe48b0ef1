//! Entries by partition, and the decision for one look-up.

use std::collections::{BTreeMap, HashMap};

use super::entry::{Observation, Observations, Pool};
use super::evidence::Verdict;
use super::governor::Governor;
use super::guards::{self, Guard};
use super::partition::Partition;
use super::text::Ask;
use super::vector::Vector;
use crate::balance::{mix, unit};
use crate::units::Time;

/// Questions that are less alike than this are not compared.
pub const FLOOR: f32 = 0.70;
/// Of so many entries, the most alike ones, the guards are asked.
const LOOKED_AT: usize = 8;
/// Scopes whose bound is remembered; a scope that is forgotten begins anew, which is the careful side.
const SCOPES: usize = 10_000;

/// How much is kept, and how wrong it may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of one partition: each is compared in each look-up of it.
    pub per_partition: usize,
    /// Entries of all partitions.
    pub entries: usize,
    /// Bytes of all partitions, answers included.
    pub bytes: usize,
    /// Share of wrong answers that the comparison does not tell to be different ([`super::evidence::MISS`]).
    pub miss: f64,
    /// Whether guards are asked. Only a measurement of what they are worth says no.
    pub guards: bool,
    /// Whether an entry with the very text answers. A measurement of what is made of new wordings says no: then such an entry
    /// is passed over.
    pub repeats: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            per_partition: 1_024,
            entries: 65_536,
            bytes: 256 * 1024 * 1024,
            miss: super::evidence::MISS,
            guards: true,
            repeats: true,
        }
    }
}

/// A question on its way through the store.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// All but the last user turn.
    pub partition: &'a Partition,
    /// The last user turn.
    pub text: &'a str,
    /// Its embedding.
    pub vector: &'a Vector,
    /// The route's `max_error_rate`.
    pub max_error_rate: f64,
}

/// What a look-up came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Look<V> {
    /// The same question, byte by byte: the answer, no estimate involved. Not a semantic look-up.
    Repeat(V),
    /// The cached answer goes out.
    Hit {
        /// It.
        answer: V,
        /// Of the two questions.
        similarity: f32,
    },
    /// There is a candidate, and the model is asked all the same; what comes of the comparison goes to
    /// [`Semantic::learn`].
    Explore {
        /// The cached answer, to compare the fresh one with.
        answer: V,
        /// To be handed back.
        trial: Trial,
    },
    /// No entry is like it.
    Miss {
        /// The guard that refused the most alike entry, where there was one.
        refused: Option<Guard>,
    },
}

/// An exploration that has begun. One that is dropped stays charged.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    partition: Partition,
    entry: u64,
    /// Of the two questions.
    pub similarity: f32,
    /// With which probability this would have been a hit.
    pub ventured: f64,
    charge: f64,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    id: u64,
    text: Box<str>,
    vector: Vector,
    answer: V,
    weight: usize,
    until: Time,
    /// Look-up in which it was last of use.
    used: u64,
    seen: Observations,
}

impl<V> Entry<V> {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + self.vector.bytes()
            + self.weight
            + super::entry::KEPT * size_of::<Observation>()
    }
}

#[derive(Clone, Debug)]
struct Shelf<V> {
    entries: Vec<Entry<V>>,
    /// Its place in the order of use.
    used: u64,
}

#[derive(Clone, Debug)]
struct Scope {
    governor: Governor,
    pool: Pool,
    /// Semantic look-ups with a candidate.
    candidates: u64,
    used: u64,
}

/// Figures for metrics and for `/admin/cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Entries held.
    pub entries: usize,
    /// Partitions that hold one.
    pub partitions: usize,
    /// Bytes held, answers included.
    pub bytes: usize,
}

/// How much is allowed to a tenant and policy, and what came of it so far.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bound {
    /// Tenant.
    pub tenant: String,
    /// Look-ups, all but repeats.
    pub lookups: u64,
    /// Of those: with an entry that the guards let pass.
    pub candidates: u64,
    /// Wrong answers so far are at most so many (95%).
    pub wrong_at_most: f64,
}

/// The semantic cache's memory. Plain data: who holds it says what time it is and hands in the coin.
#[derive(Clone, Debug)]
pub struct Semantic<V> {
    limits: Limits,
    shelves: HashMap<Partition, Shelf<V>>,
    /// Partitions by last use, the oldest first.
    order: BTreeMap<u64, Partition>,
    scopes: HashMap<Box<[u8]>, Scope>,
    figures: Figures,
    /// Counts look-ups and insertions: the only clock in here.
    tick: u64,
}

impl<V: Clone> Semantic<V> {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Semantic {
            limits,
            shelves: HashMap::new(),
            order: BTreeMap::new(),
            scopes: HashMap::new(),
            figures: Figures::default(),
            tick: 0,
        }
    }

    /// What is held.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Looks for an answer. `seed`: fresh bits, the coin between hit and exploration.
    pub fn look(&mut self, question: Question<'_>, now: Time, seed: u64) -> Look<V> {
        self.tick += 1;
        self.touch(question.partition);
        let found = self.find(question, now);
        if let Found::Repeat(at) = found {
            return match self.entry_at(question.partition, at) {
                Some(answer) => Look::Repeat(answer),
                None => Look::Miss { refused: None },
            };
        }
        let (tick, miss) = (self.tick, self.limits.miss);
        let scope = self.scope(question, miss);
        scope.used = tick;
        scope.governor.count();
        let Found::Candidate { at, similarity } = found else {
            return Look::Miss {
                refused: match found {
                    Found::Refused(guard) => Some(guard),
                    _ => None,
                },
            };
        };
        scope.candidates += 1;
        // Look-ups without a candidate cannot be wrong: their share of what is allowed is there for the others.
        let allowed = question.max_error_rate * scope.governor.lookups() as f64 / scope.candidates as f64;
        let usual = scope.pool.usual(similarity);
        let Some(wrong) = self.wrong_at(question.partition, at, similarity, usual) else {
            return Look::Miss { refused: None };
        };
        let scope = self.scope(question, miss);
        let ventured = scope.governor.venture(allowed / wrong.max(1e-9));
        let hit = unit(mix(seed)) < ventured;
        let charge = if hit { 0.0 } else { scope.governor.charge(ventured) };
        let Some(entry) = self
            .shelves
            .get_mut(question.partition)
            .and_then(|s| s.entries.get_mut(at))
        else {
            return Look::Miss { refused: None };
        };
        entry.used = tick;
        let answer = entry.answer.clone();
        if hit {
            return Look::Hit { answer, similarity };
        }
        Look::Explore {
            answer,
            trial: Trial {
                partition: question.partition.clone(),
                entry: entry.id,
                similarity,
                ventured,
                charge,
            },
        }
    }

    /// The fresh answer of an exploration is there: was it the same as the cached one? Where it was not, or where that cannot
    /// be told, the caller inserts the question as an entry of its own. A trial is learnt from once.
    pub fn learn(&mut self, trial: &Trial, verdict: Verdict) {
        let mut scope = self.scopes.get_mut(trial.partition.scope());
        if let Some(scope) = scope.as_deref_mut().filter(|_| verdict != Verdict::Different) {
            scope.governor.give_back(trial.charge);
        }
        if verdict == Verdict::Unsure {
            return;
        }
        let seen = Observation {
            similarity: trial.similarity,
            same: verdict == Verdict::Same,
        };
        if let Some(scope) = scope {
            scope.pool.push(seen);
        }
        let shelf = self.shelves.get_mut(&trial.partition);
        if let Some(entry) = shelf.and_then(|s| s.entries.iter_mut().find(|e| e.id == trial.entry)) {
            entry.seen.push(seen);
        }
    }

    /// Keeps an answer. `weight`: its bytes. `until`: from when on it is too old. A question that is there already gets the
    /// new answer and keeps what was seen of it.
    pub fn insert(&mut self, question: Question<'_>, answer: V, weight: usize, until: Time) {
        self.tick += 1;
        let entry = Entry {
            id: self.tick,
            text: question.text.into(),
            vector: question.vector.clone(),
            answer,
            weight,
            until,
            used: self.tick,
            seen: Observations::default(),
        };
        let bytes = entry.bytes();
        if bytes + question.partition.bytes() > self.limits.bytes || self.limits.per_partition == 0 {
            return;
        }
        let old = self
            .shelves
            .get(question.partition)
            .and_then(|s| s.entries.iter().position(|e| *e.text == *question.text));
        let seen = old
            .and_then(|at| self.take(question.partition, at))
            .map(|old| old.seen);
        while self
            .shelves
            .get(question.partition)
            .is_some_and(|s| s.entries.len() >= self.limits.per_partition)
        {
            self.drop_least(question.partition);
        }
        if !self.shelves.contains_key(question.partition) {
            self.figures.partitions += 1;
            self.figures.bytes += question.partition.bytes();
            self.shelves.insert(
                question.partition.clone(),
                Shelf {
                    entries: Vec::new(),
                    used: self.tick,
                },
            );
            self.order.insert(self.tick, question.partition.clone());
        }
        if let Some(shelf) = self.shelves.get_mut(question.partition) {
            shelf.entries.push(Entry {
                seen: seen.unwrap_or_default(),
                ..entry
            });
            self.figures.entries += 1;
            self.figures.bytes += bytes;
        }
        self.touch(question.partition);
        self.fit();
    }

    fn fit(&mut self) {
        while self.figures.entries > self.limits.entries || self.figures.bytes > self.limits.bytes {
            let Some(oldest) = self.order.values().next().cloned() else {
                break;
            };
            self.drop_least(&oldest);
        }
    }

    /// Forgets every answer; what the bound is kept by stays.
    pub fn clear(&mut self) {
        self.shelves.clear();
        self.order.clear();
        self.figures = Figures::default();
    }

    /// Wrong answers of this partition's tenant and policy so far are at most so many, and so many look-ups were counted.
    pub fn bound(&self, partition: &Partition) -> Option<(f64, u64)> {
        let scope = self.scopes.get(partition.scope())?;
        Some((scope.governor.wrong_at_most(), scope.governor.lookups()))
    }

    /// The bounds of all tenants and policies, in no order.
    pub fn bounds(&self) -> impl Iterator<Item = Bound> + '_ {
        self.scopes.iter().map(|(key, scope)| Bound {
            tenant: super::partition::tenant(key),
            lookups: scope.governor.lookups(),
            candidates: scope.candidates,
            wrong_at_most: scope.governor.wrong_at_most(),
        })
    }

    /// From now on so many bytes. What is too much is forgotten, oldest first; what the bound is kept by stays.
    pub fn set_bytes(&mut self, bytes: usize) {
        self.limits.bytes = bytes;
        self.fit();
    }

    fn find(&self, question: Question<'_>, now: Time) -> Found {
        let Some(shelf) = self.shelves.get(question.partition) else {
            return Found::None;
        };
        let mut best: Vec<(f32, usize)> = Vec::with_capacity(LOOKED_AT + 1);
        for (at, entry) in shelf.entries.iter().enumerate().filter(|(_, e)| e.until > now) {
            if *entry.text == *question.text {
                if self.limits.repeats {
                    return Found::Repeat(at);
                }
                continue;
            }
            let similarity = question.vector.similarity(&entry.vector);
            if similarity < FLOOR
                || best
                    .last()
                    .is_some_and(|last| best.len() == LOOKED_AT && last.0 >= similarity)
            {
                continue;
            }
            let place = best.partition_point(|(s, _)| *s >= similarity);
            best.insert(place, (similarity, at));
            best.truncate(LOOKED_AT);
        }
        let Some(&(similarity, at)) = best.first() else {
            return Found::None;
        };
        if !self.limits.guards {
            return Found::Candidate { at, similarity };
        }
        let asked = Ask::of(question.text);
        let mut refused = None;
        for (similarity, at) in best {
            let Some(entry) = shelf.entries.get(at) else {
                continue;
            };
            match guards::refuse(&asked, &Ask::of(&entry.text)) {
                None => return Found::Candidate { at, similarity },
                Some(guard) => refused = refused.or(Some(guard)),
            }
        }
        refused.map_or(Found::None, Found::Refused)
    }

    fn entry_at(&mut self, partition: &Partition, at: usize) -> Option<V> {
        let tick = self.tick;
        let entry = self.shelves.get_mut(partition)?.entries.get_mut(at)?;
        entry.used = tick;
        Some(entry.answer.clone())
    }

    fn wrong_at(&self, partition: &Partition, at: usize, similarity: f32, usual: f64) -> Option<f64> {
        let entry = self.shelves.get(partition)?.entries.get(at)?;
        Some(entry.seen.wrong(similarity, usual))
    }

    fn scope(&mut self, question: Question<'_>, miss: f64) -> &mut Scope {
        let key = question.partition.scope();
        if self.scopes.len() >= SCOPES && !self.scopes.contains_key(key) {
            let oldest = self.scopes.iter().min_by_key(|(_, scope)| scope.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.scopes.remove(&oldest);
            }
        }
        self.scopes.entry(key.into()).or_insert_with(|| Scope {
            governor: Governor::new(question.max_error_rate, miss),
            pool: Pool::default(),
            candidates: 0,
            used: 0,
        })
    }

    /// Moves a partition to the end of the order of use.
    fn touch(&mut self, partition: &Partition) {
        let Some(shelf) = self.shelves.get_mut(partition) else {
            return;
        };
        let used = std::mem::replace(&mut shelf.used, self.tick);
        let own = self.order.remove(&used).unwrap_or_else(|| partition.clone());
        self.order.insert(self.tick, own);
    }

    fn take(&mut self, partition: &Partition, at: usize) -> Option<Entry<V>> {
        let shelf = self.shelves.get_mut(partition)?;
        if at >= shelf.entries.len() {
            return None;
        }
        let entry = shelf.entries.swap_remove(at);
        self.figures.entries -= 1;
        self.figures.bytes -= entry.bytes();
        if shelf.entries.is_empty() {
            self.order.remove(&shelf.used);
            self.shelves.remove(partition);
            self.figures.partitions -= 1;
            self.figures.bytes -= partition.bytes();
        }
        Some(entry)
    }

    /// Drops the entry that was of no use for longest.
    fn drop_least(&mut self, partition: &Partition) {
        let least = self
            .shelves
            .get(partition)
            .and_then(|s| s.entries.iter().enumerate().min_by_key(|(_, e)| e.used))
            .map(|(at, _)| at);
        if let Some(at) = least {
            self.take(partition, at);
        }
    }
}

enum Found {
    Repeat(usize),
    Candidate { at: usize, similarity: f32 },
    Refused(Guard),
    None,
}

#[cfg(test)]
mod tests;
