//! `weir serve`: one process from its start to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use routing::plan::{Compiled, Weight};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::plan_file::Origin;
use super::signals::Asked;
use super::{Exit, Serve, files, models, places, ready, signals, stores};
use crate::admin::{Admin, Reload, Reloaded};
use crate::app::{App, Setup};
use crate::clock::Clock;
use crate::limits::Store;
use crate::locals::{Locals, Needed};
use crate::runtime::maker::Maker;
use crate::runtime::secrets::Secrets;
use crate::server::lifecycle::{Lifecycle, Phase};
use crate::server::tls::Loaded;
use crate::server::{Server, cores};
use crate::telemetry::names::Name;
use crate::telemetry::{Telemetry, log, panics};
use crate::usage::Keeper;

/// How long requests that were dropped at the end may take to hand over their records.
const LAST_RECORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs it.
pub fn run(args: &Serve) -> Exit {
    let origin = Origin::find(args.config.as_deref());
    let compiled = match load(&origin, args) {
        Ok(compiled) => compiled,
        Err((text, exit)) => {
            eprintln!("{text}");
            return exit;
        }
    };
    panics::install();
    panics::show_text(compiled.plan.records.prompts);
    let secrets = Secrets::of_process();
    log::start(&compiled.plan.telemetry.log, secrets.var("WEIR_LOG").as_deref());
    eprintln!("plan: {} ({})", origin.say(), compiled.plan.fingerprint);
    for note in &compiled.notes {
        match note.weight {
            Weight::Loud => tracing::warn!("{note}"),
            Weight::Plain => tracing::info!("{note}"),
        }
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("no event loop could be made: {e}");
            return Exit::Finding;
        }
    };
    match runtime.block_on(serve(origin, args, compiled, secrets)) {
        Ok(()) => Exit::Fine,
        Err(why) => {
            eprintln!("{why}");
            Exit::Finding
        }
    }
}

/// Reads the plan, lays the command line over it, and asks again whether its addresses may be bound.
fn load(origin: &Origin, args: &Serve) -> Result<Compiled, (String, Exit)> {
    let mut compiled = origin.load().map_err(|no| (no.say(origin), no.exit()))?;
    let server = &mut compiled.plan.server;
    if let Some(listen) = &args.listen {
        server.listen = listen.as_str().into();
    }
    if let Some(admin) = &args.admin {
        server.admin = admin.as_str().into();
    }
    match server.exposed().as_slice() {
        [] => Ok(compiled),
        exposed => {
            let lines: Vec<String> = exposed
                .iter()
                .map(|e| format!("server.{}: {}\n  help: {}", e.key, e.what, e.help))
                .collect();
            Err((lines.join("\n"), Exit::Finding))
        }
    }
}

async fn serve(origin: Origin, args: &Serve, compiled: Compiled, secrets: Secrets) -> Result<(), String> {
    let Compiled { plan, notes } = compiled;
    files::raise(plan.server.max_connections);
    let tls = tls(&plan)?;
    let admin_listener = bind(&plan.server.admin, "server.admin").await?;
    let listener = bind(&plan.server.listen, "server.listen").await?;
    let (data_at, admin_at) = (address(&listener)?, address(&admin_listener)?);
    let mut asked = signals::listen().map_err(|e| format!("signals cannot be heard: {e}"))?;

    let (clock, telemetry) = (Clock::system(), Telemetry::new());
    let data = places::data();
    let session_key = places::session_key(&data);
    let usage = stores::keep_usage(&plan, &data, &clock, &telemetry);
    let (sink, writer) = stores::records(&plan, &data, &telemetry, usage.as_ref());
    let store = match ::models::store::Store::from_env() {
        Ok(store) => Some(store),
        Err(e) => {
            tracing::error!("{e}");
            None
        }
    };
    let locals = Locals::new(store, telemetry.clone());
    let make = Box::new(Maker::new(Arc::clone(&locals) as Arc<_>));
    let needed = Needed::of(&plan);
    let server = plan.server.clone();
    let limits: Arc<dyn Store> = Arc::new(stores::budgets(&data));
    let app = App::new(Setup {
        limits: Arc::clone(&limits),
        plan,
        notes,
        clock,
        telemetry,
        sink,
        make,
        secrets,
        cores: cores(),
        session_key,
    });
    app.set_tls(tls);
    for (name, why) in &app.runtime().absent_keys {
        tracing::warn!("key {name} does not exist: {why}");
    }
    let keys = stores::watch_keys(&app, &data);
    let loader = Loader {
        app: app.clone(),
        locals: Arc::clone(&locals),
        data: data_at,
        admin: admin_at,
    };
    let reload = reloader(origin, args, &app, &loader);
    tokio::spawn(
        Admin::new(
            app.clone(),
            Arc::clone(&locals),
            Arc::clone(&reload),
            &server.admin,
        )
        .with_usage(usage.as_ref().map(Keeper::asker))
        .serve(admin_listener),
    );
    let lifecycle = app.lifecycle().clone();
    let running =
        Server::start(&app, listener, &lifecycle).map_err(|e| format!("no thread could be started: {e}"))?;
    loader.start(needed);
    tokio::spawn(upkeep(app.clone()));

    // Until the first request to end; reloads on the way.
    while let Some(next) = asked.recv().await {
        match next {
            Asked::End => break,
            Asked::Reload => match reload() {
                Ok(Reloaded { plan, from }) => tracing::info!("plan {plan} is in use: {from}"),
                Err(problems) => tracing::error!("the old plan stays: {problems}"),
            },
        }
    }
    let mut ended = joined(running);
    let drained = tokio::select! {
        drained = drain(&app, &lifecycle, &mut ended) => drained,
        () = second(&mut asked) => {
            tracing::warn!("ended at once, with {} requests open", open(&app));
            false
        }
    };
    lifecycle.advance(Phase::Ended);
    if !drained {
        // What is dropped now still writes its record.
        let until = app.clock().now() + LAST_RECORDS;
        let _ = app.clock().within(until, ended).await;
    }
    drop(keys);
    for meter in limits.all() {
        meter.close();
    }
    locals.stop();
    if let Some(writer) = writer {
        writer.close();
    }
    // Last: what the writer saw at its end is added up too.
    if let Some(usage) = usage {
        usage.close();
    }
    Ok(())
}

fn open(app: &App) -> u64 {
    app.in_flight().load(Ordering::Relaxed)
}

async fn second(asked: &mut tokio::sync::mpsc::UnboundedReceiver<Asked>) {
    while let Some(next) = asked.recv().await {
        if next == Asked::End {
            return;
        }
    }
    std::future::pending().await
}

/// Not ready first, then no new connections, then the end when the last body has ended (`true`) or time is up (`false`).
async fn drain(app: &App, lifecycle: &Lifecycle, ended: &mut oneshot::Receiver<()>) -> bool {
    let server = app.runtime().plan.server.clone();
    tracing::info!(
        "draining: {} requests open; a second signal ends at once",
        open(app)
    );
    lifecycle.advance(Phase::Leaving);
    app.clock().sleep(server.drain_delay).await;
    lifecycle.advance(Phase::Closing);
    let until = app.clock().now() + server.drain_timeout;
    let drained = app.clock().within(until, ended).await.is_some();
    if !drained {
        tracing::warn!("drain_timeout_ms is over with {} requests open", open(app));
    }
    drained
}

/// Resolves when every core has ended (or no thread could be had to wait for that).
fn joined(running: Server) -> oneshot::Receiver<()> {
    let (say, ended) = oneshot::channel();
    let waiting = std::thread::Builder::new()
        .name("weir-join".into())
        .spawn(move || {
            running.join();
            let _ = say.send(());
        });
    if let Err(e) = waiting {
        tracing::error!("nobody waits for open requests: no thread could be started: {e}");
    }
    ended
}

async fn bind(address: &str, key: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| {
        format!("{key}: {address} cannot be bound: {e}; is another weir running? --listen and --admin take other addresses")
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener
        .local_addr()
        .map_err(|e| format!("the listener has no address: {e}"))
}

/// Fetches and loads what a plan needs, and says when it is ready.
#[derive(Clone)]
struct Loader {
    app: App,
    locals: Arc<Locals>,
    data: SocketAddr,
    admin: SocketAddr,
}

impl Loader {
    fn start(&self, needed: Needed) {
        let this = self.clone();
        let done = move || {
            let first = this.app.lifecycle().phase() == Phase::Starting;
            this.app.lifecycle().advance(Phase::Serving);
            if first {
                for line in ready::lines(
                    &this.app,
                    &this.locals,
                    &this.data.to_string(),
                    &this.admin.to_string(),
                ) {
                    // Nobody may be reading any more; that is no reason to end.
                    let _ = writeln!(std::io::stdout(), "{line}");
                }
            }
        };
        if needed.nothing_awaited() {
            done.clone()();
        }
        let (app, locals) = (self.app.clone(), Arc::clone(&self.locals));
        let changed = move || {
            app.set_classifier(locals.classifier());
            app.refresh();
        };
        let started = self.locals.start(needed, models::progress(), changed, done);
        if let Err(e) = started {
            tracing::error!("local models are not loaded: no thread could be started: {e}");
        }
    }
}

/// Certificate and key, where the plan has them.
fn tls(plan: &routing::plan::Plan) -> Result<Option<Loaded>, String> {
    plan.server.tls.as_ref().map(Loaded::new).transpose()
}

/// Reads certificate and key again when their files have changed.
fn renew_tls(app: &App) {
    let rt = app.runtime();
    let (Some(loaded), Some(config)) = (app.tls(), &rt.plan.server.tls) else {
        return;
    };
    if !loaded.is_stale() {
        return;
    }
    let (renewed, why) = loaded.again(config);
    match why {
        None => tracing::info!("certificate and key have changed and are used for new connections"),
        Some(why) => tracing::error!("the old certificate stays: {why}"),
    }
    app.set_tls(Some(renewed));
}

/// One reload at a time.
fn reloader(origin: Origin, args: &Serve, app: &App, loader: &Loader) -> Reload {
    let args = Serve {
        config: args.config.clone(),
        listen: args.listen.clone(),
        admin: args.admin.clone(),
    };
    let (app, loader, from) = (app.clone(), loader.clone(), Mutex::new(origin));
    Arc::new(move || {
        let mut from = from.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = from.again();
        let loaded = load(&origin, &args).map_err(|(text, _)| text);
        let loaded = loaded.and_then(|compiled| stay_bound(&app.runtime().plan.server, compiled));
        let loaded = loaded.and_then(|compiled| Ok((tls(&compiled.plan)?, compiled)));
        let result = if loaded.is_ok() { "ok" } else { "refused" };
        app.telemetry().counter(Name::Reloads, &[result]).increment(1);
        let (tls, Compiled { plan, notes }) = loaded?;
        let (fingerprint, needed) = (plan.fingerprint.to_string(), Needed::of(&plan));
        panics::show_text(plan.records.prompts);
        app.swap(plan, notes);
        app.set_tls(tls);
        loader.start(needed);
        *from = origin;
        Ok(Reloaded {
            plan: fingerprint,
            from: from.say(),
        })
    })
}

/// The sockets stay where they are until the next start, so a new plan must be fit for *these* addresses: keys or a token
/// must not go away because the file names loopback now.
fn stay_bound(bound: &routing::plan::Server, mut compiled: Compiled) -> Result<Compiled, String> {
    let server = &mut compiled.plan.server;
    if (&bound.listen, &bound.admin) == (&server.listen, &server.admin) {
        return Ok(compiled);
    }
    server.listen = bound.listen.clone();
    server.admin = bound.admin.clone();
    match server.exposed().first() {
        None => {
            tracing::warn!("server.listen and server.admin take effect at the next start");
            Ok(compiled)
        }
        Some(e) => Err(format!(
            "server.{}: this process listens on {} until it is started again, and there {}\n  help: restart it, or {}",
            e.key,
            if e.key == "listen" {
                &server.listen
            } else {
                &server.admin
            },
            e.what,
            e.help
        )),
    }
}

/// What the allocator holds: the program `weir` has one that can say (see `main.rs`).
fn heap(telemetry: &Telemetry) {
    #[cfg(not(target_env = "msvc"))]
    {
        use tikv_jemalloc_ctl::{epoch, stats};
        // Figures are those of the last epoch.
        if epoch::advance().is_err() {
            return;
        }
        let figures = [
            ("allocated", stats::allocated::read()),
            ("active", stats::active::read()),
            ("resident", stats::resident::read()),
        ];
        for (state, bytes) in figures {
            if let Ok(bytes) = bytes {
                telemetry.gauge(Name::Heap, &[state]).set(bytes as f64);
            }
        }
    }
    #[cfg(target_env = "msvc")]
    let _ = telemetry;
}

/// What must be done now and then: histograms emptied, changed secrets read again.
async fn upkeep(app: App) {
    const EVERY: std::time::Duration = std::time::Duration::from_secs(2);
    loop {
        app.clock().sleep(EVERY).await;
        app.telemetry().upkeep();
        heap(app.telemetry());
        renew_tls(&app);
        if app.runtime().is_stale() {
            tracing::info!("a secret's file has changed and is read again");
            app.refresh();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_does_not_open_what_is_bound() {
        let load = |text: &str| routing::plan::load(&format!("version = 1\n{text}")).unwrap();
        let keyed = "auth = \"keys\"\nadmin_token = \"env:T\"\n";
        let open = load(&format!(
            "[server]\nlisten = \"0.0.0.0:8080\"\nadmin = \"0.0.0.0:9090\"\n{keyed}"
        ));
        let bound = open.plan.server;
        let why = stay_bound(
            &bound,
            load("[server]\nauth = \"none\"\nadmin_token = \"env:T\"\n"),
        )
        .unwrap_err();
        assert!(
            why.contains("server.listen") && why.contains("0.0.0.0:8080"),
            "{why}"
        );
        let why = stay_bound(&bound, load("[server]\nauth = \"keys\"\n")).unwrap_err();
        assert!(why.contains("server.admin"), "{why}");
        let fine = stay_bound(&bound, load(&format!("[server]\n{keyed}"))).unwrap();
        assert_eq!(fine.plan.server.listen, bound.listen);
    }
}
