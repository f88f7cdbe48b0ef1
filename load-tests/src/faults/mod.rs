//! The wall: every fault of a provider, in streams and whole answers, in both dialects, judged from both sides. The caller
//! must get one whole right answer, once, with the true name and usage of who gave it, or an honest error in time; the
//! provider must not be hammered, and be let go when it is given up; and the next healthy request must work at once.

mod ask;
mod case;
mod catalogue;
mod forwarder;
mod judge;
mod key;
mod outage;
mod page;
mod plan;
mod play;
mod table;
mod words;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::clock::now;

pub use case::{Case, Dialect, Form, House};
pub use catalogue::all;
pub use forwarder::Forwarder;
pub use key::Key;
pub use page::{BRIEF, CLIENTS, PAGE, Part, brief, page, put};
pub use plan::{front_plan, mark, plan};
pub use table::{Outcome, Table};
pub use world::World;

/// Where each house of these cases is.
pub type Doors = BTreeMap<House, String>;

/// One address for all houses.
pub fn one_door(url: &str) -> Doors {
    House::ALL
        .into_iter()
        .map(|house| (house, url.to_owned()))
        .collect()
}

/// Plays all cases, each at its house, `width` at a time. `progress` is told of each that has ended.
pub async fn run(
    who: &str,
    doors: &Doors,
    cases: &[Case],
    world: &Arc<World>,
    width: usize,
    mut progress: impl FnMut(&Outcome),
) -> Result<Table, String> {
    let began = now();
    let mut clients = BTreeMap::new();
    for (house, url) in doors {
        clients.insert(*house, Client::new(url).map_err(|e| e.to_string())?);
    }
    let places = Arc::new(Semaphore::new(width.max(1)));
    let mut playing = JoinSet::new();
    for (at, case) in cases.iter().cloned().enumerate() {
        let client = clients.get(&case.house).cloned();
        let client =
            client.ok_or_else(|| format!("nobody plays {}: {:?} has no gateway", case.id(), case.house))?;
        let (world, places) = (world.clone(), places.clone());
        playing.spawn(async move {
            let _place = places.acquire_owned().await;
            let (wrong, took) = play::play(&world, &client, &case).await;
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            (at, Outcome::of(&case, wrong, ms))
        });
    }
    let mut outcomes = Vec::new();
    while let Some(ended) = playing.join_next().await {
        let (at, outcome) = ended.map_err(|e| format!("a case could not be played: {e}"))?;
        progress(&outcome);
        outcomes.push((at, outcome));
    }
    outcomes.sort_by_key(|(at, _)| *at);
    Ok(Table {
        who: who.to_owned(),
        outcomes: outcomes.into_iter().map(|(_, o)| o).collect(),
        seconds: (now() - began).as_secs_f64(),
    })
}
