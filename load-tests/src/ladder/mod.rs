//! The ladder with a real model on its lowest rung: all providers go away under load, and nobody may be turned away while
//! the house can answer; nor may anybody get the house's answer, or one that is not marked, while better was to be had.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::caller::{self, Got, Leave};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway, Home};
use crate::provider::{Options, Provider, Script, State};

const PLAN: &str = include_str!("../../data/ladder-plan.toml");
/// Between the beginnings of two requests, as far as answers are that quick.
const PACE: Duration = Duration::from_millis(150);
/// The caller itself gives up after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests.
    pub asked: u32,
    /// Of these, while every provider was away.
    pub away: u32,
    /// Answers of the model inside the gateway.
    pub by_house: u32,
    /// Answers marked as degraded.
    pub degraded: u32,
    /// Statuses of 500 and more.
    pub turned_away: u32,
    /// Longest time to a whole answer while every provider was away.
    pub slowest: Duration,
    /// What is broken, one sentence each.
    pub broken: Vec<String>,
}

/// Sends so many requests, the providers away for the middle third.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(program: &Path, requests: u32, mut progress: impl FnMut(String)) -> Result<Report, String> {
    let provider = Provider::start_on_thread(Script::default(), Options::default())
        .map_err(|e| format!("the scripted provider could not be started: {e}"))?;
    let options = gateway::Options {
        plan: PLAN.replace("{provider}", &provider.base_url()),
        home: Home::UsersModels,
        env: Vec::new(),
        echo: true,
        ready_within: Duration::from_secs(900),
    };
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let (dies, returns) = (requests / 3, requests / 3 * 2);
    let mut report = Report::default();
    for i in 0..requests {
        match i {
            i if i == dies => provider.set_state(State::Refuse),
            i if i == returns => provider.set_state(State::Up),
            _ => {}
        }
        let began = now();
        let got = caller::ask(&client, body(i), &HeaderMap::new(), PATIENCE, Leave::Never).await;
        report.add(i, (dies..returns).contains(&i), &got);
        progress(format!(
            "{} of {requests}: {} by the model inside, {} turned away",
            i + 1,
            report.by_house,
            report.turned_away
        ));
        tokio::time::sleep_until(began + PACE).await;
    }
    report.judge();
    gateway
        .stop(Duration::from_secs(30))
        .await
        .map_err(|e| e.to_string())?;
    provider.shutdown().await;
    Ok(report)
}

/// Streams and whole answers in turn.
fn body(i: u32) -> bytes::Bytes {
    json!({
        "model": "auto", "stream": i.is_multiple_of(2), "max_tokens": 12,
        "messages": [{"role": "user", "content": format!("Name a river. {i}")}],
    })
    .to_string()
    .into()
}

impl Report {
    fn add(&mut self, i: u32, away: bool, got: &Got) {
        self.asked += 1;
        self.away += u32::from(away);
        let house = got.answered_by == "house";
        let marked = !got.degraded.is_empty();
        self.by_house += u32::from(house && got.status == 200);
        self.degraded += u32::from(marked);
        self.turned_away += u32::from(got.status >= 500 || got.status == 0);
        if away {
            self.slowest = self.slowest.max(got.took);
        }
        let whole = got.status == 200 && got.error.is_none() && got.broken.is_none() && !got.text.is_empty();
        if !whole {
            self.broken.push(format!(
                "request {i}: status {}, {}",
                got.status,
                got.broken.as_deref().unwrap_or("no whole answer")
            ));
        }
        if house != marked {
            self.broken.push(format!(
                "request {i}: answered by {}, marked as {:?}",
                got.answered_by, got.degraded
            ));
        }
    }

    fn judge(&mut self) {
        let most = self.away + self.asked / 100;
        if !(self.away..=most).contains(&self.degraded) {
            self.broken.push(format!(
                "{} degraded answers, {} requests came while nothing better was there (and one in a hundred more is allowed)",
                self.degraded, self.away
            ));
        }
    }

    /// For a script.
    pub fn json(&self) -> Value {
        json!({
            "ok": self.broken.is_empty(), "broken": self.broken, "asked": self.asked, "away": self.away,
            "by_house": self.by_house, "degraded": self.degraded, "turned_away": self.turned_away,
            "slowest_ms": u64::try_from(self.slowest.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} requests, {} while every provider was away: {} answered by the model inside the gateway, {} marked as degraded, \
             {} turned away; slowest answer meanwhile {} ms\n",
            self.asked,
            self.away,
            self.by_house,
            self.degraded,
            self.turned_away,
            self.slowest.as_millis()
        );
        for sentence in &self.broken {
            out.push_str(&format!("BROKEN: {sentence}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(status: u16, by: &str, degraded: &str) -> Got {
        Got {
            status,
            answered_by: by.to_owned(),
            degraded: degraded.to_owned(),
            text: "the Rhine".to_owned(),
            ..Got::default()
        }
    }

    #[test]
    fn what_must_not_be_is_noticed() {
        let of = |gots: &[(bool, Got)]| {
            let mut report = Report::default();
            for (i, (away, got)) in gots.iter().enumerate() {
                report.add(i as u32, *away, got);
            }
            report.judge();
            report.broken
        };
        let marked = || got(200, "house", "weaker; reason=failed");
        assert!(of(&[(false, got(200, "remote", "")), (true, marked())]).is_empty());
        let turned_away = of(&[(true, got(503, "", "")), (true, marked())]);
        assert!(
            turned_away.iter().any(|b| b.contains("status 503")),
            "{turned_away:?}"
        );
        let unmarked = of(&[(true, got(200, "house", ""))]);
        assert!(unmarked.iter().any(|b| b.contains("marked as")), "{unmarked:?}");
        let needless = of(&[(false, marked()), (false, got(200, "remote", ""))]);
        assert!(
            needless.iter().any(|b| b.contains("degraded answers")),
            "{needless:?}"
        );
    }
}
