//! An outage by hand: under steady load a provider is ended, its port closed, and started again there some seconds later.
//! Callers must not notice: the second tier answers meanwhile, and streams that were cut are gone on with. The dead one is
//! left alone, and is used again soon after its return. Breaker and retries are those of a plan that says nothing of them.

mod report;

use std::path::Path;
use std::time::Duration;

use crate::chaos::call::Call;
use crate::chaos::house::{Edit, House, ROUTES, TARGETS};
use crate::chaos::judge::End;
use crate::chaos::{self, Outcome};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway};
use crate::records::{Attempt, Records};

pub use report::Report;

/// Load before the end of the provider.
const BEFORE: Duration = Duration::from_secs(5);
/// Load after its first use again is due.
const THEN: Duration = Duration::from_secs(3);
/// `breaker.open_ms` where the plan says nothing.
const OPEN: Duration = Duration::from_secs(5);
/// The name that is asked for. Index into [`ROUTES`].
const ROUTE: usize = 0;
/// Tries that may be sent to a port on which nobody listens: a row of failures that opens the breaker, twice as many that
/// were under way by then, and probes.
const MOST_TRIES: usize = 20;

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Of the requests.
    pub seed: u64,
    /// Requests a second.
    pub rate: f64,
    /// How long the provider is away.
    pub away: Duration,
}

impl Outage {
    /// It must be in use again so long after its return: each time that it is left alone is twice as long as the one before,
    /// and so not longer than it was away and the first of those times.
    pub fn back_within(&self) -> Duration {
        self.away + OPEN + Duration::from_secs(1)
    }

    fn length(&self) -> Duration {
        BEFORE + self.away + self.back_within() + THEN
    }
}

/// The plan, with the clocks of the breaker as they are by default.
fn plan(house: &House) -> String {
    let plan = house.plan(&Edit::default());
    let lines = plan
        .lines()
        .filter(|l| !l.starts_with("open_ms") && !l.starts_with("max_open_ms"));
    lines.map(|l| format!("{l}\n")).collect()
}

/// Runs it against that program. `progress` gets a line about once a second.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(
    program: &Path,
    outage: &Outage,
    mut progress: impl FnMut(String),
) -> Result<Report, String> {
    let mut house = House::start().map_err(|e| format!("a scripted provider could not be started: {e}"))?;
    let options = gateway::Options::fresh(plan(&house), Vec::new());
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let dies = ROUTES
        .get(ROUTE)
        .and_then(|r| r.first.first())
        .and_then(|t| TARGETS.get(*t))
        .map_or(0, |t| t.provider);
    let began = now();
    let settings = (outage.seed, outage.rate, outage.length());
    let draw = |n| Call::to(ROUTE, outage.seed, n);
    let load = chaos::load(&client, settings, draw, began, |ended, bad| {
        progress(format!(
            "{:>3.0} s of {:.0}: {ended} ended, {bad} of them not right",
            (now() - began).as_secs_f64(),
            outage.length().as_secs_f64()
        ));
    });
    let hand = async {
        tokio::time::sleep_until(began + BEFORE).await;
        let gone = now() - began;
        house.kill(dies).await;
        tokio::time::sleep_until(began + BEFORE + outage.away).await;
        house.revive(dies).map(|()| (gone, now() - began))
    };
    let (loaded, hand) = tokio::join!(load, hand);
    let away = hand.map_err(|e| format!("the provider could not be started again where it was: {e}"))?;
    drop(client);
    let written = chaos::written(&gateway, &loaded.outcomes, &[], outage.seed).await;
    let report = Report::of(outage, loaded, away, written);
    if let Err(e) = gateway.stop(Duration::from_secs(30)).await {
        return Err(e.to_string());
    }
    Ok(report)
}
