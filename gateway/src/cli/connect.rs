//! `weir check --connect`: one free call to each provider, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use routing::plan::{Plan, ProviderKind};
use serde::Serialize;

use crate::clock::Clock;
use crate::providers::knock::Knocked;
use crate::providers::pool::{Pool, PoolLimits};
use crate::providers::{CallContext, Client};
use crate::runtime::maker::{Locals, Maker};
use crate::runtime::secrets::Secrets;
use crate::runtime::{Made, Make, Standing};

/// A provider has so long for its answer.
const WITHIN: Duration = Duration::from_secs(10);

/// One provider.
#[derive(Debug, Serialize)]
pub struct Connected {
    /// Its name in the plan.
    pub provider: String,
    /// Nothing is wrong.
    pub ok: bool,
    /// What was found, a sentence each.
    pub said: Vec<String>,
}

/// Local models are looked at by `weir models verify`, not here.
struct NoLocals;

impl Locals for NoLocals {
    fn open(&self, _: &routing::plan::TargetConfig) -> Made {
        Made::off("not looked at here")
    }
    fn ability(&self, _: &routing::plan::TargetConfig) -> Option<routing::signals::Ability> {
        None
    }
}

/// Asks every provider that has targets, all at once.
pub async fn connect(plan: &Plan, secrets: &Secrets) -> Vec<Connected> {
    let clock = Clock::system();
    let pool = Pool::new(clock.clone(), PoolLimits::default());
    let made = Maker::new(Arc::new(NoLocals)).make(plan, secrets);
    // By provider: its targets with what was made of each.
    let mut of: BTreeMap<usize, Vec<(usize, &Made)>> = BTreeMap::new();
    for (at, (target, made)) in plan.targets.iter().zip(&made).enumerate() {
        of.entry(target.provider.index()).or_default().push((at, made));
    }
    let asked = plan
        .providers
        .iter()
        .enumerate()
        .filter(|(_, p)| p.kind != ProviderKind::Local);
    let asked = asked.map(|(index, provider)| {
        let targets = of.remove(&index).unwrap_or_default();
        let (clock, pool) = (&clock, &pool);
        async move {
            let (ok, said) = one(plan, &targets, clock, pool).await;
            Connected {
                provider: provider.name.to_string(),
                ok,
                said,
            }
        }
    });
    let mut all = Vec::new();
    // One after the other: there are few, and the lines come in the plan's order.
    for asking in asked {
        all.push(asking.await);
    }
    all
}

async fn one(
    plan: &Plan,
    targets: &[(usize, &Made)],
    clock: &Clock,
    pool: &Arc<Pool>,
) -> (bool, Vec<String>) {
    let Some((_, made)) = targets.first() else {
        return (true, vec!["no target uses it; not asked".to_owned()]);
    };
    let client = match (&made.standing, &made.client) {
        (Standing::Off(why), _) => return (false, vec![format!("off: {why}")]),
        (_, Some(Client::Http(client))) => client,
        _ => return (true, vec!["not behind HTTP; not asked".to_owned()]),
    };
    let ctx = CallContext {
        clock,
        pool,
        connect: WITHIN,
        left: None,
        request_id: "weir-check",
        traceparent: None,
        may_resend: true,
    };
    let knocked = clock.within(clock.now() + WITHIN, client.knock(&ctx)).await;
    match knocked {
        None => (false, vec![format!("no answer within {} s", WITHIN.as_secs())]),
        Some(Knocked::Wrong(why)) => (false, vec![why]),
        Some(Knocked::NoList(status)) => {
            let said =
                format!("it is there, but has no list of models (status {status}): names cannot be checked");
            (true, vec![said])
        }
        Some(Knocked::Lists(models)) => {
            let mut said = vec![format!("it is there, and lists {} models", models.len())];
            let names = targets.iter().filter_map(|(at, _)| plan.targets.get(*at));
            let unknown = names.filter(|t| !models.iter().any(|m| **m == *t.model));
            said.extend(unknown.map(|t| {
                format!(
                    "it does not list `{}` (target {}): some lists are not complete",
                    t.model, t.name
                )
            }));
            (true, said)
        }
    }
}
