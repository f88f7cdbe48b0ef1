//! What goes wrong, when and where: a pure function of seed, length and places.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Serialize, Serializer};

use super::house::{Edit, PROVIDERS, TARGETS};
use crate::provider::{Fault, State, fnv1a};

/// Nothing goes wrong before this, or before a tenth of a short run: all targets are known to be well first.
const QUIET: Duration = Duration::from_secs(3);

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One target's model. Index into [`TARGETS`].
    Target(usize),
    /// A whole provider. Index into [`PROVIDERS`].
    Provider(usize),
}

/// What.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Answers of a target fail in this way.
    Fault(Fault),
    /// Its answers look strange, and are right: nobody may notice.
    Habit(Fault),
    /// The provider is in this state.
    State(State),
}

/// Something that is so for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Where.
    pub place: Place,
    /// What.
    pub what: What,
    /// Its begin, from the start of the run.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// Only this share of the requests is met; `None`: all.
    pub share: Option<f64>,
}

/// A reload of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When.
    pub at: Duration,
    /// The plan that is loaded then.
    pub edit: Edit,
    /// By SIGHUP, in place of the admin plane.
    pub by_signal: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Windows by their begin.
    pub windows: Vec<Window>,
    /// Reloads in their order.
    pub reloads: Vec<Reload>,
}

/// What fails. The wall (`load-tests faults`) has each of them in every form; here they meet.
const FAULTS: [Fault; 48] = [
    Fault::RateLimited,
    Fault::RateLimitedMs,
    Fault::RateLimitedDate,
    Fault::RateLimitedBare,
    Fault::RateLimitInBand,
    Fault::ServerError,
    Fault::Unavailable,
    Fault::Conflict,
    Fault::HtmlError,
    Fault::HtmlAnswer,
    Fault::Redirect,
    Fault::Unauthorized,
    Fault::Forbidden,
    Fault::Quota,
    Fault::ModelNotFound,
    Fault::ContextLength,
    Fault::ContentFilter,
    Fault::UnsupportedParameter,
    Fault::InvalidRequest,
    Fault::Hang,
    Fault::SlowHead,
    Fault::SlowFirstToken,
    Fault::RoleOnly,
    Fault::PingsOnly,
    Fault::PingsMidStream,
    Fault::PingsBetween,
    Fault::Stall,
    Fault::Drip,
    Fault::Cut,
    Fault::CleanEnd,
    Fault::DoneWithoutFinish,
    Fault::BadJson,
    Fault::InBandError,
    Fault::ErrorFirst,
    Fault::EmptyStream,
    Fault::ResetBeforeHead,
    Fault::CloseBeforeHead,
    Fault::ResetInHead,
    Fault::ResetInChunkHeader,
    Fault::BadChunkSize,
    Fault::HalfClose,
    Fault::HugeHeader,
    Fault::ManyHeaders,
    Fault::LengthTooLong,
    Fault::LengthTooShort,
    Fault::Goaway,
    Fault::Garbage,
    Fault::Gzip,
];

/// What is strange and right.
const HABITS: [Fault; 12] = [
    Fault::FinishWithoutDone,
    Fault::NoUsage,
    Fault::Http10,
    Fault::ByteChunks,
    Fault::SplitWrites,
    Fault::Crlf,
    Fault::BareCr,
    Fault::Comments,
    Fault::MultiLine,
    Fault::CloseNextRequest,
    Fault::SecondAnswer,
    Fault::EarlyHints,
];

const STATES: [State; 5] = [
    State::Unavailable,
    State::Silent,
    State::Refuse,
    State::Reset,
    State::Deaf,
];

impl Schedule {
    /// Draws it.
    pub fn draw(seed: u64, length: Duration, reloads: u32) -> Self {
        let quiet = QUIET.min(length / 10);
        let mut windows = Vec::new();
        let targets = (0..TARGETS.len()).map(Place::Target);
        for place in targets.chain((0..PROVIDERS.len()).map(Place::Provider)) {
            windows.extend(of_place(seed, place, quiet, length));
        }
        windows.sort_by_key(|w| w.from);
        Self {
            windows,
            reloads: reloads_of(seed, length, reloads),
        }
    }
}

/// A generator of its own for each part, so that one more of something changes nothing of the others.
fn generator(seed: u64, of: &str) -> StdRng {
    StdRng::seed_from_u64(seed ^ fnv1a(of.as_bytes()))
}

/// Waiting times without memory, of this mean.
fn wait(rng: &mut StdRng, mean_s: f64) -> Duration {
    let u: f64 = rng.random_range(0.0..1.0);
    Duration::from_secs_f64(-(1.0 - u).ln() * mean_s)
}

fn pick<T: Copy>(rng: &mut StdRng, among: &[T], or: T) -> T {
    among.get(rng.random_range(0..among.len())).copied().unwrap_or(or)
}

fn of_place(seed: u64, place: Place, quiet: Duration, length: Duration) -> Vec<Window> {
    let mut rng = generator(seed, &place.name());
    let mut out = Vec::new();
    let mut at = quiet;
    loop {
        let (mean_s, what, share) = match place {
            Place::Target(_) => {
                let what = if rng.random_range(0..4) > 0 {
                    What::Fault(pick(&mut rng, &FAULTS, Fault::ServerError))
                } else {
                    What::Habit(pick(&mut rng, &HABITS, Fault::Crlf))
                };
                let some = rng.random_range(0..10) < 3;
                (6.0, what, some.then_some(0.5))
            }
            Place::Provider(_) => (30.0, What::State(pick(&mut rng, &STATES, State::Refuse)), None),
        };
        let from = at + wait(&mut rng, mean_s);
        let to = from + Duration::from_millis(rng.random_range(300..3_500));
        if to >= length {
            return out;
        }
        out.push(Window {
            place,
            what,
            from,
            to,
            share,
        });
        at = to;
    }
}

/// Every second one changes nothing; every tenth is a mistake; the others change weights, clocks and indices.
fn reloads_of(seed: u64, length: Duration, count: u32) -> Vec<Reload> {
    let mut rng = generator(seed, "reloads");
    let between = length / (count + 1);
    let mut edit = Edit::default();
    let mut out = Vec::new();
    for n in 1..=count {
        let drawn = (
            rng.random_range(1..4),
            rng.random_range(0..3),
            rng.random_range(0..2) == 0,
        );
        edit.note = n;
        if n % 2 == 0 {
            let (weight, clock, spare) = drawn;
            (edit.weight, edit.spare) = (weight, spare);
            edit.first_token_ms = 1_500 - 50 * clock;
        }
        let late = rng.random_range(0.0..0.5);
        out.push(Reload {
            at: between * n + between.mul_f64(late),
            edit: Edit {
                mistake: n % 10 == 0,
                ..edit
            },
            by_signal: n % 3 == 0,
        });
    }
    out
}

impl Place {
    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Target(at) => TARGETS.get(at).map_or("?", |t| t.name).to_owned(),
            Self::Provider(at) => format!("provider {}", PROVIDERS.get(at).map_or("?", |p| p.0)),
        }
    }

    /// The targets that it touches.
    pub fn targets(self) -> impl Iterator<Item = usize> {
        let touched = move |at: &usize| match self {
            Self::Target(target) => *at == target,
            Self::Provider(provider) => TARGETS.get(*at).is_some_and(|t| t.provider == provider),
        };
        (0..TARGETS.len()).filter(touched)
    }
}

impl What {
    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Fault(fault) => fault.name().to_owned(),
            Self::Habit(fault) => format!("({})", fault.name()),
            Self::State(state) => serde_json::to_value(state)
                .ok()
                .and_then(|v| v.as_str().map(str::to_uppercase))
                .unwrap_or_default(),
        }
    }

    /// One letter for the timeline.
    pub fn letter(self) -> char {
        match self {
            Self::Habit(_) => '~',
            Self::State(State::Refuse) => 'R',
            Self::State(State::Reset) => 'X',
            Self::State(State::Deaf) => 'D',
            Self::State(State::Silent) => 'S',
            Self::State(_) => 'U',
            Self::Fault(fault) => match fault {
                Fault::RateLimited
                | Fault::RateLimitedMs
                | Fault::RateLimitedDate
                | Fault::RateLimitedBare
                | Fault::RateLimitInBand => '9',
                f if switches_off(f) => 'k',
                f if passes_on(f) => '4',
                Fault::Hang
                | Fault::SlowHead
                | Fault::SlowFirstToken
                | Fault::RoleOnly
                | Fault::PingsOnly
                | Fault::Drip => 'h',
                Fault::Stall
                | Fault::Cut
                | Fault::CleanEnd
                | Fault::DoneWithoutFinish
                | Fault::BadJson
                | Fault::InBandError
                | Fault::ResetInChunkHeader
                | Fault::BadChunkSize
                | Fault::HalfClose
                | Fault::LengthTooLong
                | Fault::LengthTooShort => 'c',
                _ => '5',
            },
        }
    }

    /// What the letters mean.
    pub const LETTERS: &'static str = "5 fails before its answer, 9 limits, 4 refuses the request, k refuses our key or name, h keeps us waiting, \
        c breaks off, ~ a strange habit; of a whole provider: U unavailable, S silent, R refuses connections, X resets \
        them, D deaf";
}

/// The provider's refusal of the request itself, whose status is the caller's answer.
pub fn passes_on(fault: Fault) -> bool {
    use Fault::{ContentFilter, ContextLength, InvalidRequest, UnsupportedParameter};
    matches!(
        fault,
        ContextLength | ContentFilter | UnsupportedParameter | InvalidRequest
    )
}

/// The target goes off until the plan is loaded again: key, account or name must be mended. (A 403 that is a page comes from
/// something in front of the provider, and switches nobody off.)
pub fn switches_off(fault: Fault) -> bool {
    use Fault::{ModelNotFound, Quota, Unauthorized};
    matches!(fault, ModelNotFound | Quota | Unauthorized)
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (
            self.place.name(),
            self.what.name(),
            self.share,
            self.from.as_secs_f64(),
            self.to.as_secs_f64(),
        )
            .serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_another() {
        let draw = |seed| Schedule::draw(seed, MINUTE, 100);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).windows, draw(8).windows);
        assert_ne!(draw(7).reloads, draw(8).reloads);
        // A longer run goes on where the shorter one ends.
        let long = Schedule::draw(7, MINUTE * 10, 100);
        assert!(
            draw(7)
                .windows
                .iter()
                .filter(|w| w.from > QUIET * 2)
                .all(|w| long.windows.contains(w))
        );
    }

    #[test]
    fn windows_of_a_place_follow_each_other_inside_the_run() {
        let s = Schedule::draw(3, MINUTE * 10, 100);
        let mut places: Vec<Place> = Vec::new();
        for w in &s.windows {
            assert!(w.from >= QUIET && w.from < w.to && w.to < MINUTE * 10, "{w:?}");
            if !places.contains(&w.place) {
                places.push(w.place);
            }
        }
        assert_eq!(places.len(), TARGETS.len() + PROVIDERS.len());
        for place in places {
            let of: Vec<&Window> = s.windows.iter().filter(|w| w.place == place).collect();
            assert!(of.windows(2).all(|pair| pair[0].to <= pair[1].from), "{place:?}");
        }
        let habits = s
            .windows
            .iter()
            .filter(|w| matches!(w.what, What::Habit(_)))
            .count();
        assert!(habits > 50 && s.windows.iter().any(|w| w.share.is_some()));
    }

    #[test]
    fn reloads_are_as_many_as_wanted_and_of_each_kind() {
        let s = Schedule::draw(5, MINUTE, 100);
        assert_eq!(s.reloads.len(), 100);
        assert!(s.reloads.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert!(s.reloads.last().unwrap().at < MINUTE);
        let count = |f: fn(&Reload) -> bool| s.reloads.iter().filter(|r| f(r)).count();
        assert_eq!((count(|r| r.edit.mistake), count(|r| r.by_signal)), (10, 33));
        assert!(count(|r| r.edit.spare) > 10 && count(|r| r.edit.weight > 1) > 20);
    }

    #[test]
    fn every_fault_is_here_but_the_one_that_is_an_answer() {
        let known = |f: &Fault| FAULTS.contains(f) || HABITS.contains(f);
        let left: Vec<&Fault> = Fault::ALL.iter().filter(|f| !known(f)).collect();
        assert_eq!(left, [&Fault::ContentFilterFinish]);
    }
}
