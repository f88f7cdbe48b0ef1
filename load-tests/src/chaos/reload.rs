//! Reloads of the plan while it serves, and what must be so after each: the right plan is in force, and what was learned
//! of the targets that stay is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::house::{Edit, House};
use super::schedule::Reload;
use crate::client::Client;
use crate::clock::{Instant, now};
use crate::gateway::Gateway;
use crate::soak;

/// A signal is heard by then.
const HEARD: Duration = Duration::from_secs(5);

/// How a reload went.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// When it was begun, and when it was over.
    pub at: (Duration, Duration),
    /// The plan was taken.
    pub accepted: bool,
    /// It was a mistake, and refused.
    pub refused: bool,
    /// Breakers that were open before it.
    pub open: usize,
    /// Of them, those that were seen open until the same moment after it. (Another's time may just have been over.)
    pub kept: usize,
    /// What is wrong, one sentence each.
    pub wrong: Vec<String>,
}

/// A target, as the admin plane shows it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Shown {
    name: String,
    breaker: Breaker,
    signal: Signal,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Breaker {
    state: String,
    until: Option<u64>,
    why: Option<String>,
    openings: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Signal {
    latency_us: u64,
    in_flight: u64,
}

type Targets = BTreeMap<String, Shown>;

/// Loads plans into a running gateway.
pub struct Reloader<'a> {
    gateway: &'a Gateway,
    house: &'a House,
    admin: Client,
    began: Instant,
    /// The plan in force, without its note, and its fingerprint.
    in_force: (Edit, String),
}

impl<'a> Reloader<'a> {
    /// For a gateway that was started with `Edit::default()`.
    ///
    /// # Errors
    /// Its admin plane does not answer.
    pub async fn new(gateway: &'a Gateway, house: &'a House, began: Instant) -> Result<Self, String> {
        let admin = Client::new(gateway.admin()).map_err(|e| e.to_string())?;
        let fingerprint = fingerprint(&admin).await?;
        Ok(Self {
            gateway,
            house,
            admin,
            began,
            in_force: (Edit::default(), fingerprint),
        })
    }

    /// One reload. What goes wrong on the way is told in it.
    pub async fn reload(&mut self, r: &Reload) -> Reloaded {
        let mut out = Reloaded {
            at: (now() - self.began, Duration::ZERO),
            ..Reloaded::default()
        };
        if let Err(why) = self.carry_out(r, &mut out).await {
            out.wrong.push(why);
        }
        out.at.1 = now() - self.began;
        out
    }

    async fn carry_out(&mut self, r: &Reload, out: &mut Reloaded) -> Result<(), String> {
        let before = targets(&self.admin).await?;
        self.gateway
            .rewrite(&self.house.plan(&r.edit))
            .map_err(|e| format!("the plan could not be written: {e}"))?;
        let taken = if r.by_signal {
            self.by_signal().await?
        } else {
            self.by_post().await?
        };
        let after = targets(&self.admin).await?;
        (out.accepted, out.refused) = (taken, !taken);
        if taken == r.edit.mistake {
            let said = if taken { "taken" } else { "refused" };
            out.wrong.push(format!("plan {} was {said}", r.edit.note));
        }
        let is = fingerprint(&self.admin).await?;
        let bare = |edit: &Edit| Edit {
            note: 0,
            mistake: false,
            ..*edit
        };
        let (was, old) = &self.in_force;
        let same = r.edit.mistake || bare(&r.edit) == *was;
        if same != (is == *old) {
            out.wrong.push(format!(
                "plan {}: the fingerprint went from {old} to {is}, and the plan is {}",
                r.edit.note,
                if same { "the same" } else { "another one" }
            ));
        }
        if !r.edit.mistake {
            self.in_force = (bare(&r.edit), is);
        }
        kept(&before, &after, out);
        Ok(())
    }

    /// Was it taken?
    async fn by_post(&self) -> Result<bool, String> {
        let answer = self
            .admin
            .post("/admin/reload", &Value::Null)
            .await
            .map_err(|e| format!("POST /admin/reload: {e}"))?;
        let status = answer.status();
        let said = answer.bytes().await.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&said);
        match status {
            200 => Ok(true),
            422 if said.contains("the old plan stays") => Ok(false),
            other => Err(format!("POST /admin/reload: status {other}, {said}")),
        }
    }

    async fn by_signal(&self) -> Result<bool, String> {
        let before = reloads(&self.admin).await?;
        self.gateway.hang_up();
        let asked = now();
        while now() - asked < HEARD {
            let after = reloads(&self.admin).await?;
            if after != before {
                return Ok(after.0 > before.0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("SIGHUP was not heard in {} s", HEARD.as_secs()))
    }
}

/// What was learned of the targets that stay.
fn kept(before: &Targets, after: &Targets, out: &mut Reloaded) {
    for (name, was) in before {
        let Some(is) = after.get(name) else { continue };
        // Why a breaker opened last is never forgotten, and a latency never goes back to unknown: both say that this is
        // still the same state.
        if was.breaker.why.is_some() && is.breaker.why.is_none() {
            out.wrong.push(format!(
                "{name}: its breaker was {} and knows nothing of it after the reload",
                was.breaker.state
            ));
        }
        if was.signal.latency_us > 0 && is.signal.latency_us == 0 {
            out.wrong
                .push(format!("{name}: its latency is unknown after the reload"));
        }
        if was.breaker.state == "open" {
            out.open += 1;
            let same = is.breaker.state == "open" && is.breaker.openings == was.breaker.openings;
            if same && is.breaker.until != was.breaker.until {
                out.wrong.push(format!(
                    "{name}: its breaker is open until another time after the reload"
                ));
            }
            out.kept += usize::from(same);
        }
    }
}

async fn targets(admin: &Client) -> Result<Targets, String> {
    let answer = admin
        .get("/admin/targets")
        .await
        .map_err(|e| format!("GET /admin/targets: {e}"))?;
    let mut value = answer.json().await.map_err(|e| e.to_string())?;
    let list = value.get_mut("targets").map(Value::take).unwrap_or_default();
    let shown: Vec<Shown> =
        serde_json::from_value(list).map_err(|e| format!("GET /admin/targets says something else: {e}"))?;
    Ok(shown.into_iter().map(|s| (s.name.clone(), s)).collect())
}

/// Tries in flight by target, those that have any.
///
/// # Errors
/// The admin plane does not answer.
pub async fn tries_in_flight(admin: &Client) -> Result<BTreeMap<String, u64>, String> {
    let all = targets(admin).await?.into_iter();
    Ok(all
        .map(|(name, s)| (name, s.signal.in_flight))
        .filter(|(_, n)| *n > 0)
        .collect())
}

async fn fingerprint(admin: &Client) -> Result<String, String> {
    let answer = admin
        .get("/readyz")
        .await
        .map_err(|e| format!("GET /readyz: {e}"))?;
    let value = answer.json().await.map_err(|e| e.to_string())?;
    let plan = value.get("plan").and_then(Value::as_str);
    Ok(plan.unwrap_or_default().to_owned())
}

/// The metrics page.
///
/// # Errors
/// The admin plane does not answer.
pub async fn metrics(admin: &Client) -> Result<String, String> {
    let answer = admin
        .get("/metrics")
        .await
        .map_err(|e| format!("GET /metrics: {e}"))?;
    let bytes = answer.bytes().await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reloads so far: accepted, refused.
async fn reloads(admin: &Client) -> Result<(f64, f64), String> {
    let page = metrics(admin).await?;
    let of = |result: &str| {
        let only = format!("result=\"{result}\"");
        let lines = page.lines().filter(|l| l.starts_with('#') || l.contains(&only));
        let page: String = lines.map(|l| format!("{l}\n")).collect();
        let all = soak::counters(&page);
        all.get("weir_plan_reloads_total").copied().unwrap_or(0.0)
    };
    Ok((of("ok"), of("refused")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: &str, until: Option<u64>, why: Option<&str>, latency_us: u64) -> Targets {
        let one = Shown {
            name: "a".into(),
            breaker: Breaker {
                state: state.into(),
                until,
                why: why.map(str::to_owned),
                openings: 1,
            },
            signal: Signal {
                latency_us,
                in_flight: 0,
            },
        };
        BTreeMap::from([("a".to_owned(), one)])
    }

    fn told(before: &Targets, after: &Targets) -> (usize, usize, String) {
        let mut out = Reloaded::default();
        kept(before, after, &mut out);
        (out.open, out.kept, out.wrong.join("; "))
    }

    #[test]
    fn a_state_that_is_lost_is_noticed() {
        let open = shown("open", Some(9), Some("row"), 5);
        assert_eq!(told(&open, &open), (1, 1, String::new()));
        // Its time was over meanwhile, and its probe was good.
        assert_eq!(
            told(&open, &shown("closed", None, Some("row"), 5)),
            (1, 0, String::new())
        );
        assert!(
            told(&open, &shown("closed", None, None, 5))
                .2
                .contains("knows nothing")
        );
        assert!(
            told(&open, &shown("open", Some(20), Some("row"), 5))
                .2
                .contains("another time")
        );
        assert!(
            told(&open, &shown("open", Some(9), Some("row"), 0))
                .2
                .contains("unknown")
        );
        assert_eq!(told(&open, &Targets::new()).2, "", "it is gone from the plan");
    }
}
