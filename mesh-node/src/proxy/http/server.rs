//! An HTTP/1.1 server on one connection: hyper, and the waits that hyper does not bound.
//!
//! Invariants: a head takes at most `request_headers` from its first byte, an idle connection at most `http_idle`; a cut ends the
//! connection at once; draining lets the request under way finish and then closes.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use super::{
    body::{BodyError, ToCaller},
    forward::MIN_BUFFER,
};
use crate::{conns::Registered, phase::Stage, proxy::count_cut, worker::Worker};

/// Looks at the clocks of a connection.
const LOOK: Duration = Duration::from_secs(5);

/// What a connection's requests share with the server that runs it.
#[derive(Default)]
pub struct Shared {
    /// Requests under way: one, or none.
    active: Cell<u32>,
    /// When the last request was over.
    quiet_since: Cell<Option<Instant>>,
    /// The next response is the last on this connection.
    closing: Cell<bool>,
    /// What the connection becomes after a 101.
    upgrade: RefCell<Option<LocalBoxFuture<'static, ()>>>,
}

impl Shared {
    /// After the response of this request the connection is `relay`'s.
    pub fn upgrade_to(&self, relay: LocalBoxFuture<'static, ()>) {
        *self.upgrade.borrow_mut() = Some(relay);
    }
}

/// Counts a request from its head to the last byte of its response.
struct Active(Rc<Shared>);

impl Active {
    fn begin(shared: &Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.quiet_since.set(Some(Instant::now()));
    }
}

/// A response's body, under way until it is dropped.
struct Held {
    body: ToCaller,
    _active: Active,
}

impl Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves requests until the connection ends, is cut, is upgraded, or is silent for too long.
pub async fn serve<T, F, R>(
    worker: &Rc<Worker>,
    registered: &Registered,
    stream: T,
    shared: Rc<Shared>,
    handle: F,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<ToCaller>>,
{
    registered.set_protocol("http");
    let limits = worker.limits();
    let read = Arc::new(AtomicU64::new(0));
    let stream = TokioIo::new(Watched { inner: stream, read: read.clone() });
    let service = service_fn(|request| {
        let active = Active::begin(&shared);
        let response = handle(request);
        let shared = shared.clone();
        async move {
            let mut response = response.await.map(|body| Held { body, _active: active });
            if shared.closing.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        // A caller that sends its request and half-closes still gets its answer, as from most servers.
        .half_close(true)
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .header_read_timeout(None)
        .auto_date_header(false)
        .serve_connection(stream, service)
        .with_upgrades();
    {
        let mut connection = pin!(connection);
        let phase = worker.rooms.phase.clone();
        let mut draining = pin!(phase.reached(Stage::Draining));
        let mut drains = false;
        let mut clock = Clock { since: Instant::now(), read: 0 };
        loop {
            tokio::select! {
                // An error here is the caller's protocol error (hyper answered it) or its going away.
                _ended = connection.as_mut() => break,
                cut = registered.cut() => return count_cut(worker, &cut),
                // Said with the next response: a connection closed now could cross the caller's next request.
                () = registered.draining(), if !shared.closing.get() => shared.closing.set(true),
                () = &mut draining, if !drains => {
                    drains = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = sleep(LOOK) => {
                    let longest = (limits.request_headers, limits.http_idle);
                    match clock.look(&shared, read.load(Ordering::Relaxed), longest) {
                        Clocked::Good => {}
                        Clocked::Idle => connection.as_mut().graceful_shutdown(),
                        Clocked::SlowHead => return,
                    }
                }
            }
        }
    }
    let upgrade = shared.upgrade.borrow_mut().take();
    if let Some(relay) = upgrade {
        relay.await;
    }
}

/// Since when nothing came, or a head has been coming.
struct Clock {
    since: Instant,
    read: u64,
}

/// What the clock says.
enum Clocked {
    Good,
    Idle,
    SlowHead,
}

impl Clock {
    /// `longest`: of a head, of silence.
    fn look(&mut self, shared: &Shared, read: u64, longest: (Duration, Duration)) -> Clocked {
        if shared.active.get() > 0 {
            self.read = read;
            return Clocked::Good;
        }
        if let Some(quiet) = shared.quiet_since.take() {
            // What came after the last request cannot be told from what belonged to it, and is taken as a part of it.
            *self = Self { since: quiet, read };
            return Clocked::Good;
        }
        match (read != self.read, self.since.elapsed()) {
            (true, heading) if heading >= longest.0 => Clocked::SlowHead,
            (false, silent) if silent >= longest.1 => Clocked::Idle,
            _ => Clocked::Good,
        }
    }
}

/// Counts what is read.
struct Watched<T> {
    inner: T,
    read: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.read.fetch_add(read as u64, Ordering::Relaxed);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
