//! VirtualServices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    mesh::MeshSettings,
    name::{Hostname, Namespace, ObjectKey},
    route::{Destination, HttpMatch, HttpRule, RouteSource, RouteTable},
    traffic::DestinationPolicy,
};

use super::hosts::Hosts;
use crate::{
    diagnostic::{Code, Diagnostic, Findings},
    index::{Fact, Index},
    object::{Object, VirtualService},
    read::{routes, value},
};

/// Compiles all VirtualServices that are for the mesh. `preferred` are the tables that come before them.
pub(super) fn compile(
    index: &Index,
    mesh: &MeshSettings,
    hosts: &Hosts<'_>,
    destinations: &[DestinationPolicy],
    preferred: &[RouteTable],
    list: &mut Vec<Diagnostic>,
) -> Vec<RouteTable> {
    let written = index.facts(|object| match object {
        Object::VirtualService(routes) if routes::is_for_mesh(&routes.spec.gateways) => Some(&**routes),
        _ => None,
    });
    let facts: Vec<Fact<'_, VirtualService>> = written.collect();
    let context = Context { mesh, hosts, destinations };
    let tables: Vec<RouteTable> = facts.iter().map(|fact| context.table(fact, list)).collect();
    name_duplicate_hosts(&facts, &tables, list);
    name_shadowed(&facts, &tables, hosts, preferred, list);
    tables
}

struct Context<'a> {
    mesh: &'a MeshSettings,
    hosts: &'a Hosts<'a>,
    destinations: &'a [DestinationPolicy],
}

impl Context<'_> {
    fn table(&self, fact: &Fact<'_, VirtualService>, list: &mut Vec<Diagnostic>) -> RouteTable {
        let spec = &fact.object.spec;
        let namespace = Namespace::new(fact.reference.namespace.clone());
        let mut said_before = Vec::new();
        let mut rules = routes::read(spec, &self.mesh.default_retry, &mut fact.findings(&mut said_before));
        let export_to = value::export_to(&spec.export_to, &namespace, &mut fact.findings(&mut said_before));
        let mut findings = fact.findings(list);
        let own_hosts = self.own_hosts(&spec.hosts, &namespace, &mut findings);
        drop_unreachable(&mut rules, &mut findings);
        for (place, rule) in &mut rules {
            for (number, weighted) in rule.destinations.iter_mut().enumerate() {
                let field = format!("spec.http[{place}].route[{number}].destination");
                self.settle(&mut weighted.destination, &namespace, &field, &mut findings);
            }
        }
        RouteTable {
            key: ObjectKey::new(namespace, fact.reference.name.clone()),
            source: RouteSource::VirtualService,
            hosts: own_hosts,
            export_to,
            created: fact
                .object
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.to_string())
                .unwrap_or_default(),
            rules: rules.into_iter().map(|(_, rule)| Arc::new(rule)).collect(),
        }
    }

    fn own_hosts(
        &self,
        written: &[String],
        namespace: &Namespace,
        findings: &mut Findings<'_>,
    ) -> Vec<Hostname> {
        let mut hosts = Vec::new();
        for (number, text) in written.iter().enumerate() {
            let field = format!("spec.hosts[{number}]");
            let host = self.hosts.resolve(text, namespace, &field, findings);
            let services = self.hosts.matching(&host);
            if services.is_empty() {
                let message = format!("no service has the host {host}: its routes have no effect");
                findings.add(Code::RouteWithoutService, &*field, message);
            }
            if !host.as_str().starts_with('*')
                && let Some(service) = services.iter().find(|service| service.key.namespace != *namespace)
            {
                let message = format!(
                    "{host} is of namespace {}: these routes steer traffic to another namespace's service",
                    service.key.namespace
                );
                findings.add(Code::ForeignHost, &*field, message);
            }
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// Completes the host, and says what is not there: the requests of that share will get 503.
    fn settle(&self, to: &mut Destination, namespace: &Namespace, field: &str, findings: &mut Findings<'_>) {
        to.host = self.hosts.resolve(to.host.as_str(), namespace, &format!("{field}.host"), findings);
        let Some(service) = self.hosts.service(&to.host) else {
            let message = format!("no service has the host {}: requests routed there get 503", to.host);
            findings.add(Code::ReferenceNotFound, format!("{field}.host"), message);
            return;
        };
        if let Some(port) = to.port.filter(|port| service.port(*port).is_none()) {
            let message = format!("{} has no port {port}: requests routed there get 503", to.host);
            findings.add(Code::ReferenceNotFound, format!("{field}.port.number"), message);
        }
        let Some(subset) = &to.subset else { return };
        let has_subset = |rule: &&DestinationPolicy| {
            let holds = match rule.host.as_str().strip_prefix('*') {
                None => rule.host == to.host,
                Some(tail) => to.host.as_str().ends_with(tail),
            };
            holds && rule.subsets.contains_key(subset)
        };
        if !self.destinations.iter().any(|rule| has_subset(&rule)) {
            let message = format!(
                "no DestinationRule for {} defines subset {subset}: requests routed there get 503",
                to.host
            );
            findings.add(Code::ReferenceNotFound, format!("{field}.subset"), message);
        }
    }
}

fn is_catch_all(one: &HttpMatch) -> bool {
    *one == HttpMatch { name: one.name.clone(), ..HttpMatch::default() }
}

/// Takes out what can never be reached, after a rule that catches everything, and names matches that an earlier rule has.
fn drop_unreachable(rules: &mut Vec<(usize, HttpRule)>, findings: &mut Findings<'_>) {
    let catches = |rule: &HttpRule| rule.matches.is_empty() || rule.matches.iter().any(is_catch_all);
    if let Some(last) = rules.iter().position(|(_, rule)| catches(rule)) {
        let catcher = rules.get(last).map(|(_, rule)| rule.name.clone()).unwrap_or_default();
        for (place, _) in rules.drain(last + 1..) {
            let message = format!("never used: {catcher} before it matches everything");
            findings.add(Code::UnreachableRule, format!("spec.http[{place}]"), message);
        }
    }
    let mut seen: Vec<HttpMatch> = Vec::new();
    for (place, rule) in rules.iter() {
        for one in &rule.matches {
            let nameless = HttpMatch { name: String::new(), ..one.clone() };
            if seen.contains(&nameless) {
                let message = "a match is never used: an earlier one is the same";
                findings.add(Code::IneffectiveMatch, format!("spec.http[{place}].match"), message);
            } else {
                seen.push(nameless);
            }
        }
    }
}

/// Two objects for one host, both seen by some namespace: the data path uses one of them.
fn name_duplicate_hosts(
    facts: &[Fact<'_, VirtualService>],
    tables: &[RouteTable],
    list: &mut Vec<Diagnostic>,
) {
    let mut by_host: BTreeMap<(&Hostname, &Namespace), Vec<usize>> = BTreeMap::new();
    for (number, table) in tables.iter().enumerate() {
        for host in &table.hosts {
            by_host.entry((host, &table.key.namespace)).or_default().push(number);
        }
    }
    for ((host, _), mut numbers) in by_host {
        numbers.sort_by_key(|number| tables.get(*number).map(|table| (&table.created, &table.key)));
        let Some((first, rest)) = numbers.split_first() else { continue };
        let Some(winner) = tables.get(*first) else { continue };
        for fact in rest.iter().filter_map(|number| facts.get(*number)) {
            let message = format!(
                "{} defines the host {host} too and is older: this object's routes are not used",
                winner.key
            );
            fact.findings(list).add(Code::DuplicateHost, "spec.hosts", message);
        }
    }
}

/// HTTPRoutes for a port of a host: the data path uses them there, whatever VirtualServices say.
fn name_shadowed(
    facts: &[Fact<'_, VirtualService>],
    tables: &[RouteTable],
    hosts: &Hosts<'_>,
    preferred: &[RouteTable],
    list: &mut Vec<Diagnostic>,
) {
    for (fact, table) in facts.iter().zip(tables).filter(|(_, table)| !table.rules.is_empty()) {
        for (number, host) in table.hosts.iter().enumerate() {
            for service in hosts.matching(host) {
                let shadows = preferred.iter().filter(|other| other.hosts.contains(&service.key.host));
                let ports: BTreeSet<u16> = shadows
                    .filter_map(|other| match other.source {
                        RouteSource::Gateway { port } => Some(port),
                        RouteSource::VirtualService => None,
                    })
                    .collect();
                if ports.is_empty() {
                    continue;
                }
                let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
                let message =
                    format!("HTTPRoutes of {} come first on port {ports}: these are not used", service.key);
                fact.findings(list).add(Code::ShadowedByHttpRoute, format!("spec.hosts[{number}]"), message);
            }
        }
    }
}
