//! Hosts as written -> full names; which service has a name.

use std::collections::BTreeMap;

use mesh_model::{
    name::{Hostname, Namespace},
    service::Service,
};

use super::services::Services;
use crate::{
    diagnostic::{Code, Findings},
    index::Index,
    options::Options,
};

/// `name.namespace.svc.cluster.local`.
pub(super) fn full_name(options: &Options, name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc.{}", options.cluster_domain)
}

/// Resolves hosts.
pub(super) struct Hosts<'a> {
    options: &'a Options,
    services: BTreeMap<&'a Hostname, &'a Service>,
}

impl<'a> Hosts<'a> {
    pub(super) fn new(index: &'a Index, services: &'a Services) -> Self {
        let by_host = services.services.iter().map(|service| (&service.key.host, service));
        Self { options: index.options(), services: by_host.collect() }
    }

    /// The service of this full name.
    pub(super) fn service(&self, host: &Hostname) -> Option<&'a Service> {
        self.services.get(host).copied()
    }

    /// Every service that a host, perhaps a wildcard, stands for.
    pub(super) fn matching(&self, host: &Hostname) -> Vec<&'a Service> {
        match host.as_str().strip_prefix('*') {
            None => self.service(host).into_iter().collect(),
            Some(tail) => {
                let all = self.services.values().copied();
                all.filter(|service| service.key.host.as_str().ends_with(tail)).collect()
            }
        }
    }

    /// The full name of a host in an object of `namespace`: a name without dots is completed. Istio takes every other name as it is;
    /// here `name.namespace` and `name.namespace.svc` are completed too if that makes them a service's, and it is said.
    pub(super) fn resolve(
        &self,
        written: &str,
        namespace: &Namespace,
        field: &str,
        findings: &mut Findings<'_>,
    ) -> Hostname {
        let lower = written.to_ascii_lowercase();
        if !lower.contains('.') && !lower.contains('*') {
            return Hostname::new(&full_name(self.options, &lower, namespace.as_str()));
        }
        let as_is = Hostname::new(&lower);
        if self.services.contains_key(&as_is) {
            return as_is;
        }
        let name = lower.strip_suffix(".svc").unwrap_or(&lower);
        let completed = Hostname::new(&format!("{name}.svc.{}", self.options.cluster_domain));
        if !self.services.contains_key(&completed) {
            return as_is;
        }
        let message =
            format!("{written:?} is read as {completed}; Istio would not complete it: write the full name");
        findings.add(Code::PartialHost, field, message);
        completed
    }
}
