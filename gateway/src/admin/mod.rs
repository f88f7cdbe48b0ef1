//! The admin plane: is it alive, is it ready, what does it measure; reload; what is on. Never on the data plane's port.

mod cache;
mod ready;
mod targets;
mod usage;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;

pub use self::ready::{Readiness, readiness};
use crate::app::App;
use crate::locals::Locals;
use crate::server::lifecycle::Phase;
use crate::steps::auth;
use crate::usage::Asker;

/// Who spends what.
const USAGE: &str = "/admin/usage";
/// Before a target's name.
const TARGETS: &str = "/admin/targets/";
/// The time that the few bytes of a body have.
const BODY_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// Open admin connections at most.
const MAX_CONNECTIONS: usize = 64;

/// Reads the plan again and swaps it in; or says what is wrong with it.
pub type Reload = Arc<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// The plan in use after a reload.
#[derive(Clone, Debug, Serialize)]
pub struct Reloaded {
    /// Its fingerprint.
    pub plan: String,
    /// Where it was read from, for people.
    pub from: String,
}

/// The admin plane.
#[derive(Clone)]
pub struct Admin {
    app: App,
    locals: Arc<Locals>,
    reload: Reload,
    address: Arc<str>,
    usage: Option<Asker>,
}

impl Admin {
    /// For a gateway; `address` is where it will listen.
    pub fn new(app: App, locals: Arc<Locals>, reload: Reload, address: &str) -> Self {
        Self {
            app,
            locals,
            reload,
            address: address.into(),
            usage: None,
        }
    }

    /// With somebody to ask who spends what.
    pub fn with_usage(mut self, usage: Option<Asker>) -> Self {
        self.usage = usage;
        self
    }

    /// Serves until the process ends.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                self.app.clock().sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let _place = place;
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.serve_one(request).await) }
                });
                let io = TokioIo::new(stream);
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(io, service)
                    .await;
            });
        }
    }

    async fn serve_one<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let asks = (request.method(), request.uri().path()) == (&Method::GET, USAGE);
        if asks && self.browser(&request).is_none() && self.knows(&request) {
            let query = request.uri().query().unwrap_or_default().to_owned();
            drop(request);
            return usage::answer(self.usage.as_ref(), &query).await;
        }
        let named = (request.method() == Method::POST)
            .then(|| request.uri().path().strip_prefix(TARGETS))
            .flatten()
            .map(str::to_owned);
        let Some(name) = named.filter(|_| self.browser(&request).is_none() && self.knows(&request)) else {
            return self.answer(&request);
        };
        let body = Limited::new(request.into_body(), targets::MAX_BODY).collect();
        let until = self.app.clock().now() + BODY_WITHIN;
        let body = match self.app.clock().within(until, body).await {
            Some(Ok(body)) => body.to_bytes(),
            Some(Err(_)) | None => Bytes::new(),
        };
        self.speak(&name, &body)
    }

    /// An operator's word for a target.
    fn speak(&self, name: &str, body: &[u8]) -> Response<Full<Bytes>> {
        match targets::word(body) {
            Err(what) => json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": what })),
            Ok(wish) if targets::wish(&self.app, name, wish) => {
                let shown = readiness(&self.app, &self.locals);
                let target = shown.targets.into_iter().find(|t| *t.name == *name);
                json(StatusCode::OK, &target)
            }
            Ok(_) => {
                let what = "no such target in the plan; GET /admin/targets lists them";
                json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": what }))
            }
        }
    }

    /// Answers one request; looks at its head only.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(refused) = self.browser(request) {
            return refused;
        }
        let known = self.knows(request);
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/readyz") => self.readyz(known),
            (&Method::GET, "/metrics") if known => {
                self.locals.report();
                targets::report(&self.app);
                cache::report(&self.app);
                let body = self.app.telemetry().render();
                of(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
            }
            (&Method::GET, "/admin/targets") if known => {
                let shown = readiness(&self.app, &self.locals);
                json(StatusCode::OK, &serde_json::json!({ "targets": shown.targets }))
            }
            (&Method::GET, "/admin/cache") if known => json(StatusCode::OK, &cache::shown(&self.app)),
            (&Method::DELETE, "/admin/cache") if known => json(StatusCode::OK, &cache::clear(&self.app)),
            (&Method::POST, "/admin/reload") if known => self.reload(),
            (_, path)
                if !known
                    && (matches!(
                        path,
                        "/metrics" | "/admin/targets" | "/admin/cache" | "/admin/reload" | USAGE
                    ) || path.starts_with(TARGETS)) =>
            {
                let why = "this needs the admin token: authorization: Bearer TOKEN (server.admin_token)";
                json(StatusCode::UNAUTHORIZED, &serde_json::json!({ "error": why }))
            }
            (
                _,
                "/healthz" | "/readyz" | "/metrics" | "/admin/targets" | "/admin/cache" | "/admin/reload"
                | USAGE,
            ) => json(
                StatusCode::METHOD_NOT_ALLOWED,
                &serde_json::json!({ "error": "another method is needed" }),
            ),
            _ => {
                let there = "GET /healthz, /readyz, /metrics, /admin/targets, /admin/usage, /admin/cache; POST /admin/reload, \
                             /admin/targets/NAME; DELETE /admin/cache";
                json(
                    StatusCode::NOT_FOUND,
                    &serde_json::json!({ "error": "not here", "there": there }),
                )
            }
        }
    }

    fn readyz(&self, known: bool) -> Response<Full<Bytes>> {
        let ready = self.app.lifecycle().phase() == Phase::Serving;
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        if !known {
            return json(status, &serde_json::json!({ "ready": ready }));
        }
        json(status, &readiness(&self.app, &self.locals))
    }

    fn reload(&self) -> Response<Full<Bytes>> {
        match (self.reload)() {
            Ok(reloaded) => json(StatusCode::OK, &reloaded),
            Err(problems) => {
                let body = serde_json::json!({ "error": "the old plan stays", "problems": problems });
                json(StatusCode::UNPROCESSABLE_ENTITY, &body)
            }
        }
    }

    /// Pages must not reach it: none has business here, and a reload is one request away.
    fn browser<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let why = if request.headers().contains_key(ORIGIN) {
            "no web page may call the admin plane"
        } else if auth::is_loopback(&self.address) {
            let host = request
                .headers()
                .get(HOST)
                .map_or("", |h| h.to_str().unwrap_or("?"));
            if host.is_empty() || auth::is_loopback(host) {
                return None;
            }
            "the admin plane listens on loopback and answers to loopback names only"
        } else {
            return None;
        };
        Some(json(StatusCode::FORBIDDEN, &serde_json::json!({ "error": why })))
    }

    /// Has the token, or none is asked for. A token whose secret is absent lets nobody in.
    fn knows<B>(&self, request: &Request<B>) -> bool {
        match &self.app.runtime().admin_token {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(token)) => {
                let sent = request
                    .headers()
                    .get(AUTHORIZATION)
                    .map(HeaderValue::as_bytes)
                    .unwrap_or_default();
                let sent = sent.strip_prefix(b"Bearer ").unwrap_or_default();
                // As long as the token, whatever was sent.
                let differs = token
                    .bytes()
                    .enumerate()
                    .fold(u8::from(sent.len() != token.len()), |acc, (i, b)| {
                        acc | (b ^ sent.get(i).copied().unwrap_or(0))
                    });
                std::hint::black_box(differs) == 0
            }
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    of(
        status,
        "application/json",
        serde_json::to_vec_pretty(body).unwrap_or_default(),
    )
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    of(status, "text/plain; charset=utf-8", body)
}

fn of(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
