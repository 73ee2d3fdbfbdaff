//! The ports of a service that take a route.

use mesh_model::{
    name::Namespace,
    service::{Protocol, Service, ServicePort},
};

use crate::{
    compile::services::Services,
    diagnostic::{Code, Findings},
    object::http_route::{ParentReference, is_service},
};

/// Why a parent does not take a route.
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Whether the mesh answers for this parent; gateways are somebody else's.
pub(super) fn is_ours(parent: &ParentReference) -> bool {
    is_service(parent.group.as_deref(), parent.kind.as_deref())
}

/// The ports that the route holds for; never empty.
pub(super) fn ports<'a>(
    services: &'a Services,
    owner: &Namespace,
    parent: &ParentReference,
    field: &str,
    findings: &mut Findings<'_>,
) -> Result<(&'a Service, Vec<&'a ServicePort>), Refused> {
    let refused = |reason, message| Err(Refused { reason, message });
    let title = format!("Service {owner}/{}", parent.name);
    let Some(service) = services.named(owner, &parent.name) else {
        return refused("NoMatchingParent", format!("{title} is not there, or not of the mesh"));
    };
    if service.vips.is_empty() {
        let message = format!("{title} is headless: requests to it cannot be told from requests to its pods");
        return refused("UnsupportedValue", message);
    }
    let is_named = |port: &&ServicePort| {
        parent.port.is_none_or(|number| i64::from(port.port) == number)
            && parent.section_name.as_ref().is_none_or(|name| *name == port.name)
    };
    let named: Vec<&ServicePort> = service.ports.iter().filter(is_named).collect();
    if named.is_empty() {
        return refused("NoMatchingParent", format!("{title} has no such port"));
    }
    let (routed, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|port| port.protocol.is_routed_http());
    if routed.is_empty() {
        let protocols = others.iter().map(|port| format!("{} ({:?})", port.port, port.protocol));
        let protocols = protocols.collect::<Vec<_>>().join(", ").to_lowercase();
        let message = format!("{title}: no port that is routed as HTTP, only {protocols}");
        return refused("UnsupportedValue", message);
    }
    for port in others.iter().filter(|port| matches!(port.protocol, Protocol::Http2 | Protocol::Grpc)) {
        let message = format!("requests of HTTP/2 are not routed yet: port {} is left out", port.port);
        findings.add(Code::NotImplemented, field, message);
    }
    Ok((service, routed))
}
