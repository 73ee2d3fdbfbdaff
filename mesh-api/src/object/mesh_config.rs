//! The mesh's settings as Istio writes them: ConfigMap `istio`, key `mesh`, in the root namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::virtual_service::HttpRetry;

/// Istio's MeshConfig, as far as it is used; the rest is in `others`, by name.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Of every identity.
    pub trust_domain: Option<String>,
    /// Where mesh-wide objects live.
    pub root_namespace: Option<String>,
    /// Unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Paths before they are matched.
    pub path_normalization: Option<PathNormalization>,
    /// Retries of routes that say nothing.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Empty turns the access log off.
    pub access_log_file: Option<String>,
    /// `TEXT` or `JSON`.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// Ours, not Istio's.
    pub tulle: Option<TulleSettings>,
    /// Everything else.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// `outboundTrafficPolicy`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutboundTrafficPolicy {
    /// Which.
    pub mode: Option<OutboundMode>,
}

/// `outboundTrafficPolicy.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Passed through.
    AllowAny,
    /// Refused.
    RegistryOnly,
}

/// `pathNormalization`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PathNormalization {
    /// Which.
    pub normalization: Option<Normalization>,
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// `BASE`.
    Default,
    /// As it came.
    None,
    /// Dot segments.
    Base,
    /// And `//`.
    MergeSlashes,
    /// And `%2F`.
    DecodeAndMergeSlashes,
}

/// `accessLogEncoding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    /// Istio's default text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings that Istio does not have.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TulleSettings {
    /// `auto`, `trust` or `encrypt`.
    pub same_node: Option<SameNode>,
    /// Namespaces that never are enrolled, whatever their labels say; instead of `kube-system`.
    pub excluded_namespaces: Option<Vec<String>>,
}

/// `tulle.sameNode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameNode {
    /// Vouched plaintext where the network cannot be spoofed.
    Auto,
    /// Vouched plaintext everywhere.
    Trust,
    /// HBONE always.
    Encrypt,
}

/// Fields of Istio's MeshConfig that exist and have no effect here yet.
pub const WITHOUT_EFFECT: &[&str] = &[
    "accessLogFormat",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
    "meshMTLS",
    "outboundClusterStatName",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyHttpPolicy",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "thriftConfig",
    "tlsDefaults",
    "trustDomainAliases",
    "verifyCertificateAtClient",
];
