//! Every kind of finding can be produced; the table is the shortest YAML for each.

use std::collections::BTreeSet;

use mesh_api::{Code, Enrolled, Index, Options, Severity, compile, parse};

use crate::world::{Ask, SHOP};

fn istio(kind: &str, name: &str, spec: &str) -> String {
    let group = match kind {
        "VirtualService" | "DestinationRule" => "networking",
        _ => "security",
    };
    format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

fn core(kind: &str, metadata: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{{metadata}}}\n{rest}\n---\n")
}

fn routes(name: &str, http: &str) -> String {
    istio("VirtualService", name, &format!("{{hosts: [back], http: [{http}]}}"))
}

fn network_policy(ports: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: np, namespace: shop}}\nspec: {{podSelector: {{matchLabels: {{app: back}}}}, ingress: [{{ports: {ports}}}]}}\n"
    )
}

fn http_route(service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: {service}}}], rules: [{{backendRefs: [{{name: back, port: 80}}]}}]}}\n---\n"
    )
}

const TO: &str = "route: [{destination: {host: back}}]";

fn example(code: Code) -> String {
    let pod = |metadata: &str, spec: &str| {
        core(
            "Pod",
            &format!("namespace: shop, {metadata}"),
            &format!("spec: {{nodeName: n1, containers: [], {spec}}}"),
        )
    };
    let service = |spec: &str| core("Service", "name: s, namespace: shop", &format!("spec: {{{spec}}}"));
    match code {
        Code::ReferenceNotFound => routes("v", "{route: [{destination: {host: ghost}}]}"),
        Code::Invalid => routes("v", "{}"),
        Code::DuplicateHost => routes("v", &format!("{{{TO}}}")) + &routes("w", &format!("{{{TO}}}")),
        Code::ProtocolConflict => {
            service("selector: {app: back}, ports: [{name: tcp, port: 80, targetPort: 8080}]")
        }
        Code::PortName => service("ports: [{name: web, port: 80}]"),
        Code::BadPattern => routes("v", &format!("{{match: [{{uri: {{regex: '('}}}}], {TO}}}")),
        Code::ContradictingLabels => {
            core("Namespace", "name: x, labels: {tulle.dev/mesh: disabled, istio-injection: enabled}", "")
        }
        Code::InvalidAnnotation => core("Namespace", "name: x, labels: {tulle.dev/mesh: maybe}", ""),
        Code::SelectsNothing => istio("AuthorizationPolicy", "p", "{selector: {matchLabels: {app: nobody}}}"),
        Code::UnreachableRule => routes("v", &format!("{{{TO}}}, {{{TO}}}")),
        Code::IneffectiveMatch => {
            let rule = format!("{{match: [{{uri: {{exact: /}}}}], {TO}}}");
            routes("v", &format!("{rule}, {rule}"))
        }
        Code::EmptySubset => {
            istio("DestinationRule", "d", "{host: back, subsets: [{name: x, labels: {version: x}}]}")
        }
        Code::UnknownDestinationHost => istio("DestinationRule", "d", "{host: ghost}"),
        Code::Malformed => "{".to_owned(),
        Code::UnknownField => core("Node", "name: n", "spce: {}"),
        Code::KindSkipped => "apiVersion: apps/v1\nkind: Deployment\n".to_owned(),
        Code::KindNotImplemented => istio("RequestAuthentication", "r", "{}"),
        Code::DefinedTwice => core("Node", "name: n9", "") + &core("Node", "name: n9", ""),
        Code::NotImplemented => routes("v", &format!("{{fault: {{}}, {TO}}}")),
        Code::Unsupported => routes("v", "{redirect: {uri: /}}"),
        Code::FailsClosed => istio("AuthorizationPolicy", "p", "{action: DENY}"),
        Code::AddressConflict => service("clusterIP: 10.9.0.2, ports: [{port: 80}]"),
        Code::EnrolmentRefused => pod("name: p", "hostNetwork: true"),
        Code::LabelWithoutEffect => core("Namespace", "name: x, labels: {istio-injection: enabled}", ""),
        Code::ServiceNotInMesh => service("type: ExternalName, externalName: a.b"),
        Code::UnknownTargetPort => service("selector: {app: front}, ports: [{port: 80, targetPort: web}]"),
        Code::ProbeOfAnother => core(
            "Pod",
            "namespace: shop, name: p",
            "spec: {nodeName: n1, containers: [{name: a, livenessProbe: {httpGet: {host: 10.1.0.2, port: 80}}}]}",
        ),
        Code::ForeignHost => istio(
            "VirtualService",
            "v",
            &format!("{{hosts: [back.shop.svc.cluster.local], http: [{{{TO}}}]}}"),
        )
        .replace("namespace: shop", "namespace: other"),
        Code::RouteWithoutService => {
            istio("VirtualService", "v", &format!("{{hosts: [ghost], http: [{{{TO}}}]}}"))
        }
        Code::PartialHost => {
            istio("VirtualService", "v", &format!("{{hosts: [back.shop], http: [{{{TO}}}]}}"))
        }
        Code::DefinedByOlder => {
            let subset = "{host: back, subsets: [{name: v1, labels: {version: v1}}]}";
            istio("DestinationRule", "a", subset) + &istio("DestinationRule", "b", subset)
        }
        Code::ShadowedByHttpRoute => routes("v", &format!("{{{TO}}}")) + &http_route("back"),
        Code::RouteNotAccepted => http_route("ghost"),
        Code::DodgeablePath => istio(
            "AuthorizationPolicy",
            "p",
            "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}",
        ),
        Code::NeverDecides => istio("AuthorizationPolicy", "p", "{action: AUDIT, rules: [{}]}"),
        Code::ShadowedMtls => {
            istio("PeerAuthentication", "a", "{mtls: {mode: STRICT}}")
                + &istio("PeerAuthentication", "b", "{}")
        }
        Code::WeakMode => istio("PeerAuthentication", "a", "{mtls: {mode: DISABLE}}"),
        Code::MeshPortBlocked => network_policy("[{port: 8080}]"),
        Code::PortLimitVoid => network_policy("[{port: 8080}, {port: 15008}]"),
        // No object says so.
        Code::Leaving => String::new(),
        Code::SettingWithoutEffect => {
            core("ConfigMap", "name: istio, namespace: istio-system", "data: {mesh: 'enableTracing: true'}")
        }
    }
}

#[test]
fn each_can_be_produced_and_names_its_place() {
    for code in Code::ALL {
        let options = Options {
            istio_labels: *code != Code::LabelWithoutEffect,
            leaving: *code == Code::Leaving,
            ..Options::default()
        };
        let mut index = Index::with_options(options);
        let _ = index.apply_file(parse("0-shop.yaml", SHOP));
        let _ = index.apply_file(parse("1-more.yaml", &example(*code)));
        let compiled = compile(&index, &Enrolled::default());
        let found = compiled.found(*code);
        assert!(!found.is_empty(), "{code}: {:#?}", compiled.diagnostics);
        for finding in found {
            assert_eq!(finding.severity, code.severity());
            let place = (*code != Code::Leaving).then_some("1-more.yaml");
            assert_eq!(finding.origin.as_ref().map(|origin| &*origin.file), place, "{finding}");
            assert!(!finding.message.is_empty());
        }
    }
}

#[test]
fn codes_are_distinct_and_print_well() {
    let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(texts.len(), Code::ALL.len());

    let parsed = parse("a.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspce: {}\n");
    assert_eq!(
        parsed.diagnostics[0].to_string(),
        "error [MESH0002] Node n (a.yaml:4) spce: there is no such field (a typo?)"
    );
    assert_eq!(parsed.diagnostics[0].severity, Severity::Error);
}

#[test]
fn the_table_in_compatibility_has_each() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../COMPATIBILITY.md");
    let table = std::fs::read_to_string(path).expect("COMPATIBILITY.md");
    for code in Code::ALL {
        let row = format!("| {code} | {} |", code.severity());
        assert!(table.contains(&row), "no row {row}");
    }
}
