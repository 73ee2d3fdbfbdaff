//! `networking.istio.io` DestinationRule.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::istio::{Custom, PortSelector, Raw, WorkloadSelector};

/// Subsets of a host and how it is called.
pub type DestinationRule = Custom<DestinationRuleSpec>;

/// What a DestinationRule says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// Short name, full name or wildcard.
    pub host: String,
    /// For the host as a whole.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it: `.`, `*` or names.
    pub export_to: Vec<String>,
    /// Only for these callers; not implemented.
    pub workload_selector: Option<WorkloadSelector>,
}

/// Endpoints with these labels.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// The name that routes use.
    pub name: String,
    /// All must be on the pod.
    pub labels: BTreeMap<String, String>,
    /// Overrides the host's, block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How a host is called.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Taking bad endpoints out; not implemented.
    pub outlier_detection: Option<Raw>,
    /// How TLS is spoken; mTLS is always there between enrolled workloads.
    pub tls: Option<ClientTls>,
    /// Per port of the service; replaces, does not inherit.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Not implemented.
    pub tunnel: Option<Raw>,
    /// Not implemented.
    pub proxy_protocol: Option<Raw>,
    /// Not implemented.
    pub retry_budget: Option<Raw>,
}

/// The blocks for one port.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// Which port of the service.
    pub port: PortSelector,
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Not implemented.
    pub outlier_detection: Option<Raw>,
    /// How TLS is spoken.
    pub tls: Option<ClientTls>,
}

/// How an endpoint is picked.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// The algorithm.
    pub simple: Option<SimpleBalancer>,
    /// Not implemented.
    pub consistent_hash: Option<Raw>,
    /// Not implemented.
    pub locality_lb_setting: Option<Raw>,
    /// Not implemented.
    pub warmup_duration_secs: Option<Raw>,
    /// Not implemented.
    pub warmup: Option<Raw>,
}

/// `simple`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// The default: `LEAST_REQUEST`.
    Unspecified,
    /// Deprecated name of `LEAST_REQUEST`.
    LeastConn,
    /// The one with fewer requests under way, of two drawn.
    LeastRequest,
    /// Independent draws.
    Random,
    /// The address the client dialled.
    Passthrough,
    /// One after the other.
    RoundRobin,
}

/// Limits.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: Option<TcpPool>,
    /// Of requests.
    pub http: Option<HttpPool>,
}

/// Limits of connections.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// Not implemented.
    pub max_connections: Option<i64>,
    /// A duration.
    pub connect_timeout: Option<String>,
    /// Not implemented.
    pub tcp_keepalive: Option<Raw>,
    /// Not implemented.
    pub max_connection_duration: Option<String>,
    /// Not implemented.
    pub idle_timeout: Option<String>,
}

/// Limits of requests.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// Not implemented.
    #[serde(rename = "http1MaxPendingRequests")]
    pub http1_max_pending_requests: Option<i64>,
    /// Not implemented.
    #[serde(rename = "http2MaxRequests")]
    pub http2_max_requests: Option<i64>,
    /// 1 turns keep-alive off; 0 is no limit.
    pub max_requests_per_connection: Option<i64>,
    /// Not implemented.
    pub max_retries: Option<i64>,
    /// Not implemented.
    pub idle_timeout: Option<String>,
    /// Not implemented.
    #[serde(rename = "h2UpgradePolicy")]
    pub h2_upgrade_policy: Option<String>,
    /// Not implemented.
    pub use_client_protocol: Option<bool>,
    /// Not implemented.
    pub max_concurrent_streams: Option<i64>,
}

/// How TLS is spoken to the host.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// Which.
    pub mode: Option<TlsMode>,
    /// Not implemented.
    pub client_certificate: Option<String>,
    /// Not implemented.
    pub private_key: Option<String>,
    /// Not implemented.
    pub ca_certificates: Option<String>,
    /// Not implemented.
    pub credential_name: Option<String>,
    /// Not implemented.
    pub subject_alt_names: Vec<String>,
    /// Not implemented.
    pub sni: Option<String>,
    /// Not implemented.
    pub insecure_skip_verify: Option<bool>,
    /// Not implemented.
    pub ca_crl: Option<String>,
}

/// `tls.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// The proxy originates TLS.
    Simple,
    /// The same with a client certificate.
    Mutual,
    /// The mesh's own mTLS.
    IstioMutual,
}
