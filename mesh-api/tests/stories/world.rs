//! A small shop and the questions that tests ask about it.

use mesh_api::{Code, Compiled, Diagnostic, Enrolled, Index, compile, parse};
use mesh_model::{
    authz::AuthzPolicy, resource::Resource, route::RouteTable, service::Service, traffic::DestinationPolicy,
    workload::Workload,
};

/// Two nodes, namespace shop with a service of two versions, and a caller.
pub const SHOP: &str = r#"
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Node, metadata: {name: n1}}
  - {apiVersion: v1, kind: Node, metadata: {name: n2}}
  - {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {tulle.dev/mesh: enabled}}}
  - apiVersion: v1
    kind: Pod
    metadata: {name: front, namespace: shop, labels: {app: front}}
    spec: {nodeName: n1, serviceAccountName: front, containers: [{name: app}]}
    status: {podIP: 10.1.0.1}
  - apiVersion: v1
    kind: Pod
    metadata: {name: back-v1, namespace: shop, labels: {app: back, version: v1}}
    spec: {nodeName: n1, serviceAccountName: back, containers: [{name: app, ports: [{name: web, containerPort: 8080}]}]}
    status: {podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}, {ip: "fd00:1::2"}]}
  - apiVersion: v1
    kind: Pod
    metadata: {name: back-v2, namespace: shop, labels: {app: back, version: v2}}
    spec: {nodeName: n2, serviceAccountName: back, containers: [{name: app, ports: [{name: web, containerPort: 8081}]}]}
    status: {podIP: 10.1.1.2}
  - apiVersion: v1
    kind: Service
    metadata: {name: back, namespace: shop}
    spec:
      selector: {app: back}
      clusterIP: 10.9.0.2
      ports: [{name: http, port: 80, targetPort: web}]
"#;

/// The shop and what `yaml` adds.
pub fn shop(yaml: &str) -> Compiled {
    compile(&index(&[("0-shop.yaml", SHOP), ("1-more.yaml", yaml)]), &Enrolled::default())
}

/// An index of these files.
pub fn index(files: &[(&str, &str)]) -> Index {
    let mut index = Index::new();
    for (name, text) in files {
        let _ = index.apply_file(parse(name, text));
    }
    index
}

/// Asks.
pub trait Ask {
    fn workload(&self, uid: &str) -> &Workload;
    fn has_workload(&self, uid: &str) -> bool;
    fn routes(&self, name: &str) -> &RouteTable;
    fn destinations(&self) -> Vec<&DestinationPolicy>;
    fn policy(&self, name: &str) -> &AuthzPolicy;
    fn has_policy(&self, name: &str) -> bool;
    fn service(&self, name: &str) -> Option<&Service>;
    /// The findings with this code.
    fn found(&self, code: Code) -> Vec<&Diagnostic>;
    /// `field: message` of each finding that is no mere information.
    fn complaints(&self) -> Vec<String>;
}

impl Ask for Compiled {
    fn workload(&self, uid: &str) -> &Workload {
        let found = self.resources.values().find_map(|resource| match resource {
            Resource::Workload(workload) if workload.uid.as_str() == uid => Some(workload),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no workload {uid}"))
    }

    fn has_workload(&self, uid: &str) -> bool {
        self.resources
            .values()
            .any(|resource| matches!(resource, Resource::Workload(it) if it.uid.as_str() == uid))
    }

    fn routes(&self, name: &str) -> &RouteTable {
        let found = self.resources.values().find_map(|resource| match resource {
            Resource::Routes(table) if &*table.key.name == name => Some(table),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no routes {name}; {:#?}", self.diagnostics))
    }

    fn destinations(&self) -> Vec<&DestinationPolicy> {
        let found = self.resources.values().filter_map(|resource| match resource {
            Resource::Destination(rule) => Some(rule),
            _ => None,
        });
        found.collect()
    }

    fn policy(&self, name: &str) -> &AuthzPolicy {
        let found = self.resources.values().find_map(|resource| match resource {
            Resource::Policy(policy) if &*policy.key.name == name => Some(policy),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no policy {name}; {:#?}", self.diagnostics))
    }

    fn has_policy(&self, name: &str) -> bool {
        self.resources
            .values()
            .any(|resource| matches!(resource, Resource::Policy(it) if &*it.key.name == name))
    }

    fn service(&self, name: &str) -> Option<&Service> {
        self.resources.values().find_map(|resource| match resource {
            Resource::Service(service) if service.name == name => Some(service),
            _ => None,
        })
    }

    fn found(&self, code: Code) -> Vec<&Diagnostic> {
        self.diagnostics.iter().filter(|finding| finding.code == code).collect()
    }

    fn complaints(&self) -> Vec<String> {
        let bad = self.diagnostics.iter().filter(|finding| finding.severity > mesh_api::Severity::Info);
        bad.map(|finding| format!("{}: {}", finding.field, finding.message)).collect()
    }
}
