//! `gateway.networking.k8s.io` HTTPRoute, with the fields of Gateway API v1.6 (experimental ones too).
//!
//! Only routes with a Service among their parents mean something to the mesh.

use serde::{Deserialize, Serialize};

use super::istio::{Custom, Raw};

/// Routes for services.
pub type HTTPRoute = Custom<HttpRouteSpec>;

/// What an HTTPRoute says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    /// What the route is for: services, of the mesh; gateways, of somebody else.
    pub parent_refs: Vec<ParentReference>,
    /// For gateways; without effect at a service.
    pub hostnames: Vec<String>,
    /// Which rule is used is decided by how specific its matches are, not by the order.
    pub rules: Vec<HttpRouteRule>,
    /// For gateways.
    pub use_default_gateways: Option<String>,
}

/// A parent, of which only what is written is written back: a status repeats it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// API group; `""` and `core` are Kubernetes' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service`; absent: `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Absent: the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The name of one port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// One port. Without it and `sectionName`: all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRule {
    /// For the log.
    pub name: Option<String>,
    /// OR of these; none: everything.
    pub matches: Vec<HttpRouteMatch>,
    /// What is done with the request or its response.
    pub filters: Vec<HttpRouteFilter>,
    /// Where to.
    pub backend_refs: Vec<HttpBackendRef>,
    /// How long it may take.
    pub timeouts: Option<HttpRouteTimeouts>,
    /// What is tried again; not implemented.
    pub retry: Option<Raw>,
    /// Keeps a client at a backend; not implemented.
    pub session_persistence: Option<Raw>,
}

/// AND of what is set.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteMatch {
    /// The path; absent: any.
    pub path: Option<HttpPathMatch>,
    /// Headers that must match.
    pub headers: Vec<NamedMatch>,
    /// Query parameters that must match.
    pub query_params: Vec<NamedMatch>,
    /// The method.
    pub method: Option<String>,
}

/// A path.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPathMatch {
    /// `Exact`, `PathPrefix` (the default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Absent: `/`.
    pub value: Option<String>,
}

/// A header or a query parameter.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedMatch {
    /// `Exact` (the default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it must be.
    pub value: String,
}

/// One filter: `type` says which of the fields is meant.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteFilter {
    /// `RequestHeaderModifier` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Changes the request's headers.
    pub request_header_modifier: Option<HeaderFilter>,
    /// Changes the response's headers.
    pub response_header_modifier: Option<HeaderFilter>,
    /// Copies requests; not implemented.
    pub request_mirror: Option<Raw>,
    /// Answers with a redirect; not implemented.
    pub request_redirect: Option<Raw>,
    /// Changes path or host; not implemented.
    pub url_rewrite: Option<Raw>,
    /// Somebody's extension; none is known.
    pub extension_ref: Option<Raw>,
    /// Cross-origin headers; not implemented.
    pub cors: Option<Raw>,
    /// Asks somebody else; not implemented.
    pub external_auth: Option<Raw>,
}

/// Operations on headers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderFilter {
    /// Replace or create.
    pub set: Vec<NamedValue>,
    /// Append.
    pub add: Vec<NamedValue>,
    /// Take out.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A share of the traffic.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBackendRef {
    /// API group; absent: Kubernetes' own.
    pub group: Option<String>,
    /// Absent: `Service`.
    pub kind: Option<String>,
    /// Absent: the route's.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port; a Service needs one.
    pub port: Option<i64>,
    /// Share = weight / sum; absent: 1; 0: none.
    pub weight: Option<i64>,
    /// For this backend only.
    pub filters: Vec<HttpRouteFilter>,
}

/// Durations; zero turns one off.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteTimeouts {
    /// Of the request with all its tries.
    pub request: Option<String>,
    /// Of one try.
    pub backend_request: Option<String>,
}

/// Whether group and kind mean Kubernetes' own Service.
pub(crate) fn is_service(group: Option<&str>, kind: Option<&str>) -> bool {
    matches!(group, Some("" | "core")) && kind == Some("Service")
}
