//! What is said when the gateway is ready: where it is, who answers, what `auto` can hold, and a command to try.

use routing::plan::{Auth, Objective, Plan, Price, RouteConfig, Start, Uncalibrated};

use crate::app::App;
use crate::locals::Locals;
use crate::runtime::{Runtime, Standing};

/// The lines.
pub fn lines(app: &App, locals: &Locals, data: &str, admin: &str) -> Vec<String> {
    let rt = app.runtime();
    let scheme = if app.tls().is_some() { "https" } else { "http" };
    let mut lines = vec![format!(
        "weir is ready: {scheme}://{data}/v1 (admin http://{admin})"
    )];
    let mut targets: Vec<_> = rt.plan.targets.iter().zip(&rt.about).collect();
    targets.sort_by_key(|(target, _)| !target.is_local());
    for (target, about) in targets {
        let state = match &about.standing {
            Standing::Off(why) => format!("off: {why}"),
            Standing::Starting(why) => format!("starting: {why}"),
            Standing::On if target.is_local() => {
                let artifact = target.artifact.as_deref().unwrap_or_default();
                let about = locals.about(artifact).unwrap_or_default();
                format!("on: {artifact} in this process ({about})")
            }
            Standing::On => format!(
                "on: {} at {}, {}",
                target.model,
                provider(&rt.plan, target),
                price(&target.price)
            ),
        };
        let place = if target.is_local() { "local " } else { "remote" };
        lines.push(format!("  {place} {:<12} {state}", target.name));
    }
    if let Some(auto) = rt.plan.routes.iter().find(|r| &*r.name == "auto") {
        lines.push(format!("  auto: {}", holds(&rt, auto)));
    }
    lines.push(format!(
        "  try:  curl {scheme}://{data}/v1/chat/completions -H 'content-type: application/json'{} -d '{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Say hello.\"}}]}}'",
        if rt.plan.server.auth == Auth::Keys { " -H 'authorization: Bearer YOUR_KEY'" } else { "" },
        if rt.plan.routes.iter().any(|r| &*r.name == "auto") { "auto" } else { first_name(&rt.plan) }
    ));
    lines
}

fn first_name(plan: &Plan) -> &str {
    plan.routes
        .first()
        .map(|r| &*r.name)
        .or_else(|| plan.targets.first().map(|t| &*t.name))
        .unwrap_or("auto")
}

fn price(price: &Price) -> String {
    match price {
        Price::Unknown => "price unknown".to_owned(),
        Price::Unmetered => "unmetered".to_owned(),
        Price::PerToken { input, output, .. } => {
            let usd = |pico: u64| pico as f64 / 1e6;
            format!(
                "{} / {} USD per million tokens in / out",
                usd(input.pico_usd),
                usd(output.pico_usd)
            )
        }
    }
}

/// What the route can promise with what is on.
fn holds(rt: &Runtime, route: &RouteConfig) -> String {
    let on = |tier: &Vec<routing::ids::TargetId>| tier.iter().any(|id| rt.is_on(id.index()));
    let usable: Vec<usize> = route
        .tiers
        .iter()
        .enumerate()
        .filter(|(_, tier)| on(tier))
        .map(|(i, _)| i)
        .collect();
    let wanted = match route.objective {
        Objective::QualityFloor(floor) => format!("quality floor {floor}"),
        Objective::UsdPer1kRequests(usd) => format!("at most {} USD per 1,000 requests", usd.usd()),
        Objective::Threshold(p) => format!("threshold {p}"),
    };
    let names = |tier: usize| {
        let of = route.tiers.get(tier).into_iter().flatten();
        of.filter_map(|id| rt.plan.targets.get(id.index()))
            .map(|t| &*t.name)
            .collect::<Vec<_>>()
            .join(" or ")
    };
    match usable.as_slice() {
        [] => "nothing of it is on; every request is refused".to_owned(),
        [only] if route.tiers.len() > 1 && *only + 1 < route.tiers.len() => {
            format!(
                "{wanted} not reachable: no stronger tier is on, so {} answers everything",
                names(*only)
            )
        }
        [only] => format!("{} answers everything", names(*only)),
        [first, .., last] => {
            let unmeasured = route.tiers.iter().flatten().any(|id| {
                rt.is_on(id.index()) && rt.about.get(id.index()).is_some_and(|a| a.ability.is_none())
            });
            match (route.start, route.uncalibrated) {
                (Start::First, _) => format!(
                    "{} is asked first, {} when it is not enough",
                    names(*first),
                    names(*last)
                ),
                (Start::Last, _) => format!("{} is asked first", names(*last)),
                (Start::Predicted, Uncalibrated::Strongest) if unmeasured => {
                    format!(
                        "{wanted}; not every model is measured yet, so {} starts where that is unsure",
                        names(*last)
                    )
                }
                (Start::Predicted, _) => format!("{wanted}, from {} up to {}", names(*first), names(*last)),
            }
        }
    }
}

fn provider<'p>(plan: &'p Plan, target: &routing::plan::TargetConfig) -> &'p str {
    plan.providers
        .get(target.provider.index())
        .map_or("?", |p| &*p.name)
}
