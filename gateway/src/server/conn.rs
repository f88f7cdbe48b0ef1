//! One connection: which HTTP it speaks, its limits, and what ends it.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::io::{Other, SocketIo};
use super::lifecycle::{Phase, Phases};
use super::streams::Streams;
use super::tls;
use super::watch::{Counted, Watch};
use crate::app::App;
use crate::steps::decode;
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;

/// A head must be there, and an idle connection is kept, for so long.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Of a head, and of what hyper reads ahead or buffers for writing.
pub const MAX_BUF: usize = 64 * 1024;
/// Streams at once on one HTTP/2 connection: it is served by one core.
pub const H2_STREAMS: u32 = 100;
/// Bytes a client may send ahead on one HTTP/2 stream, and on all of a connection.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// See [`H2_STREAM_WINDOW`].
pub const H2_CONNECTION_WINDOW: u32 = 512 * 1024;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end. Dropping this future drops every request on it.
pub async fn serve(app: App, stream: TcpStream, mut phases: Phases) {
    let _ = stream.set_nodelay(true);
    let clock = app.clock().clone();
    if let Some(tls) = app.tls() {
        return serve_tls(app, Arc::clone(&tls.config), stream, phases).await;
    }
    let until = clock.now() + HEAD_TIMEOUT;
    let spoke = tokio::select! {
        biased;
        spoke = clock.within(until, speaks_h2(&stream)) => spoke,
        // It has asked for nothing: nobody waits for it.
        () = phases.reach(Phase::Closing) => return,
    };
    let Some(Ok(h2)) = spoke else { return };
    let watch = Arc::new(Watch::new(app.runtime().plan.timeouts.client_write));
    let stalled = app.process().client_stalled.clone();
    let (io, other) = SocketIo::new(
        stream,
        Arc::clone(&watch),
        clock,
        stalled,
        app.process().let_go.clone(),
    );
    until_gone(serve_http(app, h2, io, watch, phases), &other).await;
}

/// The same behind TLS: which HTTP is spoken is agreed on in the handshake.
async fn serve_tls(app: App, config: Arc<rustls::ServerConfig>, stream: TcpStream, mut phases: Phases) {
    let clock = app.clock().clone();
    let watch = Arc::new(Watch::new(app.runtime().plan.timeouts.client_write));
    let until = clock.now() + tls::HANDSHAKE_TIMEOUT;
    let mut first = [0_u8; 1];
    let seen = tokio::select! {
        biased;
        seen = clock.within(until, stream.peek(&mut first)) => seen,
        () = phases.reach(Phase::Closing) => return,
    };
    match seen {
        Some(Ok(1)) if first == [tls::HANDSHAKE] => {}
        Some(Ok(1)) => {
            app.process().handshakes_failed.increment(1);
            let _ = clock.within(until, tell_https(stream)).await;
            return;
        }
        _ => return,
    }
    let stalled = app.process().client_stalled.clone();
    let (io, other) = SocketIo::new(
        stream,
        Arc::clone(&watch),
        clock.clone(),
        stalled,
        app.process().let_go.clone(),
    );
    let served = async {
        let shaking = tokio_rustls::TlsAcceptor::from(config).accept(io);
        let Some(Ok(io)) = clock.within(until, shaking).await else {
            app.process().handshakes_failed.increment(1);
            return;
        };
        let h2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        serve_http(app, h2, io, watch, phases).await;
    };
    until_gone(served, &other).await;
}

/// Plain HTTP at a port that speaks TLS.
async fn tell_https(mut stream: TcpStream) {
    const SAID: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
        content-length: 55\r\n\r\nThis port speaks TLS: write https:// in your base_url.\n";
    let _ = stream.write_all(SAID).await;
    let _ = stream.shutdown().await;
    let mut unread = [0_u8; 1024];
    while matches!(stream.read(&mut unread).await, Ok(1..)) {}
}

/// The client first: when it has left, what it asked for is not worth another poll.
async fn until_gone(served: impl Future<Output = ()>, other: &Other) {
    let (mut served, mut gone) = (pin!(served), pin!(other.gone()));
    poll_fn(|cx| match gone.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => served.as_mut().poll(cx),
    })
    .await;
}

async fn serve_http<T>(app: App, h2: bool, io: T, watch: Arc<Watch>, phases: Phases)
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let io = TokioIo::new(io);
    if h2 {
        let streams = Streams::new(&app, Arc::clone(&watch));
        serve_h2(app, io, watch, streams, phases).await;
    } else {
        serve_h1(app.on_connection(watch), io, phases).await;
    }
}

async fn serve_h1<T>(app: App, io: T, mut phases: Phases)
where
    T: Read + Write + Unpin,
{
    let telemetry = app.telemetry().clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.handle(request).await) }
    });
    let mut conn = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUF)
        .serve_connection(io, service);
    let ended = tokio::select! {
        ended = &mut conn => Some(ended),
        () = phases.reach(Phase::Closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut conn).graceful_shutdown();
            (&mut conn).await
        }
    };
    // The same clock ends a connection that asks nothing more: nothing of a head is there then.
    let late = ended.is_err_and(|error| error.is_timeout());
    if late && !conn.into_parts().read_buf.is_empty() {
        let_go(&telemetry, "slow_head");
    }
}

/// Counts a connection that hyper let go for what it did.
fn let_go(telemetry: &Telemetry, why: &'static str) {
    telemetry.counter(Name::LetGo, &[why]).increment(1);
}

/// Who asks beyond [`routing::plan::Plan::most_requests`] is told so; where as many again wait to be told, nobody else is.
fn is_beyond_answers(app: &App) -> bool {
    app.open_requests() >= 2 * app.runtime().plan.most_requests()
}

/// An HTTP/2 connection has ended: was that for frames that we do not take (too many resets, a head without end, nonsense)?
/// A socket that breaks is not, nor is what the client says of us.
fn judge(telemetry: &Telemetry, watch: &Watch, ended: Result<(), hyper::Error>) {
    let Err(error) = ended else { return };
    if error.is_timeout() {
        // A ping of ours that nobody answered.
        return;
    }
    let Some(why) = error.source().filter(|why| !why.is::<io::Error>()) else {
        return;
    };
    if !why.to_string().contains("received") && !watch.is_told() {
        let_go(telemetry, "protocol");
    }
}

async fn serve_h2<T>(app: App, io: T, watch: Arc<Watch>, streams: Streams, mut phases: Phases)
where
    T: Read + Write + Unpin,
{
    let telemetry = app.telemetry().clone();
    let (begins, judged) = (streams.clone(), Arc::clone(&watch));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (app, begun) = (app.clone(), begins.begin());
        let request = request.map(|body| {
            if body.is_end_stream() {
                decode::Incoming::Hyper(body)
            } else {
                decode::Incoming::Counted(Counted::new(body, Arc::clone(&watch)))
            }
        });
        async move {
            if is_beyond_answers(&app) {
                // Its stream is reset.
                begun.refused();
                return Err(io::Error::other("more requests are open than can be answered"));
            }
            let response = app.handle(request).await;
            Ok(response.map(|body| begun.watched(body)))
        }
    });
    let mut conn = pin!(
        http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_BUF).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_BUF)
            .keep_alive_interval(Duration::from_secs(30))
            .serve_connection(io, service)
    );
    tokio::select! {
        ended = conn.as_mut() => return judge(&telemetry, &judged, ended),
        () = streams.lost_manners() => return,
        () = phases.reach(Phase::Closing) => {}
        () = streams.quiet_for(HEAD_TIMEOUT) => {}
    }
    conn.as_mut().graceful_shutdown();
    // Last pieces may still wait in buffers, for a caller that takes nothing and has no request open any more.
    tokio::select! {
        ended = conn => judge(&telemetry, &judged, ended),
        () = streams.lost_manners() => {}
        () = streams.quiet_for(HEAD_TIMEOUT) => {}
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0_u8; PREFACE.len()];
    loop {
        let n = stream.peek(&mut seen).await?;
        let first = seen.get(..n).unwrap_or_default();
        if n == 0 || !PREFACE.starts_with(first) {
            return Ok(false);
        }
        if n == PREFACE.len() {
            return Ok(true);
        }
        // A piece of the preface: wait for more than what was seen already.
        let clear = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::READABLE, clear);
        stream.readable().await?;
    }
}

/// So that a stream of the type above is known to be movable between threads.
const _: fn() = || {
    fn movable<T: Send>(_: fn(App, TcpStream, Phases) -> T) {}
    movable(serve);
    let _: Option<Pin<Box<dyn Send>>> = None;
};

#[cfg(test)]
mod tests;
