//! One question, asked by many at once.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::paint::Paint;
use super::play::{judge, sent};
use super::scenes::Ask;
use crate::client::Client;
use crate::clock::{now, us};
use crate::provider::Log;

/// Sentences about what went wrong that are shown.
const SHOWN: usize = 3;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    callers: usize,
    /// Answers by `x-weir-cache`.
    how: BTreeMap<String, usize>,
    /// Calls that the strong tier saw.
    calls: usize,
    /// The answer, and the cost as its head says.
    text: String,
    total_ms: f64,
    /// What is not as meant, one sentence each.
    pub wrong: Vec<String>,
}

/// Asks it: every other caller wants a stream.
pub async fn ask(client: &Client, log: &Log, ask: &Ask, callers: usize) -> Crowd {
    log.clear();
    let began = now();
    let mut running = JoinSet::new();
    for i in 0..callers {
        let (client, ask) = (client.clone(), ask.clone());
        running.spawn(async move { sent(&client, &ask, i % 2 == 0).await });
    }
    let mut crowd = Crowd {
        callers,
        ..Crowd::default()
    };
    // What is meant of one answer holds for each; the calls are counted over all.
    let each = Ask {
        strong_calls: None,
        asked: None,
        ..ask.clone()
    };
    while let Some(joined) = running.join_next().await {
        let Ok(mut o) = joined else {
            crowd.wrong.push("a caller of this demo failed".to_owned());
            continue;
        };
        o.wrong.extend(judge(&each, &o));
        *crowd.how.entry(o.header("x-weir-cache").to_owned()).or_default() += 1;
        crowd.text = o.text;
        crowd.wrong.extend(o.wrong);
    }
    crowd.total_ms = us(now() - began) as f64 / 1e3;
    crowd.calls = log.entries().len();
    if let Some(meant) = ask.strong_calls.filter(|n| *n != crowd.calls) {
        let sentence = format!("the strong tier saw {} calls, not {meant}", crowd.calls);
        crowd.wrong.push(sentence);
    }
    crowd.wrong.dedup();
    crowd
}

impl Crowd {
    /// For a person.
    pub fn lines(&self, ask: &Ask, paint: Paint) -> Vec<String> {
        let shown = |label: &str, text: &str| format!("  {} {text}", paint.dim(&format!("{label:<9}")));
        let how: Vec<String> = self.how.iter().map(|(how, n)| format!("{n} {how}")).collect();
        let mut out = vec![
            shown(
                "asked",
                &format!(
                    "{}: {}  ({} callers at once, streams and whole answers)",
                    ask.model, ask.prompt, self.callers
                ),
            ),
            shown("answer", &self.text.chars().take(160).collect::<String>()),
            shown("came as", &how.join(", ")),
            shown(
                "billed",
                &format!("{} of the strong tier", plural(self.calls, "call")),
            ),
            shown("took", &format!("all of it {:.0} ms", self.total_ms)),
        ];
        match self.wrong.as_slice() {
            [] => out.push(format!("  {}", paint.good("as meant"))),
            wrong => out.extend(
                wrong
                    .iter()
                    .take(SHOWN)
                    .map(|w| format!("  {}", paint.bad(&format!("NOT as meant: {w}")))),
            ),
        }
        out
    }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Scenes;
    use crate::provider::{Provider, Script};

    #[tokio::test]
    async fn calls_of_all_together_are_counted() {
        let provider = Provider::start(Script::parse("[default]\ntext = \"four\"").unwrap())
            .await
            .unwrap();
        let client = Client::new(&provider.url()).unwrap();
        let scene = "[[scene]]\ntitle = \"t\"\nabout = \"a\"\n[[scene.ask]]\nmodel = \"m\"\nprompt = \"x\"\n\
                     max_tokens = 9\ncrowd = 20\ncontains = \"four\"\nstrong_calls = 1\n";
        let question = Scenes::parse(scene)
            .unwrap()
            .scene
            .swap_remove(0)
            .ask
            .swap_remove(0);
        let crowd = ask(&client, &provider.log(), &question, 20).await;
        assert_eq!(crowd.calls, 20, "nobody stands in between");
        assert_eq!(crowd.wrong, ["the strong tier saw 20 calls, not 1"]);
        let lines = crowd.lines(&question, Paint::plain());
        assert!(lines.iter().any(|l| l.contains("NOT as meant")), "{lines:?}");
    }
}
