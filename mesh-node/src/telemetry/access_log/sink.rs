//! Lines from all threads to one writer, without anybody waiting for it.

use std::{
    io::{self, BufWriter, Write},
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
    time::Duration,
};

use super::super::own::Counter;

/// After writing all there was, lines gather for so long. Under load each line would otherwise wake this thread by itself, which
/// costs the data path more than making the line.
const GATHER: Duration = Duration::from_millis(5);

/// Where lines go.
pub(crate) struct Sink {
    queue: SyncSender<Message>,
    dropped: Counter,
}

enum Message {
    Line(String),
    /// Everything before it is to be shown, then answered.
    Flush(SyncSender<()>),
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
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until what was written before is shown, at most so long. For the end of the process.
    pub(crate) fn flush(&self, wait: Duration) {
        let (shown, answer) = sync_channel(1);
        if self.queue.try_send(Message::Flush(shown)).is_ok() {
            // A writer that is stuck must not keep the process from ending.
            let _ = answer.recv_timeout(wait);
        }
    }
}

fn write_all(out: impl Write, waiting: &Receiver<Message>, failed: &Counter) {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let mut next = waiting.recv().ok();
    while let Some(message) = next {
        match message {
            Message::Line(line) => count_failure(out.write_all(line.as_bytes()), failed),
            Message::Flush(shown) => {
                count_failure(out.flush(), failed);
                // Whoever asked may have given up.
                let _ = shown.send(());
            }
        }
        next = match waiting.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Disconnected) => None,
            // Nothing more for now: what was written is shown before this thread sleeps.
            Err(TryRecvError::Empty) => {
                count_failure(out.flush(), failed);
                thread::sleep(GATHER);
                waiting.recv().ok()
            }
        };
    }
    count_failure(out.flush(), failed);
}

fn count_failure(result: io::Result<()>, failed: &Counter) {
    if result.is_err() {
        failed.inc();
    }
}
