//! AuthorizationPolicy: data and the one place where it is evaluated.
//!
//! Bias: closed. A policy that a workload names and that is not here denies; an attribute that cannot be known (L7 on an opaque
//! connection) never makes an ALLOW match and never keeps a DENY from matching.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    identity::Identity,
    name::ObjectKey,
    request::RequestHead,
    snapshot::Snapshot,
    text::Glob,
    workload::Workload,
};

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
#[derive(Clone, Debug)]
pub struct Permit {
    workload: Arc<Workload>,
    by: Option<ObjectKey>,
}

impl Permit {
    /// The workload that may be called.
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// The ALLOW policy that matched; None: no ALLOW policy selects the workload.
    pub fn by(&self) -> Option<&ObjectKey> {
        self.by.as_ref()
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
}

impl Denied {
    /// Envoy's response detail: `rbac_access_denied_matched_policy[ns[N]-policy[P]-rule[i]]` or `[none]`.
    pub fn detail(&self) -> String {
        match self {
            Self::Policy { policy, rule } => format!(
                "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
                policy.namespace, policy.name
            ),
            Self::PlaintextToStrict { .. } => "rbac_access_denied_matched_policy[istio_converted_static_strict]".to_owned(),
            Self::NoAllow { .. } | Self::MissingPolicy { .. } => "rbac_access_denied_matched_policy[none]".to_owned(),
        }
    }
}

/// Decides whether `peer` may call `workload`, with what is known: `head` is None on an opaque connection (or before the first
/// request).
///
/// Order (Istio's): STRICT, then any DENY match, then ALLOW.
pub fn authorize(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
    head: Option<&RequestHead<'_>>,
) -> Result<Permit, Denied> {
    let _ = (snapshot, workload, peer, head);
    unimplemented!("skeleton")
}

/// Whether any policy of the workload looks at HTTP attributes: then its unknown ports must be sniffed even at the destination.
pub fn needs_http(snapshot: &Snapshot, workload: &Workload) -> bool {
    let _ = (snapshot, workload);
    unimplemented!("skeleton")
}

