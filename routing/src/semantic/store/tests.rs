use super::*;
use crate::semantic::Parts;

fn partition(tenant: &str, context: &[u8]) -> Partition {
    Partition::of(&Parts {
        tenant,
        policy: 1,
        space: "plane",
        context,
        tools: b"",
        parameters: b"",
        language: *b"en",
    })
    .unwrap()
}

fn vector(similarity: f32) -> Vector {
    Vector::of(&[similarity, (1.0 - similarity * similarity).sqrt()]).unwrap()
}

fn ask<'a>(partition: &'a Partition, text: &'a str, vector: &'a Vector) -> Question<'a> {
    Question {
        partition,
        text,
        vector,
        max_error_rate: 1.0,
    }
}

fn small(per_partition: usize, entries: usize) -> Semantic<u32> {
    Semantic::new(Limits {
        per_partition,
        entries,
        ..Limits::default()
    })
}

const NEVER: Time = Time::NEVER;

#[test]
fn the_same_text_is_a_repeat() {
    let (p, v) = (partition("t", b""), vector(1.0));
    let mut store = small(8, 8);
    store.insert(ask(&p, "How do I pay?", &v), 7, 1, NEVER);
    assert_eq!(
        store.look(ask(&p, "How do I pay?", &v), Time(0), 0),
        Look::Repeat(7)
    );
    assert_eq!(store.bound(&p), None, "no semantic look-up was counted");
}

#[test]
fn another_partition_is_another_world() {
    let (p, v) = (partition("t", b"system"), vector(1.0));
    let mut store = small(8, 8);
    store.insert(ask(&p, "How do I pay?", &v), 7, 1, NEVER);
    for other in [partition("u", b"system"), partition("t", b"System")] {
        let look = store.look(ask(&other, "How do I pay?", &v), Time(0), 0);
        assert_eq!(look, Look::Miss { refused: None });
    }
}

#[test]
fn a_candidate_is_explored_before_it_hits() {
    let (p, own, other) = (partition("t", b""), vector(1.0), vector(0.9));
    let mut store = small(8, 8);
    store.insert(ask(&p, "How do I reset my password?", &own), 7, 1, NEVER);
    let asked = ask(&p, "how to reset the password", &other);
    let mut hits = 0;
    for seed in 0..200 {
        match store.look(asked, Time(0), seed) {
            Look::Explore { answer, trial } => {
                assert_eq!(answer, 7);
                store.learn(&trial, Verdict::Same);
            }
            Look::Hit { answer, .. } => {
                assert_eq!(answer, 7);
                hits += 1;
            }
            look => panic!("{look:?}"),
        }
    }
    assert!(hits > 100, "{hits}");
    assert!(
        store.look(ask(&p, "how to reset the passwords", &vector(0.5)), Time(0), 1)
            == Look::Miss { refused: None }
    );
}

#[test]
fn the_guard_that_refused_is_told() {
    let (p, own, other) = (partition("t", b""), vector(1.0), vector(0.99));
    let mut store = small(8, 8);
    store.insert(ask(&p, "pancakes for 4", &own), 7, 1, NEVER);
    let look = store.look(ask(&p, "pancakes for 10", &other), Time(0), 0);
    assert_eq!(
        look,
        Look::Miss {
            refused: Some(Guard::Number)
        }
    );
}

#[test]
fn the_next_best_is_taken_where_a_guard_refuses_the_best() {
    let p = partition("t", b"");
    let mut store = small(8, 8);
    store.insert(ask(&p, "pancakes for 4", &vector(1.0)), 4, 1, NEVER);
    store.insert(ask(&p, "pancakes for 10", &vector(0.9)), 10, 1, NEVER);
    match store.look(ask(&p, "10 people, pancakes", &vector(0.99)), Time(0), 0) {
        Look::Explore { answer, .. } | Look::Hit { answer, .. } => assert_eq!(answer, 10),
        look => panic!("{look:?}"),
    }
}

#[test]
fn what_is_too_old_is_not_there() {
    let (p, v) = (partition("t", b""), vector(1.0));
    let mut store = small(8, 8);
    store.insert(ask(&p, "How do I pay?", &v), 7, 1, Time(100));
    assert_eq!(
        store.look(ask(&p, "How do I pay?", &v), Time(99), 0),
        Look::Repeat(7)
    );
    assert_eq!(
        store.look(ask(&p, "How do I pay?", &v), Time(100), 0),
        Look::Miss { refused: None }
    );
}

#[test]
fn the_least_useful_makes_room_in_its_partition() {
    let (p, v) = (partition("t", b""), vector(1.0));
    let mut store = small(2, 8);
    store.insert(ask(&p, "a", &v), 1, 1, NEVER);
    store.insert(ask(&p, "b", &v), 2, 1, NEVER);
    assert_eq!(store.look(ask(&p, "a", &v), Time(0), 0), Look::Repeat(1));
    store.insert(ask(&p, "c", &v), 3, 1, NEVER);
    assert_eq!(store.figures().entries, 2);
    assert_eq!(store.look(ask(&p, "a", &v), Time(0), 0), Look::Repeat(1));
    assert_ne!(store.look(ask(&p, "b", &v), Time(0), 0), Look::Repeat(2));
}

#[test]
fn the_oldest_partition_makes_room_for_all() {
    let v = vector(1.0);
    let (a, b, c) = (partition("a", b""), partition("b", b""), partition("c", b""));
    let mut store = small(2, 2);
    store.insert(ask(&a, "x", &v), 1, 1, NEVER);
    store.insert(ask(&b, "x", &v), 2, 1, NEVER);
    assert_eq!(store.look(ask(&a, "x", &v), Time(0), 0), Look::Repeat(1));
    store.insert(ask(&c, "x", &v), 3, 1, NEVER);
    assert_eq!(store.figures().partitions, 2);
    assert_eq!(store.look(ask(&a, "x", &v), Time(0), 0), Look::Repeat(1));
    assert_eq!(
        store.look(ask(&b, "x", &v), Time(0), 0),
        Look::Miss { refused: None }
    );
}

#[test]
fn bytes_are_bounded_and_come_back() {
    let (p, v) = (partition("t", b""), vector(1.0));
    let mut store = Semantic::new(Limits {
        bytes: 20_000,
        ..Limits::default()
    });
    for n in 0..100_u32 {
        let text = format!("question {n}");
        store.insert(ask(&p, &text, &v), n, 3_000, NEVER);
        assert!(store.figures().bytes <= 20_000);
    }
    assert!(store.figures().entries >= 3);
    store.insert(ask(&p, "too large", &v), 0, 30_000, NEVER);
    assert_ne!(store.look(ask(&p, "too large", &v), Time(0), 0), Look::Repeat(0));
    store.clear();
    assert_eq!(store.figures(), Figures::default());
}

#[test]
fn a_new_answer_replaces_the_old_one() {
    let (p, v) = (partition("t", b""), vector(1.0));
    let mut store = small(8, 8);
    store.insert(ask(&p, "x", &v), 1, 10, NEVER);
    let bytes = store.figures().bytes;
    store.insert(ask(&p, "x", &v), 2, 10, NEVER);
    assert_eq!(store.figures().bytes, bytes);
    assert_eq!(store.look(ask(&p, "x", &v), Time(0), 0), Look::Repeat(2));
}

#[test]
fn tenants_do_not_share_a_bound() {
    let (a, b) = (partition("a", b""), partition("b", b""));
    let mut store = small(8, 8);
    for _ in 0..10 {
        store.look(ask(&a, "x", &vector(1.0)), Time(0), 0);
    }
    store.look(ask(&b, "x", &vector(1.0)), Time(0), 0);
    assert_eq!(store.bound(&a).map(|(_, lookups)| lookups), Some(10));
    assert_eq!(store.bound(&b).map(|(_, lookups)| lookups), Some(1));
}
