//! Lines from all threads to one writer, without anybody waiting for it.

use std::{
    io::{self, BufWriter, Write},
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
};

use super::super::own::Counter;

/// Where lines go.
pub(crate) struct Sink {
    queue: SyncSender<String>,
    dropped: Counter,
}

impl Sink {
    /// Starts the writing thread; it ends after the last line once the sink is dropped.
    pub(crate) fn start(
        out: impl Write + Send + 'static,
        lines: usize,
        dropped: Counter,
    ) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(lines);
        let failed = dropped.clone();
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(out, &waiting, &failed))?;
        Ok(Self { queue, dropped })
    }

    /// Takes the line, or drops and counts it.
    pub(crate) fn write(&self, line: String) {
        if self.queue.try_send(line).is_err() {
            self.dropped.inc();
        }
    }
}

fn write_all(out: impl Write, waiting: &Receiver<String>, failed: &Counter) {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let mut next = waiting.recv().ok();
    while let Some(line) = next {
        if out.write_all(line.as_bytes()).is_err() {
            failed.inc();
        }
        next = match waiting.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Disconnected) => None,
            // Nothing more for now: what was written is shown before this thread sleeps.
            Err(TryRecvError::Empty) => {
                if out.flush().is_err() {
                    failed.inc();
                }
                waiting.recv().ok()
            }
        };
    }
    // The process ends; there is nobody left to tell of an error.
    let _ = out.flush();
}
