//! Bodies: what goes back to the caller, and what goes to the upstream and may have to go there again.
//!
//! Invariants: chunks are passed on as they came; for retries at most `retry_body_bytes` are kept, and a body of which more was sent
//! is never sent again; a try that was given up cannot take a chunk away from the one after it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::exchange::Running;
use crate::proxy::buffers::{Buffers, Share};

/// Why a body ended before its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub enum ToCaller {
    /// Of our own making.
    Whole(Bytes),
    /// From the upstream.
    Passed(Box<Passed>),
}

/// A body on its way from the upstream.
pub struct Passed {
    incoming: Incoming,
    running: Option<Running>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ToCaller {
    /// Passes `incoming` on; `running` hears of its end, which must come before `deadline`.
    pub fn passed(incoming: Incoming, running: Running, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        Self::Passed(Box::new(Passed { incoming, running: Some(running), deadline }))
    }
}

impl Body for ToCaller {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Passed(passed) => passed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            // Asked to the end, so that the end is seen here and not by a drop.
            Self::Passed(passed) => passed.running.is_none() || passed.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Passed(passed) => passed.incoming.size_hint(),
        }
    }
}

impl Passed {
    /// There is nothing to come (HEAD, 204, 304, a length of 0).
    fn is_empty(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            if let Some(running) = self.running.take() {
                running.timed_out();
            }
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let (Some(data), Some(running)) = (frame.data_ref(), &self.running) {
                    running.sent(data.len());
                }
                if self.incoming.is_end_stream()
                    && let Some(running) = self.running.take()
                {
                    running.over();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                if let Some(running) = self.running.take() {
                    running.upstream_broke(&error);
                }
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if let Some(running) = self.running.take() {
                    running.over();
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // An empty body is never polled: its end is its beginning.
        if self.is_empty()
            && let Some(running) = self.running.take()
        {
            running.over();
        }
    }
}

/// The body of a request, on its way to one upstream after another.
pub enum ToUpstream {
    /// There is none.
    Nothing,
    /// There is one, shared with the tries after this.
    Shared(SharedBody),
}

/// One try's view of a request's body.
pub struct SharedBody {
    shared: Rc<RefCell<Request>>,
    number: u32,
    next: usize,
}

/// The body of a request, and what of it is kept.
pub struct Replayable {
    shared: Option<Rc<RefCell<Request>>>,
    received: Rc<Cell<u64>>,
}

struct Request {
    incoming: Incoming,
    hint: SizeHint,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    share: Share,
    /// More came than may be kept.
    overflowed: bool,
    over: bool,
    trailers: Option<HeaderMap>,
    /// The try that may take chunks.
    current: u32,
    received: Rc<Cell<u64>>,
}

impl Replayable {
    /// Wraps a request's body; at most `limit` bytes of it are kept, out of `buffers`.
    pub fn new(incoming: Incoming, limit: usize, buffers: &Arc<Buffers>) -> Self {
        let received = Rc::new(Cell::new(0));
        let shared = (!incoming.is_end_stream()).then(|| {
            Rc::new(RefCell::new(Request {
                hint: incoming.size_hint(),
                incoming,
                kept: Vec::new(),
                kept_bytes: 0,
                share: buffers.share(),
                limit,
                overflowed: limit == 0,
                over: false,
                trailers: None,
                current: 0,
                received: received.clone(),
            }))
        });
        Self { shared, received }
    }

    /// The body for the next try. Tries before it get nothing any more.
    pub fn next_try(&self) -> ToUpstream {
        match &self.shared {
            None => ToUpstream::Nothing,
            Some(shared) => {
                let mut request = shared.borrow_mut();
                request.current += 1;
                let number = request.current;
                drop(request);
                ToUpstream::Shared(SharedBody { shared: shared.clone(), number, next: 0 })
            }
        }
    }

    /// Whether everything that was read is still here.
    pub fn can_be_sent_again(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| !shared.borrow().overflowed)
    }

    /// No further try will be made: nothing needs to be kept.
    pub fn forget(&self) {
        if let Some(shared) = &self.shared {
            let mut request = shared.borrow_mut();
            request.limit = 0;
        }
    }

    /// Bytes that came from the caller.
    pub fn received(&self) -> &Rc<Cell<u64>> {
        &self.received
    }
}

impl Body for ToUpstream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Shared(body) = self.get_mut() else { return Poll::Ready(None) };
        let mut request = body.shared.borrow_mut();
        if request.current != body.number {
            return Poll::Ready(Some(Err(io::Error::other("this try was given up").into())));
        }
        if let Some(chunk) = request.kept.get(body.next) {
            body.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if request.over {
            return Poll::Ready(request.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(request.poll_frame(cx));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            body.next = request.kept.len();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Shared(body) => {
                let request = body.shared.borrow();
                request.over && request.trailers.is_none() && body.next >= request.kept.len()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Shared(body) => body.shared.borrow().hint,
        }
    }
}

impl Request {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.received.set(self.received.get() + data.len() as u64);
                    self.keep(&data);
                    self.over = self.incoming.is_end_stream();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    self.over = true;
                    self.trailers = frame.trailers_ref().cloned();
                    // Given out now; kept as well, in case the try fails.
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Some(Err(error)) => {
                // The caller broke off: no try can send the whole.
                self.overflowed = true;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if self.overflowed {
            return;
        }
        if self.kept_bytes + data.len() > self.limit || !self.share.grow(data.len()) {
            self.overflowed = true;
            self.kept = Vec::new();
            self.share.resize(0);
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
    }
}

#[cfg(test)]
mod tests;
