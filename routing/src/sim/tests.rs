//! Worlds by the hundred, one outage by hand, and each rule seen to notice when a part is switched off.

use super::*;

/// Worlds of one test run; `cargo run --release -p routing --example simulate` plays thousands.
const WORLDS: u64 = 400;

fn play(seed: u64, off: Option<Off>) -> Report {
    run(&scenario(seed), off)
}

#[test]
fn rules_hold_in_random_worlds() {
    let (mut events, mut answered, mut failed, mut opened, mut hedges) = (0, 0, 0, 0, 0);
    let (mut continued, mut escalated, mut rungs) = (0, 0, 0);
    for seed in SEEDS.iter().copied().chain(0..WORLDS) {
        let report = play(seed, None);
        assert!(
            report.broken.is_none(),
            "seed {seed}: {}",
            report.broken.unwrap_or_default()
        );
        events += report.events;
        answered += report.answered;
        failed += report.failed;
        hedges += report.hedges;
        opened += report.opened.iter().sum::<u32>();
        continued += report.continued;
        escalated += report.escalated;
        rungs += report.rungs;
    }
    // Worlds of a kind that reaches every corner, not all dead and not all well.
    assert!(
        events > 100_000 && answered > 20_000 && failed > 2_000 && opened > 500 && hedges > 20,
        "{events} {answered} {failed} {opened} {hedges}"
    );
    // In one world of four streams are gone on with, and half of these judge their answers, or begin above a ladder.
    assert!(
        continued > 0 && escalated > 0 && rungs > 0,
        "{continued} {escalated} {rungs}"
    );
}

#[test]
fn a_seed_is_a_world() {
    let (a, b) = (play(7, None), play(7, None));
    assert_eq!((a.events, a.calls, a.timeline), (b.events, b.calls, b.timeline));
}

/// The names of the rules that break, over some worlds, when a part is off.
fn noticed(off: Off) -> Vec<String> {
    let mut names: Vec<String> = (0..WORLDS / 2)
        .filter_map(|seed| play(seed, Some(off)).broken)
        .filter_map(|broken| broken.split(' ').next().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn a_switched_off_breaker_is_noticed() {
    assert!(noticed(Off::Breaker).contains(&"R-20".to_owned()));
}
#[test]
fn a_probe_that_is_not_heard_is_noticed() {
    assert!(noticed(Off::Probe).contains(&"R-28".to_owned()));
}
#[test]
fn a_lease_that_is_kept_is_noticed() {
    assert!(noticed(Off::Lease).contains(&"R-21".to_owned()));
}
#[test]
fn repeats_that_cost_nothing_are_noticed() {
    assert!(noticed(Off::Budget).contains(&"R-22".to_owned()));
}
#[test]
fn hedges_that_cost_nothing_are_noticed() {
    assert!(noticed(Off::HedgeBudget).contains(&"R-29".to_owned()));
}
#[test]
fn a_429_that_counts_as_a_failure_is_noticed() {
    assert!(noticed(Off::Limited).contains(&"R-25".to_owned()));
}
#[test]
fn permits_that_are_not_counted_are_noticed() {
    assert!(noticed(Off::Permit).contains(&"R-27".to_owned()));
}

/// Two tiers; the first goes down for a minute and comes back. Ten requests a second.
#[test]
fn an_outage_of_a_minute() {
    let mut world = scenario(0);
    let plan = "version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                [targets.a]\nprovider = \"p\"\nmodel = \"a\"\n[targets.b]\nprovider = \"p\"\nmodel = \"b\"\n\
                [routes.auto]\ntiers = [[\"a\"], [\"b\"]]\nstart = \"first\"\nverify = []\n";
    world.plan = crate::plan::load(plan).unwrap().plan;
    let ms = Duration::from_millis;
    let well = Mood::Well {
        first: ms(50),
        whole: ms(80),
    };
    let at = |s: u64| Time(s * 1_000_000);
    world.servers = vec![
        Server {
            phases: vec![(at(0), well), (at(10), Mood::Down), (at(70), well)],
        },
        Server {
            phases: vec![(at(0), well)],
        },
    ];
    world.arrivals = (0..1_200)
        .map(|i| Arrival {
            at: at(1) + ms(i * 100),
            stream: i % 2 == 0,
            patience: Duration::from_secs(60),
            leaves: None,
            resent: false,
        })
        .collect();
    let report = run(&world, None);
    assert_eq!(report.broken, None);
    // Streams that had begun when it went down are cut; nobody else goes without an answer.
    assert!(report.failed <= 1, "{}", report.failed);
    let by = |who, from, to| {
        let inside = |(t, w): &&(Time, u16)| *w == who && *t >= at(from) && *t < at(to);
        report.timeline.iter().filter(inside).count()
    };
    assert_eq!(by(0, 11, 70), 0);
    assert!(by(1, 11, 70) >= 589, "{}", by(1, 11, 70));
    // Opened within the first second; probes after 5, 10, 20 seconds, and the one after 40 finds it well.
    assert!(report.opened[0] == 4, "{:?}", report.opened);
    let back = report
        .timeline
        .iter()
        .find(|(t, w)| *w == 0 && *t > at(70))
        .unwrap()
        .0;
    assert!(back < at(70) + Duration::from_secs(60), "{back:?}");
    assert!(by(0, 90, 121) >= 300, "{}", by(0, 90, 121));
}
