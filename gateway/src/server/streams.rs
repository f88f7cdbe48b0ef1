//! The requests of one HTTP/2 connection: how many are open, and which of them wait for a caller that takes nothing.
//!
//! On HTTP/2 a caller can leave one stream without window while the connection goes on: the socket is writable, so the
//! clock of its wrapper sees nothing, and hyper polls no body while a piece of it waits. So every stream runs beside a
//! clock of its own. It is let go by dropping its future: that resets the stream and frees what was buffered for it,
//! gives back what the request held and cancels the call upstream. Its neighbours on the connection go on.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use metrics::Counter;
use routing::units::Time;
use smallvec::{SmallVec, smallvec};
use tokio::time::Sleep;

use super::watch::Watch;
use crate::app::App;
use crate::clock::Clock;
use crate::telemetry::handles::LetGo;

/// The streams of one connection. Also the executor that hyper runs them on. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    clock: Clock,
    watch: Arc<Watch>,
    stalled: Counter,
    let_go: LetGo,
    open: AtomicUsize,
    /// Those of the whole process, and of the address that this connection comes from.
    counts: SmallVec<[Arc<AtomicU64>; 2]>,
    /// When the last one ended (or the connection began).
    quiet_since: AtomicU64,
    /// Of the request that the service was called with just now.
    begun: Mutex<Option<Arc<Waiting>>>,
}

/// What a stream's clock goes by.
#[derive(Debug)]
struct Waiting {
    /// Since when a piece of a body waits until the caller makes room for it; 0: none does.
    since: AtomicU64,
    /// When a whole answer must have been taken.
    until: AtomicU64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            since: AtomicU64::new(0),
            until: AtomicU64::new(Time::NEVER.0),
        }
    }
}

impl Streams {
    /// For a connection.
    pub fn new(app: &App, watch: Arc<Watch>) -> Self {
        let (clock, process) = (app.clock().clone(), app.process());
        let quiet_since = AtomicU64::new(clock.now().0);
        watch.speaks_h2(clock.now());
        let mut counts: SmallVec<_> = smallvec![Arc::clone(app.streams())];
        counts.extend(app.peer().map(|peer| Arc::clone(&peer.streams)));
        Self(Arc::new(Shared {
            clock,
            watch,
            stalled: process.client_stalled.clone(),
            let_go: process.let_go.clone(),
            open: AtomicUsize::new(0),
            counts,
            quiet_since,
            begun: Mutex::default(),
        }))
    }

    /// A request begins: to be called by hyper's service, which runs just before its future is handed to the executor.
    pub fn begin(&self) -> Begun {
        let waiting = Arc::new(Waiting::default());
        self.0.watch.opened();
        *self.0.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&waiting));
        Begun(Some(Asked {
            waiting,
            streams: Arc::clone(&self.0),
        }))
    }

    /// Resolves when too many requests were left before their answers had ended.
    pub async fn lost_manners(&self) {
        self.0.watch.lost().await;
    }

    /// Resolves when no request has been open for so long. Wakes nobody while requests come.
    pub async fn quiet_for(&self, time: Duration) {
        let Shared { clock, open, .. } = &*self.0;
        let mut due = clock.now() + time;
        loop {
            clock.sleep_until(due).await;
            let now = clock.now();
            let since = match open.load(Ordering::Acquire) {
                0 => Time(self.0.quiet_since.load(Ordering::Acquire)),
                _ => now,
            };
            due = since + time;
            if due <= now {
                return;
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        let begun = self.0.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = begun.unwrap_or_default();
        let open = Open::new(&self.0);
        tokio::spawn(async move {
            let (mut work, mut alarm) = (pin!(work), None);
            poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => open.0.poll_stall(&waiting, &mut alarm, cx),
            })
            .await;
        });
    }
}

impl Shared {
    /// Ready when a piece has waited too long.
    fn poll_stall(
        &self,
        waiting: &Waiting,
        alarm: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let since = waiting.since.load(Ordering::Relaxed);
        if since == 0 {
            *alarm = None;
            return Poll::Pending;
        }
        let until = Time(waiting.until.load(Ordering::Relaxed));
        let due = self
            .clock
            .instant((Time(since) + self.watch.write_stall()).min(until));
        let alarm = alarm.get_or_insert_with(|| Box::pin(self.clock.sleep_until(Time::NEVER)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        let polled = alarm.as_mut().poll(cx);
        if polled.is_ready() {
            self.stalled.increment(1);
        }
        polled
    }
}

/// A stream in the count.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::AcqRel);
        for count in &shared.counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        self.0.quiet_since.store(now.0, Ordering::Release);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        for count in &self.0.counts {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A request that has begun on a stream. Dropping it says that it was left.
pub struct Begun(Option<Asked>);

struct Asked {
    waiting: Arc<Waiting>,
    streams: Arc<Shared>,
}

impl Asked {
    fn ended(&self, answered: bool) {
        let Shared {
            watch, clock, let_go, ..
        } = &*self.streams;
        if let Err(why) = watch.closed(answered, clock.now()) {
            let_go.told(why.label());
        }
    }
}

impl Begun {
    /// It is we who do not take it: nothing against its caller.
    pub fn refused(mut self) {
        if let Some(asked) = self.0.take() {
            asked.ended(true);
        }
    }
    /// Its response's body, with the moments told at which hyper takes pieces of it.
    pub fn watched<B: Body>(mut self, body: B) -> Watched<B> {
        let asked = self.0.take();
        if let (Some(Asked { waiting, streams }), Some(bytes)) = (&asked, body.size_hint().exact()) {
            let until = streams.watch.taken_by(bytes, streams.clock.now());
            waiting.until.store(until.0, Ordering::Relaxed);
        }
        Watched { body, asked }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(asked) = &self.0 {
            asked.ended(false);
        }
    }
}

/// A body whose pieces may wait for their caller.
pub struct Watched<B: Body> {
    body: B,
    asked: Option<Asked>,
}

impl<B: Body> Drop for Watched<B> {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.ended(self.body.is_end_stream());
        }
    }
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        // Who asks for another piece has found room for the one before.
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(Asked { waiting, streams }) = &self.asked {
            let since = match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    streams.watch.passed(frame.data_ref().map_or(0, Buf::remaining));
                    streams.clock.now().0
                }
                _ => 0,
            };
            waiting.since.store(since, Ordering::Relaxed);
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
