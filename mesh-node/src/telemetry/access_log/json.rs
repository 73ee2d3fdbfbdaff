//! One JSON object per line with Istio's keys and ours; what is missing is null.

use serde::Serialize;

use super::fields::Fields;

/// Istio's keys in the order of its documentation, then ours.
#[derive(Serialize)]
struct Line<'a> {
    start_time: &'a str,
    route_name: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
    response_code: u16,
    response_flags: String,
    response_code_details: Option<&'a str>,
    connection_termination_details: Option<&'a str>,
    bytes_received: u64,
    bytes_sent: u64,
    duration: u64,
    upstream_service_time: Option<u64>,
    x_forwarded_for: Option<&'a str>,
    user_agent: Option<&'a str>,
    request_id: Option<&'a str>,
    authority: Option<&'a str>,
    upstream_host: Option<String>,
    upstream_cluster: Option<&'a str>,
    upstream_local_address: Option<String>,
    downstream_local_address: String,
    downstream_remote_address: String,
    requested_server_name: Option<&'a str>,
    upstream_transport_failure_reason: Option<&'a str>,
    reporter: &'static str,
    source: Option<String>,
    destination: Option<String>,
}

pub(super) fn line(fields: &Fields<'_>) -> String {
    let object = Line {
        start_time: &fields.start_time,
        route_name: fields.route_name,
        method: fields.method,
        path: fields.path,
        protocol: fields.protocol,
        response_code: fields.response_code,
        response_flags: fields.response_flags.to_string(),
        response_code_details: fields.response_code_details,
        connection_termination_details: fields.connection_termination_details,
        bytes_received: fields.bytes_received,
        bytes_sent: fields.bytes_sent,
        duration: fields.duration,
        upstream_service_time: fields.upstream_service_time,
        x_forwarded_for: fields.x_forwarded_for,
        user_agent: fields.user_agent,
        request_id: fields.request_id,
        authority: fields.authority,
        upstream_host: fields.upstream_host.map(|addr| addr.to_string()),
        upstream_cluster: fields.upstream_cluster,
        upstream_local_address: fields.upstream_local_address.map(|addr| addr.to_string()),
        downstream_local_address: fields.downstream_local_address.to_string(),
        downstream_remote_address: fields.downstream_remote_address.to_string(),
        requested_server_name: fields.requested_server_name,
        upstream_transport_failure_reason: fields.upstream_transport_failure_reason,
        reporter: fields.reporter,
        source: fields.source.as_ref().map(ToString::to_string),
        destination: fields.destination.as_ref().map(ToString::to_string),
    };
    // Texts and numbers only: there is nothing that JSON could not say.
    let mut line = serde_json::to_string(&object).unwrap_or_default();
    line.push('\n');
    line
}
