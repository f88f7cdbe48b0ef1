//! After the chaos: all is healed, and everything must be as it was. Nothing is waited for blindly: each thing is looked at
//! until it is so, or its time is over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::JoinSet;

use super::call::Call;
use super::house::{Edit, House, PROVIDERS, ROUTES, TARGETS};
use super::judge::End;
use super::reload::{self, Reloaded, Reloader};
use super::schedule::Reload;
use super::ways::AFTER;
use super::{Outcome, one};
use crate::client::Client;
use crate::clock::{Instant, now};
use crate::gateway::Gateway;
use crate::provider::Ended;
use crate::records::{self, Record, Records};
use crate::soak::{self, Sample};

/// Numbers of the requests that are sent here.
const FROM: u64 = 1 << 40;
/// Between looks.
const LOOK: Duration = Duration::from_millis(20);
/// One of two that share a tier may have to wait until the other one looks worse. It begins again with a tenth of its weight,
/// and an estimate of its latency from before, which may be ten times too long; both fade within 10 s to a third.
const SECOND_OF_TWO: Duration = Duration::from_secs(60);
/// What is held for requests that have ended is given back by then.
const GIVEN_BACK: Duration = Duration::from_secs(5);
/// Healthy requests to each name at the very end.
const ROUND: usize = 5;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Requests that were sent for it.
    pub outcomes: Vec<Outcome>,
    /// By target of a first tier: how long after the healing it answered again.
    pub back: BTreeMap<&'static str, Duration>,
    /// Figures of the process at rest.
    pub rest: Sample,
    /// Gauges that are not zero, and should be.
    pub held: BTreeMap<String, f64>,
    /// Counters that are not zero, and should be.
    pub counted: BTreeMap<String, f64>,
    /// What is wrong, one sentence each.
    pub wrong: Vec<String>,
}

/// Heals everybody and looks at all of it.
///
/// # Errors
/// The gateway does not answer.
pub async fn settle(
    gateway: &Gateway,
    house: &House,
    reloader: &mut Reloader<'_>,
    reloaded: &mut Vec<Reloaded>,
    seed: u64,
    began: Instant,
) -> Result<Settled, String> {
    house.heal();
    // Who refused our key is mended by a person, who says so by a reload.
    let last = Reload {
        at: Duration::ZERO,
        edit: Edit {
            note: 1_000_000,
            ..Edit::default()
        },
        by_signal: false,
    };
    reloaded.push(reloader.reload(&last).await);
    let healed = now();
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let admin = Client::new(gateway.admin()).map_err(|e| e.to_string())?;
    let mut out = Settled::default();
    let mut asking = JoinSet::new();
    for (at, from) in (0..ROUTES.len()).zip((FROM..).step_by(1 << 20)) {
        let client = client.clone();
        asking.spawn(async move { back(&client, at, from, seed, began, healed).await });
    }
    while let Some(asked) = asking.join_next().await {
        let asked = asked.map_err(|e| format!("a name could not be asked for: {e}"))?;
        out.outcomes.extend(asked.outcomes);
        out.back.extend(asked.back);
        out.wrong.extend(asked.wrong);
    }
    let mut numbers = FROM + (1 << 40)..;
    for route in 0..ROUTES.len() {
        for _ in 0..ROUND {
            let n = numbers.next().unwrap_or(FROM);
            let outcome = one(&client, Call::to(route, seed, n), seed, began).await;
            let first = ROUTES.get(route).map(|r| r.first).unwrap_or_default();
            if outcome.end != End::Whole || !outcome.by.is_some_and(|by| first.contains(&by)) {
                out.wrong.push(format!(
                    "after all was well again, {} ended as {:?} by {:?} {}",
                    outcome.call.about(),
                    outcome.end,
                    outcome.by.and_then(|by| TARGETS.get(by)).map(|t| t.name),
                    outcome.error
                ));
            }
            out.outcomes.push(outcome);
        }
    }
    drop(client);
    at_rest(gateway, house, &admin, &mut out).await?;
    Ok(out)
}

/// Asks until each target of the first tier has answered again.
async fn back(
    client: &Client,
    route: usize,
    from: u64,
    seed: u64,
    began: Instant,
    healed: Instant,
) -> Settled {
    let mut out = Settled::default();
    let Some(r) = ROUTES.get(route) else { return out };
    let mut numbers = from..;
    let mut missing: BTreeSet<usize> = r.first.iter().copied().collect();
    let within = |missing: &BTreeSet<usize>| {
        if missing.len() < r.first.len() {
            SECOND_OF_TWO
        } else {
            AFTER
        }
    };
    while !missing.is_empty() && now() - healed < within(&missing) {
        let n = numbers.next().unwrap_or(FROM);
        let outcome = one(client, Call::to(route, seed, n), seed, began).await;
        if let Some(by) = outcome
            .by
            .filter(|by| outcome.end == End::Whole && missing.remove(by))
        {
            let name = TARGETS.get(by).map_or("?", |t| t.name);
            out.back.insert(name, now() - healed);
        }
        out.outcomes.push(outcome);
        tokio::time::sleep(LOOK).await;
    }
    for target in missing.iter().filter_map(|at| TARGETS.get(*at)) {
        out.wrong.push(format!(
            "{} is not in use again {:.1} s after all was healed",
            target.name,
            (now() - healed).as_secs_f64()
        ));
    }
    out
}

/// Whatever was held is given back: in the gateway, and at the providers.
async fn at_rest(gateway: &Gateway, house: &House, admin: &Client, out: &mut Settled) -> Result<(), String> {
    let since = now();
    let open = loop {
        let page = reload::metrics(admin).await?;
        let held = |name: &str| {
            ["requests_in_flight", "connections", "body_bytes_in_flight"]
                .iter()
                .any(|w| name == format!("weir_{w}"))
        };
        out.held = soak::gauges(&page);
        out.held.retain(|name, value| held(name) && *value != 0.0);
        for (target, n) in reload::tries_in_flight(admin).await? {
            out.held.insert(format!("tries in flight at {target}"), n as f64);
        }
        let never = |name: &str| name == "weir_panics_total" || name == "weir_record_faults_total";
        out.counted = soak::counters(&page);
        out.counted.retain(|name, value| never(name) && *value != 0.0);
        let open: usize = (0..PROVIDERS.len())
            .filter_map(|at| house.provider(at))
            .map(|p| p.log().select(|e| e.ended == Ended::Open).len())
            .sum();
        if (out.held.is_empty() && open == 0) || now() - since > GIVEN_BACK {
            break open;
        }
        tokio::time::sleep(LOOK).await;
    };
    if open > 0 {
        out.wrong.push(format!(
            "{open} requests are still being answered by providers: not cancelled"
        ));
    }
    for (name, value) in out.held.iter().chain(&out.counted) {
        out.wrong.push(format!("{name} is {value} at rest"));
    }
    out.rest = soak::sample(gateway.pid())?;
    Ok(())
}

/// Reads the records, once all that are awaited are there or their time is over.
pub async fn written(
    gateway: &Gateway,
    outcomes: &[Outcome],
    more: &[Outcome],
    seed: u64,
) -> Result<Records, String> {
    let dir = gateway.home().join("records");
    let since = now();
    loop {
        let records = records::read(&dir)?;
        let awaited = outcomes.iter().chain(more).filter(|o| !o.id.is_empty()).count();
        let ours = records
            .all
            .iter()
            .filter(|r| r.trace.get(3..19) == Some(&format!("{seed:016x}")))
            .count();
        if ours >= awaited || now() - since > GIVEN_BACK {
            return Ok(records);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a record of a request says otherwise than its caller saw; nothing, if it is right.
pub fn compare(outcome: &Outcome, of_request: &[&Record]) -> Option<String> {
    // Who left before a head came may not have been heard at all.
    let answered = !outcome.id.is_empty();
    let record = match of_request {
        [one] => one,
        [] if !answered => return None,
        all => return Some(format!("{} records", all.len())),
    };
    if answered && record.id != outcome.id {
        return Some(format!("the record of this trace has another id, {}", record.id));
    }
    let (end, status) = match outcome.end {
        End::Whole => ("whole", 200),
        End::InBand => ("cut", 200),
        End::Error => ("error", outcome.status),
        End::Left | End::Lost => return None,
    };
    (record.end != end || record.status != status).then(|| {
        format!(
            "the record says {} with status {}, the caller saw {end} with {status}",
            record.end, record.status
        )
    })
}

/// Records by trace id.
pub fn by_trace(records: &Records) -> HashMap<&str, Vec<&Record>> {
    let mut out: HashMap<&str, Vec<_>> = HashMap::new();
    for record in &records.all {
        // 00-TRACE-SPAN-FLAGS
        out.entry(record.trace.get(3..35).unwrap_or_default())
            .or_default()
            .push(record);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Got;
    use serde_json::json;

    fn outcome(status: u16) -> Outcome {
        let call = Call::to(3, 1, 5);
        let got = Got {
            status,
            id: "r1".into(),
            error: Some(json!({"message": "m", "type": "t", "param": null, "code": "c"})),
            ..Got::default()
        };
        Outcome::of(call, &got, (Duration::ZERO, Duration::ZERO))
    }

    fn record(id: &str, status: u16, end: &str) -> Record {
        Record {
            id: id.into(),
            status,
            end: end.into(),
            ..Record::default()
        }
    }

    #[test]
    fn a_request_has_exactly_one_record_that_says_the_same() {
        let o = outcome(503);
        let right = record("r1", 503, "error");
        assert_eq!(compare(&o, &[&right]), None);
        assert_eq!(compare(&o, &[]), Some("0 records".into()));
        assert_eq!(compare(&o, &[&right, &right]), Some("2 records".into()));
        assert!(
            compare(&o, &[&record("r2", 503, "error")])
                .unwrap()
                .contains("another id")
        );
        assert!(
            compare(&o, &[&record("r1", 200, "whole")])
                .unwrap()
                .contains("says whole")
        );
        let unheard = Outcome {
            id: String::new(),
            end: End::Left,
            ..outcome(0)
        };
        assert_eq!(compare(&unheard, &[]), None);
    }
}
