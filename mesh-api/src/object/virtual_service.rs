//! `networking.istio.io` VirtualService.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::istio::{Custom, PortSelector, Raw, StringMatch};

/// Routes for hosts.
pub type VirtualService = Custom<VirtualServiceSpec>;

/// What a VirtualService says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// The hosts that the routes hold for: short names, full names, wildcards.
    pub hosts: Vec<String>,
    /// `mesh` (the default) and names of gateways.
    pub gateways: Vec<String>,
    /// For HTTP ports: the first that matches wins.
    pub http: Vec<HttpRoute>,
    /// For TLS by SNI; not implemented.
    pub tls: Option<Raw>,
    /// For opaque ports; not implemented.
    pub tcp: Option<Raw>,
    /// Namespaces that see it: `.`, `*` or names.
    pub export_to: Vec<String>,
}

/// One rule of `http`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// For the log.
    pub name: String,
    /// OR of these; none matches everything.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    /// Where to.
    pub route: Vec<HttpRouteDestination>,
    /// Answers with a redirect; not implemented.
    pub redirect: Option<Raw>,
    /// Answers by itself; not implemented.
    pub direct_response: Option<Raw>,
    /// Continues in another VirtualService; not implemented.
    pub delegate: Option<Raw>,
    /// Changes path or authority; not implemented.
    pub rewrite: Option<Raw>,
    /// A duration.
    pub timeout: Option<String>,
    /// What is tried again.
    pub retries: Option<HttpRetry>,
    /// Delays and aborts; not implemented.
    pub fault: Option<Raw>,
    /// Copies requests; not implemented.
    pub mirror: Option<Raw>,
    /// Several copies; not implemented.
    pub mirrors: Option<Raw>,
    /// Deprecated form; not implemented.
    pub mirror_percent: Option<i64>,
    /// Share of copied requests; not implemented.
    pub mirror_percentage: Option<Raw>,
    /// Cross-origin headers; not implemented.
    pub cors_policy: Option<Raw>,
    /// Header operations.
    pub headers: Option<Headers>,
}

/// One entry of `match`: AND of what is set.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    /// For the log.
    pub name: String,
    /// The path without the query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// `Host`.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: BTreeMap<String, StringMatch>,
    /// The port dialled.
    pub port: Option<i64>,
    /// Labels of the caller.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this match is for; `mesh` is ours.
    pub gateways: Vec<String>,
    /// Query parameters that must match.
    pub query_params: BTreeMap<String, StringMatch>,
    /// `uri` without regard to case (exact and prefix).
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The caller's namespace.
    pub source_namespace: String,
    /// For statistics of Envoy; has no meaning here.
    pub stat_prefix: String,
}

/// A share of the traffic.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share = weight / sum.
    pub weight: Option<i64>,
    /// Header operations for this destination.
    pub headers: Option<Headers>,
}

/// A host, a subset, a port.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// Short or full name of a service.
    pub host: String,
    /// A subset of its DestinationRule.
    pub subset: String,
    /// Its port.
    pub port: Option<PortSelector>,
}

/// Operations on requests and responses.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// On the request.
    pub request: Option<HeaderOperations>,
    /// On the response.
    pub response: Option<HeaderOperations>,
}

/// Operations on headers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Replace or create.
    pub set: BTreeMap<String, String>,
    /// Append.
    pub add: BTreeMap<String, String>,
    /// Take out.
    pub remove: Vec<String>,
}

/// What is tried again, how often.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Further tries; 0 turns retries off.
    pub attempts: i64,
    /// A duration.
    pub per_try_timeout: Option<String>,
    /// Comma-separated conditions.
    pub retry_on: Option<String>,
    /// Not implemented: there are no localities yet.
    pub retry_remote_localities: Option<bool>,
    /// Another host is always preferred; `false` is not implemented.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base of the back-off, a duration.
    pub backoff: Option<String>,
}
