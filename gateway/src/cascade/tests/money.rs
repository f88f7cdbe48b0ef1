//! Under a limit of money and tokens: what each kind of try is charged, whoever ended it, and that the record says the same.

use super::*;
use crate::limits::{Meters, Owner, Today};
use crate::providers::fake::Act;
use routing::latency::ENOUGH;
use routing::limit::Day;
use routing::plan::Limits;

/// What a prompt of [`PROMPT`] tokens costs at the weak one, and each token of its answer.
const WEAK: (u64, u64) = (PROMPT * 1_000, 2_000);
/// The same of the strong one.
const STRONG: (u64, u64) = (PROMPT * 10_000, 20_000);

/// Who pays: with more than enough money, and tokens that take their time to come back.
struct Purse(Meters);

impl Purse {
    fn new() -> Self {
        let meter = Meter::new(Owner::Total, Day::default(), None);
        let limits = Limits {
            tokens_per_minute: Some(1_000),
            usd_per_day: Some(NanoUsd(1_000_000_000_000)),
            ..Limits::default()
        };
        meter.configure(&limits, Time(1));
        Self(Meters::from_iter([Arc::new(meter)]))
    }

    fn pays(&self, world: &World, body: &str) -> Work {
        let reservation = Reservation::take(self.0.clone(), 0, &world.clock);
        Work {
            reservation: Some(reservation.unwrap()),
            ..world.work(body)
        }
    }

    /// What was spent, when nothing runs any more; the record's sum is the same.
    #[track_caller]
    fn spent(&self, world: &World, account: &Account) -> u64 {
        let meter = self.0.first().unwrap();
        let (spent, held, _) = meter.money_level(Today::of(world.clock.unix_ms()));
        assert_eq!(held, NanoUsd(0), "nothing is held any more");
        assert_eq!(account.cost, Some(spent), "the record and the limit");
        spent.0
    }
}

/// At most so many tokens are asked for.
fn at_most(tokens: u64, body: &str) -> String {
    body.replacen('{', &format!("{{\"max_tokens\":{tokens},"), 1)
}

fn cost_of(account: &Account, target: &str) -> Option<u64> {
    let attempt = account.attempts.iter().find(|a| &*a.target == target).unwrap();
    attempt.cost_nano_usd
}

/// Its caller leaves after so long: what was tried.
async fn left_after(time: Duration, work: Work) -> Account {
    let mut told = None;
    let running = drive(work, |account| told = Some(account));
    assert!(tokio::time::timeout(time, running).await.is_err());
    told.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_its_caller_leaves_is_charged_as_far_as_it_may_go() {
    let world = World::new(PLAN, vec![Script::new().act(Act::Hang).accept()], vec![]);
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(100, WHOLE));
    let account = left_after(Duration::from_millis(10), work).await;
    assert_eq!(purse.spent(&world, &account), WEAK.0 + 100 * WEAK.1);
    let attempt = account.attempts.first().unwrap();
    assert!(attempt.maybe_billed && attempt.usage.is_none(), "nobody counted");
    // Tokens too: 9 and 100.
    let level = purse.0.first().unwrap().tokens_level(world.clock.now()).unwrap();
    assert_eq!(level.limit - level.remaining, PROMPT + 100);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_before_its_words_is_charged_for_the_time_it_ran() {
    let silent = || vec![Script::new().begin("m").act(Act::Hang)];
    let purse = Purse::new();
    let world = World::new(PLAN, silent(), vec![]);
    let work = purse.pays(&world, &at_most(16_000, STREAM));
    let account = left_after(Duration::from_millis(800), work).await;
    let tokens = (purse.spent(&world, &account) - WEAK.0) / WEAK.1;
    // The timers of the test are a millisecond fine.
    assert!((400..=401).contains(&tokens), "{tokens}");
    assert!(account.attempts.first().unwrap().maybe_billed);
    // Never more than was held.
    let purse = Purse::new();
    let world = World::new(PLAN, silent(), vec![]);
    let work = purse.pays(&world, &at_most(100, STREAM));
    let account = left_after(Duration::from_millis(800), work).await;
    assert_eq!(purse.spent(&world, &account), WEAK.0 + 100 * WEAK.1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_half_way_is_charged_for_what_it_said() {
    let script = Script::new().begin("m").text("one ").text("two ").act(Act::Hang);
    let world = World::new(PLAN, vec![script], vec![]);
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(16_000, STREAM));
    let (_, mut driver) = stream(run(work).await.unwrap());
    let mut text = String::new();
    while !text.contains("two") {
        let piece = std::future::poll_fn(|cx| driver.poll_frame(cx)).await;
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    let account = driver.account();
    drop(driver);
    assert_eq!(purse.spent(&world, &account), WEAK.0 + 2 * WEAK.1);
    assert!(!account.attempts.first().unwrap().maybe_billed, "it is counted");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_and_the_try_that_follows_it_are_both_charged() {
    let lost = Script::refuse(AttemptError::new(Fault::Reset, "the connection broke").sent());
    let world = World::new(
        PLAN,
        vec![lost, Script::answer("weak")],
        vec![Script::answer("strong")],
    );
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(100, WHOLE));
    let (head, _, account) = whole(run(work).await.unwrap());
    assert_eq!(account.attempts.len(), 2);
    let (first, second) = (&account.attempts[0], &account.attempts[1]);
    assert!(first.maybe_billed && first.usage.is_none());
    assert_eq!(first.cost_nano_usd, Some(WEAK.0 + 100 * WEAK.1));
    let answered = second.cost_nano_usd.unwrap();
    let spent = purse.spent(&world, &account);
    assert_eq!(spent, WEAK.0 + 100 * WEAK.1 + answered);
    assert_eq!(head.cost, Some(NanoUsd(spent)), "and the head tells the sum");
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_whose_clock_ran_out_is_charged_as_far_as_it_may_go() {
    let plan = format!("{PLAN}\n[timeouts]\nattempt_ms = 1_000");
    let hangs = Script::new().act(Act::Hang).accept();
    let world = World::new(&plan, vec![hangs], vec![Script::answer("strong")]);
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(100, WHOLE));
    let (_, _, account) = whole(run(work).await.unwrap());
    assert_eq!(cost_of(&account, "a-weak"), Some(WEAK.0 + 100 * WEAK.1));
    purse.spent(&world, &account);
}

#[tokio::test(start_paused = true)]
async fn an_error_instead_of_an_answer_costs_its_time_and_a_refusal_nothing() {
    let error = |fault| AttemptError::new(fault, "as the script says").sent();
    for (fault, cost) in [
        (Fault::Status(429), None),
        (Fault::Status(503), None),
        (Fault::InBand(529), Some(WEAK.0)),
    ] {
        let script = Script::new().fail(error(fault));
        let plan = PLAN.replace("[retry]", "[retry]\nsame_target = 0");
        let world = World::new(&plan, vec![script], vec![Script::answer("strong")]);
        let purse = Purse::new();
        let work = purse.pays(&world, &at_most(100, WHOLE));
        let (_, _, account) = whole(run(work).await.unwrap());
        assert_eq!(cost_of(&account, "a-weak"), cost, "{fault:?}");
        purse.spent(&world, &account);
    }
    let unsent = AttemptError::new(Fault::Connect, "connection refused");
    let world = World::new(PLAN, vec![Script::refuse(unsent)], vec![Script::answer("strong")]);
    let purse = Purse::new();
    let (_, _, account) = whole(run(purse.pays(&world, WHOLE)).await.unwrap());
    assert_eq!(cost_of(&account, "a-weak"), None);
    purse.spent(&world, &account);
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_is_charged_beside_the_winner() {
    let plan = PLAN.replace("[[\"a-weak\"], [\"b-strong\"]]", "[[\"a-weak\", \"b-strong\"]]");
    let plan = format!("{plan}\n[hedge]\nenabled = true\nafter_quantile = 0.5\nmax_ratio = 1.0\n");
    // The first word comes long after the usual time: the rival starts, and is as slow.
    let slow = || {
        let script = Script::new().begin("m").wait(Duration::from_secs(2));
        script.text("slow").stop().usage(3, 5).done()
    };
    let world = World::new(&plan, vec![slow()], vec![slow()]);
    let now = world.clock.now();
    for target in world.targets.iter() {
        for _ in 0..ENOUGH {
            target.state.observe(true, Duration::from_millis(100), now);
        }
    }
    (0..20).for_each(|_| world.budgets.hedges.deposit(now));
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(100, STREAM));
    let (_, driver) = stream(run(work).await.unwrap());
    let (_, error, account) = drain(driver).await;
    assert!(error.is_none());
    let lost = account.attempts.iter().find(|a| a.kind == "hedge").unwrap();
    assert!(lost.maybe_billed);
    // Nearly two seconds: more than the hundred that it might write.
    let (prompt, token) = if &*lost.target == "a-weak" { WEAK } else { STRONG };
    assert_eq!(lost.cost_nano_usd, Some(prompt + 100 * token));
    assert_eq!(account.attempts.len(), 2);
    purse.spent(&world, &account);
}

#[tokio::test(start_paused = true)]
async fn a_stream_and_what_goes_on_with_it_are_both_charged() {
    let plan = PLAN.replace(
        "model = \"strong\"",
        "model = \"strong\"\ncapabilities = [\"prefill\"]",
    );
    let cut = AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent();
    let first = Script::new()
        .begin("m")
        .text("The river ")
        .text("flows thr")
        .fail(cut);
    let second = Script::new().begin("m").text("ough the ").text("valley.");
    let world = World::new(&plan, vec![first], vec![second.stop().usage(40, 7).done()]);
    let purse = Purse::new();
    let work = purse.pays(&world, &at_most(100, STREAM));
    let (_, driver) = stream(run(work).await.unwrap());
    let (bytes, error, account) = drain(driver).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(said(&bytes).0, "The river flows through the valley.");
    // 19 bytes are five tokens; the second's figures are its provider's.
    assert_eq!(cost_of(&account, "a-weak"), Some(WEAK.0 + 5 * WEAK.1));
    assert_eq!(cost_of(&account, "b-strong"), Some(40 * 10_000 + 7 * 20_000));
    purse.spent(&world, &account);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_the_budget_for_repeats_does_not_cover_takes_nothing() {
    let text = PLAN.replace(
        "[retry]",
        "[retry]\nsame_target = 0\nbudget = { ratio = 0.0, min_per_second = 0 }",
    );
    let down = AttemptError::new(Fault::Status(500), "500 from the provider").sent();
    let mut world = World::new(&text, vec![Script::refuse(down)], vec![]);
    let meter = Arc::new(Meter::new(Owner::Target("both".into()), Day::default(), None));
    let limits = Limits {
        requests_per_minute: Some(10),
        usd_per_day: Some(NanoUsd(1_000_000_000_000)),
        ..Limits::default()
    };
    meter.configure(&limits, Time(1));
    let targets = world.targets.iter().cloned();
    world.targets = targets
        .map(|target| Target {
            granted: Some(Arc::clone(&meter)),
            ..target
        })
        .collect();
    let purse = Purse::new();
    // What a client sends again is a repeat wherever it goes.
    let work = Work {
        resent: 1,
        ..purse.pays(&world, WHOLE)
    };
    let failure = run(work).await.unwrap_err();
    assert_eq!((failure.head.attempts, world.strong.seen().len()), (1, 0));
    assert_eq!(purse.spent(&world, &failure.account), 0);
    let (spent, held, _) = meter.money_level(Today::of(world.clock.unix_ms()));
    assert_eq!(
        (spent, held),
        (NanoUsd(0), NanoUsd(0)),
        "of the target's own money"
    );
    let left = meter.requests_level(world.clock.now()).unwrap().remaining;
    assert_eq!(left, 9, "the one that was made");
}
