//! Where a connection or a request would go.

use std::{net::SocketAddr, time::Duration};

use super::{Outcome, Step};
use crate::{
    addr::OrigDst,
    decide::{Candidate, Dialled, Outbound, Refusal, Target, outbound},
    name::Hostname,
    request::RequestHead,
    route::{Destination, HttpRule, RetryPolicy, RouteSource, RouteTable},
    service::Protocol,
    snapshot::Snapshot,
    workload::Workload,
};

/// Where to, as a person may put it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To {
    /// An address that an application dials.
    Address(SocketAddr),
    /// A host and a port: the service of that name, whatever its address.
    Host(Hostname, u16),
}

/// The answer to "where would this go".
#[derive(Clone, Debug)]
pub struct RouteExplanation {
    /// In the order of evaluation.
    pub steps: Vec<Step>,
    /// What [`crate::decide`] says.
    pub verdict: RouteVerdict,
}

/// Where it would go.
#[derive(Clone, Debug)]
pub enum RouteVerdict {
    /// An HTTP request.
    Request {
        /// `VirtualService shop/back http[0]`, `HTTPRoute shop.back.0`; None: default routing.
        rule: Option<String>,
        /// What the split may choose; those of share 0 are not in it.
        shares: Vec<Share>,
        /// Overall deadline.
        timeout: Option<Duration>,
        /// Retries.
        retry: RetryPolicy,
    },
    /// An opaque connection to a service.
    Connection(Target),
    /// To one pod; no route applies.
    Workload(Candidate),
    /// Not of the mesh: as dialled.
    Passthrough(SocketAddr),
    /// No service has that name; where it goes depends on the address it resolves to.
    UnknownHost(Hostname),
    /// Nowhere.
    Refused(Refusal),
}

/// One possible outcome of a split.
#[derive(Clone, Debug)]
pub struct Share {
    /// As the rule names it; None: the service itself.
    pub destination: Option<Destination>,
    /// Of 1.
    pub share: f64,
    /// Its endpoints, or why there are none.
    pub target: Result<Target, Refusal>,
}

impl RouteVerdict {
    /// Whether something can be reached: every share of a request has an endpoint. An unknown host counts as no.
    pub fn is_reachable(&self) -> bool {
        match self {
            Self::Request { shares, .. } => shares.iter().all(|share| share.target.is_ok()),
            Self::Connection(_) | Self::Workload(_) | Self::Passthrough(_) => true,
            Self::UnknownHost(_) | Self::Refused(_) => false,
        }
    }
}

/// Where a connection of `source` would go, and with a `head`, where that request would.
pub fn explain_route(
    snapshot: &Snapshot,
    source: &Workload,
    to: &To,
    head: Option<&RequestHead<'_>>,
) -> RouteExplanation {
    let mut steps = Vec::new();
    let verdict = match to {
        To::Host(host, port) => match snapshot.service(host) {
            None => RouteVerdict::UnknownHost(host.clone()),
            Some(service) => {
                let protocol = service.port(*port).map(|port| port.protocol).unwrap_or_default();
                let dialled = Dialled { source, service, port: *port, pod: None };
                to_service(snapshot, &dialled, protocol, head, &mut steps)
            }
        },
        To::Address(addr) => to_address(snapshot, source, OrigDst::new(*addr), head, &mut steps),
    };
    RouteExplanation { steps, verdict }
}

fn to_address(
    snapshot: &Snapshot,
    source: &Workload,
    dst: OrigDst,
    head: Option<&RequestHead<'_>>,
    steps: &mut Vec<Step>,
) -> RouteVerdict {
    match outbound(snapshot, source, dst) {
        Outbound::Service { service, port, protocol } => {
            steps.push(Step::fact(dst, format!("a VIP of service {}", service.key)));
            let dialled = Dialled { source, service: &service, port, pod: None };
            to_service(snapshot, &dialled, protocol, head, steps)
        }
        Outbound::Workload { workload, protocol, service, .. } => {
            steps.push(Step::fact(dst, format!("workload {}/{}", workload.namespace, workload.name)));
            let pod = Candidate::dialled(&workload, dst);
            match &service {
                Some((service, port)) if head.is_some() && protocol.is_routed_http() => {
                    let dialled = Dialled { source, service, port: *port, pod: Some(&pod) };
                    to_service(snapshot, &dialled, protocol, head, steps)
                }
                _ => RouteVerdict::Workload(pod),
            }
        }
        Outbound::Passthrough(dst) => {
            steps.push(Step::fact(dst, "neither a service nor a workload of the mesh".to_owned()));
            RouteVerdict::Passthrough(dst.get())
        }
        Outbound::Refused(refusal) => RouteVerdict::Refused(refusal),
    }
}

fn to_service(
    snapshot: &Snapshot,
    dialled: &Dialled<'_>,
    protocol: Protocol,
    head: Option<&RequestHead<'_>>,
    steps: &mut Vec<Step>,
) -> RouteVerdict {
    let service = &dialled.service.key;
    steps.push(Step::fact(
        format!("port {} of {service}", dialled.port),
        format!("protocol {protocol:?}").to_lowercase(),
    ));
    let head = head.filter(|_| protocol.is_routed_http());
    let Some(head) = head else {
        steps.push(Step::fact("connection", "opaque: HTTP routes do not apply".to_owned()));
        return dialled.unrouted(snapshot).map_or_else(RouteVerdict::Refused, RouteVerdict::Connection);
    };
    let Some(table) = dialled.table(snapshot) else {
        steps.push(Step::fact(
            "routes",
            format!("no HTTPRoute and no VirtualService with HTTP routes for {}", service.host),
        ));
        return RouteVerdict::Request {
            rule: None,
            shares: vec![Share { destination: None, share: 1.0, target: dialled.unrouted(snapshot) }],
            timeout: None,
            retry: snapshot.mesh().default_retry.clone(),
        };
    };
    let matched = table.first_match(head, &dialled.caller(), &mut |rule, number, outcome| {
        // A rule of an HTTPRoute is compiled once for each of its matches, which knows its own place.
        let part = number.map_or_else(String::new, |number| match table.source {
            RouteSource::VirtualService => format!(" match[{number}]"),
            RouteSource::Gateway { .. } => {
                rule.matches.get(number).map_or_else(String::new, |one| format!(" {}", one.name))
            }
        });
        steps.push(Step {
            subject: format!("{}{part}", title(table, rule)),
            outcome: if outcome.is_ok() { Outcome::Match } else { Outcome::NoMatch },
            reason: outcome.err().map_or_else(String::new, |miss| miss.to_string()),
        });
    });
    match matched {
        None => RouteVerdict::Refused(Refusal::NoRoute),
        Some(rule) => RouteVerdict::Request {
            rule: Some(title(table, rule)),
            shares: shares(snapshot, dialled, rule),
            timeout: rule.timeout,
            retry: rule.retry.clone(),
        },
    }
}

/// A rule, with the object that it comes from. Rules of HTTPRoutes have the route in their name.
fn title(table: &RouteTable, rule: &HttpRule) -> String {
    match table.source {
        RouteSource::VirtualService => format!("VirtualService {} {}", table.key, rule.name),
        RouteSource::Gateway { .. } => format!("HTTPRoute {}", rule.name),
    }
}

fn shares(snapshot: &Snapshot, dialled: &Dialled<'_>, rule: &HttpRule) -> Vec<Share> {
    rule.shares()
        .map(|(number, share)| {
            let weighted = &rule.destinations[number];
            let target = dialled.share(snapshot, weighted);
            Share { destination: Some(weighted.destination.clone()), share, target }
        })
        .collect()
}
