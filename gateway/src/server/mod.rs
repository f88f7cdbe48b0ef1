//! Threads and sockets of the data plane.
//!
//! One `current_thread` runtime a core; one acceptor hands each socket to the least loaded of them, and a connection
//! lives there to its end. Measured against one multi-threaded runtime: see ARCHITECTURE.md, "Threads".

pub mod conn;
pub mod io;
pub mod lifecycle;
pub mod linger;
pub mod manners;
pub mod streams;
pub mod tls;
pub mod watch;

use std::io as stdio;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use routing::units::Time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::lifecycle::{Lifecycle, Phase, Phases};
use crate::addresses::Connected;
use crate::app::App;
use crate::error::{Error, Kind};
use crate::telemetry::names::Name;
use crate::telemetry::tasks::Tasks;

const LAG_EVERY: Duration = Duration::from_millis(250);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients that are told at the same time that there is no room.
const TOLD_AT_ONCE: usize = 64;
/// A core's runtime as the acceptor sees it.
struct Seat {
    sockets: mpsc::UnboundedSender<(StdStream, Connected)>,
    load: Arc<AtomicUsize>,
}

/// The running data plane.
pub struct Server {
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

/// As many as the machine (or the cgroup's quota) has cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Server {
    /// Starts a runtime for each of `app`'s cores, and the acceptor on the present runtime.
    ///
    /// # Errors
    /// No thread or runtime could be made.
    pub fn start(app: &App, listener: TcpListener, lifecycle: &Lifecycle) -> stdio::Result<Self> {
        let address = listener.local_addr()?;
        let mut seats = Vec::new();
        let mut threads = Vec::new();
        for index in 0..app.cores() {
            let (sockets, taken) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let work = core(app.at_core(index), taken, Arc::clone(&load), lifecycle.phases());
            let thread = std::thread::Builder::new()
                .name(format!("weir-core-{index}"))
                .spawn(move || runtime.block_on(work))?;
            seats.push(Seat { sockets, load });
            threads.push(thread);
        }
        tokio::spawn(accept(app.clone(), listener, seats, lifecycle.phases()));
        Ok(Self { address, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for every core to end; call it after [`Phase::Closing`] or [`Phase::Ended`].
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Hands sockets to the least loaded core, until the process closes.
async fn accept(app: App, listener: TcpListener, seats: Vec<Seat>, mut phases: Phases) {
    let mut told = false;
    let telling = Arc::new(Semaphore::new(TOLD_AT_ONCE));
    loop {
        let accepted = tokio::select! {
            () = phases.reach(Phase::Closing) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(e) => {
                // Out of descriptors, most often: what is open must end first.
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(
                        "a connection cannot be accepted: {e}; raise the limit on open files (ulimit -n)"
                    );
                }
                app.clock().sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        told = false;
        let open: usize = seats.iter().map(|seat| seat.load.load(Ordering::Relaxed)).sum();
        let full = open >= app.runtime().plan.server.max_connections as usize;
        let connected = if full { None } else { app.addresses().connect(peer) };
        let Some(connected) = connected else {
            app.process().connections_refused.increment(1);
            let said = if full { ALL } else { OF_ONE_ADDRESS };
            // Beyond a few that are told, the others are only closed; so is who would have to be told in TLS.
            if app.tls().is_none()
                && let Ok(place) = Arc::clone(&telling).try_acquire_owned()
            {
                let clock = app.clock().clone();
                tokio::spawn(async move {
                    let until = clock.now() + linger::MAX_TIME;
                    let _ = clock.within(until, turn_away(stream, said)).await;
                    drop(place);
                });
            }
            continue;
        };
        let Some(seat) = seats.iter().min_by_key(|seat| seat.load.load(Ordering::Relaxed)) else {
            return;
        };
        let Ok(stream) = stream.into_std() else { continue };
        seat.load.fetch_add(1, Ordering::Relaxed);
        if seat.sockets.send((stream, connected)).is_err() {
            return;
        }
    }
}

/// There is no room for anybody.
const ALL: &str = "this gateway has as many connections as it may (server.max_connections); try again";
/// There is none for this one.
const OF_ONE_ADDRESS: &str = "this address has as many connections as it may (server.per_address connections); close some, and try again";

/// What a connection beyond the limit is told, whatever it asks.
fn full(said: &'static str) -> String {
    let error = Error::new(Kind::Overloaded, said);
    let (status, body) = (error.status(), error.json());
    let retry = if error.should_retry() { "true" } else { "false" };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n\
         x-should-retry: {retry}\r\ncontent-length: {}\r\n\r\n{}",
        body.len(),
        String::from_utf8_lossy(&body)
    )
}

/// Says that there is no room, and reads on until the client has closed: closing over unread bytes would take the answer
/// back.
async fn turn_away(mut stream: TcpStream, said: &'static str) {
    if stream.write_all(full(said).as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut unread = [0_u8; 1024];
    while matches!(stream.read(&mut unread).await, Ok(1..)) {}
}

/// One core: its connections, how many tasks it has and how late its timers are.
async fn core(
    app: App,
    mut sockets: mpsc::UnboundedReceiver<(StdStream, Connected)>,
    load: Arc<AtomicUsize>,
    mut phases: Phases,
) {
    let _measured = tokio::spawn(measure(app.clone()));
    let mut connections = JoinSet::new();
    let mut closing = phases.clone();
    loop {
        tokio::select! {
            biased;
            () = phases.reach(Phase::Ended) => return,
            Some(_) = connections.join_next() => {}
            socket = sockets.recv() => {
                let Some((socket, connected)) = socket else { break };
                let open = Open::new(&app, &load);
                if let Ok(stream) = TcpStream::from_std(socket) {
                    let (app, phases) = (app.for_peer(connected.peer().clone()), phases.clone());
                    connections.spawn(async move {
                        let _held = (open, connected);
                        conn::serve(app, stream, phases).await;
                    });
                }
            }
        }
    }
    // The acceptor has gone. Those that are open end with their response, or when the process will not wait longer.
    closing.reach(Phase::Closing).await;
    tokio::select! {
        () = phases.reach(Phase::Ended) => {}
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
}

/// A connection in the counts; the acceptor has counted it in `load` before.
struct Open {
    load: Arc<AtomicUsize>,
    app: App,
}

impl Open {
    fn new(app: &App, load: &Arc<AtomicUsize>) -> Self {
        app.process().connections.increment(1.0);
        Self {
            load: Arc::clone(load),
            app: app.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.app.process().connections.decrement(1.0);
    }
}

async fn measure(app: App) {
    let lag = app
        .telemetry()
        .histogram(Name::LoopLag, &[&app.core().to_string()]);
    let mut tasks = Tasks::of(tokio::runtime::Handle::current(), app.telemetry());
    let mut due: Time = app.clock().now() + LAG_EVERY;
    loop {
        app.clock().sleep_until(due).await;
        let now = app.clock().now();
        lag.record(now.since(due).as_secs_f64());
        tasks.report();
        due = now + LAG_EVERY;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_one_too_many_is_well_formed() {
        let text = super::full(super::ALL);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
