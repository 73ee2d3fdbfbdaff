//! What can stand at either end of a relay.
//!
//! Invariant: an idle end holds no buffer. Memory is taken when there is something to read, and given back when there is not.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use crate::upstream::stream::{TunnelStream, UpstreamStream};

/// One end of a relay: bytes in chunks, half-close, reset.
pub trait End {
    /// The next bytes, read into `buffer` (of about `size`) or taken over as they are; `None` at the end of the stream.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        size: usize,
    ) -> Poll<io::Result<Option<Bytes>>>;

    /// Writes what can be written of `data` and takes that off it.
    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>>;

    /// No more bytes will be given: half-close.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the other side went away although there is nothing to read any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let _ = cx;
        Poll::Pending
    }

    /// The other side shall see a reset when this is dropped.
    fn abort(&mut self);
}

/// Makes dropping the socket send RST instead of FIN.
pub fn reset_on_close(stream: &TcpStream) {
    // An error means that the connection is gone already.
    let _gone = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Reads once into `buffer`, at most `size`.
fn poll_read_chunk<R: AsyncRead + Unpin>(
    reader: &mut R,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    size: usize,
) -> Poll<io::Result<Option<Bytes>>> {
    buffer.reserve(size);
    let read = ready!(pin!(reader.read_buf(buffer)).poll(cx))?;
    Poll::Ready(Ok((read > 0).then(|| buffer.split().freeze())))
}

fn poll_write_chunk<W: AsyncWrite + Unpin>(
    writer: &mut W,
    cx: &mut Context<'_>,
    data: &mut Bytes,
) -> Poll<io::Result<usize>> {
    let written = ready!(Pin::new(writer).poll_write(cx, data))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    bytes::Buf::advance(data, written);
    Poll::Ready(Ok(written))
}

impl End for TcpStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        size: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        // Ask first: no buffer for a connection that is silent.
        ready!(self.poll_read_ready(cx))?;
        poll_read_chunk(self, cx, buffer, size)
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        poll_write_chunk(self, cx, data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }

    fn abort(&mut self) {
        reset_on_close(self);
    }
}

impl End for TunnelStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        _buffer: &mut BytesMut,
        _size: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_data(cx)
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        self.poll_send(cx, data)
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_reset(cx)
    }

    fn abort(&mut self) {
        self.reset();
    }
}

impl End for UpstreamStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        size: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        match self {
            Self::Tcp(stream) => stream.poll_take(cx, buffer, size),
            Self::Tunnel(stream) => stream.poll_take(cx, buffer, size),
        }
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => stream.poll_give(cx, data),
            Self::Tunnel(stream) => stream.poll_give(cx, data),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_finish(cx),
            Self::Tunnel(stream) => stream.poll_finish(cx),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Tcp(stream) => stream.poll_gone(cx),
            Self::Tunnel(stream) => stream.poll_gone(cx),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Tcp(stream) => stream.abort(),
            Self::Tunnel(stream) => stream.abort(),
        }
    }
}

/// Any stream of tokio's kind; it cannot be reset, only dropped.
pub struct Plain<T>(pub T);

impl<T: AsyncRead + AsyncWrite + Unpin> End for Plain<T> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        size: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        poll_read_chunk(&mut self.0, cx, buffer, size)
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        let written = ready!(poll_write_chunk(&mut self.0, cx, data))?;
        // What a layer above the socket holds back would otherwise wait for the next chunk.
        let _pending_is_polled_again_with_the_next_write = Pin::new(&mut self.0).poll_flush(cx)?;
        Poll::Ready(Ok(written))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn abort(&mut self) {}
}
