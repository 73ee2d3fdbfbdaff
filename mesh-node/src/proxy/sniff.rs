//! A port of which nothing is declared: HTTP or not, without ever delaying.
//!
//! The upstream is dialled at once while the caller's first bytes are looked at. Whoever speaks first decides: a server that does is
//! opaque; a caller that does is judged by [`super::detect`]. What was read is given on as a prefix.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{sleep, timeout},
};

use super::detect::{Looks, looks};
use crate::upstream::stream::UpstreamStream;

/// A refused caller is reset at its first use, and at the latest after this long.
pub const FIRST_USE: Duration = Duration::from_secs(1);

/// A caller that stops in the middle of a method is not speaking HTTP as people do.
const HALF_A_METHOD: Duration = Duration::from_millis(50);

/// What the race showed.
pub enum Sniffed<T> {
    /// The caller spoke first, HTTP/1; what the dial came to, if it was over by then (else it was given up).
    Http(Bytes, Option<T>),
    /// Anything else: what the caller sent so far, and what the dial came to.
    Opaque(Bytes, T),
}

/// What a caller's first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// HTTP/1.
    Http,
    /// Something else, or the end of the stream.
    Opaque,
}

/// Reads into `prefix` until it can be judged.
pub async fn judge<R: AsyncRead + Unpin>(stream: &mut R, prefix: &mut BytesMut, limit: usize) -> First {
    loop {
        let waited = !prefix.is_empty();
        let read = stream.read_buf(prefix);
        let read = if waited { timeout(HALF_A_METHOD, read).await.unwrap_or(Ok(0)) } else { read.await };
        let over = matches!(read, Ok(0) | Err(_)) || prefix.len() >= limit;
        match looks(prefix) {
            Looks::Http => return First::Http,
            Looks::Unclear if !over => {}
            Looks::Unclear | Looks::Opaque => return First::Opaque,
        }
    }
}

/// Dials and looks at the caller's first bytes at the same time. Where the dial fails, the caller's first use is awaited for up to
/// [`FIRST_USE`]. `stream_of` shows the upstream in what the dial came to.
pub async fn race<R, T, E, F>(
    client: &mut R,
    dial: impl Future<Output = Result<T, E>>,
    stream_of: F,
    limit: usize,
) -> Sniffed<Result<T, E>>
where
    R: AsyncRead + Unpin,
    F: Fn(&mut T) -> &mut UpstreamStream,
{
    let mut prefix = BytesMut::new();
    let mut dial = pin!(dial);
    let mut dialled = None;
    let mut patience = None;
    let first = {
        let mut first = pin!(judge(client, &mut prefix, limit));
        poll_fn(|cx| {
            if let Poll::Ready(first) = first.as_mut().poll(cx) {
                return Poll::Ready(first);
            }
            if dialled.is_none() {
                dialled = Some(ready!(dial.as_mut().poll(cx)));
            }
            match &mut dialled {
                // The server speaks first.
                Some(Ok(reached)) => stream_of(reached).poll_speaks(cx).map(|()| First::Opaque),
                // There is nobody to speak to; but a caller that is about to speak HTTP is owed an answer, not a reset.
                Some(Err(_)) => {
                    let patience = patience.get_or_insert_with(|| Box::pin(sleep(FIRST_USE)));
                    patience.as_mut().poll(cx).map(|()| First::Opaque)
                }
                None => Poll::Pending,
            }
        })
        .await
    };
    match (first, dialled) {
        (First::Http, dialled) => Sniffed::Http(prefix.freeze(), dialled),
        (First::Opaque, Some(dialled)) => Sniffed::Opaque(prefix.freeze(), dialled),
        (First::Opaque, None) => Sniffed::Opaque(prefix.freeze(), dial.await),
    }
}

#[cfg(test)]
mod tests;
