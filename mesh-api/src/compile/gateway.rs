//! HTTPRoutes whose parent is a Service: one table of rules per port of the service, and what each route is told.
//!
//! A route in the service's own namespace (producer) holds for every caller; one of another namespace (consumer) for callers of its own
//! namespace alone, and then no producer's does. Invariant: within a table the rules are in the specification's order of precedence, so that
//! the first that matches is the one to use.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use mesh_model::{
    mesh::MeshSettings,
    name::{Namespace, ObjectKey, ServiceKey},
    route::{HttpRule, RouteSource, RouteTable, Visibility},
    service::{Service, ServicePort},
};

use self::{backends::Backends, parents::Refused};
use super::services::Services;
use crate::{
    diagnostic::{Code, Diagnostic, Findings, Severity},
    index::{Fact, Index},
    object::{HTTPRoute, Object, ObjectRef, http_route::ParentReference},
    read::http_route::{self, Precedence, Rule},
    status::{Condition, ConditionKind, ParentStatus, RouteStatus},
};

mod backends;
mod parents;

/// All HTTPRoutes.
#[derive(Default)]
pub(super) struct Gateway {
    /// Those that are in force.
    pub(super) tables: Vec<RouteTable>,
    /// One for each route.
    pub(super) statuses: BTreeMap<ObjectRef, RouteStatus>,
}

/// What a table is for: one port of a service, and whose routes these are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    service: ServiceKey,
    port: u16,
    routes_of: Namespace,
}

/// A rule with what decides its place in the table, first to last.
struct Ranked {
    precedence: Reverse<Precedence>,
    created: String,
    route: String,
    number: usize,
    rule: HttpRule,
}

/// Compiles all HTTPRoutes.
pub(super) fn compile(
    index: &Index,
    mesh: &MeshSettings,
    services: &Services,
    list: &mut Vec<Diagnostic>,
) -> Gateway {
    let mut all = Gateway::default();
    let mut places: BTreeMap<Place, (String, Vec<Ranked>)> = BTreeMap::new();
    let written = index.facts(|object| match object {
        Object::HTTPRoute(route) => Some(&**route),
        _ => None,
    });
    for fact in written {
        let status = Route::new(&fact, mesh, services, list).attach(&mut places, list);
        all.statuses.insert(fact.reference.clone(), status);
    }
    all.tables =
        places.into_iter().map(|(place, (service, ranked))| table(place, &service, ranked)).collect();
    all
}

/// One route on its way into the tables.
struct Route<'a> {
    fact: &'a Fact<'a, HTTPRoute>,
    mesh: &'a MeshSettings,
    services: &'a Services,
    namespace: Namespace,
    created: String,
    /// Or why the route as a whole cannot be used.
    rules: Result<Vec<Rule<'a>>, String>,
}

impl<'a> Route<'a> {
    fn new(
        fact: &'a Fact<'a, HTTPRoute>,
        mesh: &'a MeshSettings,
        services: &'a Services,
        list: &mut Vec<Diagnostic>,
    ) -> Self {
        let spec = &fact.object.spec;
        let mut said = Vec::new();
        let mut rules = Ok(Vec::new());
        if spec.parent_refs.iter().any(parents::is_ours) {
            let read = http_route::read(spec, &mut fact.findings(&mut said));
            let bad = said.iter().find(|finding| finding.severity == Severity::Error);
            rules = match bad {
                None => Ok(read),
                Some(finding) => Err(format!("{}: {}", finding.field, finding.message)),
            };
        }
        list.append(&mut said);
        let created = fact.object.metadata.creation_timestamp.as_ref();
        Self {
            fact,
            mesh,
            services,
            namespace: Namespace::new(fact.reference.namespace.clone()),
            created: created.map(|time| time.0.to_string()).unwrap_or_default(),
            rules,
        }
    }

    fn attach(
        &self,
        places: &mut BTreeMap<Place, (String, Vec<Ranked>)>,
        list: &mut Vec<Diagnostic>,
    ) -> RouteStatus {
        let mut status = RouteStatus::default();
        let mut mine: BTreeMap<Place, (String, Vec<Ranked>)> = BTreeMap::new();
        let parents = self.fact.object.spec.parent_refs.iter().enumerate();
        for (number, parent) in parents.filter(|(_, parent)| parents::is_ours(parent)) {
            let field = format!("spec.parentRefs[{number}]");
            let conditions = self.at_parent(parent, &field, &mut mine, &mut self.fact.findings(list));
            // What was read from JSON can be written as JSON.
            let parent = serde_json::to_value(parent).unwrap_or_default();
            status.parents.push(ParentStatus { parent, conditions });
        }
        for (place, (service, ranked)) in mine {
            places.entry(place).or_insert_with(|| (service, Vec::new())).1.extend(ranked);
        }
        status
    }

    /// Puts the rules where they belong, once however often the route names the port.
    fn at_parent(
        &self,
        parent: &ParentReference,
        field: &str,
        mine: &mut BTreeMap<Place, (String, Vec<Ranked>)>,
        findings: &mut Findings<'_>,
    ) -> Vec<Condition> {
        let owner = parent.namespace.as_deref().map_or_else(|| self.namespace.clone(), Namespace::new);
        let taken = parents::ports(self.services, &owner, parent, field, findings);
        let backends = Backends { services: self.services, route: &self.namespace, parent: &owner };
        // Of the route as written: whether its rules can be used is another question.
        let mut written = self.fact.object.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
        let resolved = match written.find_map(|backend| backends.resolve(backend).err()) {
            None => {
                self.condition(ConditionKind::ResolvedRefs, true, "ResolvedRefs", "every backend is there")
            }
            Some(problem) => {
                self.condition(ConditionKind::ResolvedRefs, false, problem.reason, &problem.message)
            }
        };
        let accepted = match (&self.rules, taken) {
            (Err(problem), _) => self.condition(ConditionKind::Accepted, false, "UnsupportedValue", problem),
            (_, Err(Refused { reason, message })) => {
                findings.add(Code::RouteNotAccepted, field, &*message);
                self.condition(ConditionKind::Accepted, false, reason, &message)
            }
            (Ok(rules), Ok((service, ports))) => {
                backends.name_problems(rules, findings);
                for port in ports {
                    let place = Place {
                        service: service.key.clone(),
                        port: port.port,
                        routes_of: self.namespace.clone(),
                    };
                    mine.entry(place).or_insert_with(|| {
                        (service.name.clone(), self.ranked(rules, &backends, service, port))
                    });
                }
                self.condition(ConditionKind::Accepted, true, "Accepted", "the route is in force")
            }
        };
        vec![accepted, resolved]
    }

    fn condition(&self, kind: ConditionKind, holds: bool, reason: &'static str, message: &str) -> Condition {
        let observed_generation = self.fact.object.metadata.generation.unwrap_or_default();
        Condition { kind, holds, reason, message: message.to_owned(), observed_generation }
    }

    /// One rule of the model for each match, because precedence is a match's.
    fn ranked(
        &self,
        rules: &[Rule<'_>],
        backends: &Backends<'_>,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<Ranked> {
        let reference = self.fact.reference;
        let route = format!("{}/{}", reference.namespace, reference.name);
        let mut ranked = Vec::new();
        for rule in rules {
            let mut retry = self.mesh.default_retry.clone();
            retry.per_try_timeout = rule.per_try_timeout.or(retry.per_try_timeout);
            let compiled = HttpRule {
                name: format!("{}.{}.{}", reference.namespace, reference.name, rule.name),
                matches: Vec::new(),
                destinations: backends.destinations(rule, service, port.port),
                timeout: rule.timeout,
                retry,
                request_headers: rule.request_headers.clone(),
                response_headers: rule.response_headers.clone(),
            };
            for (precedence, wanted) in &rule.matches {
                ranked.push(Ranked {
                    precedence: Reverse(*precedence),
                    created: self.created.clone(),
                    route: route.clone(),
                    number: ranked.len(),
                    rule: HttpRule { matches: vec![wanted.clone()], ..compiled.clone() },
                });
            }
        }
        ranked
    }
}

fn table(place: Place, service: &str, mut ranked: Vec<Ranked>) -> RouteTable {
    let order = |one: &Ranked| (one.precedence, one.created.clone(), one.route.clone(), one.number);
    ranked.sort_by_cached_key(order);
    let is_producer = place.routes_of == place.service.namespace;
    RouteTable {
        key: ObjectKey::new(
            place.routes_of.clone(),
            format!("{service}.{}:{}", place.service.namespace, place.port),
        ),
        source: RouteSource::Gateway { port: place.port },
        hosts: vec![place.service.host],
        export_to: match is_producer {
            true => Visibility::All,
            false => Visibility::Namespaces(vec![place.routes_of]),
        },
        created: String::new(),
        rules: ranked.into_iter().map(|ranked| Arc::new(ranked.rule)).collect(),
    }
}
