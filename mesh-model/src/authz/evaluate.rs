//! The evaluation of policies: rules against facts, and the loop over policies.
//!
//! Invariant: there is one implementation. It tells an observer each rule it tries; the data path passes one that does nothing,
//! [`crate::explain`] one that writes down.

use std::{fmt, net::IpAddr, sync::Arc};

use super::{Action, AuthzPolicy, Denied, Operation, Peer, Rule, Source};
use crate::{
    mtls::MtlsMode,
    name::{Namespace, ObjectKey},
    request::RequestHead,
    snapshot::Snapshot,
    text::Glob,
    workload::Workload,
};

/// What can be seen of the thing that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'a> {
    /// Opaque bytes: HTTP attributes will never be known.
    Opaque,
    /// An HTTP connection before its first request: HTTP attributes will be known later.
    HttpConnection,
    /// One request.
    Request(HttpFacts<'a>),
}

/// What policies look at in a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpFacts<'a> {
    pub(crate) method: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
}

impl<'a> From<&RequestHead<'a>> for HttpFacts<'a> {
    fn from(head: &RequestHead<'a>) -> Self {
        Self { method: head.method, authority: head.authority, path: head.path }
    }
}

/// Why a rule does not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RuleMiss {
    /// It has a part that this version does not know, and it is an ALLOW.
    Unsupported,
    /// No `from` matches.
    From,
    /// No `to` matches.
    To,
}

/// The first field of a source or an operation that does not match, as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FieldMiss {
    /// This field's value is another one.
    Field(&'static str),
    /// An ALLOW asks for HTTP attributes of an opaque connection.
    NeverHttp,
    /// A DENY asks for HTTP attributes of a request that has not come yet.
    NotYetHttp,
}

impl fmt::Display for FieldMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, "{name} does not match"),
            Self::NeverHttp => f.write_str("it needs HTTP attributes, and the connection is opaque"),
            Self::NotYetHttp => f.write_str("it needs HTTP attributes: decided at each request"),
        }
    }
}

/// Who calls, in the forms that policies compare.
pub(crate) struct PeerFacts<'a> {
    principal: Option<String>,
    namespace: Option<&'a Namespace>,
    ip: IpAddr,
    port: u16,
}

impl<'a> From<&'a Peer> for PeerFacts<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self {
            principal: peer.identity.as_ref().map(|identity| identity.principal()),
            namespace: peer.identity.as_ref().map(|identity| &identity.namespace),
            ip: peer.ip.to_canonical(),
            port: peer.port,
        }
    }
}

/// Runs Istio's order over everything that selects the workload: missing policies, STRICT, DENY, ALLOW. `Ok` names the ALLOW
/// policy that matched, if there are any.
pub(crate) fn evaluate(
    snapshot: &Snapshot,
    workload: &Workload,
    peer: &Peer,
    seen: Seen<'_>,
    observe: &mut impl FnMut(&AuthzPolicy, usize, Result<(), RuleMiss>),
) -> Result<Option<ObjectKey>, Denied> {
    let policies = workload
        .policies
        .iter()
        .map(|key| snapshot.policy(key).ok_or_else(|| Denied::MissingPolicy { policy: key.clone() }))
        .collect::<Result<Vec<&Arc<AuthzPolicy>>, Denied>>()?;
    if workload.mtls.of(peer.port) == MtlsMode::Strict && peer.identity.is_none() {
        return Err(Denied::PlaintextToStrict { from: workload.mtls.from.clone() });
    }
    if policies.is_empty() {
        return Ok(None);
    }
    let facts = PeerFacts::from(peer);
    let mut first_match = |policy: &AuthzPolicy| {
        (0..).zip(&policy.rules).find_map(|(number, rule)| {
            let outcome = rule.check(policy.action, &facts, seen);
            observe(policy, number, outcome);
            outcome.is_ok().then_some(number)
        })
    };
    let of = |action: Action| policies.iter().filter(move |policy| policy.action == action);
    for policy in of(Action::Deny) {
        if let Some(rule) = first_match(policy) {
            return Err(Denied::Policy { policy: policy.key.clone(), rule });
        }
    }
    if of(Action::Allow).next().is_none() {
        return Ok(None);
    }
    for policy in of(Action::Allow) {
        if first_match(policy).is_some() {
            return Ok(Some(policy.key.clone()));
        }
    }
    Err(Denied::NoAllow { policies: of(Action::Allow).map(|policy| policy.key.clone()).collect() })
}

impl Rule {
    fn check(&self, action: Action, peer: &PeerFacts<'_>, seen: Seen<'_>) -> Result<(), RuleMiss> {
        if self.unsupported && action == Action::Allow {
            return Err(RuleMiss::Unsupported);
        }
        if !self.from.is_empty() && !self.from.iter().any(|source| source.check(peer).is_ok()) {
            return Err(RuleMiss::From);
        }
        if !self.to.is_empty() && !self.to.iter().any(|operation| operation.check(action, peer, seen).is_ok())
        {
            return Err(RuleMiss::To);
        }
        Ok(())
    }
}

impl Source {
    /// A peer without an identity matches no positive field about identity, and every negative one (Envoy's `not_id`).
    pub(crate) fn check(&self, peer: &PeerFacts<'_>) -> Result<(), FieldMiss> {
        let principal = |globs: &[Glob]| peer.principal.as_deref().is_some_and(|value| any(globs, value));
        let namespace = |globs: &[Glob]| peer.namespace.is_some_and(|value| any(globs, value.as_str()));
        positive("principals", &self.principals, principal)?;
        negative("notPrincipals", &self.not_principals, principal)?;
        positive("namespaces", &self.namespaces, namespace)?;
        negative("notNamespaces", &self.not_namespaces, namespace)?;
        positive("ipBlocks", &self.ip_blocks, |nets| nets.iter().any(|net| net.contains(&peer.ip)))?;
        negative("notIpBlocks", &self.not_ip_blocks, |nets| nets.iter().any(|net| net.contains(&peer.ip)))
    }
}

impl Operation {
    /// Whether it looks at anything but ports; negative fields count.
    pub(super) fn needs_http(&self) -> bool {
        [&self.hosts, &self.not_hosts, &self.methods, &self.not_methods, &self.paths, &self.not_paths]
            .into_iter()
            .any(|globs| !globs.is_empty())
    }

    pub(crate) fn check(
        &self,
        action: Action,
        peer: &PeerFacts<'_>,
        seen: Seen<'_>,
    ) -> Result<(), FieldMiss> {
        positive("ports", &self.ports, |ports| ports.contains(&peer.port))?;
        negative("notPorts", &self.not_ports, |ports| ports.contains(&peer.port))?;
        if !self.needs_http() {
            return Ok(());
        }
        match (seen, action) {
            (Seen::Request(request), _) => self.check_request(request),
            // It never fits what cannot be known…
            (Seen::Opaque, Action::Allow) => Err(FieldMiss::NeverHttp),
            // …and what cannot be known does not save from a DENY.
            (Seen::Opaque, Action::Deny) => Ok(()),
            // A later request could match.
            (Seen::HttpConnection, Action::Allow) => Ok(()),
            (Seen::HttpConnection, Action::Deny) => Err(FieldMiss::NotYetHttp),
        }
    }

    fn check_request(&self, request: HttpFacts<'_>) -> Result<(), FieldMiss> {
        let host = |globs: &[Glob]| {
            let bare = without_port(request.authority);
            globs
                .iter()
                .any(|glob| glob.matches_ignoring_case(request.authority) || glob.matches_ignoring_case(bare))
        };
        positive("hosts", &self.hosts, host)?;
        negative("notHosts", &self.not_hosts, host)?;
        positive("methods", &self.methods, |globs| any(globs, request.method))?;
        negative("notMethods", &self.not_methods, |globs| any(globs, request.method))?;
        positive("paths", &self.paths, |globs| any(globs, request.path))?;
        negative("notPaths", &self.not_paths, |globs| any(globs, request.path))
    }
}

fn any(globs: &[Glob], value: &str) -> bool {
    globs.iter().any(|glob| glob.matches(value))
}

/// A field that is not set is no condition.
fn positive<T>(
    name: &'static str,
    wanted: &[T],
    matches: impl FnOnce(&[T]) -> bool,
) -> Result<(), FieldMiss> {
    if wanted.is_empty() || matches(wanted) { Ok(()) } else { Err(FieldMiss::Field(name)) }
}

fn negative<T>(
    name: &'static str,
    unwanted: &[T],
    matches: impl FnOnce(&[T]) -> bool,
) -> Result<(), FieldMiss> {
    if unwanted.is_empty() || !matches(unwanted) { Ok(()) } else { Err(FieldMiss::Field(name)) }
}

/// `shop:8080` and `[::1]:8080` without the port; anything else as it is.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}
