//! The way of one request: log, state, script, dialect.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::behaviour::Behaviour;
use super::body::{ReplyBody, Watch};
use super::connection::accept;
use super::go_on::GoOn;
use super::handle::{Shared, State};
use super::log::Entry;
use super::reply::Reply;
use super::request::{Api, Ask};
use super::script::Script;
use super::wire::WireControl;
use super::{admin, anthropic, embeddings, openai, respond, words};
use crate::clock::now;

/// Larger bodies than any gateway passes on; beyond it the provider itself says 413.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Serves until told to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    done: oneshot::Sender<()>,
) {
    let mut stop = shared.stop.subscribe();
    {
        let api = accept(shared.clone(), listener, false);
        let admin = async {
            match admin {
                Some(l) => accept(shared.clone(), l, true).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = api => {}
            () = admin => {}
            _ = stop.wait_for(|s| *s) => {}
        }
        // Leaving this scope drops the listeners and, with their sets of tasks, every connection.
    }
    let _ = done.send(());
}

pub(super) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    control: &WireControl,
    connection: u64,
    admin_only: bool,
) -> Response<ReplyBody> {
    control.order(None);
    if admin_only || admin::is_admin(request.uri().path()) {
        return admin::answer(shared, request).await;
    }
    let (head, body) = request.into_parts();
    let id = shared.log.open(Entry {
        connection,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: seen_headers(&head.headers),
        header_names: head.headers.keys().map(ToString::to_string).collect(),
        ..Entry::default()
    });
    let watch = Watch::new(shared.log.clone(), id);
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(b) => b.to_bytes(),
        Err(e) => return respond::refusal(watch, 413, &format!("the body could not be read: {e}"), false),
    };
    let script = shared.script();
    if script.max_body_bytes.is_some_and(|max| body.len() > max) {
        return respond::refusal(
            watch,
            413,
            "The body is too large.",
            head.uri.path() == "/v1/messages",
        );
    }
    let text = script
        .log_bodies
        .then(|| String::from_utf8_lossy(&body).into_owned());
    shared.log.update(id, |e, _| {
        e.body_bytes = body.len() as u64;
        e.body_hash = format!("{:016x}", words::fnv1a(&body));
        e.body = text;
    });
    let state = *shared.state.borrow();
    match state {
        State::Silent => {
            // Until the client goes, or the provider is killed or healthy again; then the request is simply lost.
            std::future::pending::<()>().await;
        }
        State::Unavailable => {
            return respond::refusal(watch, 503, "The provider is switched off by its operator.", false);
        }
        State::Up | State::Refuse | State::Reset | State::Deaf => {}
    }
    let path = head.uri.path();
    let anthropic = path == "/v1/messages";
    if let Some(key) = &script.api_key
        && !has_key(&head.headers, key)
    {
        return respond::refusal(watch, 401, "Incorrect API key provided.", anthropic);
    }
    if head.method == Method::GET && Api::of(path).is_none() {
        return listing(&script, path, watch);
    }
    match Api::of(path) {
        Some(api) if head.method == Method::POST => {
            generate(shared, &script, api, &body, watch, control).await
        }
        Some(_) => respond::refusal(watch, 405, "Method not allowed.", anthropic),
        None => respond::refusal(watch, 404, "Unknown path.", anthropic),
    }
}

fn listing(script: &Script, path: &str, watch: Watch) -> Response<ReplyBody> {
    let body = match path.strip_prefix("/v1/models") {
        Some("") => openai::models(script),
        Some(rest) => match rest.strip_prefix('/').and_then(|name| script.model(name)) {
            Some(m) => openai::model(&m.name),
            None => return respond::refusal(watch, 404, "The model does not exist.", false),
        },
        None => return respond::refusal(watch, 404, "Unknown path.", false),
    };
    respond::Answer::plain(200, respond::JSON, body.to_string().into()).plainly(watch)
}

async fn generate(
    shared: &Shared,
    script: &Script,
    api: Api,
    body: &[u8],
    mut watch: Watch,
    control: &WireControl,
) -> Response<ReplyBody> {
    let anthropic = api == Api::Messages;
    let ask = match Ask::read(api, body) {
        Ok(a) => a,
        Err(why) => return respond::refusal(watch, 400, &why, anthropic),
    };
    shared.log.update(watch.id(), |e, _| {
        e.model.clone_from(&ask.model);
        e.stream = ask.stream;
        e.prompt_tokens = ask.prompt_tokens;
        e.prefill = ask.partial.as_ref().is_some_and(|p| p.prefill);
    });
    let b = {
        let mut rules = shared.rules();
        script.behaviour(&ask.model, &ask.prompt, ask.stream, &mut rules, now())
    };
    if script.strict && script.model(&ask.model).is_none() && b.fault.is_none() {
        let why = format!("The model {:?} does not exist.", ask.model);
        return respond::refusal(watch, 404, &why, anthropic);
    }
    control.order(b.wire);
    if b.hang == Some(true) {
        // Until the client goes.
        std::future::pending::<()>().await;
    }
    if let Some(places) = shared.places() {
        match places.take().await {
            Some(place) => watch.occupies(place),
            None => {
                let why = "Too many requests at once: this provider does no more than it can.";
                return respond::refusal(watch, 429, why, anthropic);
            }
        }
    }
    pause(b.headers_ms).await;
    let answer = match prepare(script, &ask, &b, watch.id()) {
        Prepared::Now(answer) => answer,
        Prepared::After(generation, answer) => {
            tokio::time::sleep(generation).await;
            answer
        }
    };
    answer.send(watch, &b, control).await
}

/// An answer, and when its head may go out.
enum Prepared {
    Now(respond::Answer),
    After(Duration, respond::Answer),
}

fn prepare(script: &Script, ask: &Ask, b: &Behaviour, number: u64) -> Prepared {
    let anthropic = ask.api == Api::Messages;
    let status = b.status_at(anthropic);
    if let Some(raw) = &b.raw_body {
        let kind = if ask.stream {
            respond::EVENTS
        } else {
            respond::JSON
        };
        return Prepared::Now(respond::Answer::plain(status, kind, raw.clone().into()));
    }
    if status >= 300 {
        return Prepared::Now(respond::Answer::error(status, "Scripted error.", anthropic, b));
    }
    if let Some(why) = refuses_to_go_on(ask, b) {
        return Prepared::Now(respond::Answer::error(400, why, anthropic, &Behaviour::default()));
    }
    let wait = Duration::from_millis(b.first_token_ms.unwrap_or(0));
    if ask.api == Api::Embeddings {
        let bytes = embeddings::answer(script.seed, ask, b);
        return Prepared::After(wait, respond::Answer::plain(status, respond::JSON, bytes));
    }
    let reply = Reply::make(script, ask, b, number);
    if ask.stream {
        let pieces = if anthropic {
            anthropic::stream(&reply)
        } else {
            openai::stream(ask, &reply)
        };
        return Prepared::Now(respond::Answer::events(status, pieces, reply.tokens()));
    }
    Prepared::After(reply.generation(), respond::Answer::whole(status, ask, &reply))
}

/// Why a beginning is not taken.
fn refuses_to_go_on(ask: &Ask, b: &Behaviour) -> Option<&'static str> {
    let partial = ask.partial.as_ref().filter(|p| p.prefill)?;
    if b.go_on == Some(GoOn::Refuse) {
        return Some(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        );
    }
    let trailing = ask.api == Api::Messages && partial.text.ends_with(char::is_whitespace);
    trailing.then_some("messages: final assistant content cannot end with trailing whitespace")
}

async fn pause(ms: Option<u64>) {
    if let Some(ms) = ms.filter(|ms| *ms > 0) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let bearer = headers
        .get("authorization")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    let x = headers.get("x-api-key").and_then(|v| v.to_str().ok());
    bearer == Some(key) || x == Some(key)
}

/// The log is read by people and pasted into reports: values by allow-list, keys only as a mark.
fn seen_headers(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    const SHOWN: [&str; 12] = [
        "accept",
        "accept-encoding",
        "anthropic-version",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "user-agent",
        "x-request-id",
    ];
    headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str();
            if name == "authorization" || name == "x-api-key" {
                return Some((
                    name.to_owned(),
                    format!("present:{:016x}", words::fnv1a(value.as_bytes())),
                ));
            }
            let shown =
                SHOWN.contains(&name) || name.starts_with("x-stainless-") || name.starts_with("x-weir-");
            shown.then(|| {
                (
                    name.to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
        })
        .collect()
}

/// Used by the admin part to come back to `Up` after a while.
pub(super) fn revive_later(
    state: &watch::Sender<State>,
    after: Duration,
) -> impl Future<Output = ()> + use<> {
    let state = state.clone();
    async move {
        tokio::time::sleep(after).await;
        state.send_replace(State::Up);
    }
}
