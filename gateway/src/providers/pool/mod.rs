//! Upstream connections: one pool a runtime, HTTP/1.1, each connection owned by whoever uses it.
//!
//! A connection is driven by the task that waits for its answer, not by a task of its own: dropping the answer drops
//! the socket, and no wake-up crosses tasks. Idle connections are looked at when they are taken out, and by a sweep
//! that runs only while there are any.

mod dial;
mod endpoint;
mod exchange;
mod stream;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use routing::units::Time;

pub use endpoint::{Endpoint, MemoryDial, Proxy, ProxyEnv};
pub use exchange::{Exchange, Exchanged, PooledBody};
pub use tls::Tls;

use crate::clock::Clock;
use stream::{Stream, Traffic};

/// Largest head of an answer, and the read buffer's bound.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Headers of one answer.
const MAX_HEADERS: usize = 128;

/// How many connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections of this pool, all endpoints together: the process's cap divided by the runtimes.
    pub idle: usize,
    /// Idle for so long: closed.
    pub idle_timeout: Duration,
    /// Older than this: closed instead of kept, so that DNS is asked again.
    pub max_age: Duration,
    /// Answers whose rest is read to the end after `[DONE]`, at once.
    pub draining: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle: 256,
            idle_timeout: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
            draining: 64,
        }
    }
}

/// One HTTP/1.1 connection with its driver.
struct Conn {
    send: SendRequest<Full<Bytes>>,
    driver: Connection<TokioIo<Stream>, Full<Bytes>>,
    /// The driver has returned: it must not be polled again.
    ended: bool,
    traffic: Arc<Traffic>,
    born: Time,
    /// It has served before.
    used: bool,
}

impl Conn {
    async fn handshake(stream: Stream, born: Time) -> hyper::Result<Self> {
        let traffic = stream.traffic();
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let (send, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            send,
            driver,
            ended: false,
            traffic,
            born,
            used: false,
        })
    }

    /// Moves bytes. `Ready` when the connection is over.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Ready(());
        }
        // Its error reaches the request or the body by their own channels.
        let over = Pin::new(&mut self.driver).poll(cx).is_ready();
        self.ended = over;
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Open and waiting for a request, as far as the socket has told.
    fn is_idle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop())).is_pending() && self.send.is_ready()
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("born", &self.born)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since: Time,
}

#[derive(Debug, Default)]
struct Kept {
    by_endpoint: HashMap<u64, Vec<Idle>>,
    count: usize,
    sweeping: bool,
}

/// The idle connections of one runtime.
#[derive(Debug)]
pub struct Pool {
    limits: PoolLimits,
    clock: Clock,
    kept: Mutex<Kept>,
    draining: AtomicUsize,
}

impl Pool {
    /// An empty pool.
    pub fn new(clock: Clock, limits: PoolLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            clock,
            kept: Mutex::default(),
            draining: AtomicUsize::new(0),
        })
    }

    /// Idle connections now.
    pub fn idle(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last and is still open.
    fn take(&self, endpoint: u64) -> Option<Conn> {
        let now = self.clock.now();
        loop {
            let mut idle = {
                let mut kept = self.lock();
                let idle = kept.by_endpoint.get_mut(&endpoint)?.pop()?;
                kept.count -= 1;
                idle
            };
            if self.keeps(&idle, now) && idle.conn.is_idle() {
                return Some(idle.conn);
            }
        }
    }

    fn keeps(&self, idle: &Idle, now: Time) -> bool {
        now.since(idle.since) < self.limits.idle_timeout && now.since(idle.conn.born) < self.limits.max_age
    }

    /// Keeps a connection whose answer was read to its end, if it is fit for another.
    fn put(self: &Arc<Self>, endpoint: u64, mut conn: Conn) {
        conn.used = true;
        let idle = Idle {
            conn,
            since: self.clock.now(),
        };
        let mut idle = idle;
        if !self.keeps(&idle, idle.since) || !idle.conn.is_idle() {
            return;
        }
        let mut kept = self.lock();
        if kept.count >= self.limits.idle {
            return;
        }
        kept.by_endpoint.entry(endpoint).or_default().push(idle);
        kept.count += 1;
        if !std::mem::replace(&mut kept.sweeping, true) {
            tokio::spawn(sweep(
                self.clock.clone(),
                Arc::downgrade(self),
                self.limits.idle_timeout,
            ));
        }
    }

    /// Closes what is too old or was closed by the other side; `false` when nothing is left to look after.
    fn sweep_once(&self) -> bool {
        let now = self.clock.now();
        let mut kept = self.lock();
        let mut count = 0;
        kept.by_endpoint.retain(|_, list| {
            list.retain_mut(|idle| self.keeps(idle, now) && idle.conn.is_idle());
            count += list.len();
            !list.is_empty()
        });
        kept.count = count;
        kept.sweeping = count > 0;
        kept.sweeping
    }
}

async fn sweep(clock: Clock, pool: std::sync::Weak<Pool>, idle_timeout: Duration) {
    let pause = (idle_timeout / 4).clamp(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        clock.sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.sweep_once() {
            return;
        }
    }
}

impl Pool {
    /// A place among the answers that are read to their end in the background.
    fn drain_place(self: &Arc<Self>) -> Option<DrainPlace> {
        let before = self.draining.fetch_add(1, Ordering::Relaxed);
        let place = DrainPlace(self.clone());
        (before < self.limits.draining).then_some(place)
    }
}

struct DrainPlace(Arc<Pool>);

impl Drop for DrainPlace {
    fn drop(&mut self) {
        self.0.draining.fetch_sub(1, Ordering::Relaxed);
    }
}
