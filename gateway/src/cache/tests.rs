//! Flights by themselves: who reads what, who holds up whom, who pays.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::flight::{End, Flight, MAX_LOG, Read, Reader};
use super::flights::{Boarded, Flights};
use super::key::Key;
use crate::call::CallKind;
use crate::cascade::{Account, Head};
use crate::error::{Error, Kind};
use crate::leases::ByteBudget;
use crate::providers::event::{Event, Frame};
use crate::providers::render::Form;

const FORM: Form = Form {
    kind: CallKind::Chat,
    stream: true,
    include_usage: false,
};

fn flight() -> (Arc<ByteBudget>, Reader) {
    let budget = ByteBudget::new(1 << 30, metrics::Gauge::noop());
    let reader = Flight::led(FORM, budget.take(0), None);
    (budget, reader)
}

fn frame(bytes: usize) -> Frame {
    Frame {
        wire: Some(Bytes::from(vec![b'x'; bytes])),
        ..Frame::silent(Event::Ping)
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Frames that are there now, and what comes then.
fn read(reader: &mut Reader) -> (usize, &'static str) {
    let mut count = 0;
    loop {
        let then = match reader.poll_read(&mut cx()) {
            Poll::Ready(Read::Frame(_)) => {
                count += 1;
                continue;
            }
            Poll::Ready(Read::End(End::Whole)) => "whole",
            Poll::Ready(Read::End(End::Failed(_))) => "failed",
            Poll::Ready(Read::End(End::NotBegun)) => "not begun",
            Poll::Ready(Read::Behind) => "behind",
            Poll::Pending => "waits",
        };
        return (count, then);
    }
}

fn land(flight: &Flight, end: End) {
    flight.land(end, Head::default(), Account::default());
}

#[test]
fn whoever_joins_reads_from_the_first_word() {
    let (_, mut leader) = flight();
    let flight = Arc::clone(leader.flight());
    flight.push(frame(1));
    assert_eq!(read(&mut leader), (1, "waits"));
    let mut late = flight.join().unwrap();
    flight.push(frame(1));
    assert_eq!((read(&mut leader), read(&mut late)), ((1, "waits"), (2, "waits")));
    land(&flight, End::Whole);
    let mut last = flight.join().unwrap();
    assert_eq!((read(&mut leader), read(&mut last)), ((0, "whole"), (2, "whole")));
}

#[test]
fn a_slow_reader_holds_nobody_up_and_is_told_when_it_is_too_slow() {
    let (budget, mut fast) = flight();
    let flight = Arc::clone(fast.flight());
    let mut slow = flight.join().unwrap();
    assert!(slow.poll_read(&mut cx()).is_pending());
    for _ in 0..8 {
        assert!(flight.has_room(&mut cx()), "the fast one has read everything");
        flight.push(frame(1 << 20));
        assert_eq!(read(&mut fast), (1, "waits"));
    }
    assert_eq!(read(&mut slow), (0, "behind"));
    assert!(flight.join().is_none(), "its first words are gone");
    assert!(budget.used() <= (MAX_LOG + (2 << 20)) as u64, "{}", budget.used());
    drop((fast, slow, flight));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_reader_alone_is_waited_for() {
    let (_, mut alone) = flight();
    let flight = Arc::clone(alone.flight());
    let mut pushed = 0;
    while flight.has_room(&mut cx()) {
        flight.push(frame(1 << 20));
        pushed += 1;
    }
    assert_eq!(pushed, 4);
    assert!(matches!(alone.poll_read(&mut cx()), Poll::Ready(Read::Frame(_))));
    assert!(flight.has_room(&mut cx()), "one frame was read");
    flight.push(frame(1));
    assert_eq!(read(&mut alone), (4, "waits"), "nothing was lost");
}

#[test]
fn where_the_process_has_no_room_it_is_as_long_as_it_may_be() {
    let budget = ByteBudget::new(1_000, metrics::Gauge::noop());
    let mut reader = Flight::led(FORM, budget.take(0), None);
    let flight = Arc::clone(reader.flight());
    flight.push(frame(2_000));
    assert!(!flight.has_room(&mut cx()));
    assert_eq!(read(&mut reader), (1, "waits"));
    assert!(flight.has_room(&mut cx()));
    assert_eq!(budget.used(), 0);
}

#[test]
fn one_that_failed_is_read_to_its_end_and_joined_no_more() {
    let (_, mut reader) = flight();
    let flight = Arc::clone(reader.flight());
    flight.push(frame(1));
    land(&flight, End::Failed(Error::new(Kind::StreamCut, "cut")));
    assert!(flight.join().is_none());
    assert_eq!(read(&mut reader), (1, "failed"));
    // The first end counts.
    land(&flight, End::Whole);
    assert_eq!(read(&mut reader), (0, "failed"));
}

#[test]
fn the_head_of_a_stream_is_that_of_its_commit() {
    let (_, mut reader) = flight();
    let flight = Arc::clone(reader.flight());
    let head = |attempts| Head {
        attempts,
        ..Head::default()
    };
    flight.committed(head(1));
    flight.push(frame(1));
    flight.land(End::Whole, head(2), Account::default());
    let Poll::Ready(Ok(told)) = reader.poll_head(&mut cx()) else {
        panic!("it is committed")
    };
    assert_eq!(told.attempts, 1);
}

#[test]
fn a_question_has_one_flight_and_the_next_when_that_came_to_nothing() {
    let (flights, key) = (Flights::default(), Key::named("t", "k"));
    let board = || flights.board(&key, || Flight::led(FORM, None, None));
    let Boarded::Leads(leader) = board() else {
        panic!("nobody was there")
    };
    let Boarded::Joined(waiter) = board() else {
        panic!("there is one")
    };
    assert!(Arc::ptr_eq(leader.flight(), waiter.flight()));
    leader.flight().not_begun();
    let Boarded::Leads(second) = board() else {
        panic!("the first came to nothing")
    };
    // The first one's end does not take the second one off the list.
    flights.remove(&key, leader.flight());
    assert_eq!(flights.len(), 1);
    flights.remove(&key, second.flight());
    assert!(flights.is_empty());
}
