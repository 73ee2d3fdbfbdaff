//! One HTTP/2 CONNECT stream as a byte stream, and the sum of what an upstream connection can be.
//!
//! Invariants: bytes are handed to h2 only within the capacity it gave (so its buffers are bounded by the windows); half-close is
//! END_STREAM; dropping an unfinished stream resets it, which the other side sees as a connection reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Counts the streams of one connection; gives its place back on drop.
#[derive(Debug)]
pub struct StreamLease {
    streams: Arc<AtomicUsize>,
}

impl StreamLease {
    /// Takes a place.
    pub fn take(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self { streams: streams.clone() }
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A CONNECT stream, after the 200.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    pending: Bytes,
    finished: bool,
    _lease: Option<StreamLease>,
}

impl TunnelStream {
    /// Wraps both halves of a stream.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, lease: Option<StreamLease>) -> Self {
        Self { send, receive, pending: Bytes::new(), finished: false, _lease: lease }
    }

    /// The next bytes, without a copy; `None` at END_STREAM. An error is a reset of the stream or the end of its connection.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.pending.has_remaining() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.pending))));
        }
        loop {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                Some(Ok(data)) => {
                    // One chunk is taken only when the one before it was passed on, so giving the window back here keeps what
                    // is buffered within the window and one frame.
                    self.receive.flow_control().release_capacity(data.len()).map_err(into_io)?;
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
            }
        }
    }

    /// Sends as much of `data` as the windows allow now, without a copy.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        let capacity = ready!(self.poll_capacity(cx, data.len()))?;
        let part = data.split_to(capacity.min(data.len()));
        let sent = part.len();
        self.send.send_data(part, false).map_err(into_io)?;
        Poll::Ready(Ok(sent))
    }

    /// Sends END_STREAM, once.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.finished {
            self.finished = true;
            self.send.send_data(Bytes::new(), true).map_err(into_io)?;
        }
        Ok(())
    }

    /// Resets the stream: the other side sees a connection reset.
    pub fn reset(&mut self) {
        self.finished = true;
        self.send.send_reset(Reason::CANCEL);
    }

    /// Ready once the peer reset the stream; for the time when there is nothing to read any more.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match ready!(self.send.poll_reset(cx)) {
            Ok(reason) => {
                Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, h2::Error::from(reason)))
            }
            Err(error) => Poll::Ready(into_io(error)),
        }
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        loop {
            // `poll_capacity` reports changes only: what is already there must be asked for.
            let capacity = self.send.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity));
            }
            self.send.reserve_capacity(wanted);
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }
}

/// What h2 says, as what a socket would say.
fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut data) = ready!(self.poll_data(cx))? else { return Poll::Ready(Ok(())) };
        let part = data.split_to(data.len().min(buf.remaining()));
        buf.put_slice(&part);
        self.pending = data;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let capacity = ready!(self.poll_capacity(cx, buf.len()))?;
        let part = &buf[..capacity.min(buf.len())];
        self.send.send_data(Bytes::copy_from_slice(part), false).map_err(into_io)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes; the windows bound what waits there.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

/// A connection to the destination, whatever carries it.
pub enum UpstreamStream {
    /// A socket of our own: to the application, or out of the mesh.
    Tcp(TcpStream),
    /// A stream in a tunnel to the destination's node.
    Tunnel(TunnelStream),
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // A tunnel sends one frame per write: flat is better there.
        matches!(self, Self::Tcp(_))
    }
}

impl UpstreamStream {
    /// Ready once the upstream has said something (or ended); takes nothing off the stream.
    pub fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Tunnel(stream) => stream.poll_speaks(cx),
        }
    }
}

impl TunnelStream {
    fn poll_speaks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(data) = ready!(self.poll_data(cx)).ok().flatten() {
            self.pending = data;
        }
        Poll::Ready(())
    }
}

impl UpstreamStream {
    /// The socket, if it is one.
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tunnel(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
