//! AuthorizationPolicy: data and the one place where it is evaluated.
//!
//! Bias: closed. A policy that a workload names and that is not here denies; an attribute that cannot be known (L7 on an opaque
//! connection) never makes an ALLOW match and never keeps a DENY from matching.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    identity::Identity,
    name::{ObjectKey, WorkloadUid},
    request::RequestHead,
    snapshot::Snapshot,
    text::Glob,
    workload::Workload,
};

pub(crate) mod evaluate;
#[cfg(test)]
pub(crate) mod tests;

use evaluate::{HttpFacts, RuleMiss, Seen, evaluate};

/// A policy as compiled; which workloads it selects is written on the workloads.
#[derive(Clone, PartialEq, Debug)]
pub struct AuthzPolicy {
    /// The AuthorizationPolicy.
    pub key: ObjectKey,
    /// What a match means.
    pub action: Action,
    /// OR of these. ALLOW without rules never matches, so it denies all.
    pub rules: Vec<Rule>,
}

/// What a match means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Once one selects the workload, everything that no ALLOW matches is denied.
    Allow,
    /// Wins over every ALLOW.
    Deny,
}

/// from(OR) and to(OR). An empty list is no condition.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rule {
    /// Who calls.
    pub from: Vec<Source>,
    /// What is called.
    pub to: Vec<Operation>,
    /// The rule has a part this version does not know (`when`, `requestPrincipals`…): in an ALLOW it never matches, in a DENY that
    /// part is ignored, so it matches more.
    pub unsupported: bool,
}

/// AND of the fields that are set; values in a field are OR; `not_` is negative.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Source {
    /// `td/ns/N/sa/S`.
    pub principals: Vec<Glob>,
    /// Negative.
    pub not_principals: Vec<Glob>,
    /// The peer identity's namespace.
    pub namespaces: Vec<Glob>,
    /// Negative.
    pub not_namespaces: Vec<Glob>,
    /// The TCP peer's (real client's) address.
    pub ip_blocks: Vec<IpNet>,
    /// Negative.
    pub not_ip_blocks: Vec<IpNet>,
}

/// AND of the fields that are set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Operation {
    /// `Host`, case-insensitive, with and without the port.
    pub hosts: Vec<Glob>,
    /// Negative.
    pub not_hosts: Vec<Glob>,
    /// Ports of the pod.
    pub ports: Vec<u16>,
    /// Negative.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Glob>,
    /// Negative.
    pub not_methods: Vec<Glob>,
    /// Paths, normalised, without the query.
    pub paths: Vec<Glob>,
    /// Negative.
    pub not_paths: Vec<Glob>,
}

/// What is known of a connection when it asks to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Proven by a certificate, or by a vouch on the same node. None: plaintext.
    pub identity: Option<Identity>,
    /// The real client's address.
    pub ip: IpAddr,
    /// The port of the pod.
    pub port: u16,
}

/// Proof that [`authorize`] said yes. `relay` and the HTTP path demand one; nothing else makes one.
///
/// It remembers what was asked, so that a live connection or request can ask again when the policies change.
#[derive(Clone, Debug)]
pub struct Permit {
    workload: Arc<Workload>,
    peer: Peer,
    request: Option<RequestMemory>,
    by: Option<ObjectKey>,
}

/// What policies look at in a request, kept for a re-check.
#[derive(Clone, Debug)]
struct RequestMemory {
    method: Box<str>,
    authority: Box<str>,
    path: Box<str>,
}

impl RequestMemory {
    fn facts(&self) -> HttpFacts<'_> {
        HttpFacts { method: &self.method, authority: &self.authority, path: &self.path }
    }
}

impl From<HttpFacts<'_>> for RequestMemory {
    fn from(facts: HttpFacts<'_>) -> Self {
        Self { method: facts.method.into(), authority: facts.authority.into(), path: facts.path.into() }
    }
}

impl Permit {
    /// The workload that may be called.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// Who may call it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The ALLOW policy that matched; None: no ALLOW policy selects the workload.
    pub fn by(&self) -> Option<&ObjectKey> {
        self.by.as_ref()
    }

    /// Asks the same question of another snapshot: same workload (by UID), same peer, same request. A workload that is not there
    /// any more is [`Denied::WorkloadGone`].
    pub fn still_allowed(&self, snapshot: &Snapshot) -> Result<Self, Denied> {
        let workload = current(snapshot, &self.workload)?;
        let seen = self.request.as_ref().map_or(Seen::Opaque, |request| Seen::Request(request.facts()));
        decide_observed(snapshot, workload, &self.peer, seen, &mut |_, _, _| ())
    }
}

/// Proof that [`authorize_connection`] let an HTTP connection in. It is no [`Permit`]: each request still needs its own.
#[derive(Clone, Debug)]
pub struct Admission {
    workload: Arc<Workload>,
    peer: Peer,
}

impl Admission {
    /// The workload that is called.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// Who calls.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Asks the same question of another snapshot. A workload that is not there any more is [`Denied::WorkloadGone`].
    pub fn still_allowed(&self, snapshot: &Snapshot) -> Result<Self, Denied> {
        authorize_connection(snapshot, current(snapshot, &self.workload)?, &self.peer)
    }
}

/// A denial: a value that reaches the log, the metric and `explain` unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// A DENY policy's rule matched.
    #[error("denied by policy {policy}, rule {rule}")]
    Policy {
        /// Which one.
        policy: ObjectKey,
        /// Its rule, from 0.
        rule: usize,
    },
    /// There are ALLOW policies and none matched.
    #[error("no ALLOW policy matches ({} select this workload)", policies.len())]
    NoAllow {
        /// Those that select the workload.
        policies: Vec<ObjectKey>,
    },
    /// The port is STRICT and the peer has no identity.
    #[error("plaintext to a STRICT port ({from})")]
    PlaintextToStrict {
        /// The PeerAuthentication that says so.
        from: String,
    },
    /// The workload names a policy that has not arrived.
    #[error("policy {policy} is referred to but not received yet")]
    MissingPolicy {
        /// Which one.
        policy: ObjectKey,
    },
    /// The workload is not known any more.
    #[error("workload {uid} is gone")]
    WorkloadGone {
        /// Which one.
        uid: WorkloadUid,
    },
}

impl Denied {
    /// Envoy's response detail: `rbac_access_denied_matched_policy[ns[N]-policy[P]-rule[i]]` or `[none]`.
    pub fn detail(&self) -> String {
        match self {
            Self::Policy { policy, rule } => format!(
                "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
                policy.namespace, policy.name
            ),
            Self::PlaintextToStrict { .. } => {
                "rbac_access_denied_matched_policy[istio_converted_static_strict]".to_owned()
            }
            Self::NoAllow { .. } | Self::MissingPolicy { .. } | Self::WorkloadGone { .. } => {
                "rbac_access_denied_matched_policy[none]".to_owned()
            }
        }
    }
}

/// Decides whether `peer` may call `workload`: one request, or (`head` None) an opaque connection for its whole life.
///
/// Order: a policy that has not arrived, STRICT without identity, any DENY match, no ALLOW policy (permit), any ALLOW match.
/// On an opaque connection an ALLOW rule with any HTTP attribute (negative ones too) never matches, and a DENY rule ignores its HTTP
/// attributes, so it matches more. A port that speaks HTTP must not be decided with `head` None: see [`authorize_connection`].
pub fn authorize(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
    head: Option<&RequestHead<'_>>,
) -> Result<Permit, Denied> {
    let seen = head.map_or(Seen::Opaque, |head| Seen::Request(head.into()));
    decide_observed(snapshot, workload, peer, seen, &mut |_, _, _| ())
}

/// Decides whether an HTTP connection may stay open before a request has come, and again when policies change.
///
/// It says no to whom no request could ever be granted: a policy is missing, plaintext to STRICT, a DENY rule without HTTP
/// attributes matches, or no ALLOW rule could match whatever the request. A caller that may still answer (the connection is new and
/// not refused for [`Denied::PlaintextToStrict`]) owes an HTTP client a 403 to its first request rather than a closed connection.
pub fn authorize_connection(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
) -> Result<Admission, Denied> {
    evaluate(snapshot, workload, peer, Seen::HttpConnection, &mut |_, _, _| ())?;
    Ok(Admission { workload: Arc::clone(workload), peer: peer.clone() })
}

/// Whether any policy of the workload looks at HTTP attributes: then its unknown ports must be sniffed even at the destination.
pub fn needs_http(snapshot: &Snapshot, workload: &Workload) -> bool {
    let mut rules =
        workload.policies.iter().filter_map(|key| snapshot.policy(key)).flat_map(|policy| &policy.rules);
    rules.any(|rule| rule.to.iter().any(Operation::needs_http))
}

/// The only place that makes a permit.
pub(crate) fn decide_observed(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
    seen: Seen<'_>,
    observe: &mut impl FnMut(&AuthzPolicy, usize, Result<(), RuleMiss>),
) -> Result<Permit, Denied> {
    let by = evaluate(snapshot, workload, peer, seen, observe)?;
    let request = match seen {
        Seen::Request(facts) => Some(facts.into()),
        Seen::Opaque | Seen::HttpConnection => None,
    };
    Ok(Permit { workload: Arc::clone(workload), peer: peer.clone(), request, by })
}

fn current<'a>(snapshot: &'a Snapshot, workload: &Workload) -> Result<&'a Arc<Workload>, Denied> {
    snapshot.workload(&workload.uid).ok_or_else(|| Denied::WorkloadGone { uid: workload.uid.clone() })
}
