//! How people name a workload or an account on the command line: `pod/NAME.NAMESPACE`, `sa/NAME.NAMESPACE`, `plaintext`.

use std::{net::IpAddr, sync::Arc};

use mesh_model::{
    identity::Identity,
    name::{Namespace, ServiceAccount},
    snapshot::Snapshot,
    workload::Workload,
};

use crate::exit::Failure;

/// A caller, as far as it was named.
pub struct Caller {
    /// None: plaintext.
    pub identity: Option<Identity>,
    /// The address of its pod, if a pod was named.
    pub ip: Option<IpAddr>,
}

/// Finds `pod/NAME.NAMESPACE` (or its UID) in the snapshot.
pub fn pod(snapshot: &Snapshot, text: &str) -> Result<Arc<Workload>, Failure> {
    let named = text.strip_prefix("pod/").unwrap_or(text);
    let (name, namespace) = split(named)?;
    let matches =
        |workload: &&Arc<Workload>| &*workload.name == name && workload.namespace.as_str() == namespace;
    snapshot.workloads().find(matches).cloned().ok_or_else(|| {
        Failure::bad_input(format!("no pod {name:?} in namespace {namespace:?}"))
            .hint("see `meshctl config workloads -o name`")
    })
}

/// Reads `sa/NAME.NAMESPACE`, `pod/NAME.NAMESPACE` or `plaintext`.
pub fn caller(snapshot: &Snapshot, text: &str) -> Result<Caller, Failure> {
    if text == "plaintext" {
        return Ok(Caller { identity: None, ip: None });
    }
    let Some(account) = text.strip_prefix("sa/") else {
        let workload = pod(snapshot, text)?;
        return Ok(Caller { identity: Some(workload.identity.clone()), ip: workload.ips.first().copied() });
    };
    let (name, namespace) = split(account)?;
    let identity = Identity {
        trust_domain: snapshot.mesh().trust_domain.clone(),
        namespace: Namespace::new(namespace),
        service_account: ServiceAccount::new(name),
    };
    Ok(Caller { identity: Some(identity), ip: None })
}

/// `NAME.NAMESPACE`: a namespace has no dot, a name may.
fn split(text: &str) -> Result<(&str, &str), Failure> {
    text.rsplit_once('.').filter(|(name, namespace)| !name.is_empty() && !namespace.is_empty()).ok_or_else(
        || {
            Failure::bad_input(format!("{text:?} is not NAME.NAMESPACE"))
                .hint("for example pod/reviews-v1.shop")
        },
    )
}

/// Reads `name: value` headers.
pub fn headers(texts: &[String]) -> Result<http::HeaderMap, Failure> {
    let mut map = http::HeaderMap::new();
    for text in texts {
        let bad = || Failure::bad_input(format!("{text:?} is not a header such as 'end-user: jason'"));
        let (name, value) = text.split_once(':').ok_or_else(bad)?;
        let name = http::HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        let value = http::HeaderValue::try_from(value.trim()).map_err(|_| bad())?;
        map.append(name, value);
    }
    Ok(map)
}
