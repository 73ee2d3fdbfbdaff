//! Where the rules of a route send requests, and why they cannot.
//!
//! Invariant: a backend that cannot be used keeps its share, and the requests of that share get 500; nobody else gets them.

use mesh_model::{
    name::{Hostname, Namespace},
    route::{Destination, HeaderEdits, WeightedDestination},
    service::Service,
};

use crate::{
    compile::services::Services,
    diagnostic::{Code, Findings},
    object::http_route::{HttpBackendRef, is_service},
    read::http_route::{Backend, Rule},
};

/// Looks up the backends of one route at one parent.
pub(super) struct Backends<'a> {
    pub(super) services: &'a Services,
    /// The route's namespace.
    pub(super) route: &'a Namespace,
    /// The parent's namespace.
    pub(super) parent: &'a Namespace,
}

/// Why a backend cannot be used.
pub(super) struct Unresolved {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Backends<'_> {
    /// The service and its port. Of other namespaces, only the parent's: its caller dialled that one anyway; for the rest the owner
    /// would have to agree, and grants are not read.
    pub(super) fn resolve(&self, written: &HttpBackendRef) -> Result<(&Service, u16), Unresolved> {
        let refused = |reason, message| Err(Unresolved { reason, message });
        let group = Some(written.group.as_deref().unwrap_or_default());
        let kind = written.kind.as_deref().unwrap_or("Service");
        if !is_service(group, Some(kind)) {
            let message = format!("a backend can only be a Service, not {kind}");
            return refused("InvalidKind", message);
        }
        let namespace = self.namespace_of(written);
        let title = format!("Service {namespace}/{}", written.name);
        if namespace != *self.route && namespace != *self.parent {
            let message = format!("{title} is of another namespace, and ReferenceGrant is not implemented");
            return refused("RefNotPermitted", message);
        }
        let Some(service) = self.services.named(&namespace, &written.name) else {
            return refused("BackendNotFound", format!("{title} is not there, or not of the mesh"));
        };
        let port = written.port.and_then(|number| u16::try_from(number).ok());
        match port.filter(|port| service.port(*port).is_some()) {
            Some(port) => Ok((service, port)),
            None if written.port.is_none() => {
                refused("BackendNotFound", format!("{title}: a Service needs a port"))
            }
            None => refused("BackendNotFound", format!("{title} has no such port")),
        }
    }

    fn namespace_of(&self, written: &HttpBackendRef) -> Namespace {
        written.namespace.as_deref().map_or_else(|| self.route.clone(), Namespace::new)
    }

    /// Where a rule's requests go; never empty. `parent` and `port` stand for a rule that goes nowhere.
    pub(super) fn destinations(
        &self,
        rule: &Rule<'_>,
        parent: &Service,
        port: u16,
    ) -> Vec<WeightedDestination> {
        let used = rule.backends.iter().filter(|backend| backend.weight > 0);
        let destinations: Vec<WeightedDestination> =
            used.map(|backend| self.destination(backend, &parent.key.host)).collect();
        if !destinations.is_empty() {
            return destinations;
        }
        let message = match rule.backends.is_empty() {
            true => "the rule has no backend",
            false => "every weight is 0",
        };
        vec![WeightedDestination {
            destination: Destination { host: parent.key.host.clone(), subset: None, port: Some(port) },
            invalid: Some(message.to_owned()),
            weight: 1,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        }]
    }

    fn destination(&self, backend: &Backend<'_>, parent: &Hostname) -> WeightedDestination {
        let (destination, invalid) = match self.resolve(backend.written) {
            Ok((service, port)) => {
                (Destination { host: service.key.host.clone(), subset: None, port: Some(port) }, None)
            }
            Err(problem) => {
                // The name is for people alone: nothing is dialled.
                let domain = parent.as_str().split_once(".svc.").map_or("", |(_, domain)| domain);
                let namespace = self.namespace_of(backend.written);
                let host = format!("{}.{namespace}.svc.{domain}", backend.written.name);
                let host = Hostname::new(&host);
                (Destination { host, subset: None, port: None }, Some(problem.message))
            }
        };
        WeightedDestination {
            destination,
            invalid,
            weight: backend.weight,
            request_headers: backend.request_headers.clone(),
            response_headers: backend.response_headers.clone(),
        }
    }

    /// Says which backends of rules in force cannot be used.
    pub(super) fn name_problems(&self, rules: &[Rule<'_>], findings: &mut Findings<'_>) {
        for backend in rules.iter().flat_map(|rule| &rule.backends) {
            if let Err(problem) = self.resolve(backend.written) {
                let message = format!("{}: requests of its share get 500", problem.message);
                findings.add(Code::ReferenceNotFound, &*backend.field, message);
            }
        }
    }
}
