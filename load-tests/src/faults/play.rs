//! Playing a case: ask, wait until both sides are at rest, judge; then heal, ask again, and judge that.

use std::time::Duration;

use super::ask::ask;
use super::case::{By, Caller, Case, Play};
use super::judge::{self, Saw};
use super::outage;
use super::world::World;
use crate::caller::Got;
use crate::client::Client;
use crate::clock::{Instant, now};

/// Whatever is given up must be cancelled by then.
const AT_REST: Duration = Duration::from_millis(1_500);
/// Between looks at the provider's log.
const LOOK: Duration = Duration::from_millis(10);

/// Plays a case: what was wrong, and how long its (first) request took.
pub async fn play(world: &World, client: &Client, case: &Case) -> (Vec<String>, Duration) {
    match case.play {
        Play::Once => once(world, client, case).await,
        Play::Series(ms) => outage::series(world, client, case, Duration::from_millis(ms)).await,
        Play::Count(requests) => outage::count(world, client, case, requests).await,
        Play::Outage(state, ms) => {
            outage::outage(world, client, case, state, Duration::from_millis(ms)).await
        }
        Play::Leave(after) => outage::leave(world, client, case, after).await,
    }
}

async fn once(world: &World, client: &Client, case: &Case) -> (Vec<String>, Duration) {
    let got = ask(client, case).await;
    let mut wrong: Vec<String> = at_rest(world, case).await.into_iter().collect();
    let before = saw(world, case);
    let found = judge::judge(case, &got, &before);
    wrong.splice(0..0, found);
    if let Some(within) = case.expect.then {
        world.heal(case);
        wrong.extend(healthy(world, client, case, &before, within).await);
    }
    (wrong, got.took)
}

/// A healthy request after the fault.
async fn healthy(world: &World, client: &Client, case: &Case, before: &Saw, within: Duration) -> Vec<String> {
    let case = Case {
        deadline_ms: None,
        ..case.clone()
    };
    let got = ask(client, &case).await;
    let _ = at_rest(world, &case).await;
    let all = saw(world, &case);
    let after = Saw {
        first: all.first.get(before.first.len()..).unwrap_or_default().to_vec(),
        second: all.second.get(before.second.len()..).unwrap_or_default().to_vec(),
    };
    let mut exact = case.clone();
    exact.expect.usage = super::case::Usage::True;
    let mut wrong = judge::caller(&exact, &Caller::Whole(By::Either), &got, &after);
    if got.took > within {
        wrong.push(format!("took {} ms", got.took.as_millis()));
    }
    if let Some(allowed) = &case.expect.then_first {
        wrong.extend(judge::calls("first", allowed, after.first.len()));
    }
    wrong
        .into_iter()
        .map(|w| format!("next healthy request: {w}"))
        .collect()
}

/// What both providers have seen.
pub fn saw(world: &World, case: &Case) -> Saw {
    Saw {
        first: world.seen(case, 0),
        second: world.seen(case, 1),
    }
}

/// Waits until no request of the case is being answered any more.
pub async fn at_rest(world: &World, case: &Case) -> Option<String> {
    let until: Instant = now() + AT_REST;
    loop {
        let open = judge::still_open(&saw(world, case))?;
        if now() > until {
            return Some(open);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One request, judged from the caller's side: whole, right and in time.
pub fn is_well(case: &Case, got: &Got, saw: &Saw) -> Vec<String> {
    let mut wrong = judge::caller(case, &case.expect.caller, got, saw);
    if got.took > case.expect.within {
        wrong.push(format!("took {} ms", got.took.as_millis()));
    }
    wrong
}
