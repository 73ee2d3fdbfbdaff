//! Every time-out and every bound of the agent in one type, so that none is hidden in the code that obeys it.
//!
//! Names that end in `_bytes` are sizes; durations carry their unit in the text (`10s`); all else are counts.

use std::time::Duration;

use super::quantity::Quantity;

/// Defines the struct, its defaults, and `set` by name, from one list.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr;)*) => {
        /// Time-outs and bounds; each can be overridden by `--limit name=value`.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Limits {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// The names that [`Limits::set`] knows.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Overrides one limit, given as `name=value`; the error says what was expected.
            pub fn set(&mut self, argument: &str) -> Result<(), String> {
                let (name, value) = argument.split_once('=').ok_or("expected name=value")?;
                match name.trim() {
                    $(stringify!($name) => self.$name = Quantity::read(value.trim())?,)*
                    other => return Err(format!("there is no limit {other:?}; known: {}", Self::NAMES.join(", "))),
                }
                Ok(())
            }
        }
    };
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn kib(kib: usize) -> usize {
    kib << 10
}

const fn mib(mib: usize) -> usize {
    mib << 20
}

limits! {
    /// How long an accepted connection waits for a place under `connections_per_workload` before it is refused.
    accept_queue_wait: Duration = seconds(1);
    /// How long accepting pauses after EMFILE or ENOMEM.
    accept_backoff: Duration = milliseconds(100);
    /// From accept to the end of the TLS handshake, on either side.
    tls_handshake: Duration = seconds(10);
    /// From the end of the handshake to the peer's HTTP/2 preface and settings.
    http2_preface: Duration = seconds(10);
    /// From CONNECT to its reply. The peer dials its application meanwhile.
    connect_reply: Duration = seconds(10);
    /// TCP connect to an endpoint or to the application, where no DestinationRule says otherwise.
    upstream_connect: Duration = seconds(10);
    /// From the first byte of a request to the end of its headers.
    request_headers: Duration = seconds(60);
    /// Request or response headers, all together, in bytes.
    header_bytes: usize = kib(64);
    /// Header fields of one message.
    header_count: usize = 128;
    /// A keep-alive HTTP connection without a request.
    http_idle: Duration = seconds(3600);
    /// An opaque connection without a byte in either direction.
    tcp_idle: Duration = seconds(3600);
    /// After one direction has ended, the other without a byte.
    half_closed: Duration = seconds(60);
    /// At a stop: how long open connections may end by themselves.
    drain: Duration = seconds(30);
    /// How long a new connection waits for the first complete snapshot.
    snapshot_wait: Duration = seconds(5);
    /// How long a connection waits for the first certificate of its identity.
    certificate_wait: Duration = seconds(5);
    /// Bytes peeked at on a port of unknown protocol.
    sniff_bytes: usize = 512;
    /// Copy buffer of one direction of one connection, in bytes.
    relay_buffer_bytes: usize = kib(16);
    /// Bytes buffered by the whole process for retries and tunnels.
    buffered_bytes_process: usize = mib(256);
    /// Open connections of one workload, inbound and outbound each; HTTP/1.1 has one request under way on each.
    connections_per_workload: usize = 32_768;
    /// A request body is kept for retries up to this many bytes.
    retry_body_bytes: usize = kib(64);
    /// HTTP/2 receive window of one stream, in bytes. Less than the connection's: equal windows deadlock.
    h2_stream_window_bytes: u32 = 4 << 20;
    /// HTTP/2 receive window of one connection, in bytes.
    h2_connection_window_bytes: u32 = 16 << 20;
    /// Streams at once on one pooled connection before another is opened.
    streams_per_connection: u32 = 100;
    /// Streams that a peer may open at once on one connection.
    h2_accepted_streams: u32 = 1000;
    /// Pooled connections of one pair of workloads.
    connections_per_pool: usize = 64;
    /// A pooled connection without a stream.
    pool_idle: Duration = seconds(300);
    /// Between HTTP/2 PINGs on a tunnel.
    ping_interval: Duration = seconds(10);
    /// From a PING to its answer, else the tunnel is dead.
    ping_timeout: Duration = seconds(20);
    /// TCP keepalive of proxied connections: quiet time before the first probe.
    keepalive_idle: Duration = seconds(180);
    /// TCP keepalive: between probes.
    keepalive_interval: Duration = seconds(180);
    /// TCP keepalive: unanswered probes before the connection is dead.
    keepalive_probes: u32 = 9;
    /// TCP_USER_TIMEOUT of the proxy's dials: unacknowledged data for so long ends the connection.
    tcp_user_timeout: Duration = seconds(180);
    /// First pause after the control stream broke.
    control_backoff_first: Duration = milliseconds(100);
    /// Longest pause between attempts to reach the controller.
    control_backoff_last: Duration = seconds(5);
    /// TCP connect and TLS handshake to the controller.
    control_connect: Duration = seconds(5);
    /// Between HTTP/2 PINGs to the controller.
    control_ping_interval: Duration = seconds(10);
    /// From a PING to the controller to its answer.
    control_ping_timeout: Duration = seconds(10);
    /// Largest message of the controller, in bytes.
    control_message_bytes: usize = mib(64);
    /// One request for a certificate.
    sign_timeout: Duration = seconds(10);
    /// Requests for certificates at once.
    sign_concurrency: usize = 8;
    /// First pause after a refused or failed request for a certificate.
    sign_backoff_first: Duration = milliseconds(500);
    /// Longest pause between requests for one certificate.
    sign_backoff_last: Duration = seconds(150);
    /// How long a new pod waits for the controller to know it, before its namespace decides.
    cni_unknown_wait: Duration = seconds(5);
    /// How long a new enrolled pod waits for the kernel to capture it, before it is refused its start.
    cni_capture_wait: Duration = seconds(10);
    /// How long a new captured pod waits for its certificate; after that its first connection does.
    cni_certificate_wait: Duration = seconds(2);
    /// From a plugin's connection to its request.
    cni_request_read: Duration = seconds(2);
    /// Plugins that are served at once; more wait in the socket's queue.
    cni_requests: usize = 64;
    /// Between two looks at the CNI configuration where the kernel reports no change.
    cni_look: Duration = seconds(10);
    /// Access log lines waiting to be written; more are dropped and counted.
    access_log_lines: usize = 16_384;
    /// Label sets of the standard metrics; beyond them requests are counted as `mesh_metric_series_refused_total` only.
    metric_series: usize = 50_000;
    /// How long the series of a workload that is gone stay readable.
    metric_retention: Duration = seconds(300);
    /// Headers of a request to the metrics and health port, and the inspection API's calls.
    admin_request: Duration = seconds(10);
    /// Connections at once to the metrics and health port, and to the inspection API each.
    admin_connections: usize = 64;
}
