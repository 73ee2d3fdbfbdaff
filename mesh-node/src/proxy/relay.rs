//! Bytes both ways between a caller and its destination, by one future without a task per direction.
//!
//! Invariants: nothing flows without an [`Admitted`]; each direction ends by itself (half-close), and a reset of one side becomes
//! a reset of the other; what is buffered is at most one chunk per direction, and nothing while a side is silent.

pub mod ends;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use super::buffers::{Buffers, Share};
use crate::{upstream::Admitted, worker::Worker};
use ends::End;

/// A buffer grows to so many times its first size while it is filled at each read.
const BUFFER_GROWTH: usize = 16;

/// Chunks moved in one direction before others get their turn.
const CHUNKS_PER_TURN: usize = 64;

/// Bytes so far; read by others while the relay runs (on the same thread).
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the upstream to the caller.
    pub sent: Cell<u64>,
    /// From the caller to the upstream.
    pub received: Cell<u64>,
}

/// How a relay came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Both sides said they were done.
    Closed,
    /// The caller reset the connection, or went away.
    CallerReset,
    /// The upstream reset the connection, or went away.
    UpstreamReset,
    /// Nothing moved for `tcp_idle`.
    Idle,
    /// One direction was over and nothing moved in the other for `half_closed`.
    HalfClosedIdle,
}

/// The waits and sizes of a relay.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte after one direction has ended.
    pub half_closed: Duration,
    /// First size of a buffer, in bytes.
    pub buffer: usize,
    /// Out of which a buffer grows beyond its first size.
    pub growth: Arc<Buffers>,
}

impl Bounds {
    /// As the process is set up.
    pub fn of(worker: &Worker) -> Self {
        let limits = worker.limits();
        Self {
            idle: limits.tcp_idle,
            half_closed: limits.half_closed,
            buffer: limits.relay_buffer_bytes,
            growth: worker.buffers.clone(),
        }
    }
}

/// Moves bytes until both directions are over, one side resets, or nothing moves for too long.
pub async fn relay<D: End, U: End>(
    _admitted: &Admitted,
    down: &mut D,
    up: &mut U,
    traffic: &Traffic,
    bounds: Bounds,
) -> Ended {
    let mut to_up = Direction::new(&bounds);
    let mut to_down = Direction::new(&bounds);
    let mut moved_at = Instant::now();
    let mut timer = pin!(sleep(bounds.idle));
    let mut half_closed = false;
    let ended = poll_fn(|cx| {
        let before = traffic.sent.get() + traffic.received.get();
        let first = to_up.poll(cx, down, up, &traffic.received);
        let second = to_down.poll(cx, up, down, &traffic.sent);
        let up_done = match first {
            Poll::Ready(Err(Broken)) => return Poll::Ready(Ended::CallerReset),
            other => other.is_ready(),
        };
        let down_done = match second {
            Poll::Ready(Err(Broken)) => return Poll::Ready(Ended::UpstreamReset),
            other => other.is_ready(),
        };
        if up_done && down_done {
            return Poll::Ready(Ended::Closed);
        }
        if up_done && down.poll_gone(cx).is_ready() {
            return Poll::Ready(Ended::CallerReset);
        }
        if down_done && up.poll_gone(cx).is_ready() {
            return Poll::Ready(Ended::UpstreamReset);
        }
        let moved = traffic.sent.get() + traffic.received.get() != before;
        if moved || (up_done || down_done) != half_closed {
            moved_at = Instant::now();
        }
        let wait = if up_done || down_done { bounds.half_closed } else { bounds.idle };
        if (up_done || down_done) != half_closed {
            half_closed = up_done || down_done;
            timer.as_mut().reset(moved_at + wait);
        }
        // The timer is set anew only when it fires: not once per chunk.
        while timer.as_mut().poll(cx).is_ready() {
            if moved_at.elapsed() >= wait {
                return Poll::Ready(if half_closed { Ended::HalfClosedIdle } else { Ended::Idle });
            }
            timer.as_mut().reset(moved_at + wait);
        }
        Poll::Pending
    })
    .await;
    if ended != Ended::Closed {
        down.abort();
        up.abort();
    }
    ended
}

/// The side that is read from is gone.
struct Broken;

/// One direction.
struct Direction {
    chunk: Bytes,
    buffer: BytesMut,
    smallest: usize,
    size: usize,
    growth: Share,
    read_over: bool,
    finished: bool,
}

impl Direction {
    fn new(bounds: &Bounds) -> Self {
        Self {
            chunk: Bytes::new(),
            buffer: BytesMut::new(),
            smallest: bounds.buffer,
            size: bounds.buffer,
            growth: bounds.growth.share(),
            read_over: false,
            finished: false,
        }
    }

    /// Ready when this direction is over; an error when its source broke.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
        count: &Cell<u64>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..CHUNKS_PER_TURN {
            if !self.chunk.is_empty() {
                match to.poll_give(cx, &mut self.chunk) {
                    Poll::Ready(Ok(written)) => count.set(count.get() + written as u64),
                    // The other direction may still have bytes of `to` to deliver; it will see by itself how `to` ended.
                    Poll::Ready(Err(_)) => self.give_up(),
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            if self.read_over {
                if !self.finished {
                    match to.poll_finish(cx) {
                        Poll::Ready(_) => self.finished = true,
                        Poll::Pending => return Poll::Pending,
                    }
                }
                return Poll::Ready(Ok(()));
            }
            match from.poll_take(cx, &mut self.buffer, self.size) {
                Poll::Ready(Ok(Some(chunk))) => {
                    self.adapt(chunk.len());
                    self.chunk = chunk;
                }
                Poll::Ready(Ok(None)) => {
                    self.read_over = true;
                    self.buffer = BytesMut::new();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                Poll::Pending => {
                    self.buffer = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn give_up(&mut self) {
        self.chunk = Bytes::new();
        self.read_over = true;
        self.finished = true;
    }

    fn adapt(&mut self, read: usize) {
        let size = if read >= self.size {
            (self.size * 4).min(self.smallest * BUFFER_GROWTH)
        } else if read < self.size / 8 {
            (self.size / 2).max(self.smallest)
        } else {
            return;
        };
        if size != self.size && self.growth.resize(size - self.smallest) {
            self.size = size;
        }
    }
}

#[cfg(test)]
mod tests;
