//! The gateway as a [`tower::Service`]: tests and embedders call it without a socket.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use routing::plan::Note;
use routing::plan::Plan;

use crate::addresses::{Addresses, Peer};
use crate::admission::Gate;
use crate::body::Metered;
use crate::cache::{Cache, Size};
use crate::classify::Classifier;
use crate::clock::Clock;
use crate::keys::{Live, Said};
use crate::leases::{ByteBudget, TenantBytes};
use crate::limits::Store;
use crate::providers::pool::{Pool, PoolLimits};
use crate::question::Schemas;
use crate::request;
use crate::runtime::secrets::Secrets;
use crate::runtime::{Make, Runtime, States, World};
use crate::server::lifecycle::Lifecycle;
use crate::server::tls::Loaded;
use crate::server::watch::Watch;
use crate::steps::decode::Incoming;
use crate::telemetry::Telemetry;
use crate::telemetry::handles::Process;
use crate::telemetry::names::Name;
use crate::telemetry::writer::Sink;

/// Idle upstream connections of the whole process; each core has its share.
const IDLE_UPSTREAM: usize = 1_024;

/// One core's view of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
    core: usize,
    connection: Option<Arc<Watch>>,
    /// Whose connection it is.
    peer: Option<Peer>,
}

/// What all cores share.
struct Shared {
    clock: Clock,
    telemetry: Telemetry,
    process: Arc<Process>,
    runtime: ArcSwap<Runtime>,
    classifier: ArcSwap<Classifier>,
    make: Box<dyn Make>,
    /// Held while a runtime is made and swapped in: a slow refresh must not put an older plan back.
    making: Mutex<()>,
    secrets: Secrets,
    states: States,
    limits: Arc<dyn Store>,
    stored: Arc<Live>,
    sink: Sink,
    bodies: Arc<ByteBudget>,
    tenant_bodies: TenantBytes,
    addresses: Arc<Addresses>,
    cache: Arc<Cache>,
    tls: ArcSwapOption<Loaded>,
    gate: Arc<Gate>,
    in_flight: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    pools: Vec<Arc<Pool>>,
    schemas: Vec<Schemas>,
    lifecycle: Lifecycle,
    session_key: u64,
    started_unix: u64,
}

impl Shared {
    fn world(&self) -> World<'_> {
        World {
            make: &*self.make,
            secrets: &self.secrets,
            states: &self.states,
            limits: &*self.limits,
            telemetry: &self.telemetry,
            gate: &self.gate,
            now: self.clock.now(),
        }
    }
}

/// What an [`App`] is made of.
pub struct Setup {
    /// The plan.
    pub plan: Plan,
    /// What is worth knowing about it.
    pub notes: Vec<Note>,
    /// The one clock.
    pub clock: Clock,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Where records go.
    pub sink: Sink,
    /// Opens ways to targets.
    pub make: Box<dyn Make>,
    /// Looks up secrets.
    pub secrets: Secrets,
    /// Meters of everybody who has a limit.
    pub limits: Arc<dyn Store>,
    /// Runtimes that will serve.
    pub cores: usize,
    /// Keys the hash that names a conversation in records; keep it over restarts.
    pub session_key: u64,
}

impl App {
    /// Compiles the plan's runtime and puts everything together.
    pub fn new(setup: Setup) -> Self {
        let Setup {
            plan,
            notes,
            clock,
            telemetry,
            sink,
            make,
            secrets,
            limits: store,
            cores,
            session_key,
        } = setup;
        let process = Arc::new(Process::new(&telemetry));
        let states = States::default();
        let bodies = ByteBudget::new(plan.server.max_body_bytes_in_flight, process.body_bytes.clone());
        let tenant_bodies = TenantBytes::new(tenant_share(&plan));
        let addresses = Addresses::new(plan.server.per_address, clock.clone());
        let cache = Cache::new(Size::of(&plan), &telemetry);
        let gate = Gate::new(&plan.admission, clock.clone(), telemetry.clone());
        let world = World {
            make: &*make,
            secrets: &secrets,
            states: &states,
            limits: &*store,
            telemetry: &telemetry,
            gate: &gate,
            now: clock.now(),
        };
        let runtime = Runtime::new(Arc::new(plan), notes, world);
        let cores = cores.max(1);
        let limits = PoolLimits {
            idle: (IDLE_UPSTREAM / cores).max(16),
            ..PoolLimits::default()
        };
        let pools = (0..cores).map(|_| Pool::new(clock.clone(), limits)).collect();
        let started_unix = clock.unix_ms() / 1_000;
        telemetry.gauge(Name::Uptime, &[]).set(started_unix as f64);
        let shared = Shared {
            runtime: ArcSwap::from_pointee(runtime),
            classifier: ArcSwap::default(),
            process,
            states,
            limits: store,
            stored: Arc::default(),
            bodies,
            tenant_bodies,
            addresses,
            cache,
            tls: ArcSwapOption::empty(),
            gate,
            in_flight: Arc::default(),
            streams: Arc::default(),
            pools,
            schemas: (0..cores).map(|_| Schemas::default()).collect(),
            lifecycle: Lifecycle::default(),
            started_unix,
            clock,
            telemetry,
            make,
            making: Mutex::default(),
            secrets,
            sink,
            session_key,
        };
        Self {
            shared: Arc::new(shared),
            core: 0,
            connection: None,
            peer: None,
        }
    }

    /// The same gateway, at another core.
    pub fn at_core(&self, core: usize) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            core,
            connection: None,
            peer: None,
        }
    }
    /// The same gateway, for the requests of this address.
    pub fn for_peer(&self, peer: Peer) -> Self {
        Self {
            peer: Some(peer),
            ..self.clone()
        }
    }
    /// The same gateway, for the requests of one HTTP/1 connection.
    pub fn on_connection(&self, watch: Arc<Watch>) -> Self {
        Self {
            connection: Some(watch),
            ..self.clone()
        }
    }

    /// Answers one request. Never fails: an error is a response.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Metered>
    where
        B: IntoIncoming,
    {
        request::handle(self, request.map(IntoIncoming::into_incoming)).await
    }

    /// Swaps in a new plan; requests that run keep theirs.
    pub fn swap(&self, plan: Plan, notes: Vec<Note>) {
        let shared = &self.shared;
        let _making = self.making();
        shared.bodies.set_max(plan.server.max_body_bytes_in_flight);
        shared.tenant_bodies.set_max(tenant_share(&plan));
        shared.addresses.configure(plan.server.per_address);
        shared.cache.resize(Size::of(&plan));
        shared.gate.configure(&plan.admission);
        let runtime = Runtime::new(Arc::new(plan), notes, shared.world());
        for target in runtime.targets.iter() {
            target.state.forgive();
        }
        // Whoever is not in the new plan is part of no cascade any more.
        for target in &self.runtime().handles.targets {
            if runtime.handles.target_named(target.name()).is_none() {
                target.on.set(0.0);
            }
        }
        shared.runtime.store(Arc::new(runtime));
        shared
            .stored
            .fit(&self.runtime().plan, &*shared.limits, shared.clock.now());
    }
    /// The store of keys was read: what it says counts from now on.
    pub fn store_says(&self, said: Said) {
        let shared = &self.shared;
        let _making = self.making();
        shared
            .stored
            .read(said, &self.runtime().plan, &*shared.limits, shared.clock.now());
    }
    /// Stored keys.
    pub fn stored_keys(&self) -> &Arc<Live> {
        &self.shared.stored
    }
    /// Makes the present plan ready anew: a local model became ready, a secret's file changed.
    pub fn refresh(&self) {
        let shared = &self.shared;
        let _making = self.making();
        let now = self.runtime();
        let (plan, notes) = (Arc::clone(&now.plan), now.notes.clone());
        let runtime = Runtime::new(plan, notes, shared.world());
        shared.runtime.store(Arc::new(runtime));
    }
    fn making(&self) -> MutexGuard<'_, ()> {
        self.shared.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// An encoder became ready.
    pub fn set_classifier(&self, classifier: Classifier) {
        self.shared.classifier.store(Arc::new(classifier));
    }

    /// The present plan, ready.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.shared.runtime.load_full()
    }
    /// The present classifier.
    pub fn classifier(&self) -> Arc<Classifier> {
        self.shared.classifier.load_full()
    }
    /// The one clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
    /// Metrics.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }
    /// Handles that belong to no plan.
    pub fn process(&self) -> &Arc<Process> {
        &self.shared.process
    }
    /// Where records go.
    pub fn sink(&self) -> &Sink {
        &self.shared.sink
    }
    /// The budget of all bodies.
    pub fn bodies(&self) -> &Arc<ByteBudget> {
        &self.shared.bodies
    }
    /// Each tenant's part of it.
    pub fn tenant_bodies(&self) -> &TenantBytes {
        &self.shared.tenant_bodies
    }
    /// What one address may do.
    pub fn addresses(&self) -> &Arc<Addresses> {
        &self.shared.addresses
    }
    /// Whose requests these are, when they come by a connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }
    /// Answers that are kept, and calls that are shared.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }
    /// What new connections are served with; `None`: plain HTTP.
    pub fn tls(&self) -> Option<Arc<Loaded>> {
        self.shared.tls.load_full()
    }
    /// Serves new connections with this.
    pub fn set_tls(&self, tls: Option<Loaded>) {
        self.shared.tls.store(tls.map(Arc::new));
    }
    /// Bounds the work in flight.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }
    /// Requests whose body has not ended.
    pub fn in_flight(&self) -> &Arc<AtomicU64> {
        &self.shared.in_flight
    }
    /// HTTP/2 streams of all connections whose request was taken in, also where the answer waits for its caller.
    pub fn streams(&self) -> &Arc<AtomicU64> {
        &self.shared.streams
    }
    /// Requests that are open: their body has not ended, or their caller has not taken it.
    pub fn open_requests(&self) -> u64 {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        load(self.in_flight()).max(load(self.streams()))
    }
    /// Upstream connections of this core.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.shared.pools.get(self.core)
    }
    /// Compiled schemas of this core.
    pub fn schemas(&self) -> Option<&Schemas> {
        self.shared.schemas.get(self.core)
    }
    /// The life of the process.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.shared.lifecycle
    }
    /// What the connection's I/O hears, when there is one.
    pub fn connection(&self) -> Option<&Arc<Watch>> {
        self.connection.as_ref()
    }
    /// Key of the hash that names a conversation.
    pub fn session_key(&self) -> u64 {
        self.shared.session_key
    }
    /// When this process started, Unix seconds.
    pub fn started_unix(&self) -> u64 {
        self.shared.started_unix
    }
    /// Runtimes that serve.
    pub fn cores(&self) -> usize {
        self.shared.pools.len()
    }
    /// The core of this view.
    pub fn core(&self) -> usize {
        self.core
    }
}

/// Bytes of bodies that one tenant may hold: its share, and never less than one body.
fn tenant_share(plan: &Plan) -> u64 {
    let all = plan.server.max_body_bytes_in_flight as f64;
    let share = all * f64::from(plan.server.tenant_body_share);
    (share as u64).max(plan.server.max_body_bytes)
}

/// What can be a request's body.
pub trait IntoIncoming {
    /// As the gateway reads it.
    fn into_incoming(self) -> Incoming;
}

impl IntoIncoming for hyper::body::Incoming {
    fn into_incoming(self) -> Incoming {
        Incoming::Hyper(self)
    }
}
impl IntoIncoming for Incoming {
    fn into_incoming(self) -> Incoming {
        self
    }
}
impl IntoIncoming for http_body_util::Full<Bytes> {
    fn into_incoming(self) -> Incoming {
        Incoming::other(self)
    }
}

impl Incoming {
    /// A body from elsewhere.
    pub fn other<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        use http_body_util::BodyExt;
        Self::Other(Box::pin(body.map_err(Into::into)))
    }
}

impl<B> tower::Service<Request<B>> for App
where
    B: IntoIncoming + Send + 'static,
{
    type Response = Response<Metered>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let app = self.clone();
        Box::pin(async move { Ok(app.handle(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::providers::Client;
    use crate::providers::fake::FakeTarget;
    use crate::runtime::Made;
    use crate::testing;

    fn app(plan: Plan, make: impl Make + 'static) -> App {
        App::new(Setup {
            limits: Arc::new(crate::limits::Local::default()),
            plan,
            notes: Vec::new(),
            clock: Clock::system(),
            telemetry: Telemetry::new(),
            sink: Sink::none(),
            make: Box::new(make),
            secrets: Secrets::new(Arc::new(|_| None)),
            cores: 1,
            session_key: 1,
        })
    }

    #[test]
    fn a_target_that_a_plan_takes_out_is_on_no_more() {
        let of = |names: &[&str]| {
            let targets = names.iter().map(|name| {
                format!("[targets.{name}]\nprovider = \"p\"\nmodel = \"{name}\"\nprice = \"unmetered\"\n")
            });
            let provider = "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";
            testing::plan(&format!("{provider}{}", targets.collect::<String>()))
        };
        let make = |plan: &Plan, _: &Secrets| -> Vec<Made> {
            let on = || Made::on(Client::Fake(FakeTarget::default()));
            plan.targets.iter().map(|_| on()).collect()
        };
        let app = app(of(&["stays", "goes"]), make);
        let shows = |line: &str| app.telemetry().render().contains(line);
        assert!(shows(r#"weir_target_on{target="goes"} 1"#));
        app.swap(of(&["stays"]), Vec::new());
        assert!(shows(r#"weir_target_on{target="goes"} 0"#));
        assert!(shows(r#"weir_target_on{target="stays"} 1"#));
    }

    #[test]
    fn a_slow_refresh_does_not_put_the_older_plan_back() {
        // The second runtime that is made (the refresh) waits for the swap to come through, as far as it can.
        let (begun, begins) = mpsc::channel();
        let (swapped, waits) = mpsc::channel::<()>();
        let (count, waits) = (AtomicU64::new(0), Mutex::new(waits));
        let make = move |_: &Plan, _: &Secrets| -> Vec<Made> {
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                begun.send(()).unwrap();
                let _ = waits.lock().unwrap().recv_timeout(Duration::from_millis(300));
            }
            Vec::new()
        };
        let app = app(testing::plan(""), make);
        let newer = testing::plan("[server]\nmax_body_bytes = 4096\n");
        std::thread::scope(|scope| {
            scope.spawn(|| app.refresh());
            begins.recv().unwrap();
            scope.spawn(|| {
                app.swap(newer, Vec::new());
                let _ = swapped.send(());
            });
        });
        assert_eq!(app.runtime().plan.server.max_body_bytes, 4096);
    }
}
