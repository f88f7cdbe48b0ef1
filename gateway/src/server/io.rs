//! A socket with the two clocks that no body can hold: hyper does not poll a response while its write buffer is full, and
//! does not read while a request is served and pipelined bytes wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Sleep;

use super::watch::Watch;
use crate::clock::Clock;
use crate::telemetry::handles::LetGo;

/// One end of a connection, as hyper uses it.
pub struct SocketIo {
    /// Reads; writes go by reference through the same socket, so that the other half is free for [`gone`].
    socket: OwnedReadHalf,
    watch: Arc<Watch>,
    clock: Clock,
    stalled: Counter,
    let_go: LetGo,
    /// Armed while a write makes no progress.
    stall: Option<Pin<Box<Sleep>>>,
}

/// The half that is left for watching.
pub struct Other(OwnedWriteHalf);

impl SocketIo {
    /// Splits a socket into what hyper uses and what is watched.
    pub fn new(
        stream: TcpStream,
        watch: Arc<Watch>,
        clock: Clock,
        stalled: Counter,
        let_go: LetGo,
    ) -> (Self, Other) {
        let (socket, other) = stream.into_split();
        (
            Self {
                socket,
                watch,
                clock,
                stalled,
                let_go,
                stall: None,
            },
            Other(other),
        )
    }

    fn stream(&self) -> &TcpStream {
        self.socket.as_ref()
    }

    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream().poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return self.poll_stall(cx),
            }
            match write(self.stream()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stall = None;
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// No progress: the client has so long to read something.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (watch, clock) = (&self.watch, &self.clock);
        let stall = self.stall.get_or_insert_with(|| {
            let at = (clock.now() + watch.write_stall()).min(watch.until());
            Box::pin(clock.sleep_until(at))
        });
        if stall.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.stalled.increment(1);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client reads nothing",
        )))
    }
}

impl AsyncRead for SocketIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let came = buf.filled().len().saturating_sub(before);
        if came > 0
            && let Err(why) = self.watch.heard(came, || self.clock.now())
        {
            self.let_go.told(why.label());
            return Poll::Ready(Err(io::Error::other("the client talks and asks nothing")));
        }
        polled
    }
}

impl AsyncWrite for SocketIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(buf))
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match socket2::SockRef::from(self.stream()).shutdown(std::net::Shutdown::Write) {
            // The other side was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

impl Other {
    /// Resolves when the client has closed its sending side, also while bytes of it are still unread (half-closed counts
    /// as gone). Never resolves where the system does not tell.
    pub async fn gone(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // Readable would be true at once while pipelined bytes wait. Priority waits for urgent data, which nobody
            // sends, or for the end of the other side.
            while let Ok(ready) = self.0.as_ref().ready(Interest::PRIORITY).await {
                if ready.is_read_closed() {
                    return;
                }
                let clear = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.0.as_ref().try_io(Interest::PRIORITY, clear);
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        std::future::pending::<()>().await;
    }
}
