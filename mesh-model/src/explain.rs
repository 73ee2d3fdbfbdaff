//! The decisions of [`crate::decide`] and [`crate::authz`] with their reasons, for people: `meshctl route check`, `authz check`.
//!
//! Invariant: the verdict in here comes from the very functions that the data path calls; this file only adds words.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    addr::OrigDst,
    authz::{Action, AuthzPolicy, Denied, Peer, Permit, decide_observed, evaluate},
    decide::{Candidate, Dialled, Outbound, Refusal, Target, outbound},
    mtls::MtlsMode,
    name::{Hostname, ObjectKey},
    request::RequestHead,
    route::{Destination, HttpRule, RetryPolicy},
    service::Protocol,
    snapshot::Snapshot,
    workload::Workload,
};

#[cfg(test)]
mod tests;

/// One thing that was looked at on the way to a verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What: `AuthorizationPolicy shop/allow rules[0]`.
    pub subject: String,
    /// How it turned out.
    pub outcome: Outcome,
    /// Why. May be empty for a match.
    pub reason: String,
}

/// How a step turned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A fact, no test.
    Fact,
    /// It matched.
    Match,
    /// It did not.
    NoMatch,
    /// It was not tried, for the verdict was already there.
    NotReached,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fact => "fact",
            Self::Match => "match",
            Self::NoMatch => "no match",
            Self::NotReached => "not reached",
        })
    }
}

/// The answer to "may this peer call that workload".
#[derive(Clone, Debug)]
pub struct AuthzExplanation {
    /// In the order of evaluation.
    pub steps: Vec<Step>,
    /// What [`crate::authz::authorize`] says.
    pub verdict: Result<Permit, Denied>,
}

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
        /// The VirtualService and its rule; None: default routing.
        rule: Option<(ObjectKey, String)>,
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

/// Why `peer` may or may not call `workload`: one request, or (`head` None) an opaque connection.
pub fn explain_authz(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
    head: Option<&RequestHead<'_>>,
) -> AuthzExplanation {
    let seen = head.map_or(evaluate::Seen::Opaque, |head| evaluate::Seen::Request(head.into()));
    let mut steps = vec![caller(peer), mode(workload, peer)];
    let missing = workload.policies.iter().filter(|key| snapshot.policy(key).is_none());
    steps.extend(missing.map(|key| Step {
        subject: format!("AuthorizationPolicy {key}"),
        outcome: Outcome::Fact,
        reason: "not received yet: denies".to_owned(),
    }));
    let mut tried: Vec<(ObjectKey, usize)> = Vec::new();
    let verdict = decide_observed(snapshot, workload, peer, seen, &mut |policy, rule, outcome| {
        tried.push((policy.key.clone(), rule));
        steps.push(rule_step(policy, rule, outcome, peer, seen));
    });
    let known = || workload.policies.iter().filter_map(|key| snapshot.policy(key));
    for policy in known().filter(|policy| policy.rules.is_empty()) {
        steps.push(Step {
            subject: subject(policy),
            outcome: Outcome::NoMatch,
            reason: "it has no rules, so it never matches".to_owned(),
        });
    }
    for policy in known() {
        for (number, _) in
            (0..).zip(&policy.rules).filter(|(number, _)| !tried.contains(&(policy.key.clone(), *number)))
        {
            let subject = format!("{} rules[{number}]", subject(policy));
            steps.push(Step { subject, outcome: Outcome::NotReached, reason: String::new() });
        }
    }
    AuthzExplanation { steps, verdict }
}

fn caller(peer: &Peer) -> Step {
    let who = match &peer.identity {
        Some(identity) => format!("principal {}", identity.principal()),
        None => "no identity (plaintext)".to_owned(),
    };
    Step {
        subject: "caller".to_owned(),
        outcome: Outcome::Fact,
        reason: format!("{who}, address {}", peer.ip),
    }
}

fn mode(workload: &Workload, peer: &Peer) -> Step {
    let mode = match workload.mtls.of(peer.port) {
        MtlsMode::Permissive => "PERMISSIVE",
        MtlsMode::Strict => "STRICT",
        MtlsMode::Disable => "DISABLE (as PERMISSIVE)",
    };
    let from = if workload.mtls.from.is_empty() { "the default" } else { &workload.mtls.from };
    Step {
        subject: format!("mTLS of port {}", peer.port),
        outcome: Outcome::Fact,
        reason: format!("{mode}, from {from}"),
    }
}

fn subject(policy: &AuthzPolicy) -> String {
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
    };
    format!("AuthorizationPolicy {} {action}", policy.key)
}

fn rule_step(
    policy: &AuthzPolicy,
    number: usize,
    outcome: Result<(), evaluate::RuleMiss>,
    peer: &Peer,
    seen: evaluate::Seen<'_>,
) -> Step {
    let facts = evaluate::PeerFacts::from(peer);
    let rule = policy.rules.get(number);
    let reason = match outcome {
        Ok(()) => String::new(),
        Err(evaluate::RuleMiss::Unsupported) => {
            "it uses what this version does not know, so it never allows".to_owned()
        }
        Err(evaluate::RuleMiss::From) => misses(
            "from",
            "source",
            rule.iter().flat_map(|rule| &rule.from).map(|source| source.check(&facts)),
        ),
        Err(evaluate::RuleMiss::To) => misses(
            "to",
            "operation",
            rule.iter()
                .flat_map(|rule| &rule.to)
                .map(|operation| operation.check(policy.action, &facts, seen)),
        ),
    };
    Step {
        subject: format!("{} rules[{number}]", subject(policy)),
        outcome: if outcome.is_ok() { Outcome::Match } else { Outcome::NoMatch },
        reason,
    }
}

/// `from[0].source: principals does not match; from[1].source: …`.
fn misses(list: &str, item: &str, outcomes: impl Iterator<Item = Result<(), evaluate::FieldMiss>>) -> String {
    let texts: Vec<String> = outcomes
        .enumerate()
        .filter_map(|(number, outcome)| Some(format!("{list}[{number}].{item}: {}", outcome.err()?)))
        .collect();
    texts.join("; ")
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
            steps.push(fact(dst, format!("a VIP of service {}", service.key)));
            let dialled = Dialled { source, service: &service, port, pod: None };
            to_service(snapshot, &dialled, protocol, head, steps)
        }
        Outbound::Workload { workload, protocol, service, .. } => {
            steps.push(fact(dst, format!("workload {}/{}", workload.namespace, workload.name)));
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
            steps.push(fact(dst, "neither a service nor a workload of the mesh".to_owned()));
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
    steps.push(fact(
        format!("port {} of {service}", dialled.port),
        format!("protocol {protocol:?}").to_lowercase(),
    ));
    let head = head.filter(|_| protocol.is_routed_http());
    let Some(head) = head else {
        steps.push(fact("connection", "opaque: HTTP routes do not apply".to_owned()));
        return dialled.unrouted(snapshot).map_or_else(RouteVerdict::Refused, RouteVerdict::Connection);
    };
    let Some(table) = dialled.table(snapshot) else {
        steps.push(fact("routes", format!("no VirtualService with HTTP routes for {}", service.host)));
        return RouteVerdict::Request {
            rule: None,
            shares: vec![Share { destination: None, share: 1.0, target: dialled.unrouted(snapshot) }],
            timeout: None,
            retry: snapshot.mesh().default_retry.clone(),
        };
    };
    let matched = table.first_match(head, &dialled.caller(), &mut |rule, number, outcome| {
        let part = number.map_or_else(String::new, |number| format!(" match[{number}]"));
        steps.push(Step {
            subject: format!("VirtualService {} {}{part}", table.key, rule.name),
            outcome: if outcome.is_ok() { Outcome::Match } else { Outcome::NoMatch },
            reason: outcome.err().map_or_else(String::new, |miss| miss.to_string()),
        });
    });
    match matched {
        None => RouteVerdict::Refused(Refusal::NoRoute),
        Some(rule) => RouteVerdict::Request {
            rule: Some((table.key.clone(), rule.name.clone())),
            shares: shares(snapshot, dialled, rule),
            timeout: rule.timeout,
            retry: rule.retry.clone(),
        },
    }
}

fn shares(snapshot: &Snapshot, dialled: &Dialled<'_>, rule: &HttpRule) -> Vec<Share> {
    rule.shares()
        .map(|(number, share)| {
            let destination = &rule.destinations[number].destination;
            let target = dialled.target(snapshot, destination);
            Share { destination: Some(destination.clone()), share, target }
        })
        .collect()
}

fn fact(subject: impl fmt::Display, reason: String) -> Step {
    Step { subject: subject.to_string(), outcome: Outcome::Fact, reason }
}
