//! Small builders for the tests of this crate: a thing with sensible rest, to be changed by the test.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use http::HeaderMap;

use crate::{
    authz::{Action, AuthzPolicy, Operation, Peer, Rule, Source},
    identity::{Identity, TrustDomain},
    mtls::MtlsModes,
    name::{Hostname, Namespace, NodeName, ObjectKey, ServiceAccount, ServiceKey, SubsetName, WorkloadUid},
    request::RequestHead,
    resource::Resource,
    route::{
        Destination, HeaderEdits, HttpMatch, HttpRule, RetryPolicy, RouteSource, RouteTable, Visibility,
        WeightedDestination,
    },
    service::{Protocol, Service, ServicePort},
    snapshot::Snapshot,
    text::{Glob, StringMatch},
    traffic::{DestinationPolicy, Subset, TrafficPolicy},
    workload::{EndpointOf, Enrolment, Exclusions, Telemetry, Tunnel, Workload},
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn identity(namespace: &str, account: &str) -> Identity {
    Identity {
        trust_domain: TrustDomain::default(),
        namespace: Namespace::new(namespace),
        service_account: ServiceAccount::new(account),
    }
}

/// `name.namespace.svc.cluster.local`.
pub(crate) fn host(name: &str, namespace: &str) -> Hostname {
    Hostname::new(&format!("{name}.{namespace}.svc.cluster.local"))
}

pub(crate) fn service_key(name: &str, namespace: &str) -> ServiceKey {
    ServiceKey { namespace: Namespace::new(namespace), host: host(name, namespace) }
}

/// A workload of namespace `shop` whose service account has its name.
pub(crate) fn workload(uid: &str, address: &str) -> Workload {
    Workload {
        uid: WorkloadUid::new(uid),
        name: uid.into(),
        namespace: Namespace::new("shop"),
        identity: identity("shop", uid),
        node: NodeName::new("node-a"),
        ips: vec![ip(address)],
        contested_ips: Vec::new(),
        labels: BTreeMap::new(),
        telemetry: Telemetry::default(),
        tunnel: Tunnel::Hbone,
        enrolment: Enrolment::Yes,
        endpoints: Vec::new(),
        protocols: BTreeMap::new(),
        mtls: MtlsModes::default(),
        policies: Vec::new(),
        exclusions: Exclusions::default(),
        probe_ports: Vec::new(),
        netns: None,
    }
}

/// It answers for the service's port 80 on its own 8080.
pub(crate) fn answering(mut workload: Workload, service: &ServiceKey) -> Workload {
    let ports = BTreeMap::from([(80, 8080)]);
    workload.endpoints.push(EndpointOf { service: service.clone(), ports, ready: true });
    workload
}

pub(crate) fn labelled(mut workload: Workload, name: &str, value: &str) -> Workload {
    workload.labels.insert(name.into(), value.into());
    workload
}

/// An HTTP service on port 80 of namespace `shop`.
pub(crate) fn service(name: &str, vips: &[&str]) -> Service {
    Service {
        key: service_key(name, "shop"),
        name: name.to_owned(),
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        ports: vec![ServicePort { port: 80, name: "http".to_owned(), protocol: Protocol::Http }],
    }
}

pub(crate) fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    Snapshot::from_resources(resources.into_iter().collect())
}

pub(crate) fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthzPolicy {
    AuthzPolicy { key: ObjectKey::new("shop", name), action, rules }
}

pub(crate) fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

pub(crate) fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

pub(crate) fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::parse(text)).collect()
}

/// The caller `shop/web` at port 8080, by certificate.
pub(crate) fn peer() -> Peer {
    Peer { identity: Some(identity("shop", "web")), ip: ip("10.0.0.9"), port: 8080 }
}

/// The same without identity.
pub(crate) fn plaintext() -> Peer {
    Peer { identity: None, ..peer() }
}

/// What a test changes of a request.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) authority: &'static str,
    pub(crate) path: String,
    pub(crate) query: Option<&'static str>,
    pub(crate) headers: HeaderMap,
}

/// `GET http://reviews/x`.
pub(crate) fn get(path: &str) -> Request {
    Request {
        method: "GET",
        authority: "reviews",
        path: path.to_owned(),
        query: None,
        headers: HeaderMap::new(),
    }
}

impl Request {
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            scheme: "http",
            authority: self.authority,
            path: &self.path,
            query: self.query,
            headers: &self.headers,
        }
    }
}

pub(crate) fn routes(name: &str, hosts: &[Hostname], rules: Vec<HttpRule>) -> RouteTable {
    RouteTable {
        key: ObjectKey::new("shop", name),
        source: RouteSource::VirtualService,
        hosts: hosts.to_vec(),
        export_to: Visibility::All,
        created: "2025-01-01T00:00:00Z".to_owned(),
        rules: rules.into_iter().map(Arc::new).collect(),
    }
}

/// A rule to subsets of `reviews`, with their weights.
pub(crate) fn rule(name: &str, matches: Vec<HttpMatch>, split: &[(&str, u32)]) -> HttpRule {
    let weighted = |(subset, weight): &(&str, u32)| WeightedDestination {
        destination: Destination {
            host: host("reviews", "shop"),
            subset: Some(SubsetName::new(*subset)),
            port: None,
        },
        invalid: None,
        weight: *weight,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    };
    HttpRule {
        name: name.to_owned(),
        matches,
        destinations: split.iter().map(weighted).collect(),
        timeout: None,
        retry: RetryPolicy::none(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

pub(crate) fn header(name: &str, wanted: StringMatch) -> HttpMatch {
    HttpMatch { headers: BTreeMap::from([(name.to_owned(), wanted)]), ..HttpMatch::default() }
}

pub(crate) fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

/// Subsets by the label `version`, each of the version that is its name.
pub(crate) fn subsets(namespace: &str, host: Hostname, names: &[&str]) -> DestinationPolicy {
    let subset = |name: &&str| {
        let labels = BTreeMap::from([("version".into(), (*name).into())]);
        (SubsetName::new(*name), Subset { labels, policy: TrafficPolicy::default() })
    };
    DestinationPolicy {
        key: ObjectKey::new(namespace, "subsets"),
        host,
        export_to: Visibility::All,
        policy: TrafficPolicy::default(),
        subsets: names.iter().map(subset).collect(),
    }
}
