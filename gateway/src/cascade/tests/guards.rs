//! What stands around a try: permit, breaker, budgets.

use super::*;
use crate::target_state::Wish;

fn down() -> Script {
    Script::refuse(AttemptError::new(Fault::Status(500), "500 from the provider").sent())
}
fn limited() -> Script {
    Script::refuse(AttemptError::new(Fault::Status(429), "429 from the provider").sent())
}

/// No repeats on the same target: each request is one try at the weak one.
fn plan(more: &str) -> String {
    let plan = PLAN.replace("[retry]", "[retry]\nsame_target = 0");
    format!("{plan}\n{more}")
}

fn configured(world: World) -> World {
    for (target, config) in world.targets.iter().zip(&world.plan.targets) {
        target
            .state
            .configure(&world.plan.breaker, config.limits.concurrency);
    }
    world
}

fn weak(world: &World) -> &Arc<TargetState> {
    &world.targets.first().unwrap().state
}

async fn answers(world: &World, n: usize) {
    for _ in 0..n {
        whole(run(world.work(WHOLE)).await.unwrap());
    }
}

/// A weak target that is down for so many calls and then well, before a strong one that is always well.
fn outage(calls: usize) -> World {
    let mut scripts: Vec<Script> = (0..calls).map(|_| down()).collect();
    scripts.push(Script::answer("weak"));
    configured(World::new(&plan(""), scripts, vec![Script::answer("strong")]))
}

#[tokio::test(start_paused = true)]
async fn a_target_that_keeps_failing_is_left_alone_and_looked_at_again() {
    let world = outage(6);
    answers(&world, 20).await;
    assert_eq!(world.weak.seen().len(), 5, "a row of five opens it");
    assert_eq!(
        world.strong.seen().len(),
        20,
        "and nobody who asked went without an answer"
    );
    tokio::time::advance(Duration::from_secs(5)).await;
    answers(&world, 3).await;
    assert_eq!(world.weak.seen().len(), 6, "one probe, which fails");
    tokio::time::advance(Duration::from_millis(9_900)).await;
    answers(&world, 1).await;
    assert_eq!(world.weak.seen().len(), 6, "twice as long this time");
    tokio::time::advance(Duration::from_millis(100)).await;
    answers(&world, 3).await;
    assert_eq!(world.weak.seen().len(), 9, "its probe is good, and it is back");
    assert_eq!(weak(&world).in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_429_never_opens_the_breaker() {
    let scripts = (0..40).map(|_| limited()).collect();
    let world = configured(World::new(&plan(""), scripts, vec![Script::answer("strong")]));
    for _ in 0..40 {
        answers(&world, 1).await;
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert_eq!(world.weak.seen().len(), 40);
    assert_eq!(weak(&world).breaker(world.clock.now()).state, "closed");
}

/// Ten seconds of requests, a hundred a second: when the weak one was asked.
async fn asked_while_limited(world: &World) -> Vec<Duration> {
    let began = world.clock.now();
    let mut asked = Vec::new();
    for _ in 0..1_000 {
        let before = world.weak.seen().len();
        answers(world, 1).await;
        if world.weak.seen().len() > before {
            asked.push(world.clock.now().since(began));
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn who_is_limited_for_ever_is_asked_ever_less_often() {
    let text = plan("").replace("base_ms = 10, max_ms = 10", "base_ms = 100, max_ms = 2_000");
    let scripts = vec![limited()];
    let world = configured(World::new(&text, scripts, vec![Script::answer("strong")]));
    let asked: Vec<u128> = asked_while_limited(&world)
        .await
        .iter()
        .map(Duration::as_millis)
        .collect();
    assert_eq!(asked, [0, 100, 300, 700, 1_500, 3_100, 5_100, 7_100, 9_100]);
    // A good answer ends it: the next limit begins with the first step.
    let scripts = vec![limited(), limited(), Script::answer("weak"), limited()];
    let world = configured(World::new(&text, scripts, vec![Script::answer("strong")]));
    let asked: Vec<u128> = asked_while_limited(&world)
        .await
        .iter()
        .map(Duration::as_millis)
        .take(5)
        .collect();
    assert_eq!(asked, [0, 100, 300, 310, 410]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_good_at_first_content_and_not_at_its_headers() {
    let mut scripts: Vec<Script> = (0..5).map(|_| down()).collect();
    scripts.push(
        Script::new()
            .begin("m")
            .wait(Duration::from_millis(700))
            .text("Hello")
            .stop()
            .done(),
    );
    let world = configured(World::new(&plan(""), scripts, vec![Script::answer("strong")]));
    answers(&world, 5).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let state = || weak(&world).breaker(world.clock.now()).state;
    let mut probe = Box::pin(run(world.work(STREAM)));
    let early = tokio::time::timeout(Duration::from_millis(600), &mut probe).await;
    assert!(early.is_err(), "its head came, its content did not");
    assert_eq!(state(), "probing");
    let (_, driver) = stream(probe.await.unwrap());
    assert_eq!(state(), "closed");
    let (_, _, account) = drain(driver).await;
    assert!(account.attempts.first().unwrap().probe);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_leaves_gives_its_place_back() {
    let mut scripts: Vec<Script> = (0..5).map(|_| down()).collect();
    scripts.push(Script::new().begin("m").act(crate::providers::fake::Act::Hang));
    scripts.push(Script::answer("weak"));
    let world = configured(World::new(&plan(""), scripts, vec![Script::answer("strong")]));
    answers(&world, 5).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let leaves = drive(world.work(STREAM), |_| {});
    let left = tokio::time::timeout(Duration::from_millis(100), leaves).await;
    assert!(left.is_err());
    assert_eq!((weak(&world).in_flight(), world.weak.cancelled()), (0, 1));
    answers(&world, 1).await;
    assert_eq!(weak(&world).breaker(world.clock.now()).state, "closed");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_ran_out_counts_and_a_full_queue_of_our_own_does_not() {
    let silent = || Script::new().begin("m").act(crate::providers::fake::Act::Hang);
    let text = plan("[timeouts]\nfirst_token_ms = 500");
    let full = || Script::refuse(AttemptError::new(Fault::QueueFull, "64 requests are waiting"));
    for (script, state) in [(silent as fn() -> Script, "open"), (full, "closed")] {
        let scripts = (0..9).map(|_| script()).collect();
        let world = configured(World::new(&text, scripts, vec![Script::answer("strong")]));
        for _ in 0..9 {
            stream(run(world.work(STREAM)).await.unwrap());
        }
        assert_eq!(weak(&world).breaker(world.clock.now()).state, state);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_cut_in_the_middle_do_not_count_as_a_row_of_failures() {
    let cut = || {
        let error = AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent();
        Script::new().begin("m").text("Hello").fail(error)
    };
    let text = plan("").replace("start = \"first\"", "start = \"first\"\ncontinue = \"never\"");
    let world = configured(World::new(&text, (0..9).map(|_| cut()).collect(), vec![]));
    for _ in 0..9 {
        let (_, driver) = stream(run(world.work(STREAM)).await.unwrap());
        let (_, error, _) = drain(driver).await;
        assert!(error.is_some());
    }
    let view = weak(&world).breaker(world.clock.now());
    assert_eq!((view.state, view.good, view.cut, view.row), ("closed", 9, 9, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_target_of_a_route_is_waited_for_and_told_when_it_is_long() {
    let scripts = (0..5)
        .map(|_| down())
        .chain([Script::answer("weak again")])
        .collect();
    let text = plan("").replace("[[\"a-weak\"], [\"b-strong\"]]", "[[\"a-weak\"]]\ndegrade = []");
    let world = configured(World::new(&text, scripts, vec![]));
    for _ in 0..5 {
        let failure = run(world.work(WHOLE)).await.unwrap_err();
        assert!(
            !failure.error.should_retry(),
            "our tries are spent, and no time is known"
        );
    }
    let began = world.clock.now();
    whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!(
        world.clock.now().since(began).as_secs(),
        5,
        "it waits for the probe, and is it"
    );
    weak(&world).wish(Wish::On);
    let text = text.replace("[retry]", "[breaker]\nopen_ms = 30_000\n[retry]");
    let world = configured(World::new(&text, (0..5).map(|_| down()).collect(), vec![]));
    for _ in 0..5 {
        run(world.work(WHOLE)).await.unwrap_err();
    }
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!((failure.error.status().as_u16(), failure.head.attempts), (503, 0));
    assert_eq!(failure.error.retry_after_hint(), Some(Duration::from_secs(30)));
    assert!(failure.error.should_retry(), "after a time that is known");
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_permits_are_taken_is_passed_by() {
    let text = plan("").replace(
        "model = \"weak\"",
        "model = \"weak\"\nlimits = { concurrency = 1 }",
    );
    let weak_scripts = vec![Script::new().begin("m").text("Hello")];
    let world = configured(World::new(&text, weak_scripts, vec![Script::answer("strong")]));
    let (_, running) = stream(run(world.work(STREAM)).await.unwrap());
    let (head, _, _) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!(head.target, Some(TargetId(1)));
    assert_eq!((world.weak.seen().len(), weak(&world).in_flight()), (1, 1));
    drop(running);
    assert_eq!(weak(&world).in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_again_draws_on_the_budget_for_repeats() {
    let text = plan("").replace(
        "backoff =",
        "budget = { ratio = 0.0, min_per_second = 0 }\nbackoff =",
    );
    let world = || configured(World::new(&text, vec![down()], vec![Script::answer("strong")]));
    // Sent for the first time it fails over whatever the budget holds.
    answers(&world(), 1).await;
    // Sent again, with nothing in the budget, it is tried once.
    let again = world();
    let mut work = again.work(WHOLE);
    work.resent = 1;
    let failure = run(work).await.unwrap_err();
    assert_eq!((failure.head.attempts, again.strong.seen().len()), (1, 0));
    assert!(!failure.error.should_retry());
}

/// 429 with `retry-after: 1`.
fn limited_for_a_second() -> Script {
    let error = AttemptError::new(Fault::Status(429), "429 from the provider");
    Script::refuse(error.with_retry_after(Some(Duration::from_secs(1))).sent())
}

#[tokio::test(start_paused = true)]
async fn who_may_be_asked_again_by_now_is_asked_before_the_caller_is_told_no() {
    let weak = vec![limited_for_a_second()];
    let strong = vec![limited_for_a_second(), Script::answer("strong")];
    let world = configured(World::new(PLAN, weak, strong));
    let began = world.clock.now();
    // Both holds end together; the first is asked again first, and says no.
    let (head, body, _) = whole(run(world.work(WHOLE)).await.unwrap());
    assert_eq!((head.attempts, head.tier), (4, 1));
    assert!(body.contains("strong"));
    assert_eq!(world.clock.now().since(began).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_limited_for_ever_is_told_with_the_next_time_that_somebody_is_not() {
    let world = configured(World::new(
        PLAN,
        vec![limited_for_a_second()],
        vec![limited_for_a_second()],
    ));
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(failure.head.attempts, 4);
    // The first of the two, which were asked a moment apart.
    let hint = failure.error.retry_after_hint().unwrap();
    assert!((990..=1_000).contains(&hint.as_millis()), "{hint:?}");
    assert!(failure.error.should_retry());
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_again_is_repeated_nowhere() {
    for (second, tries) in [(vec![limited_for_a_second()], 2), (vec![down()], 2)] {
        let world = configured(World::new(PLAN, vec![limited_for_a_second()], second));
        let mut work = world.work(WHOLE);
        work.resent = 1;
        let failure = run(work).await.unwrap_err();
        assert_eq!(
            failure.head.attempts, tries,
            "each target once: the client's own tries are the repeats"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_never_answers_is_left_alone_also_where_it_is_waited_for_to_the_end() {
    let silent = || Script::new().begin("m").act(crate::providers::fake::Act::Hang);
    let text = plan("[timeouts]\nattempt_ms = 500")
        .replace("[[\"a-weak\"], [\"b-strong\"]]", "[[\"a-weak\"]]\ndegrade = []");
    for (patience, state) in [(2_000, "open"), (400, "closed")] {
        let world = configured(World::new(&text, (0..5).map(|_| silent()).collect(), vec![]));
        for _ in 0..5 {
            let mut work = world.work(WHOLE);
            work.deadline = world.clock.now() + Duration::from_millis(patience);
            run(work).await.unwrap_err();
        }
        // A caller with less patience than the target is allowed to need says nothing of it.
        assert_eq!(
            weak(&world).breaker(world.clock.now()).state,
            state,
            "{patience} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_on_the_same_target_takes_out_of_the_budget() {
    let text = PLAN.replace(
        "backoff =",
        "budget = { ratio = 0.0, min_per_second = 1 }\nbackoff =",
    );
    let world = World::new(
        &text,
        (0..9).map(|_| down()).collect(),
        vec![Script::answer("strong")],
    );
    while world.budgets.repeats.withdraw(world.clock.now()) {}
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        whole(run(world.work(WHOLE)).await.unwrap());
    }
    assert_eq!(
        world.weak.seen().len(),
        4,
        "there was one in it, and three asked for one"
    );
}

#[tokio::test(start_paused = true)]
async fn effects_are_not_sent_again_on_a_new_connection() {
    let storing = WHOLE.replace("\"auto\"", "\"auto\",\"store\":true");
    for (body, may_resend) in [(WHOLE, true), (&storing, false)] {
        let world = World::new(&plan(""), vec![Script::answer("weak")], vec![]);
        whole(run(world.work(body)).await.unwrap());
        assert_eq!(world.weak.seen()[0].may_resend, may_resend, "{body}");
    }
}
