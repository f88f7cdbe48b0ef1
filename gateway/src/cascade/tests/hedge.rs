//! A second try beside one that is slow for its target: what both targets see, and what is written down.

use super::*;
use routing::latency::ENOUGH;

/// Two targets of one tier; hedging after the median, so that a slow one is soon told from the usual.
fn racing(max_ratio: &str) -> World {
    let plan = PLAN.replace("[[\"a-weak\"], [\"b-strong\"]]", "[[\"a-weak\", \"b-strong\"]]");
    let plan = format!("{plan}\n[hedge]\nenabled = true\nafter_quantile = 0.5\nmax_ratio = {max_ratio}\n");
    World::new(&plan, vec![Script::answer("one")], vec![Script::answer("two")])
}

fn after(ms: u64, text: &str) -> Script {
    let script = Script::new().begin("m").wait(Duration::from_millis(ms));
    script.text(text).stop().usage(3, 5).done()
}

/// Enough usual tries of both targets, 100 ms each.
async fn usual(world: &World, body: &str) {
    world.weak.turn(after(100, "usual"));
    world.strong.turn(after(100, "usual"));
    for target in world.targets.iter() {
        for _ in 0..ENOUGH {
            let now = world.clock.now();
            target
                .state
                .observe(body == STREAM, Duration::from_millis(100), now);
        }
    }
    // First tries pay for hedges.
    for _ in 0..20 {
        match run(world.work(body)).await.unwrap().body {
            Answer::Stream(driver) => drop(drain(driver).await),
            Answer::Whole(_) | Answer::Shared(_) => {}
        }
    }
}

fn calls(world: &World) -> usize {
    world.weak.seen().len() + world.strong.seen().len()
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_is_overtaken_by_its_rival_and_let_go() {
    let world = racing("1.0");
    usual(&world, STREAM).await;
    let before = (calls(&world), world.clock.now());
    assert_eq!(before.0, 20, "who is as fast as usual has no rival");
    // One of the two hangs; whichever is asked first, it is that one at least once.
    let mut hedged = 0;
    for (hangs, answers) in [(&world.weak, &world.strong), (&world.strong, &world.weak)] {
        hangs.turn(Script::new().act(crate::providers::fake::Act::Hang));
        answers.turn(after(100, "rival"));
        for _ in 0..3 {
            let began = world.clock.now();
            let (head, driver) = stream(run(world.work(STREAM)).await.unwrap());
            let (bytes, error, account) = drain(driver).await;
            assert_eq!(said(&bytes), ("rival".to_owned(), true));
            assert!(error.is_none() && world.clock.now().since(began) < Duration::from_millis(250));
            if account.attempts.len() == 1 {
                continue;
            }
            hedged += 1;
            assert_eq!(head.attempts, 2);
            let kinds: Vec<_> = account.attempts.iter().map(|a| (a.kind, a.outcome)).collect();
            assert_eq!(kinds, [("first", "neutral"), ("hedge", "ok")]);
            let lost = account.attempts.first().unwrap();
            assert!(lost.maybe_billed, "its provider may have worked on it");
            assert_eq!(lost.fault.as_deref(), Some("cancelled"));
            let slow = world
                .plan
                .targets
                .iter()
                .position(|t| t.name == lost.target)
                .unwrap();
            let signal = world
                .targets
                .get(slow)
                .unwrap()
                .state
                .signal(world.clock.now(), None);
            assert!(signal.latency_us >= 100_000, "it is known to be slow");
        }
    }
    assert!(hedged >= 1, "somebody was asked who hangs");
    assert_eq!(world.weak.cancelled() + world.strong.cancelled(), hedged);
    for target in world.targets.iter() {
        assert_eq!(target.state.in_flight(), 0);
        assert_eq!(target.state.breaker(world.clock.now()).state, "closed");
    }
}

#[tokio::test(start_paused = true)]
async fn whole_answers_race_to_their_end() {
    let world = racing("1.0");
    usual(&world, WHOLE).await;
    world.weak.turn(after(9_000, "late"));
    world.strong.turn(after(100, "rival"));
    let mut hedged = 0;
    for _ in 0..12 {
        let began = world.clock.now();
        let (_, body, account) = whole(run(world.work(WHOLE)).await.unwrap());
        assert!(body.contains("rival"), "{body}");
        assert!(world.clock.now().since(began) < Duration::from_millis(250));
        hedged += usize::from(account.attempts.len() == 2);
    }
    assert!(hedged >= 1);
    assert_eq!(world.weak.cancelled(), hedged);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_a_share_of_first_tries_and_none_without_being_asked_for() {
    // Everything is slow from now on: without a budget every request would be two.
    let slow = || after(2_000, "slow");
    let world = racing("0.1");
    usual(&world, STREAM).await;
    world.weak.turn(slow());
    world.strong.turn(slow());
    let before = calls(&world);
    let mut hedges = 0;
    for _ in 0..100 {
        let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
        let (_, _, account) = drain(driver).await;
        hedges += account.attempts.iter().filter(|a| a.kind == "hedge").count();
    }
    assert_eq!(calls(&world) - before, 100 + hedges);
    assert!(
        (1..=12).contains(&hedges),
        "{hedges} of 120 first tries at a tenth"
    );
    // What a client has sent again has no second try.
    let again = Work {
        resent: 1,
        ..world.work(STREAM)
    };
    let (_, driver) = stream(run(again).await.unwrap());
    assert_eq!(drain(driver).await.2.attempts.len(), 1);
    // Off, as in every plan that does not ask for it.
    let off = World::new(
        &PLAN.replace("[[\"a-weak\"], [\"b-strong\"]]", "[[\"a-weak\", \"b-strong\"]]"),
        vec![],
        vec![],
    );
    usual(&off, STREAM).await;
    off.weak.turn(slow());
    off.strong.turn(slow());
    let (_, driver) = stream(run(off.work(STREAM)).await.unwrap());
    assert_eq!(drain(driver).await.2.attempts.len(), 1);
}
