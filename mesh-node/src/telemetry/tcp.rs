//! An open TCP connection that is to be accounted for, once.

use std::time::SystemTime;

use super::{
    Telemetry, access_log,
    cache::{self, Outcome},
    record::{ConnectionRecord, ResponseFlags},
};

/// Counts an open connection; `finish` or drop counts its end and writes the one line about it.
#[derive(Debug)]
#[must_use = "dropping it says that the connection was cancelled"]
pub struct TcpOutcome {
    telemetry: Telemetry,
    record: ConnectionRecord,
    sent: u64,
    received: u64,
    is_finished: bool,
}

impl TcpOutcome {
    pub(super) fn open(telemetry: Telemetry, record: ConnectionRecord) -> Self {
        cache::tcp(&telemetry.shared.standard, &record, Outcome::default()).opened.inc();
        Self { telemetry, record, sent: 0, received: 0, is_finished: false }
    }

    /// The record, to fill in what becomes known later (the upstream's identity and address).
    pub fn record(&mut self) -> &mut ConnectionRecord {
        &mut self.record
    }

    /// Bytes so far, both since the start: `sent` to the caller, `received` from the caller. For connections that live long, so
    /// that the metrics move.
    pub fn progress(&mut self, sent: u64, received: u64) {
        self.add(sent, received, ResponseFlags::NONE);
    }

    /// The connection is over. `sent`: bytes of the upstream to the caller; `received`: bytes from the caller (Istio's directions).
    /// `error`, for people, goes into the log line: what ended it, or why the upstream was not reached.
    pub fn finish(mut self, sent: u64, received: u64, flags: ResponseFlags, error: Option<&str>) {
        self.close(sent, received, flags, error);
    }

    fn close(&mut self, sent: u64, received: u64, flags: ResponseFlags, error: Option<&str>) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        self.add(sent, received, flags);
        cache::tcp(&self.telemetry.shared.standard, &self.record, Outcome::of_connection(flags)).closed.inc();
        if let Some(format) = self.telemetry.log_format() {
            let duration = SystemTime::now().duration_since(self.record.started).unwrap_or_default();
            let end = access_log::TcpEnd { sent, received, flags, error, duration };
            self.telemetry.shared.log.write(access_log::connection_line(format, &self.record, &end));
        }
    }

    fn add(&mut self, sent: u64, received: u64, flags: ResponseFlags) {
        let more_sent = sent.saturating_sub(self.sent);
        let more_received = received.saturating_sub(self.received);
        if more_sent == 0 && more_received == 0 {
            return;
        }
        let series = cache::tcp(&self.telemetry.shared.standard, &self.record, Outcome::of_connection(flags));
        series.sent.inc_by(more_sent);
        series.received.inc_by(more_received);
        self.sent = sent;
        self.received = received;
    }
}

impl Drop for TcpOutcome {
    fn drop(&mut self) {
        self.close(self.sent, self.received, ResponseFlags::LOCAL_RESET, Some("cancelled"));
    }
}
