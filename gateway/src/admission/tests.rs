//! The gate with its clock in hand; and with threads, where nothing may be lost.

use std::sync::atomic::{AtomicU32, Ordering};

use routing::breaker::Sign;
use routing::signals::Hold;

use super::*;
use crate::target_state::TargetState;

fn config(max_in_flight: u32, queue: u32, max_wait_ms: u64) -> Admission {
    Admission {
        max_in_flight,
        queue,
        max_wait: Duration::from_millis(max_wait_ms),
    }
}

fn gate(config: &Admission) -> (Arc<Gate>, Clock, Telemetry) {
    let (clock, telemetry) = (Clock::system(), Telemetry::new());
    (
        Gate::new(config, clock.clone(), telemetry.clone()),
        clock,
        telemetry,
    )
}

fn ask(gate: &Gate, class: Class) -> Ask {
    let came = gate.clock.now();
    Ask {
        class,
        tokens: 0,
        came,
        until: came + gate.max_wait(),
    }
}

/// Starts to wait, as a task of its own; its result and its name go to `ends`.
fn waits(
    gate: &Arc<Gate>,
    class: Class,
    wants: Wants,
    name: u32,
    ends: &tokio::sync::mpsc::UnboundedSender<(u32, Told)>,
) -> tokio::task::JoinHandle<()> {
    let (gate, ends, ask) = (Arc::clone(gate), ends.clone(), ask(gate, class));
    tokio::spawn(async move {
        let told = gate.wait(ask, wants, &mut None).await;
        let _ = ends.send((name, told));
    })
}

async fn until_waiting(gate: &Gate, count: usize) {
    for _ in 0..10_000 {
        if gate.line().len() == count {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} wait, not {count}", gate.line().len());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_in_turn_and_no_one_passes_it() {
    let (gate, _, telemetry) = gate(&config(2, 10, 60_000));
    let (first, second) = (
        gate.pass(gate.clock.now()).unwrap(),
        gate.pass(gate.clock.now()).unwrap(),
    );
    assert!(gate.pass(gate.clock.now()).is_none());
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    waits(&gate, Class::Low, Wants::default(), 1, &ends);
    until_waiting(&gate, 1).await;
    waits(&gate, Class::Normal, Wants::default(), 2, &ends);
    until_waiting(&gate, 2).await;
    waits(&gate, Class::High, Wants::default(), 3, &ends);
    until_waiting(&gate, 3).await;
    gate.report();
    assert!(
        telemetry
            .render()
            .contains(r#"weir_admission_queued{class="high"} 1"#)
    );
    drop(first);
    let (name, third) = ended.recv().await.unwrap();
    assert_eq!(name, 3);
    assert!(gate.pass(gate.clock.now()).is_none(), "others wait");
    assert_eq!(gate.in_flight(), 2);
    drop((second, third));
    let (a, b) = (ended.recv().await.unwrap(), ended.recv().await.unwrap());
    assert_eq!((a.0, b.0), (2, 1));
    drop((a, b));
    assert_eq!((gate.in_flight(), gate.queued(Class::Low)), (0, 0));
    assert!(gate.pass(gate.clock.now()).is_some());
    let text = telemetry.render();
    assert!(
        text.contains(r#"weir_admission_waited_seconds_count{class="high"} 1"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_waits_leaves_nothing_behind() {
    let (gate, ..) = gate(&config(1, 10, 60_000));
    let permit = gate.pass(gate.clock.now()).unwrap();
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let leaves = waits(&gate, Class::High, Wants::default(), 1, &ends);
    until_waiting(&gate, 1).await;
    waits(&gate, Class::Normal, Wants::default(), 2, &ends);
    until_waiting(&gate, 2).await;
    leaves.abort();
    until_waiting(&gate, 1).await;
    // One that is told and leaves before it hears of it: what it got goes to the next.
    let told = waits(&gate, Class::High, Wants::default(), 3, &ends);
    until_waiting(&gate, 2).await;
    drop(permit);
    told.abort();
    assert_eq!(ended.recv().await.unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end_and_a_row_has_places() {
    let (gate, clock, telemetry) = gate(&config(1, 1, 500));
    let held = gate.pass(gate.clock.now()).unwrap();
    let from = clock.now();
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    waits(&gate, Class::Normal, Wants::default(), 1, &ends);
    until_waiting(&gate, 1).await;
    let full = gate
        .wait(ask(&gate, Class::Normal), Wants::default(), &mut None)
        .await;
    assert_eq!(full.unwrap_err().why, ShedWhy::Full);
    // A higher class has its place.
    waits(&gate, Class::High, Wants::default(), 2, &ends);
    let (name, pushed) = ended.recv().await.unwrap();
    assert_eq!((name, pushed.unwrap_err().why), (1, ShedWhy::PushedOut));
    let (name, waited) = ended.recv().await.unwrap();
    assert_eq!((name, waited.unwrap_err().why), (2, ShedWhy::Waited));
    assert_eq!(clock.now().since(from).as_millis() / 10, 50);
    tokio::time::advance(Duration::from_millis(1_500)).await;
    drop(held);
    // It is known by now for how long one is in flight: nobody waits in vain any more.
    let _held = gate.pass(gate.clock.now()).unwrap();
    let vain = gate
        .wait(ask(&gate, Class::High), Wants::default(), &mut None)
        .await
        .unwrap_err();
    assert_eq!(vain.why, ShedWhy::Wait);
    assert!(vain.come_back.unwrap() >= Duration::from_secs(2), "{vain:?}");
    let text = telemetry.render();
    for line in [
        r#"weir_admission_shed_total{reason="queue_full",class="normal"} 1"#,
        r#"weir_admission_shed_total{reason="pushed_out",class="normal"} 1"#,
        r#"weir_admission_shed_total{reason="waited",class="high"} 1"#,
        r#"weir_admission_shed_total{reason="wait",class="high"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

fn target(gate: &Arc<Gate>, most: u32) -> Arc<TargetState> {
    let state = Arc::new(TargetState::default());
    state.configure(&routing::plan::Breaker::default(), Some(most));
    state.tells(&|| Arc::new(AtTargets(Arc::clone(gate))));
    state
}

#[tokio::test(start_paused = true)]
async fn a_place_at_a_target_goes_to_who_waits_for_it() {
    let (gate, clock, _) = gate(&config(100, 10, 60_000));
    let (a, b) = (target(&gate, 1), target(&gate, 1));
    let running = a.begin(clock.now()).unwrap();
    let at_b = b.sit(clock.now()).unwrap();
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    waits(&gate, Class::Normal, Wants::at([Arc::clone(&a)]), 1, &ends);
    until_waiting(&gate, 1).await;
    waits(
        &gate,
        Class::High,
        Wants::at([Arc::clone(&a), Arc::clone(&b)]),
        2,
        &ends,
    );
    until_waiting(&gate, 2).await;
    assert!(
        gate.pass(gate.clock.now()).is_some(),
        "a request of another route is in nobody's way"
    );
    drop(at_b);
    let (name, entry) = ended.recv().await.unwrap();
    let entry = entry.unwrap();
    assert!(name == 2 && entry.seat.as_ref().unwrap().is_at(&b));
    assert!(a.sit(clock.now()).is_none(), "somebody waits for it");
    drop(running);
    let (name, other) = ended.recv().await.unwrap();
    let seat = other.unwrap().seat.unwrap();
    assert!(name == 1 && seat.is_at(&a));
    assert!(a.sit(clock.now()).is_none(), "it is taken");
    let leave = a.begin_in(seat, clock.now()).unwrap();
    assert_eq!(a.in_flight(), 1);
    drop((leave, entry));
    assert_eq!((a.in_flight(), b.in_flight(), gate.in_flight()), (0, 0, 0));
    assert!(a.sit(clock.now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_waits_behind_also_where_a_place_is_free() {
    let (gate, clock, _) = gate(&config(100, 10, 60_000));
    let a = target(&gate, 5);
    let until = clock.now() + Duration::from_millis(300);
    a.hold(until, Hold::Limited);
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    waits(&gate, Class::Normal, Wants::at([Arc::clone(&a)]), 1, &ends);
    until_waiting(&gate, 1).await;
    // Its time is over, and who waits has not been woken yet.
    let later = until + Duration::from_millis(1);
    assert!(a.sit(later).is_none(), "somebody waits for it");
    let (_, entry) = ended.recv().await.unwrap();
    assert!(entry.unwrap().seat.unwrap().is_at(&a));
    assert!(a.sit(clock.now()).is_some(), "nobody does any more");
}

#[tokio::test(start_paused = true)]
async fn a_limited_target_is_waited_for_and_a_dead_one_is_not() {
    let (gate, clock, _) = gate(&config(100, 10, 60_000));
    let a = target(&gate, 5);
    let from = clock.now();
    a.hold(from + Duration::from_millis(300), Hold::Limited);
    let told = gate
        .wait(ask(&gate, Class::Normal), Wants::at([Arc::clone(&a)]), &mut None)
        .await;
    assert!(told.unwrap().seat.is_some());
    assert_eq!(clock.now().since(from).as_millis() / 10, 30);
    // Its breaker opens while somebody waits: what can be done without it is for the decision to say.
    let mut running: Vec<_> = (0..5).map(|_| a.begin(clock.now()).unwrap()).collect();
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    waits(&gate, Class::Normal, Wants::at([Arc::clone(&a)]), 1, &ends);
    until_waiting(&gate, 1).await;
    for leave in &mut running {
        leave.told(Sign::Failed, clock.now());
    }
    drop(running.pop());
    let told = ended.recv().await.unwrap().1.unwrap();
    assert!(told.seat.is_none() && a.in_flight() == 4);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_kept_where_there_is_no_waiting_and_given_up_where_there_is() {
    let (gate, ..) = gate(&config(10, 1, 500));
    let a = target(&gate, 1);
    let seat = a.sit(gate.clock.now()).unwrap();
    let mut held = gate.pass(gate.clock.now());
    let none = Ask {
        until: Time(0),
        ..ask(&gate, Class::High)
    };
    let wants = Wants::at([Arc::clone(&a)]);
    assert!(gate.wait(none, wants.clone(), &mut held).await.is_err());
    assert!(held.is_some() && gate.in_flight() == 1);
    assert!(
        gate.wait(ask(&gate, Class::High), wants, &mut held)
            .await
            .is_err()
    );
    assert!(held.is_none() && gate.in_flight() == 0);
    drop(seat);
}

/// Many threads, more requests than places, callers that leave at any moment: never more than may, and in the end nothing is
/// held and nobody is left waiting.
#[test]
fn nothing_is_lost_between_threads() {
    const MAX: u32 = 3;
    let (gate, clock, _) = gate(&config(MAX, 64, 60_000));
    let targets = [target(&gate, 1), target(&gate, 2)];
    let (inside, most, served) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (gate, clock, targets) = (&gate, &clock, &targets);
            let (inside, most, served) = (&inside, &most, &served);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for n in 0..500_u64 {
                        let draw = routing::balance::mix(thread << 32 | n);
                        let class = [Class::High, Class::Normal, Class::Low][(draw % 3) as usize];
                        let wants = match draw >> 8 & 3 {
                            0 => Wants::at(targets.iter().cloned()),
                            1 => Wants::at([Arc::clone(&targets[0])]),
                            _ => Wants::default(),
                        };
                        let quick = if wants.is_empty() {
                            gate.pass(clock.now())
                        } else {
                            None
                        };
                        let mut none = None;
                        let entry = match quick {
                            Some(permit) => Entry { permit, seat: None },
                            None => tokio::select! {
                                biased;
                                told = gate.wait(ask(gate, class), wants.clone(), &mut none) => told.unwrap(),
                                () = tokio::task::yield_now(), if draw >> 16 & 3 == 0 => continue,
                            },
                        };
                        assert_eq!(entry.seat.is_some(), !wants.is_empty());
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let leave = entry.seat.map(|seat| {
                            let state = targets.iter().find(|t| seat.is_at(t)).unwrap();
                            state.begin_in(seat, clock.now()).unwrap()
                        });
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::SeqCst);
                        drop(leave);
                        drop(entry.permit);
                    }
                });
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= MAX, "{most:?} at once");
    assert!(served.load(Ordering::SeqCst) > 1_000, "{served:?} served");
    assert_eq!(gate.word.load(Ordering::SeqCst), 0);
    assert!(gate.line().is_empty());
    assert!(
        targets
            .iter()
            .all(|t| t.in_flight() == 0 && t.sit(clock.now()).is_some())
    );
}
