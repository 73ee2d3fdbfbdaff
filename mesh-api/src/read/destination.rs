//! DestinationRule -> blocks per host, subset and port, not yet merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_model::{
    name::SubsetName,
    traffic::{Balancer, PortPolicy},
};

use super::value;
use crate::{
    diagnostic::{Code, Findings},
    object::destination_rule::{
        ClientTls, ConnectionPool, DestinationRuleSpec, LoadBalancer, SimpleBalancer, TlsMode, TrafficPolicy,
    },
};

/// The blocks of a traffic policy; an absent block leaves the wider scope's in force.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Blocks {
    balancer: Option<Balancer>,
    pool: Option<Pool>,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Pool {
    connect_timeout: Option<Duration>,
    max_requests_per_connection: Option<u32>,
}

/// A traffic policy: blocks for all ports, and for single ones.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) all: Blocks,
    pub(crate) ports: BTreeMap<u16, Blocks>,
}

impl Policy {
    /// What holds for a port: a port's own blocks replace all others of the same policy.
    pub(crate) fn of(&self, port: u16) -> &Blocks {
        self.ports.get(&port).unwrap_or(&self.all)
    }
}

impl Blocks {
    /// These blocks, and those of `wider` where these say nothing.
    pub(crate) fn over(&self, wider: &Self) -> Self {
        Self { balancer: self.balancer.or(wider.balancer), pool: self.pool.or(wider.pool) }
    }

    pub(crate) fn settle(&self) -> PortPolicy {
        let pool = self.pool.unwrap_or_default();
        PortPolicy {
            balancer: self.balancer.unwrap_or_default(),
            connect_timeout: pool.connect_timeout,
            max_requests_per_connection: pool.max_requests_per_connection,
        }
    }
}

/// A subset as written.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Subset {
    pub(crate) name: SubsetName,
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) policy: Policy,
}

/// A DestinationRule as written.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Rule {
    /// None: no top-level policy.
    pub(crate) policy: Option<Policy>,
    pub(crate) subsets: Vec<Subset>,
}

/// Reads the rule.
pub(crate) fn read(spec: &DestinationRuleSpec, findings: &mut Findings<'_>) -> Rule {
    if let Err(problem) = value::host(&spec.host) {
        findings.add(Code::Invalid, "spec.host", problem);
    }
    if spec.workload_selector.is_some() {
        let message =
            "workloadSelector is not implemented yet, and without it the rule would hold for every caller";
        findings.add(Code::Unsupported, "spec.workloadSelector", message);
    }
    let mut names = BTreeSet::new();
    let mut subsets = Vec::new();
    for (number, subset) in spec.subsets.iter().enumerate() {
        let at = format!("spec.subsets[{number}]");
        if subset.name.is_empty() {
            findings.add(Code::Invalid, format!("{at}.name"), "a subset needs a name");
        }
        if !names.insert(&subset.name) {
            findings.add(
                Code::Invalid,
                format!("{at}.name"),
                format!("subset {:?} is defined twice", subset.name),
            );
        }
        let labels = subset.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        subsets.push(Subset {
            name: SubsetName::new(subset.name.as_str()),
            labels: labels.collect(),
            policy: policy(subset.traffic_policy.as_ref(), &format!("{at}.trafficPolicy"), findings)
                .unwrap_or_default(),
        });
    }
    Rule { policy: policy(spec.traffic_policy.as_ref(), "spec.trafficPolicy", findings), subsets }
}

fn policy(from: Option<&TrafficPolicy>, at: &str, findings: &mut Findings<'_>) -> Option<Policy> {
    let from = from?;
    let others = [
        ("outlierDetection", from.outlier_detection.is_some(), "no endpoint is taken out"),
        ("tunnel", from.tunnel.is_some(), "connections are made as usual"),
        ("proxyProtocol", from.proxy_protocol.is_some(), "no PROXY header is sent"),
        ("retryBudget", from.retry_budget.is_some(), "retries have no budget"),
    ];
    unimplemented(&others, at, findings);
    client_tls(from.tls.as_ref(), at, findings);
    let mut ports = BTreeMap::new();
    for (number, setting) in from.port_level_settings.iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{number}]");
        let outliers = setting.outlier_detection.is_some();
        unimplemented(&[("outlierDetection", outliers, "no endpoint is taken out")], &at, findings);
        client_tls(setting.tls.as_ref(), &at, findings);
        let read = blocks(setting.load_balancer.as_ref(), setting.connection_pool.as_ref(), &at, findings);
        match setting.port.number.ok_or_else(|| "the port needs a number".to_owned()).and_then(value::port) {
            Err(problem) => findings.add(Code::Invalid, format!("{at}.port.number"), problem),
            Ok(port) if ports.contains_key(&port) => {
                findings.add(Code::Invalid, format!("{at}.port.number"), format!("port {port} is set twice"));
            }
            Ok(port) => drop(ports.insert(port, read)),
        }
    }
    let all = blocks(from.load_balancer.as_ref(), from.connection_pool.as_ref(), at, findings);
    Some(Policy { all, ports })
}

fn blocks(
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    at: &str,
    findings: &mut Findings<'_>,
) -> Blocks {
    Blocks {
        balancer: balancer.and_then(|from| self::balancer(from, &format!("{at}.loadBalancer"), findings)),
        pool: pool.map(|from| self::pool(from, &format!("{at}.connectionPool"), findings)),
    }
}

fn balancer(from: &LoadBalancer, at: &str, findings: &mut Findings<'_>) -> Option<Balancer> {
    let others = [
        ("consistentHash", from.consistent_hash.is_some(), "least request is used"),
        ("localityLbSetting", from.locality_lb_setting.is_some(), "every endpoint counts alike"),
        ("warmupDurationSecs", from.warmup_duration_secs.is_some(), "a new endpoint counts fully at once"),
        ("warmup", from.warmup.is_some(), "a new endpoint counts fully at once"),
    ];
    unimplemented(&others, at, findings);
    if from.simple.is_some() && from.consistent_hash.is_some() {
        findings.add(Code::Invalid, at, "only one of simple, consistentHash may be set");
    }
    Some(match from.simple? {
        SimpleBalancer::Unspecified | SimpleBalancer::LeastConn | SimpleBalancer::LeastRequest => {
            Balancer::LeastRequest
        }
        SimpleBalancer::Random => Balancer::Random,
        SimpleBalancer::Passthrough => Balancer::Passthrough,
        SimpleBalancer::RoundRobin => Balancer::RoundRobin,
    })
}

fn pool(from: &ConnectionPool, at: &str, findings: &mut Findings<'_>) -> Pool {
    let mut pool = Pool::default();
    if let Some(tcp) = &from.tcp {
        let at = format!("{at}.tcp");
        let others = [
            ("maxConnections", tcp.max_connections.is_some(), "connections are not limited per host"),
            ("tcpKeepalive", tcp.tcp_keepalive.is_some(), "the node's own keep-alive is used"),
            ("maxConnectionDuration", tcp.max_connection_duration.is_some(), "connections have no age limit"),
            ("idleTimeout", tcp.idle_timeout.is_some(), "the node's own idle time-out is used"),
        ];
        unimplemented(&others, &at, findings);
        pool.connect_timeout =
            value::duration_at(tcp.connect_timeout.as_ref(), &format!("{at}.connectTimeout"), findings)
                .filter(|timeout| !timeout.is_zero());
    }
    if let Some(http) = &from.http {
        let at = format!("{at}.http");
        let limit = "requests are not limited per host";
        let others = [
            ("http1MaxPendingRequests", http.http1_max_pending_requests.is_some(), limit),
            ("http2MaxRequests", http.http2_max_requests.is_some(), limit),
            ("maxRetries", http.max_retries.is_some(), "retries under way are not limited per host"),
            ("idleTimeout", http.idle_timeout.is_some(), "the node's own idle time-out is used"),
            ("h2UpgradePolicy", http.h2_upgrade_policy.is_some(), "HTTP/1.1 stays HTTP/1.1"),
            ("useClientProtocol", http.use_client_protocol.is_some(), "the client's protocol is always used"),
            ("maxConcurrentStreams", http.max_concurrent_streams.is_some(), limit),
        ];
        unimplemented(&others, &at, findings);
        let number = http.max_requests_per_connection.unwrap_or(0);
        match u32::try_from(number) {
            Ok(number) => pool.max_requests_per_connection = (number > 0).then_some(number),
            Err(_) => findings.add(
                Code::Invalid,
                format!("{at}.maxRequestsPerConnection"),
                format!("{number} is not a number of requests"),
            ),
        }
    }
    pool
}

fn client_tls(tls: Option<&ClientTls>, at: &str, findings: &mut Findings<'_>) {
    let effect = match tls.map(|tls| tls.mode) {
        None | Some(Some(TlsMode::IstioMutual)) => return,
        Some(Some(TlsMode::Simple | TlsMode::Mutual)) => {
            "the proxy originates no TLS: bytes go as the client sent them"
        }
        Some(Some(TlsMode::Disable) | None) => "enrolled workloads are always called with mTLS",
    };
    findings.add(Code::NotImplemented, format!("{at}.tls"), format!("tls is not implemented yet: {effect}"));
}

fn unimplemented(parts: &[(&str, bool, &str)], at: &str, findings: &mut Findings<'_>) {
    for (name, _, effect) in parts.iter().filter(|(_, is_set, _)| *is_set) {
        findings.add(
            Code::NotImplemented,
            format!("{at}.{name}"),
            format!("{name} is not implemented yet: {effect}"),
        );
    }
}
