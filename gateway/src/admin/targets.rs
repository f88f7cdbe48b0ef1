//! Targets at the admin plane: what their guards do, and an operator's word for one of them.

use routing::signals::Usable;
use serde::Deserialize;

use crate::app::App;
use crate::target_state::Wish;
use crate::telemetry::names::Name;

/// Bytes of an operator's word.
pub const MAX_BODY: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    state: Wish,
}

/// `{"state":"on"}`, `"drain"` or `"off"`.
///
/// # Errors
/// What the body should be.
pub fn word(body: &[u8]) -> Result<Wish, &'static str> {
    serde_json::from_slice::<Word>(body)
        .map(|word| word.state)
        .map_err(|_| r#"send {"state":"on"}, {"state":"drain"} or {"state":"off"}"#)
}

/// Carries out an operator's word. `false`: the plan has no such target.
pub fn wish(app: &App, name: &str, wish: Wish) -> bool {
    let rt = app.runtime();
    let at = rt.plan.targets.iter().position(|t| *t.name == *name);
    let Some(target) = at.and_then(|at| rt.targets.get(at)) else {
        return false;
    };
    target.state.wish(wish);
    tracing::warn!(target_name = name, ?wish, "an operator spoke about this target");
    true
}

/// Brings the gauges of breakers, limits, routes, admission and budget up to date.
pub fn report(app: &App) {
    let (rt, now, telemetry) = (app.runtime(), app.clock().now(), app.telemetry());
    for (config, target) in rt.plan.targets.iter().zip(rt.targets.iter()) {
        let state = match target.state.breaker(now).state {
            "open" => 2.0,
            "probing" => 1.0,
            _ => 0.0,
        };
        telemetry.gauge(Name::Breaker, &[&config.name]).set(state);
        if let Some(limit) = target.state.limit() {
            telemetry
                .gauge(Name::TargetLimit, &[&config.name])
                .set(f64::from(limit));
        }
        for (why, n) in target.state.openings() {
            let opened = telemetry.counter(Name::BreakerOpened, &[&config.name, why.as_str()]);
            opened.absolute(n);
        }
    }
    app.gate().report();
    let signals = rt.signals(now, None, 0);
    let usable = |at: usize| signals.targets.get(at).is_some_and(|s| s.usable == Usable::Yes);
    for route in &rt.plan.routes {
        let mut targets: Vec<usize> = route.tiers.iter().flatten().map(|id| id.index()).collect();
        targets.sort_unstable();
        targets.dedup();
        let count = targets.into_iter().filter(|&at| usable(at)).count();
        telemetry
            .gauge(Name::RouteUsable, &[&route.name])
            .set(count as f64);
    }
    telemetry
        .gauge(Name::RetryBudget, &[])
        .set(rt.budgets.repeats.left(now));
    telemetry
        .gauge(Name::HedgeBudget, &[])
        .set(rt.budgets.hedges.left(now));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::app::Setup;
    use crate::clock::Clock;
    use crate::runtime::Made;
    use crate::runtime::secrets::Secrets;
    use crate::telemetry::Telemetry;
    use crate::telemetry::writer::Sink;
    use crate::testing;

    fn app() -> App {
        let plan = "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                    [targets.a]\nprovider = \"p\"\nmodel = \"m\"\n[targets.b]\nprovider = \"p\"\nmodel = \"n\"\n\
                    [routes.auto]\ntiers = [[\"a\"], [\"b\"]]\n";
        App::new(Setup {
            limits: Arc::new(crate::limits::Local::default()),
            plan: testing::plan(plan),
            notes: Vec::new(),
            clock: Clock::system(),
            telemetry: Telemetry::new(),
            sink: Sink::none(),
            make: Box::new(|plan: &routing::plan::Plan, _: &Secrets| -> Vec<Made> {
                let fake = || crate::providers::fake::FakeTarget::new(Vec::new());
                plan.targets
                    .iter()
                    .map(|_| Made::on(crate::providers::Client::Fake(fake())))
                    .collect()
            }),
            secrets: Secrets::new(Arc::new(|_| None)),
            cores: 1,
            session_key: 1,
        })
    }

    #[test]
    fn an_operators_word_is_one_of_three() {
        assert_eq!(word(br#"{"state":"drain"}"#), Ok(Wish::Drain));
        for bad in [
            &b""[..],
            b"{}",
            br#"{"state":"paused"}"#,
            br#"{"state":"on","x":1}"#,
        ] {
            assert!(word(bad).is_err());
        }
    }

    #[tokio::test]
    async fn guards_are_seen_in_the_metrics_and_outlive_a_reload() {
        let app = app();
        let now = app.clock().now();
        let state = Arc::clone(&app.runtime().targets.first().unwrap().state);
        for _ in 0..5 {
            let mut leave = state.begin(now).unwrap();
            leave.told(routing::breaker::Sign::Failed, now);
        }
        assert!(wish(&app, "b", Wish::Drain));
        assert!(!wish(&app, "c", Wish::Off));
        app.swap((*app.runtime().plan).clone(), Vec::new());
        report(&app);
        let text = app.telemetry().render();
        for line in [
            r#"weir_breaker_state{target="a"} 2"#,
            r#"weir_breaker_state{target="b"} 0"#,
            r#"weir_breaker_opened_total{target="a",why="row"} 1"#,
            r#"weir_route_usable_targets{route="auto"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("weir_retry_budget_left"), "{text}");
        wish(&app, "a", Wish::On);
        report(&app);
        let text = app.telemetry().render();
        assert!(
            text.contains(r#"weir_route_usable_targets{route="auto"} 1"#),
            "{text}"
        );
    }

    #[tokio::test]
    async fn an_operators_word_comes_over_the_admin_plane() {
        let app = app();
        let locals = crate::locals::Locals::new(None, app.telemetry().clone());
        let reload: crate::admin::Reload = Arc::new(|| Err("not here".to_owned()));
        let admin = crate::admin::Admin::new(app.clone(), locals, reload, "127.0.0.1:9090");
        let post = |path: &str, body: &'static str| {
            let body = http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()));
            http::Request::post(path).body(body).unwrap()
        };
        for (path, body, status) in [
            ("/admin/targets/a", r#"{"state":"off"}"#, 200),
            ("/admin/targets/a", r#"{"state":"paused"}"#, 400),
            ("/admin/targets/nobody", r#"{"state":"off"}"#, 404),
        ] {
            let answer = admin.serve_one(post(path, body)).await;
            assert_eq!(answer.status(), status, "{path} {body}");
        }
        let state = Arc::clone(&app.runtime().targets.first().unwrap().state);
        assert_eq!(state.wished(), Wish::Off);
        let mut page = post("/admin/targets/a", r#"{"state":"on"}"#);
        page.headers_mut()
            .insert("origin", http::HeaderValue::from_static("https://a.example"));
        assert_eq!(admin.serve_one(page).await.status(), 403);
        assert_eq!(state.wished(), Wish::Off, "a page in a browser may not say it");
    }
}
