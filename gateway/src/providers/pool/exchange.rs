//! One request and its answer over a pooled connection.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;

use super::dial::dial;
use super::endpoint::Endpoint;
use super::{Conn, Pool};
use crate::providers::failure::{AttemptError, Fault};

/// After the end of an answer so much more is read, so that its connection can be used again.
const DRAIN_BYTES: usize = 64 * 1024;
/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What is sent.
pub struct Exchange<'a> {
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// See [`Endpoint::target`].
    pub target: Uri,
    /// `POST`, or `GET` for checks.
    pub method: Method,
    /// All headers but `host` and `content-length`.
    pub headers: HeaderMap,
    /// Sent in one go.
    pub body: Bytes,
    /// For DNS, proxy, TCP and TLS together.
    pub connect: Duration,
    /// May a request that was written be written again on a new connection.
    pub may_resend: bool,
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither headers nor body: keys and prompts.
        let (method, at, bytes) = (&self.method, self.endpoint, self.body.len());
        write!(f, "Exchange({method} {at:?}, {bytes} bytes)")
    }
}

/// What came back.
#[derive(Debug)]
pub struct Exchanged {
    /// Status and headers.
    pub head: http::response::Parts,
    /// The rest.
    pub body: PooledBody,
    /// Over a connection that had served before.
    pub reused: bool,
    /// A reused connection had closed; dialled anew.
    pub redialled: bool,
}

/// Why no answer came.
struct Lost {
    error: hyper::Error,
    /// Nothing of an answer had been read.
    silent: bool,
    /// Something of the request had been written.
    written: bool,
}

impl Exchange<'_> {
    /// Sends it and waits for the answer's head. Dropping the future closes the connection.
    ///
    /// A reused connection that closes before any byte of an answer is replaced once by a new one: the other side
    /// closed it before it saw the request, as servers do with idle connections.
    ///
    /// # Errors
    /// [`Fault::Resolve`], [`Fault::Connect`], [`Fault::Tls`], the connect clock, [`Fault::Reset`] or
    /// [`Fault::BadAnswer`].
    pub async fn send(self, pool: &Arc<Pool>) -> Result<Exchanged, AttemptError> {
        let mut redialled = false;
        if let Some(conn) = pool.take(self.endpoint.id) {
            match self.over(pool, conn).await {
                Ok((head, body)) => {
                    return Ok(Exchanged {
                        head,
                        body,
                        reused: true,
                        redialled: false,
                    });
                }
                Err(lost) if lost.silent && (self.may_resend || !lost.written) => redialled = true,
                Err(lost) => return Err(self.lost(&lost, false)),
            }
        }
        let stream = dial(&pool.clock, self.endpoint, self.connect)
            .await
            .map_err(|e| e.redialled(redialled))?;
        let conn = Conn::handshake(stream, pool.clock.now()).await.map_err(|e| {
            AttemptError::new(Fault::Connect, format!("{}: {e}", self.endpoint.base())).redialled(redialled)
        })?;
        match self.over(pool, conn).await {
            Ok((head, body)) => Ok(Exchanged {
                head,
                body,
                reused: false,
                redialled,
            }),
            Err(lost) => Err(self.lost(&lost, redialled)),
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
            .headers_mut()
            .insert(http::header::HOST, self.endpoint.host_header.clone());
        if self.endpoint.tls.is_none()
            && let Some(value) = self.endpoint.proxy.as_ref().and_then(|p| p.authorization.clone())
        {
            request
                .headers_mut()
                .insert(http::header::PROXY_AUTHORIZATION, value);
        }
        request
    }

    async fn over(
        &self,
        pool: &Arc<Pool>,
        mut conn: Conn,
    ) -> Result<(http::response::Parts, PooledBody), Lost> {
        let (read, written) = (conn.traffic.read(), conn.traffic.written());
        let answer = head_of(&mut conn, self.request()).await.map_err(|error| Lost {
            error,
            silent: conn.traffic.read() == read,
            written: conn.traffic.written() != written,
        })?;
        let (head, body) = answer.into_parts();
        let body = PooledBody {
            conn: Some(conn),
            body,
            pool: pool.clone(),
            endpoint: self.endpoint.id,
        };
        Ok((head, body))
    }

    fn lost(&self, lost: &Lost, redialled: bool) -> AttemptError {
        let base = self.endpoint.base();
        let e = &lost.error;
        let error = if e.is_parse_too_large() {
            AttemptError::new(
                Fault::BadAnswer,
                format!("{base} sent a larger head than 64 KiB or 128 headers"),
            )
        } else if e.is_parse() {
            AttemptError::new(
                Fault::BadAnswer,
                format!("{base} does not answer in HTTP/1.1: {e}"),
            )
        } else {
            AttemptError::new(
                Fault::Reset,
                format!("{base} closed the connection before it answered: {e}"),
            )
        };
        let error = error.redialled(redialled);
        if lost.written { error.sent() } else { error }
    }
}

/// The head of the answer, while the connection is driven by this very task.
async fn head_of(conn: &mut Conn, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
    let mut answer = pin!(conn.send.send_request(request));
    std::future::poll_fn(|cx| {
        // The driver hands its error over before it ends, so after it an answer is there now or never.
        let _ = conn.drive(cx);
        answer.as_mut().poll(cx)
    })
    .await
}

/// The body of an answer. At its end the connection goes back to the pool; dropped before, the socket closes.
#[derive(Debug)]
pub struct PooledBody {
    /// `None` once it went back.
    conn: Option<Conn>,
    body: Incoming,
    pool: Arc<Pool>,
    endpoint: u64,
}

impl PooledBody {
    /// The next piece; `None` at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(e))) => {
                    self.conn = None;
                    return Poll::Ready(Some(Err(BodyBroken::from(&e))));
                }
                Poll::Ready(None) => {
                    if let Some(conn) = self.conn.take() {
                        self.pool.put(self.endpoint, conn);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let Some(conn) = self.conn.as_mut().filter(|_| !driven) else {
                        return Poll::Pending;
                    };
                    driven = true;
                    let _ = conn.drive(cx);
                }
            }
        }
    }

    /// [`PooledBody::poll_data`] as a future. Cancel safe.
    pub async fn data(&mut self) -> Option<Result<Bytes, BodyBroken>> {
        std::future::poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Nothing more of it is wanted, and its end must be near: reads on to it, so that the connection can be used
    /// again. What is there already is read now; for the rest a bounded task is left behind.
    pub fn finish(mut self) {
        let mut left = DRAIN_BYTES;
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(()) = self.poll_drain(&mut left, &mut cx) {
            return;
        }
        let Some(place) = self.pool.drain_place() else {
            return;
        };
        tokio::spawn(async move {
            let _place = place;
            let clock = self.pool.clock.clone();
            let rest = std::future::poll_fn(move |cx| self.poll_drain(&mut left, cx));
            let _ = clock.within(clock.now() + DRAIN_TIME, rest).await;
        });
    }

    /// `Ready` at the end, at an error, or when it is too long.
    fn poll_drain(&mut self, left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) if data.len() <= *left => *left -= data.len(),
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

/// A body that ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyBroken {
    /// It broke its framing (chunk sizes, ...), as opposed to just ending.
    pub malformed: bool,
    /// hyper's words.
    pub detail: String,
}

impl From<&hyper::Error> for BodyBroken {
    fn from(e: &hyper::Error) -> Self {
        Self {
            malformed: e.is_parse(),
            detail: e.to_string(),
        }
    }
}
