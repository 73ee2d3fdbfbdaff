//! HTTP routes: rules in order, the first that matches wins. VirtualServices are written that way; the HTTPRoutes of a service are put
//! in that order when they are compiled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    name::{Hostname, Namespace, ObjectKey, SubsetName},
    text::StringMatch,
};

pub(crate) mod matching;
#[cfg(test)]
mod tests;

/// The HTTP routes of some hosts, as one object defines them.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteTable {
    /// The VirtualService; or the namespace whose HTTPRoutes these are, and `service.namespace:port`, which no object can be called.
    pub key: ObjectKey,
    /// What people wrote.
    pub source: RouteSource,
    /// The hosts it answers for, fully qualified; wildcards allowed.
    pub hosts: Vec<Hostname>,
    /// Which namespaces see it.
    pub export_to: Visibility,
    /// Older wins among tables of one host and equal specificity. RFC 3339 text compares well; empty is oldest.
    pub created: String,
    /// In order. Empty means the object has no HTTP part: default routing.
    pub rules: Vec<Arc<HttpRule>>,
}

/// What a table is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteSource {
    /// One VirtualService: it goes by host, whatever the port.
    VirtualService,
    /// All HTTPRoutes of the one service in `hosts`, for this port of it. They come before any VirtualService.
    Gateway {
        /// The service's port.
        port: u16,
    },
}

impl RouteSource {
    /// The kind of object that the rules come from.
    pub fn kind(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::Gateway { .. } => "HTTPRoute",
        }
    }
}

/// `exportTo`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Visibility {
    /// `*`.
    #[default]
    All,
    /// Only these (`.` is already replaced).
    Namespaces(Vec<Namespace>),
}

impl Visibility {
    /// Whether a client of this namespace sees it.
    pub fn includes(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(list) => list.contains(namespace),
        }
    }
}

/// One entry of `http[]`.
#[derive(Clone, PartialEq, Debug)]
pub struct HttpRule {
    /// `name`, or `http[2]`; of an HTTPRoute, `namespace.route.name-or-number`.
    pub name: String,
    /// OR of these; empty matches all.
    pub matches: Vec<HttpMatch>,
    /// Where it goes; weights as written. Never empty.
    pub destinations: Vec<WeightedDestination>,
    /// Overall deadline with all tries and back-off. None: none.
    pub timeout: Option<Duration>,
    /// What to try again.
    pub retry: RetryPolicy,
    /// Header operations on the request, before `destinations[].headers`.
    pub request_headers: HeaderEdits,
    /// Header operations on the response.
    pub response_headers: HeaderEdits,
}

/// One entry of `http[].match[]`: AND of everything set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HttpMatch {
    /// `name`, for the log.
    pub name: String,
    /// The path.
    pub uri: Option<StringMatch>,
    /// Gateway API's PathPrefix: by segment (`/v2` is not a prefix of `/v2example`). Not used by Istio routes.
    pub path_segments: Option<String>,
    /// Exact and prefix of `uri` without case.
    pub ignore_uri_case: bool,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority.
    pub authority: Option<StringMatch>,
    /// Each must be there and match. Names are lower-cased. Several values of one header are joined by `,`.
    pub headers: BTreeMap<String, StringMatch>,
    /// Each must not match; a missing header is an empty value.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Each must be there and match.
    pub query: BTreeMap<String, StringMatch>,
    /// The port the client dialled.
    pub port: Option<u16>,
    /// Labels the calling workload must carry.
    pub source_labels: BTreeMap<String, String>,
    /// The calling workload's namespace.
    pub source_namespace: Option<Namespace>,
}

/// A share of a rule's traffic.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Gateway API: why nothing can be sent there. The share stays, and its requests get 500.
    pub invalid: Option<String>,
    /// Share = weight / sum of weights; with one destination it is irrelevant.
    pub weight: u32,
    /// Header operations on the request for this destination only.
    pub request_headers: HeaderEdits,
    /// Header operations on the response.
    pub response_headers: HeaderEdits,
}

/// A host, a subset of it, and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destination {
    /// Fully qualified.
    pub host: Hostname,
    /// A subset of its DestinationRule.
    pub subset: Option<SubsetName>,
    /// Else the service's only port, else the port the client dialled.
    pub port: Option<u16>,
}

/// `headers.request` / `headers.response`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderEdits {
    /// Replace or create.
    pub set: Vec<(String, String)>,
    /// Append a value.
    pub add: Vec<(String, String)>,
    /// Take out.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// When a try that failed is tried again.
#[derive(Clone, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Further tries after the first; 0 disables.
    pub attempts: u32,
    /// Deadline of each try. None: the route's.
    pub per_try_timeout: Option<Duration>,
    /// The conditions.
    pub on: RetryOn,
    /// Base of the jittered back-off, 25 ms; the cap is ten times it.
    pub backoff: Duration,
}

/// The tokens of `retryOn`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetryOn {
    /// 500–599, disconnect, reset, read time-out; includes the next three.
    pub server_error: bool,
    /// 502, 503, 504, and resets before headers.
    pub gateway_error: bool,
    /// Disconnect, reset, read time-out before headers.
    pub reset: bool,
    /// Reset before the request was sent.
    pub reset_before_request: bool,
    /// The connection could not be made.
    pub connect_failure: bool,
    /// HTTP/2 REFUSED_STREAM.
    pub refused_stream: bool,
    /// 409.
    pub retriable_4xx: bool,
    /// A response with `x-envoy-ratelimited`.
    pub rate_limited: bool,
    /// These statuses.
    pub statuses: Vec<u16>,
    /// gRPC statuses in the response's headers: numeric codes.
    pub grpc: Vec<u16>,
}

impl RetryPolicy {
    /// Istio's default: 2 × `connect-failure,refused-stream,unavailable,cancelled`.
    pub fn mesh_default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            on: RetryOn {
                connect_failure: true,
                refused_stream: true,
                grpc: vec![1, 14],
                ..RetryOn::default()
            },
            backoff: Duration::from_millis(25),
        }
    }

    /// No retries.
    pub fn none() -> Self {
        Self {
            attempts: 0,
            per_try_timeout: None,
            on: RetryOn::default(),
            backoff: Duration::from_millis(25),
        }
    }
}

/// Who asks, for the matches that look at the caller.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its labels.
    pub labels: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// The port it dialled.
    pub port: u16,
}
