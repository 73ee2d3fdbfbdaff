//! What a line says, whatever its encoding.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use mesh_model::workload::Workload;
use time::OffsetDateTime;

use super::{
    super::record::{ConnectionRecord, RequestRecord, ResponseFlags},
    TcpEnd,
};

/// The values; user texts are raw.
pub(super) struct Fields<'a> {
    pub(super) start_time: String,
    pub(super) method: Option<&'a str>,
    pub(super) path: Option<&'a str>,
    pub(super) protocol: Option<&'a str>,
    pub(super) response_code: u16,
    pub(super) response_flags: ResponseFlags,
    pub(super) response_code_details: Option<&'a str>,
    pub(super) connection_termination_details: Option<&'a str>,
    pub(super) upstream_transport_failure_reason: Option<&'a str>,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    /// Milliseconds.
    pub(super) duration: u64,
    /// Milliseconds.
    pub(super) upstream_service_time: Option<u64>,
    pub(super) x_forwarded_for: Option<&'a str>,
    pub(super) user_agent: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) authority: Option<&'a str>,
    pub(super) upstream_host: Option<SocketAddr>,
    pub(super) upstream_cluster: Option<&'a str>,
    pub(super) upstream_local_address: Option<SocketAddr>,
    pub(super) downstream_local_address: SocketAddr,
    pub(super) downstream_remote_address: SocketAddr,
    pub(super) requested_server_name: Option<&'a str>,
    pub(super) route_name: Option<&'a str>,
    pub(super) reporter: &'static str,
    pub(super) source: Option<Pod<'a>>,
    pub(super) destination: Option<Pod<'a>>,
}

/// `namespace/pod`.
pub(super) struct Pod<'a>(&'a Workload);

impl fmt::Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.namespace, self.0.name)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of_request(connection: &'a ConnectionRecord, request: &'a RequestRecord<'a>) -> Self {
        Self {
            start_time: start_time(request.started),
            method: Some(request.method),
            path: Some(request.path),
            protocol: Some(request.version),
            response_code: request.status,
            response_flags: request.flags,
            response_code_details: request.details,
            connection_termination_details: request.termination,
            upstream_transport_failure_reason: request.upstream_failure,
            bytes_received: request.bytes_received,
            bytes_sent: request.bytes_sent,
            duration: milliseconds(request.duration),
            upstream_service_time: request.upstream_service_time.map(milliseconds),
            x_forwarded_for: request.forwarded_for,
            user_agent: request.user_agent,
            request_id: request.request_id,
            authority: request.authority,
            route_name: request.route,
            ..Self::of(connection)
        }
    }

    pub(super) fn of_connection(connection: &'a ConnectionRecord, end: &TcpEnd<'a>) -> Self {
        // What kept the upstream from being reached is its failure; what ended the connection otherwise is its termination.
        let upstream_failed = [
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            ResponseFlags::UPSTREAM_TERMINATION,
            ResponseFlags::TLS_FAILURE,
            ResponseFlags::IDENTITY_ERROR,
        ];
        let failed = upstream_failed.into_iter().any(|flag| end.flags.contains(flag));
        Self {
            start_time: start_time(connection.started),
            response_flags: end.flags,
            connection_termination_details: end.error.filter(|_| !failed),
            upstream_transport_failure_reason: end.error.filter(|_| failed),
            bytes_received: end.received,
            bytes_sent: end.sent,
            duration: milliseconds(end.duration),
            ..Self::of(connection)
        }
    }

    fn of(connection: &'a ConnectionRecord) -> Self {
        Self {
            start_time: String::new(),
            method: None,
            path: None,
            protocol: None,
            response_code: 0,
            response_flags: ResponseFlags::NONE,
            response_code_details: None,
            connection_termination_details: None,
            upstream_transport_failure_reason: None,
            bytes_received: 0,
            bytes_sent: 0,
            duration: 0,
            upstream_service_time: None,
            x_forwarded_for: None,
            user_agent: None,
            request_id: None,
            authority: None,
            upstream_host: connection.upstream,
            upstream_cluster: connection.cluster.as_deref(),
            upstream_local_address: connection.upstream_local,
            downstream_local_address: connection.local,
            downstream_remote_address: connection.client.get(),
            requested_server_name: connection.server_name.as_deref(),
            route_name: connection.route.as_deref(),
            reporter: connection.reporter.as_str(),
            source: connection.source.as_deref().map(Pod),
            destination: connection.destination.as_deref().map(Pod),
        }
    }
}

/// `2026-11-21T13:14:00.250Z`.
fn start_time(started: SystemTime) -> String {
    let utc = OffsetDateTime::from(started);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second(),
        utc.millisecond()
    )
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
