//! The row of those who wait.
//!
//! *Order*: high before normal before low. Inside a class by arrival, where a request that will be long stands as if it had
//! come a little later, a quarter of a second at most: short ones pass it, but nobody for ever. *No class starves*: one that
//! was passed over [`SHARE`] times since its last turn, while somebody of it waited (whoever that was), has the next one. That is
//! a guaranteed share of a sixteenth for each lower class; ageing by time would not do: nobody here waits long enough to grow old.
//! *Bounds*: as many as there are places; when all are taken, a request of a higher class takes that of the last one of the
//! lowest. Whoever would still be waiting when its patience ends is turned away at once and told when to come back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Class;
use crate::units::Time;

/// Turns of higher classes, one after the other, that a class is passed over for.
pub const SHARE: u32 = 15;
/// A predicted token puts a request back by so much in its class ...
const PER_TOKEN: Duration = Duration::from_micros(50);
/// ... and all of them by so much at most.
const MOST_BEHIND: Duration = Duration::from_millis(250);

/// What somebody who would wait says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its class.
    pub class: Class,
    /// Tokens that it will usually come to.
    pub tokens: u64,
    /// When it came.
    pub came: Time,
    /// It waits no longer than that.
    pub until: Time,
}

/// A place in the row; places compare as their turns come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    class: Class,
    due: Time,
    number: u64,
}

impl Ticket {
    /// Whose.
    pub fn class(self) -> Class {
        self.class
    }
}

/// How fast the row moves for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// From one turn to the next, as measured; `None` while nothing was.
    pub turn: Option<Duration>,
    /// Nobody has a turn before that.
    pub begins: Time,
}

impl Pace {
    /// How long somebody waits who has so many before it. `None`: unknown.
    pub fn wait(&self, ahead: usize, now: Time) -> Option<Duration> {
        let turns = u32::try_from(ahead.saturating_add(1)).unwrap_or(u32::MAX);
        let begins = self.begins.since(now);
        match self.turn {
            Some(turn) => Some(begins.saturating_add(turn.saturating_mul(turns))),
            None => (!begins.is_zero()).then_some(begins),
        }
    }
}

/// Turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Why.
    pub why: ShedWhy,
    /// When the row as it is now will have been served, where that is known: coming back earlier is no use.
    pub come_back: Option<Duration>,
}

/// Reasons of [`Shed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShedWhy {
    /// Every place is taken by somebody of its class or a higher one.
    Full,
    /// It would wait longer than it may.
    Wait,
    /// It has waited as long as it may.
    Waited,
    /// Somebody of a higher class has its place.
    PushedOut,
}

impl ShedWhy {
    /// All of them.
    pub const ALL: [ShedWhy; 4] = [Self::Full, Self::Wait, Self::Waited, Self::PushedOut];

    /// A short word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::Wait => "wait",
            Self::Waited => "waited",
            Self::PushedOut => "pushed_out",
        }
    }
}

/// What came of the wish to wait.
#[derive(Debug)]
pub enum Joined<T> {
    /// It waits.
    Waits {
        /// Here.
        ticket: Ticket,
        /// In the place of this one, who is turned away.
        pushed_out: Option<T>,
    },
    /// It does not; this is given back.
    Shed(Shed, T),
}

#[derive(Debug)]
struct Waiter<T> {
    until: Time,
    value: T,
}

/// See the module.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Ticket, Waiter<T>>,
    count: [usize; CLASSES.len()],
    /// Turns of higher classes since this one's last, while it waited.
    passed: [u32; CLASSES.len()],
    next: u64,
}

const CLASSES: [Class; 3] = [Class::High, Class::Normal, Class::Low];

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            count: [0; CLASSES.len()],
            passed: [0; CLASSES.len()],
            next: 0,
        }
    }
}

impl<T> Line<T> {
    /// Who waits.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
    /// Who waits, of one class.
    pub fn of(&self, class: Class) -> usize {
        self.count[class as usize]
    }

    /// Joins the row of at most `places`. `shares` says of others whether they wait for the same; `pace` is how fast it moves
    /// for those.
    pub fn join(
        &mut self,
        ask: Ask,
        value: T,
        places: usize,
        pace: Pace,
        now: Time,
        shares: impl Fn(&T, &T) -> bool,
    ) -> Joined<T> {
        let ticket = Ticket {
            class: ask.class,
            due: ask.came + behind(ask.tokens),
            number: self.next,
        };
        let before = self.waiting.range(..ticket);
        let ahead = before.filter(|(_, other)| shares(&value, &other.value)).count();
        let wait = pace.wait(ahead, now);
        let shed = |why, come_back| Shed { why, come_back };
        if ask.until <= now || wait.is_some_and(|wait| now + wait > ask.until) {
            return Joined::Shed(shed(ShedWhy::Wait, wait), value);
        }
        let mut pushed_out = None;
        if self.waiting.len() >= places {
            let last = self.waiting.last_key_value().map(|(last, _)| *last);
            match last.filter(|last| last.class > ask.class) {
                Some(last) => pushed_out = self.leave(last),
                None => {
                    let all = pace.wait(self.waiting.len(), now);
                    return Joined::Shed(shed(ShedWhy::Full, all), value);
                }
            }
        }
        self.next += 1;
        self.count[ask.class as usize] += 1;
        self.waiting.insert(
            ticket,
            Waiter {
                until: ask.until,
                value,
            },
        );
        Joined::Waits { ticket, pushed_out }
    }

    /// Takes somebody out of the row. `None`: it is no longer there.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let waiter = self.waiting.remove(&ticket)?;
        self.count[ticket.class as usize] -= 1;
        Some(waiter.value)
    }

    /// How many stand before somebody and wait for the same.
    pub fn ahead(&self, ticket: Ticket, mut same: impl FnMut(&T) -> bool) -> usize {
        let before = self.waiting.range(..ticket);
        before.filter(|(_, other)| same(&other.value)).count()
    }

    /// The next one who can go, with what `can` found for it. Whoever's patience is over has no turn any more.
    pub fn next<U>(&mut self, now: Time, mut can: impl FnMut(&T) -> Option<U>) -> Option<(Ticket, T, U)> {
        let mut found = None;
        // Those who were passed over too often first, the lowest of them before the others: it was passed over by them too.
        let owed = CLASSES
            .iter()
            .rev()
            .filter(|&&c| self.passed[c as usize] >= SHARE);
        for class in owed.chain(&CLASSES) {
            found = self.first(*class, now, &mut can);
            if found.is_some() {
                break;
            }
        }
        let (ticket, fit) = found?;
        let value = self.leave(ticket)?;
        for class in CLASSES.into_iter().filter(|c| *c > ticket.class) {
            if self.count[class as usize] > 0 {
                self.passed[class as usize] += 1;
            }
        }
        self.passed[ticket.class as usize] = 0;
        Some((ticket, value, fit))
    }

    fn first<U>(
        &self,
        class: Class,
        now: Time,
        can: &mut impl FnMut(&T) -> Option<U>,
    ) -> Option<(Ticket, U)> {
        if self.count[class as usize] == 0 {
            return None;
        }
        let from = Ticket {
            class,
            due: Time(0),
            number: 0,
        };
        let row = self.waiting.range(from..).take_while(|(t, _)| t.class == class);
        let mut row = row.filter(|(_, waiter)| waiter.until > now);
        row.find_map(|(ticket, waiter)| Some((*ticket, can(&waiter.value)?)))
    }
}

/// How far tokens put a request back.
fn behind(tokens: u64) -> Duration {
    let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    PER_TOKEN.saturating_mul(tokens).min(MOST_BEHIND)
}
