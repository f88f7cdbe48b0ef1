//! Whatever happens: everyone who came is let in or turned away, once; the order is that of classes; nobody is starved.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::admission::line::SHARE;
use crate::admission::{Ask, Joined, Line, Pace, Shed, ShedWhy, Ticket, patience};
use crate::plan::Class;
use crate::units::Time;

const CLASSES: [Class; 3] = [Class::High, Class::Normal, Class::Low];

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
fn ask(class: Class, came: u64, tokens: u64) -> Ask {
    Ask {
        class,
        tokens,
        came: at(came),
        until: at(came + 500),
    }
}
fn any_pair(_: &u32, _: &u32) -> bool {
    true
}
fn join(line: &mut Line<u32>, ask: Ask, id: u32) -> Joined<u32> {
    line.join(ask, id, 100, Pace::default(), ask.came, any_pair)
}
fn order(line: &mut Line<u32>, now: u64) -> Vec<u32> {
    std::iter::from_fn(|| line.next(at(now), |_| Some(())).map(|(_, id, ())| id)).collect()
}

#[test]
fn classes_first_then_who_came_first_and_is_short() {
    let mut line = Line::default();
    join(&mut line, ask(Class::Low, 1, 0), 1);
    join(&mut line, ask(Class::Normal, 2, 0), 2);
    // As if it had come 250 ms later.
    join(&mut line, ask(Class::High, 3, 1_000_000), 3);
    join(&mut line, ask(Class::High, 200, 100), 4);
    join(&mut line, ask(Class::High, 300, 0), 5);
    assert_eq!((line.len(), line.of(Class::High)), (5, 3));
    assert_eq!(order(&mut line, 301), [4, 3, 5, 2, 1]);
    assert!(line.is_empty());
}

#[test]
fn a_lower_class_has_its_share() {
    let mut line = Line::default();
    for id in 0..80 {
        join(&mut line, ask(Class::High, u64::from(id), 0), id);
    }
    for (id, class) in [(100, Class::Low), (101, Class::Low), (102, Class::Normal)] {
        join(&mut line, ask(class, 90, 0), id);
    }
    let order = order(&mut line, 91);
    let place = |id| order.iter().position(|&x| x == id).unwrap();
    // The first after fifteen turns of others, the second after as many again.
    assert_eq!((place(100), place(102)), (15, 16));
    assert!(place(101) <= 17 + SHARE as usize, "{order:?}");
}

#[test]
fn those_who_could_not_wait_any_longer_have_waited_for_their_class() {
    let mut line = Line::default();
    let mut lows = 0;
    for turn in 0..64 {
        join(&mut line, ask(Class::High, turn, 0), 0);
        let Joined::Waits { ticket, .. } = join(&mut line, ask(Class::Low, turn, 0), 1) else {
            panic!("there are places");
        };
        lows += line.next(at(turn), |_| Some(())).map_or(0, |(_, id, ())| id);
        line.leave(ticket);
    }
    assert_eq!(lows, 4);
}

#[test]
fn who_would_wait_in_vain_is_told_at_once_for_how_long() {
    let pace = Pace {
        turn: Some(ms(100)),
        begins: Time(0),
    };
    let mut line = Line::default();
    let come =
        |line: &mut Line<u32>, class, id| line.join(ask(class, 1_000, 0), id, 100, pace, at(1_000), any_pair);
    for id in 0..5 {
        assert!(matches!(come(&mut line, Class::Normal, id), Joined::Waits { .. }));
    }
    let Joined::Shed(shed, 5) = come(&mut line, Class::Normal, 5) else {
        panic!("600 ms are more than 500");
    };
    assert_eq!((shed.why, shed.come_back), (ShedWhy::Wait, Some(ms(600))));
    // A higher one stands before them all.
    assert!(matches!(come(&mut line, Class::High, 6), Joined::Waits { .. }));
    // What nobody has a turn for yet is waited for too.
    let begins = Pace {
        turn: None,
        begins: at(1_600),
    };
    let late = line.join(ask(Class::High, 1_000, 0), 7, 100, begins, at(1_000), any_pair);
    assert!(matches!(
        late,
        Joined::Shed(
            Shed {
                why: ShedWhy::Wait,
                ..
            },
            7
        )
    ));
}

#[test]
fn a_full_row_gives_the_last_place_of_a_lower_class_away() {
    let mut line = Line::default();
    let come = |line: &mut Line<u32>, class, id| {
        line.join(
            ask(class, u64::from(id), 0),
            id,
            2,
            Pace::default(),
            at(10),
            any_pair,
        )
    };
    come(&mut line, Class::Low, 1);
    come(&mut line, Class::Low, 2);
    let Joined::Shed(shed, 3) = come(&mut line, Class::Low, 3) else {
        panic!("no place");
    };
    assert_eq!((shed.why, shed.come_back), (ShedWhy::Full, None));
    let Joined::Waits { pushed_out, .. } = come(&mut line, Class::High, 4) else {
        panic!("it is of a higher class");
    };
    assert_eq!(pushed_out, Some(2));
    assert_eq!(order(&mut line, 11), [4, 1]);
}

#[test]
fn who_waits_for_something_else_is_passed_and_keeps_its_place() {
    let mut line = Line::default();
    for id in 0..4 {
        join(&mut line, ask(Class::Normal, u64::from(id), 0), id);
    }
    let odd = |id: &u32| (id % 2 == 1).then_some(());
    assert_eq!(line.next(at(5), odd).map(|n| n.1), Some(1));
    assert_eq!(order(&mut line, 5), [0, 2, 3]);
}

#[test]
fn patience_keeps_time_for_the_answer() {
    let of = |left: u64, run: Option<u64>| patience(at(1_000), ms(500), at(1_000 + left), run.map(ms));
    assert_eq!(of(60_000, Some(2_000)), at(1_500));
    assert_eq!(of(800, Some(400)), at(1_400));
    assert_eq!(of(800, Some(10_000)), at(1_400), "half of it may be waited");
    assert_eq!(of(300, None), at(1_300));
}

#[derive(Clone, Debug)]
enum Op {
    Come {
        class: usize,
        tokens: u64,
        wait: u64,
        kind: u8,
    },
    /// A place is free for those of this kind.
    Turn(u8),
    Leave(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0usize..3, 0u64..20_000, 0u64..800, 0u8..3)
            .prop_map(|(class, tokens, wait, kind)| Op::Come { class, tokens, wait, kind }),
        4 => (0u8..3).prop_map(Op::Turn),
        1 => (0usize..50).prop_map(Op::Leave),
        3 => (0u64..60).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn everyone_is_let_in_or_turned_away_once(ops in prop::collection::vec(op(), 1..300), places in 0usize..12) {
        let mut line: Line<(u32, u8)> = Line::default();
        let mut inside: BTreeMap<u32, (Ticket, Time, u8)> = BTreeMap::new();
        let (mut now, mut came, mut gone) = (1_000_u64, 0_u32, 0_u32);
        for op in ops {
            match op {
                Op::Pass(time) => now += time,
                Op::Come { class, tokens, wait, kind } => {
                    came += 1;
                    let ask = Ask { class: CLASSES[class], tokens, came: at(now), until: at(now + wait) };
                    let same = |a: &(u32, u8), b: &(u32, u8)| a.1 == b.1;
                    match line.join(ask, (came, kind), places, Pace::default(), at(now), same) {
                        Joined::Waits { ticket, pushed_out } => {
                            inside.insert(came, (ticket, ask.until, kind));
                            if let Some((id, _)) = pushed_out {
                                let (last, ..) = inside.remove(&id).expect("it waited");
                                prop_assert!(last.class() > ask.class);
                                prop_assert!(inside.values().all(|(t, ..)| *t < last || *t == ticket));
                                gone += 1;
                            }
                        }
                        Joined::Shed(shed, (id, _)) => {
                            prop_assert_eq!(id, came);
                            match shed.why {
                                ShedWhy::Full => prop_assert!(inside.len() == places),
                                why => prop_assert_eq!((why, wait), (ShedWhy::Wait, 0)),
                            }
                            gone += 1;
                        }
                    }
                }
                Op::Turn(kind) => {
                    let can = |v: &(u32, u8)| (v.1 == kind).then_some(v.0);
                    match line.next(at(now), can) {
                        None => {}
                        Some((ticket, (id, of), fit)) => {
                            prop_assert_eq!((of, fit), (kind, id));
                            let (mine, until, _) = inside.remove(&id).expect("it waited");
                            prop_assert!(mine == ticket && until > at(now));
                            gone += 1;
                            let quicker = |(t, until, k): &(Ticket, Time, u8)| {
                                t.class() == mine.class() && *t < mine && *until > at(now) && *k == kind
                            };
                            prop_assert!(!inside.values().any(quicker), "somebody of its class stood before it");
                        }
                    }
                }
                Op::Leave(which) => {
                    if let Some(id) = inside.keys().nth(which).copied() {
                        let (ticket, ..) = inside.remove(&id).unwrap();
                        prop_assert_eq!(line.leave(ticket).map(|v| v.0), Some(id));
                        prop_assert!(line.leave(ticket).is_none(), "once");
                        gone += 1;
                    }
                }
            }
            prop_assert!(line.len() <= places);
            prop_assert_eq!(line.len(), inside.len());
            for class in CLASSES {
                prop_assert_eq!(line.of(class), inside.values().filter(|(t, ..)| t.class() == class).count());
            }
            prop_assert_eq!(came, gone + inside.len() as u32);
        }
    }

    /// With places for everybody: a higher class goes first, except for the turns that lower ones are owed.
    #[test]
    fn the_order_is_that_of_classes_with_a_share(classes in prop::collection::vec(0usize..3, 1..200)) {
        let mut line = Line::default();
        for (i, class) in classes.iter().enumerate() {
            let joined = line.join(ask(CLASSES[*class], 1, 0), *class, 1_000, Pace::default(), at(1), |_, _| true);
            prop_assert!(matches!(joined, Joined::Waits { .. }), "{i}");
        }
        let mut passed = [0_u32; 3];
        let mut left = [0_usize; 3];
        classes.iter().for_each(|c| left[*c] += 1);
        while let Some((_, class, ())) = line.next(at(2), |_| Some(())) {
            let higher = (0..class).any(|c| left[c] > 0);
            prop_assert!(!higher || passed[class] >= SHARE, "class {class} went before a higher one");
            left[class] -= 1;
            for lower in class + 1..3 {
                passed[lower] = if left[lower] > 0 { passed[lower] + 1 } else { 0 };
                prop_assert!(passed[lower] <= SHARE + 1, "class {lower} was passed over {passed:?}");
            }
            passed[class] = 0;
        }
        prop_assert_eq!(left, [0, 0, 0]);
    }
}
