//! What the data path says about a connection or a request. Data only.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_model::{addr::ClientAddr, identity::Identity, service::Service, workload::Workload};

/// Which side speaks. A same-node connection is reported once by each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reporter {
    /// The caller's.
    Source,
    /// The callee's.
    Destination,
}

/// `request_protocol`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestProtocol {
    /// HTTP/1 and HTTP/2.
    Http,
    /// gRPC.
    Grpc,
    /// Opaque.
    Tcp,
}

/// `connection_security_policy`; on the source's metrics it is always `unknown`, as Istio has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Security {
    /// The bytes came over mTLS.
    MutualTls,
    /// Plaintext, vouched same-node connections included.
    None,
    /// Not known.
    Unknown,
}

impl Reporter {
    /// As the label and the log have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl RequestProtocol {
    /// As the label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl Security {
    /// As the label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Who talks to whom, and how.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Which side speaks.
    pub reporter: Reporter,
    /// The calling workload, if the mesh knows it.
    pub source: Option<Arc<Workload>>,
    /// The caller's identity, proven or (source side) its own.
    pub source_identity: Option<Identity>,
    /// The called workload, if one was chosen and the mesh knows it.
    pub destination: Option<Arc<Workload>>,
    /// The callee's identity: its own (destination side), or proven or vouched (source side); None over plaintext.
    pub destination_identity: Option<Identity>,
    /// The service that was meant.
    pub service: Option<Arc<Service>>,
    /// What is spoken.
    pub protocol: RequestProtocol,
    /// How it came.
    pub security: Security,
    /// DOWNSTREAM_REMOTE_ADDRESS: who called.
    pub client: ClientAddr,
    /// DOWNSTREAM_LOCAL_ADDRESS: what the caller dialled.
    pub local: SocketAddr,
    /// UPSTREAM_HOST: what was dialled in the end.
    pub upstream: Option<SocketAddr>,
    /// UPSTREAM_LOCAL_ADDRESS: from where.
    pub upstream_local: Option<SocketAddr>,
    /// UPSTREAM_CLUSTER_RAW: `outbound|9080|v1|reviews.shop.svc.cluster.local`, `inbound|9080||`, `PassthroughCluster`.
    pub cluster: Option<Arc<str>>,
    /// REQUESTED_SERVER_NAME: the SNI of the application's own TLS.
    pub server_name: Option<Arc<str>>,
    /// ROUTE_NAME.
    pub route: Option<Arc<str>>,
    /// When it was accepted.
    pub started: SystemTime,
}

/// One finished HTTP request. Texts of the user are raw here; the log escapes them.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Path and query as the caller sent them.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub version: &'a str,
    /// `Host` or `:authority`.
    pub authority: Option<&'a str>,
    /// `user-agent`.
    pub user_agent: Option<&'a str>,
    /// `x-request-id`.
    pub request_id: Option<&'a str>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<&'a str>,
    /// The status the caller got; 0 if none (the caller went away first).
    pub status: u16,
    /// `grpc-status` of a gRPC response.
    pub grpc_status: Option<u16>,
    /// What went wrong, if anything did.
    pub flags: ResponseFlags,
    /// RESPONSE_CODE_DETAILS: `via_upstream`, `route_not_found`, `rbac_access_denied_matched_policy[...]`…
    pub details: Option<&'a str>,
    /// CONNECTION_TERMINATION_DETAILS.
    pub termination: Option<&'a str>,
    /// UPSTREAM_TRANSPORT_FAILURE_REASON.
    pub upstream_failure: Option<&'a str>,
    /// ROUTE_NAME.
    pub route: Option<&'a str>,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// When the first byte of the request came.
    pub started: SystemTime,
    /// Until the last byte of the response.
    pub duration: Duration,
    /// `x-envoy-upstream-service-time`: until the upstream's headers; None if it never answered.
    pub upstream_service_time: Option<Duration>,
}

/// Envoy's response flags, a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ResponseFlags(u32);

/// Defines the flags in the order in which Envoy prints them.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// All flags with their texts.
            const TEXTS: &[(Self, &str)] = &[$((Self::$name, $text)),*];
        }
    };
}

flags! {
    /// UH: no healthy upstream.
    NO_HEALTHY_UPSTREAM = 0, "UH";
    /// UF: the upstream refused the connection or was not reached.
    UPSTREAM_CONNECTION_FAILURE = 1, "UF";
    /// UO: a limit of the destination was reached.
    UPSTREAM_OVERFLOW = 2, "UO";
    /// NR: no route.
    NO_ROUTE = 3, "NR";
    /// URX: retries are used up.
    RETRY_LIMIT = 4, "URX";
    /// NC: the route names a destination that is not there.
    NO_CLUSTER = 5, "NC";
    /// DC: the caller went away.
    DOWNSTREAM_TERMINATION = 6, "DC";
    /// UC: the upstream went away.
    UPSTREAM_TERMINATION = 7, "UC";
    /// UT: the request's time was up.
    UPSTREAM_TIMEOUT = 8, "UT";
    /// UR: the upstream reset the stream.
    UPSTREAM_RESET = 9, "UR";
    /// LR: we reset the connection (a policy change, a drain).
    LOCAL_RESET = 10, "LR";
    /// DI: delayed by a fault rule.
    DELAY_INJECTED = 11, "DI";
    /// FI: aborted by a fault rule.
    FAULT_INJECTED = 12, "FI";
    /// RL: rate limited.
    RATE_LIMITED = 13, "RL";
    /// UAEX: an external authoriser said no. Our own denials of requests carry no flag, as Istio's: the details say it.
    UNAUTHORIZED_EXTERNAL = 14, "UAEX";
    /// SI: the stream was idle for too long.
    STREAM_IDLE_TIMEOUT = 15, "SI";
    /// DPE: the caller broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 16, "DPE";
    /// UPE: the upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 17, "UPE";
    /// UMSDR: the upstream's stream reached its greatest duration.
    UPSTREAM_MAX_DURATION = 18, "UMSDR";
    /// OM: the process is overloaded.
    OVERLOAD = 19, "OM";
    /// DF: a name could not be resolved.
    DNS_FAILURE = 20, "DF";
    /// DENY: a TCP connection was denied by policy (ztunnel's flag).
    DENIED = 21, "DENY";
    /// TLS_FAILURE: the handshake of the mesh failed (ztunnel's flag).
    TLS_FAILURE = 22, "TLS_FAILURE";
    /// IDENTITY_ERROR: there was no certificate, or the peer's name was not the expected one (ztunnel's flag).
    IDENTITY_ERROR = 23, "IDENTITY_ERROR";
}

impl ResponseFlags {
    /// None: printed as `-`.
    pub const NONE: Self = Self(0);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut separator = "";
        for (flag, text) in Self::TEXTS {
            if self.contains(*flag) {
                write!(f, "{separator}{text}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}
