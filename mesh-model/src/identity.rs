//! SPIFFE identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Invariant: an `Identity` always has all three parts; a peer whose certificate says anything else has none.

use std::{fmt, sync::Arc};

use crate::name::{Namespace, ServiceAccount};

#[cfg(test)]
mod tests;

/// A SPIFFE trust domain, `cluster.local` by default.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Wraps the text as it is.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self::new("cluster.local")
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a workload is, whatever its address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The trust domain whose root signed for it.
    pub trust_domain: TrustDomain,
    /// The namespace.
    pub namespace: Namespace,
    /// The service account in that namespace.
    pub service_account: ServiceAccount,
}

/// Why a text is not an identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct NotAnIdentity {
    /// What was read.
    pub text: String,
}

impl Identity {
    /// Reads `spiffe://td/ns/N/sa/S`. Each part must be non-empty and there must be no other part.
    pub fn parse(uri: &str) -> Result<Self, NotAnIdentity> {
        let fail = || NotAnIdentity { text: uri.to_owned() };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(fail)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [domain, "ns", namespace, "sa", account]
                if ![domain, namespace, account].iter().any(|part| part.is_empty()) =>
            {
                Ok(Self {
                    trust_domain: TrustDomain::new(*domain),
                    namespace: Namespace::new(*namespace),
                    service_account: ServiceAccount::new(*account),
                })
            }
            _ => Err(fail()),
        }
    }

    /// The form that AuthorizationPolicy calls a principal: the URI without `spiffe://`.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
