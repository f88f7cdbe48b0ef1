//! Providers of a fixed capacity, played: under more demand than they can serve the limit finds that capacity.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::admission::{Adaptive, Felt};
use crate::balance::mix;
use crate::units::Time;

/// What a provider does with more than it can serve.
#[derive(Clone, Copy, PartialEq)]
enum Beyond {
    /// 429, after which everyone leaves it alone for so long.
    Refuses(u64),
    /// They wait for their turn.
    Queues,
}

struct Played {
    /// In the second half of the time: share of the capacity that worked, refusals, the slowest first word.
    used: f64,
    refused: u32,
    slowest: Duration,
    room: u32,
}

const MS: u64 = 1_000;
/// To the first word, where nobody is in the way.
const FIRST: u64 = 100 * MS;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Word(u64),
    End(u64, u64),
    Look,
}

/// Plays so many seconds in which `demand` would always run; an answer takes `takes(n)` microseconds.
fn play(
    limit: &mut Adaptive,
    capacity: u32,
    beyond: Beyond,
    seconds: u64,
    demand: u32,
    takes: impl Fn(u64) -> u64,
) -> Played {
    let end = seconds * 1_000 * MS;
    let mut events = BinaryHeap::from([Reverse((1, Event::Look))]);
    let (mut running, mut busy, mut held, mut n) = (0_u32, 0_u32, 0_u64, 0_u64);
    let (mut worked, mut refused, mut slowest, mut reached) = (0_u64, 0_u32, 0_u64, false);
    let mut row: VecDeque<u64> = VecDeque::new();
    while let Some(Reverse((now, event))) = events.pop() {
        if now > end {
            break;
        }
        let later = now > end / 2;
        match event {
            Event::Look => {}
            Event::Word(began) => {
                limit.went_well(running);
                limit.felt(Felt::Word(Duration::from_micros(now - began)), running, Time(now));
                slowest = if later { slowest.max(now - began) } else { 0 };
            }
            Event::End(began, took) => {
                limit.ended(
                    running,
                    Some(Duration::from_micros(now - began)),
                    std::mem::take(&mut reached),
                    Time(now),
                );
                running -= 1;
                busy -= 1;
                worked += if later { took } else { 0 };
            }
        }
        while busy < capacity
            && let Some(began) = row.pop_front()
        {
            n += 1;
            busy += 1;
            let took = takes(n);
            events.push(Reverse((now + FIRST.min(took), Event::Word(began))));
            events.push(Reverse((now + took, Event::End(began, took))));
        }
        while running < limit.room().min(demand) && now >= held {
            running += 1;
            reached |= running >= limit.room();
            if busy + row.len() as u32 >= capacity
                && let Beyond::Refuses(pause) = beyond
            {
                limit.felt(Felt::Refused, running, Time(now));
                limit.ended(running, None, std::mem::take(&mut reached), Time(now));
                running -= 1;
                refused += u32::from(later);
                held = now + pause * MS;
                events.push(Reverse((held, Event::Look)));
                break;
            }
            row.push_back(now);
            events.push(Reverse((now, Event::Look)));
            if running >= 5_000 {
                break;
            }
        }
    }
    Played {
        used: worked as f64 / (f64::from(capacity) * (end - end / 2) as f64),
        refused,
        slowest: Duration::from_micros(slowest),
        room: limit.room(),
    }
}

/// Answers of very unequal length: 100 ms to 2 s.
fn unequal(n: u64) -> u64 {
    (100 + mix(n) % 1_900) * MS
}

#[test]
fn a_provider_that_refuses_is_asked_for_what_it_can_do() {
    for capacity in [1, 4, 16, 200] {
        for pause in [5, 100, 1_000] {
            let mut limit = Adaptive::new(10_000);
            let played = play(
                &mut limit,
                capacity,
                Beyond::Refuses(pause),
                120,
                u32::MAX,
                unequal,
            );
            let say = format!(
                "{capacity}, pause {pause}: {:.3}, {} refused",
                played.used, played.refused
            );
            assert!(played.used > 0.9, "{say}");
            assert!(played.refused < 60, "{say}");
            assert!(
                (1..=capacity + capacity / 8 + 1).contains(&played.room),
                "{say}, {}",
                played.room
            );
        }
    }
}

#[test]
fn a_provider_that_lets_wait_is_kept_busy_and_quick() {
    for capacity in [4, 16, 100] {
        let mut limit = Adaptive::new(10_000);
        let played = play(
            &mut limit,
            capacity,
            Beyond::Queues,
            120,
            capacity * 3 + 40,
            |n| (200 + mix(n) % 200) * MS,
        );
        let say = format!(
            "{capacity}: {:.3}, slowest {:?}, {}",
            played.used, played.slowest, played.room
        );
        assert!(played.used > 0.9, "{say}");
        assert!(played.slowest < Duration::from_millis(800), "{say}");
    }
}

#[test]
fn one_that_can_do_more_by_now_is_soon_asked_for_more() {
    let mut limit = Adaptive::new(1_000);
    play(&mut limit, 16, Beyond::Refuses(100), 30, u32::MAX, |_| 300 * MS);
    assert!(limit.room() <= 18, "{}", limit.room());
    play(&mut limit, 400, Beyond::Refuses(100), 60, u32::MAX, |_| 300 * MS);
    assert!(limit.room() >= 300, "{}", limit.room());
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// Ends of a whole round and more, while as many run as may.
fn round(limit: &mut Adaptive) {
    for _ in 0..=limit.room() {
        limit.ended(limit.room(), Some(Duration::from_millis(500)), true, at(1));
    }
}

#[test]
fn one_sign_among_few_is_no_catastrophe() {
    let mut limit = Adaptive::new(10_000);
    limit.went_well(2);
    limit.felt(Felt::Refused, 2, at(1));
    assert_eq!(limit.room(), 64);
    for _ in 0..24 {
        round(&mut limit);
    }
    assert!(limit.room() > 1_000, "{}", limit.room());
}

#[test]
fn a_quota_or_an_outage_is_not_taken_for_too_much_at_once() {
    let mut limit = Adaptive::new(1_000);
    for n in 0..100 {
        limit.felt(Felt::Refused, 3, at(n));
        limit.ended(3, None, false, at(n));
    }
    assert_eq!(limit.room(), 1_000, "nothing went well");
    limit.went_well(8);
    limit.felt(Felt::TimedOut, 1, at(200));
    limit.felt(Felt::Refused, 4, at(201));
    assert_eq!(limit.room(), 1_000, "alone; and twice as many went well");
    limit.felt(Felt::Refused, 9, at(202));
    assert_eq!(limit.room(), 64);
    for n in 0..100 {
        limit.felt(Felt::Refused, 9, at(300 + n));
        limit.ended(9, None, false, at(300 + n));
    }
    assert_eq!(limit.room(), 64, "nothing has gone well since");
}

#[test]
fn a_limit_that_nobody_reaches_is_forgotten() {
    let mut limit = Adaptive::new(1_000);
    limit.went_well(20);
    limit.felt(Felt::Refused, 20, at(1));
    assert_eq!(limit.room(), 64);
    for second in 1..=60 {
        for _ in 0..30 {
            limit.ended(2, Some(Duration::from_millis(100)), false, at(second * 1_000));
        }
    }
    assert_eq!(limit.room(), 1_000);
}

#[test]
fn who_is_slower_by_itself_has_its_limit_back() {
    let mut limit = Adaptive::new(32);
    let mut now = 0;
    let mut words = |limit: &mut Adaptive, first: u64, running: u32| {
        for _ in 0..16 {
            now += 10;
            limit.felt(Felt::Word(Duration::from_millis(first)), running, at(now));
        }
    };
    words(&mut limit, 200, 32);
    words(&mut limit, 390, 32);
    assert_eq!(limit.room(), 32, "not twice as long");
    words(&mut limit, 900, 32);
    assert_eq!(limit.room(), 16);
    words(&mut limit, 900, 32);
    assert_eq!(limit.room(), 16, "what began before says nothing");
    for _ in 0..32 {
        limit.ended(16, Some(Duration::from_millis(1_500)), false, at(1));
    }
    words(&mut limit, 890, 16);
    assert_eq!(limit.room(), 32, "half as many were no quicker");
    words(&mut limit, 890, 32);
    assert_eq!(limit.room(), 32, "that is what it takes");
}

#[test]
fn who_is_left_before_its_first_word_is_not_quick() {
    let mut limit = Adaptive::new(32);
    let no_words = |limit: &mut Adaptive, after: u64| {
        for n in 0..16 {
            limit.felt(Felt::NoWord(Duration::from_millis(after)), 32, at(n + 1));
        }
    };
    no_words(&mut limit, 1_500);
    assert_eq!(limit.room(), 32, "nobody knows what it takes by itself");
    for n in 0..16 {
        limit.felt(Felt::Word(Duration::from_millis(200)), 32, at(n + 20));
    }
    no_words(&mut limit, 290);
    assert_eq!(limit.room(), 32, "too early to tell");
    no_words(&mut limit, 1_500);
    assert_eq!(limit.room(), 32, "not a word came: that is an outage");
    for n in 0..2 {
        limit.felt(Felt::Word(Duration::from_millis(1_000)), 32, at(n + 60));
    }
    no_words(&mut limit, 1_500);
    assert_eq!(limit.room(), 16);
}

#[test]
fn long_answers_are_no_sign() {
    let mut limit = Adaptive::new(64);
    for n in 0..5_000 {
        limit.ended(64, Some(Duration::from_secs(n)), true, at(n));
    }
    assert_eq!(limit.room(), 64);
}

#[test]
fn a_new_ceiling_lifts_only_who_was_at_the_old_one() {
    let mut free = Adaptive::new(8);
    free.set_ceiling(20);
    assert_eq!(free.room(), 20);
    let mut lowered = Adaptive::new(100);
    lowered.went_well(9);
    lowered.felt(Felt::Refused, 10, at(1));
    let room = lowered.room();
    lowered.set_ceiling(1_000);
    assert_eq!(lowered.room(), room);
    lowered.set_ceiling(4);
    assert_eq!(lowered.room(), 4);
}

proptest! {
    /// Whatever is felt: within its bounds, lowered at most once a round, and never below half of what ran.
    #[test]
    fn it_falls_once_a_round_and_not_too_deep(
        ceiling in 1u32..300,
        ops in prop::collection::vec((0u8..5, 0u64..3_000), 1..2_000),
    ) {
        let mut limit = Adaptive::new(ceiling);
        let (mut running, mut now, mut reached) = (0_u32, 1_u64, false);
        let mut round = 0_u32;
        for (op, n) in ops {
            now += n;
            let before = limit.room();
            match op {
                0 | 1 if running < before => {
                    running += 1;
                    reached |= running >= before;
                }
                2 if running > 0 => {
                    limit.ended(running, Some(Duration::from_millis(n)), std::mem::take(&mut reached), Time(now));
                    if n % 3 > 0 {
                        limit.went_well(running);
                    }
                    running -= 1;
                    round = round.saturating_sub(1);
                }
                3 if running > 0 => limit.felt(Felt::Word(Duration::from_millis(n)), running, Time(now)),
                4 if running > 0 && n % 10 == 0 => {
                    let felt = if n % 20 == 0 { Felt::Refused } else { Felt::TimedOut };
                    limit.felt(felt, running, Time(now));
                }
                _ => continue,
            }
            let after = limit.room();
            prop_assert!((1..=ceiling).contains(&after));
            if after < before {
                prop_assert_eq!(round, 0, "lowered twice in a round");
                prop_assert!(after >= (running / 2).max(1), "{} of {} running", after, running);
                // Slowness far from the limit only brings the limit nearer; that is no cut.
                round = if op == 3 && after >= running.max(8) { 0 } else { running };
            }
        }
    }
}
