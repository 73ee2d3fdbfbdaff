//! Gathers what HTTP/2 writes in one turn and sends it at once.
//!
//! h2 flushes frame by frame: each would be a TLS record and a system call of its own. Here a flush does nothing; whoever drives the
//! connection calls [`Cork::poll_uncork`] after each poll of it. Invariant: bytes leave in the order in which they were written, at
//! most [`GATHERED`] wait, and nothing waits while the driver sleeps unless the socket is full.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait for the end of the turn; more are sent before it.
const GATHERED: usize = 64 << 10;

/// A write of so many bytes is a record worth sending by itself: it is not copied.
const DIRECT: usize = 16 << 10;

/// The driver's handle.
pub struct Cork<T> {
    shared: Rc<RefCell<Gathered<T>>>,
}

/// What h2 reads from and writes to.
pub struct Corked<T> {
    shared: Rc<RefCell<Gathered<T>>>,
}

struct Gathered<T> {
    io: T,
    waiting: BytesMut,
}

/// Both handles of a stream.
pub fn cork<T>(io: T) -> (Cork<T>, Corked<T>) {
    let shared = Rc::new(RefCell::new(Gathered { io, waiting: BytesMut::new() }));
    (Cork { shared: shared.clone() }, Corked { shared })
}

impl<T: AsyncWrite + Unpin> Cork<T> {
    /// Sends what was gathered. Pending: the socket is full, and wakes the driver when it is not.
    pub fn poll_uncork(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.shared.borrow_mut();
        ready!(gathered.poll_drain(cx))?;
        Pin::new(&mut gathered.io).poll_flush(cx)
    }
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        // An idle tunnel keeps no buffer.
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.shared.borrow_mut();
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total >= DIRECT || gathered.waiting.len() + total > GATHERED {
            ready!(gathered.poll_drain(cx))?;
        }
        if total >= DIRECT {
            return Pin::new(&mut gathered.io).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            gathered.waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.shared.borrow_mut();
        ready!(gathered.poll_drain(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
