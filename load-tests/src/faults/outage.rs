//! Cases that are more than one request: a provider that is down for a while, one that limits us for as long as we ask, a
//! caller that leaves.

use std::time::Duration;

use super::ask::{ask, body};
use super::case::Case;
use super::judge::{self, Saw};
use super::play::{at_rest, is_well, saw};
use super::world::World;
use crate::caller::Got;
use crate::client::Client;
use crate::clock::now;
use crate::provider::{Ended, State};

/// Between the requests of a series.
const BETWEEN: Duration = Duration::from_millis(40);
/// After the outage the first target must be in use again by then: the plan's max_open_ms, and a little.
const BACK: Duration = Duration::from_millis(3_500);

/// What happened in a series.
#[derive(Default)]
struct Series {
    /// The first thing that was wrong, and how often something was.
    wrong: Option<(String, usize)>,
    asked: usize,
    longest: Duration,
}

impl Series {
    fn add(&mut self, case: &Case, got: &Got, saw: &Saw) {
        self.asked += 1;
        self.longest = self.longest.max(got.took);
        if let Some(first) = is_well(case, got, saw).into_iter().next() {
            let (_, count) = self.wrong.get_or_insert((first, 0));
            *count += 1;
        }
    }

    fn wrong(self) -> Vec<String> {
        let told = |(first, count)| format!("{count} of {} callers: {first}", self.asked);
        self.wrong.map(told).into_iter().collect()
    }
}

/// Requests one after the other for so long.
async fn go_on(world: &World, client: &Client, case: &Case, time: Duration, series: &mut Series) {
    let until = now() + time;
    while now() < until {
        once(world, client, case, series).await;
        tokio::time::sleep(BETWEEN).await;
    }
}

async fn once(world: &World, client: &Client, case: &Case, series: &mut Series) {
    let before = saw(world, case);
    let got = ask(client, case).await;
    series.add(case, &got, &since(world, case, &before));
}

fn since(world: &World, case: &Case, before: &Saw) -> Saw {
    let all = saw(world, case);
    Saw {
        first: all.first.get(before.first.len()..).unwrap_or_default().to_vec(),
        second: all.second.get(before.second.len()..).unwrap_or_default().to_vec(),
    }
}

/// See [`super::case::Play::Series`]: each answer is judged by itself, the number of requests to the first over all.
pub async fn series(world: &World, client: &Client, case: &Case, time: Duration) -> (Vec<String>, Duration) {
    let mut series = Series::default();
    go_on(world, client, case, time, &mut series).await;
    ended(world, case, series)
}

/// See [`super::case::Play::Count`].
pub async fn count(world: &World, client: &Client, case: &Case, requests: usize) -> (Vec<String>, Duration) {
    let mut series = Series::default();
    for _ in 0..requests {
        once(world, client, case, &mut series).await;
    }
    ended(world, case, series)
}

fn ended(world: &World, case: &Case, series: Series) -> (Vec<String>, Duration) {
    let longest = series.longest;
    let mut wrong = series.wrong();
    let saw = saw(world, case);
    wrong.extend(judge::calls("first", &case.expect.first, saw.first.len()));
    wrong.extend(judge::calls("second", &case.expect.second, saw.second.len()));
    (wrong, longest)
}

/// See [`super::case::Play::Outage`].
pub async fn outage(
    world: &World,
    client: &Client,
    case: &Case,
    state: State,
    time: Duration,
) -> (Vec<String>, Duration) {
    let Some(provider) = world.provider(case, 0) else {
        return (
            vec!["the case has no provider of its own".to_owned()],
            Duration::ZERO,
        );
    };
    let mut series = Series::default();
    go_on(world, client, case, Duration::from_millis(300), &mut series).await;
    provider.set_state(state);
    let before = saw(world, case);
    go_on(world, client, case, time, &mut series).await;
    let down = since(world, case, &before);
    provider.set_state(State::Up);
    let healed = now();
    let back = loop {
        let before = saw(world, case);
        let got = ask(client, case).await;
        let after = since(world, case, &before);
        series.add(case, &got, &after);
        if got.models.first() == Some(&case.model(0)) {
            break Some(now() - healed);
        }
        if now() - healed > BACK {
            break None;
        }
        tokio::time::sleep(BETWEEN).await;
    };
    let longest = series.longest;
    let mut wrong = series.wrong();
    wrong.extend(judge::calls("first", &case.expect.first, down.first.len()));
    if back.is_none() {
        wrong.push(format!(
            "the first is not in use again {} ms after it is healthy",
            BACK.as_millis()
        ));
    }
    (wrong, longest)
}

/// See [`super::case::Play::Leave`].
pub async fn leave(world: &World, client: &Client, case: &Case, after: usize) -> (Vec<String>, Duration) {
    let began = now();
    let asked = async {
        let bytes = body(case).to_string().into();
        let mut answer = client
            .post_bytes("/v1/chat/completions", &http::HeaderMap::new(), bytes)
            .await?;
        let mut text = String::new();
        while text.matches("\"content\":\"").count() <= after {
            match answer.next().await? {
                Some(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                None => break,
            }
        }
        // The answer is dropped here: the connection closes.
        Ok::<_, crate::client::Error>(())
    };
    let patience = if after == 0 {
        Duration::from_millis(300)
    } else {
        Duration::from_secs(4)
    };
    let ended = tokio::time::timeout(patience, asked).await;
    let mut wrong = Vec::new();
    match ended {
        Ok(Err(e)) => wrong.push(e.to_string()),
        Err(_) if after > 0 => wrong.push("nothing came to leave from".to_owned()),
        _ => {}
    }
    wrong.extend(at_rest(world, case).await);
    let saw = saw(world, case);
    wrong.extend(judge::calls("first", &case.expect.first, saw.first.len()));
    wrong.extend(judge::calls("second", &case.expect.second, saw.second.len()));
    if saw.first.iter().any(|e| e.ended == Ended::Done) {
        wrong.push("the provider was let finish an answer that nobody reads".to_owned());
    }
    (wrong, now() - began)
}
