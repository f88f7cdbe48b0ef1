//! Plays worlds by their seeds until a rule breaks, the last seed is reached, or the time is over.
//!
//! `cargo run --release -p routing --example simulate -- [--from 0] [--worlds 5000] [--seconds 60]`. A failing seed is
//! printed with its rule; put it into `routing::sim::SEEDS`, and it is a test. `--show N` prints one world and its report.

use std::time::Duration;

use routing::sim::{run, scenario};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--show") {
        let world = scenario(seed);
        println!(
            "{:#?}\n{:#?}\n{:#?}",
            world.plan.routes, world.plan.retry, world.plan.breaker
        );
        println!("{:#?}\n{:#?}", world.servers, run(&world, None));
        return;
    }
    let from = number("--from").unwrap_or(0);
    let worlds = number("--worlds").unwrap_or(5_000);
    let most = number("--seconds").map(Duration::from_secs);
    #[allow(
        clippy::disallowed_methods,
        reason = "how long this program may run, not the worlds' time"
    )]
    let began = std::time::Instant::now();
    let (mut played, mut events, mut answered, mut failed) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut continued, mut escalated, mut rungs) = (0_u64, 0_u64, 0_u64);
    for seed in from..from.saturating_add(worlds) {
        let report = run(&scenario(seed), None);
        if let Some(broken) = report.broken {
            eprintln!("seed {seed}: {broken}\nadd {seed} to routing::sim::SEEDS, and mend it");
            std::process::exit(1);
        }
        played += 1;
        events += report.events;
        answered += u64::from(report.answered);
        failed += u64::from(report.failed);
        continued += u64::from(report.continued);
        escalated += u64::from(report.escalated);
        rungs += u64::from(report.rungs);
        if most.is_some_and(|most| began.elapsed() > most) {
            break;
        }
    }
    println!(
        "{played} worlds from seed {from}: every rule held over {events} events ({answered} requests answered, {failed} \
         failed; {continued} streams gone on with, {escalated} escalations, {rungs} rungs of the ladder) in {:.1} s",
        began.elapsed().as_secs_f64()
    );
}
