//! The access log: one line per request or connection and reporter, in Istio's default format and then our fields.
//!
//! Source: `reference/semantics.md` §5.7, DESIGN §6. Invariants: a full queue drops lines and counts them, it never makes a caller
//! wait; what users send cannot end a field or a line.

mod fields;
mod json;
mod sink;
mod text;

use std::time::Duration;

use self::fields::Fields;
pub(super) use self::sink::Sink;
use super::record::{ConnectionRecord, RequestRecord, ResponseFlags};

/// How lines are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// Istio's default text.
    Text,
    /// One JSON object per line.
    Json,
}

/// How a connection ended.
pub(super) struct TcpEnd<'a> {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) flags: ResponseFlags,
    pub(super) error: Option<&'a str>,
    pub(super) duration: Duration,
}

/// The line of a finished request.
pub(super) fn request_line(
    format: Format,
    connection: &ConnectionRecord,
    request: &RequestRecord<'_>,
) -> String {
    line(format, &Fields::of_request(connection, request))
}

/// The line of a finished connection.
pub(super) fn connection_line(format: Format, connection: &ConnectionRecord, end: &TcpEnd<'_>) -> String {
    line(format, &Fields::of_connection(connection, end))
}

fn line(format: Format, fields: &Fields<'_>) -> String {
    match format {
        Format::Text => text::line(fields),
        Format::Json => json::line(fields),
    }
}

#[cfg(test)]
mod tests;
