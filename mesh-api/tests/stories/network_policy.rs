//! NetworkPolicies that stand in the mesh's way, and those that the mesh makes weaker.

use mesh_api::{Code, Compiled, Diagnostic, Enrolled, compile};

use crate::world::{Ask, SHOP, index, shop};

/// Policy `name` of namespace shop for the pods `app: back`.
fn policy(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{podSelector: {{matchLabels: {{app: back}}}}, {rest}}}\n---\n"
    )
}

fn blocked(compiled: &Compiled) -> Vec<&Diagnostic> {
    compiled.found(Code::MeshPortBlocked)
}

const FRONT: &str = "{podSelector: {matchLabels: {app: front}}}";

#[test]
fn a_policy_for_the_applications_port_alone_cuts_callers_of_the_mesh() {
    let compiled = shop(&policy("np", &format!("ingress: [{{from: [{FRONT}], ports: [{{port: 8080}}]}}]")));
    let found = blocked(&compiled);
    assert_eq!(
        (found.len(), &*found[0].field),
        (2, "spec.ingress[0].ports"),
        "back-v1 and back-v2 have no owner"
    );
    let message = &found[0].message;
    assert!(message.contains("pod shop/front") && message.contains("pod shop/back-v1"), "{message}");
    assert!(message.contains("port: 15008") && message.contains("8080"), "{message}");
    let told: Vec<&String> = compiled.cut_off.values().collect();
    assert_eq!(told.len(), 2, "the pods that are called, not who calls");
    assert!(told[0].starts_with("NetworkPolicy shop/np: ") && told[0].ends_with(message), "{told:?}");
}

#[test]
fn whoever_is_admitted_on_15008_by_any_policy_is_not_cut() {
    let real = format!("ingress: [{{from: [{FRONT}], ports: [{{port: 8080}}]}}]");
    let table = [
        format!("ingress: [{{from: [{FRONT}], ports: [{{port: 15008, protocol: TCP}}]}}]"),
        "ingress: [{ports: [{port: 15008}]}]".to_owned(),
        "ingress: [{}]".to_owned(),
        "ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 15000, endPort: 16000}]}]".to_owned(),
        "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}], ports: [{protocol: TCP}]}]"
            .to_owned(),
        "ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 15008}]}]".to_owned(),
    ];
    for other in table {
        let compiled = shop(&[policy("np", &real), policy("more", &other)].concat());
        assert_eq!(blocked(&compiled).len(), 0, "{other}");
    }
    let not_this_caller = [
        "ingress: [{from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 15008}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.0.1/32]}}], ports: [{port: 15008}]}]",
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: x}}}], ports: [{port: 15008}]}]",
        "ingress: [{ports: [{port: 15008, protocol: UDP}]}]",
        "policyTypes: [Egress], egress: [{ports: [{port: 15008}]}]",
    ];
    for other in not_this_caller {
        let compiled = shop(&[policy("np", &real), policy("more", other)].concat());
        assert!(
            blocked(&compiled).iter().any(|finding| finding.field.starts_with("spec.ingress")),
            "{other}"
        );
    }
}

#[test]
fn policies_that_do_not_concern_the_mesh_are_left_alone() {
    let table = [
        "ingress: []",
        "ingress: [{ports: [{port: 53, protocol: UDP}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 8080}]}]",
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: monitoring}}}], ports: [{port: 8080}]}]",
        "ingress: [{}]",
        "policyTypes: [Egress], ingress: [{ports: [{port: 8080}]}], egress: [{}]",
    ];
    for rest in table {
        assert_eq!(shop(&policy("np", rest)).complaints(), [] as [&str; 0], "{rest}");
    }
    let outsiders = SHOP.replace("tulle.dev/mesh: enabled", "tulle.dev/mesh: disabled");
    let text = policy("np", "ingress: [{ports: [{port: 8080}]}]");
    let index = index(&[("0.yaml", &outsiders), ("1.yaml", &text)]);
    assert_eq!(blocked(&compile(&index, &Enrolled::default())).len(), 0, "nobody is in the mesh");
    assert!(!blocked(&shop(&text)).is_empty(), "and then it is");
}

#[test]
fn a_callers_own_policy_can_cut_it_too() {
    let egress = |ports: &str| {
        policy("np", &format!("policyTypes: [Egress], egress: [{{ports: [{{port: 53, protocol: UDP}}]}}, {{to: [{{podSelector: {{}}}}], ports: [{ports}]}}]"))
            .replace("app: back", "app: front")
    };
    let compiled = shop(&egress("{port: 8080}"));
    let found = blocked(&compiled);
    assert_eq!((found.len(), &*found[0].field), (1, "spec.egress[1].ports"));
    assert!(
        found[0].message.starts_with("pod shop/front may call pod shop/back-v1 on 8080"),
        "{}",
        found[0].message
    );
    let compiled = shop(&egress("{port: 8080}, {port: 15008}"));
    assert_eq!(blocked(&compiled).len(), 0);
    assert_eq!(compiled.found(Code::PortLimitVoid).len(), 1);
}

#[test]
fn an_egress_section_limits_even_if_no_type_says_so() {
    let rest = format!("ingress: [{{}}], egress: [{{to: [{FRONT}], ports: [{{port: 80}}]}}]");
    assert_eq!(blocked(&shop(&policy("np", &rest)))[0].field, "spec.egress[0].ports");
}

#[test]
fn replicas_are_one_finding() {
    let replicas: Vec<String> = (0..3)
        .map(|number| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number}, namespace: shop, labels: {{app: web, pod-template-hash: h}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-h, uid: u, controller: true}}]}}\nspec: {{nodeName: n1, containers: []}}\n---\n"
            )
        })
        .collect();
    let np = policy("np", "ingress: [{ports: [{port: http}]}]").replace("app: back", "app: web");
    let compiled = shop(&[replicas.concat(), np].concat());
    let found = blocked(&compiled);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("deployment shop/web"), "{}", found[0].message);
}

#[test]
fn port_limits_beside_15008_mean_nothing_until_identities_have_them() {
    let np =
        policy("np", &format!("ingress: [{{from: [{FRONT}], ports: [{{port: 8080}}, {{port: 15008}}]}}]"));
    let compiled = shop(&np);
    let found = compiled.found(Code::PortLimitVoid);
    assert_eq!((found.len(), &*found[0].field), (2, "spec.ingress[0].ports"));
    assert!(found[0].message.contains("AuthorizationPolicy"), "{}", found[0].message);

    let allow = |to: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec: {{selector: {{matchLabels: {{app: back}}}}, {to}}}\n---\n"
        )
    };
    let table = [
        ("rules: [{to: [{operation: {ports: [\"8080\"]}}]}]", 0),
        ("rules: [{to: [{operation: {methods: [GET]}}]}]", 2),
        ("action: DENY, rules: [{to: [{operation: {notPorts: [\"8080\"]}}]}]", 0),
    ];
    for (rules, expected) in table {
        let compiled = shop(&[np.clone(), allow(rules)].concat());
        assert_eq!(compiled.found(Code::PortLimitVoid).len(), expected, "{rules}");
    }
}

#[test]
fn a_rule_for_15008_alone_and_one_for_everything_limit_no_ports() {
    for rest in ["ingress: [{ports: [{port: 15008}]}]", "ingress: [{}, {ports: [{port: 8080}]}]"] {
        assert_eq!(shop(&policy("np", rest)).complaints(), [] as [&str; 0], "{rest}");
    }
}

#[test]
fn expressions_select_as_in_kubernetes() {
    let table = [
        ("{key: app, operator: In, values: [back, x]}", true),
        ("{key: app, operator: In, values: [x]}", false),
        ("{key: version, operator: NotIn, values: [v1, v2]}", false),
        ("{key: version, operator: Exists}", true),
        ("{key: version, operator: DoesNotExist}", false),
    ];
    for (expression, expected) in table {
        let np = policy("np", &format!("ingress: [{{from: [{FRONT}], ports: [{{port: 1}}]}}]"))
            .replace("matchLabels: {app: back}", &format!("matchExpressions: [{expression}]"));
        let compiled = shop(&np);
        let hits_back = blocked(&compiled).iter().any(|finding| finding.message.contains("back"));
        assert_eq!(hits_back, expected, "{expression}");
    }
}

#[test]
fn another_groups_network_policy_is_somebody_elses() {
    let parsed = mesh_api::parse(
        "f.yaml",
        "apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {selector: all()}\n",
    );
    assert_eq!(parsed.diagnostics[0].code, Code::KindSkipped);
}
