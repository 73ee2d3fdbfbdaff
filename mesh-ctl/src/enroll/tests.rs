//! What a label would give, on objects as an API server has them.

use mesh_api::compile::EnrolmentDecision;

use super::*;

fn cluster() -> Vec<Value> {
    let pod = |name: &str, ip: &str, extra: Value| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
            "spec": { "nodeName": "n1", "serviceAccountName": "default", "containers": [{ "name": "app" }] },
            "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
        });
        for (key, value) in extra.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        pod
    };
    vec![
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "shop" } }),
        pod("web", "10.0.0.1", json!({})),
        pod("out", "10.0.0.2", json!({ "labels": { "tulle.dev/mesh": "disabled" } })),
    ]
}

fn target(kind: TargetKind, name: &str, namespace: &str) -> Target {
    Target { kind, name: name.to_owned(), namespace: namespace.to_owned() }
}

fn decisions(facts: &[Value], target: &Target) -> Vec<(String, EnrolmentDecision)> {
    let settings = preview::Settings::for_tests("tulle-system", true);
    let preview = Preview::of(&settings, facts, target);
    preview.members.into_iter().map(|member| (member.pod, member.decision)).collect()
}

#[test]
fn a_namespaces_label_enrols_its_pods_but_for_those_that_opt_out() {
    let shop = target(TargetKind::Namespace, "shop", "");
    let facts = cluster();
    assert!(decisions(&facts, &shop).iter().all(|(_, decision)| *decision == EnrolmentDecision::NotWanted));
    let mut after = decisions(&relabelled(&facts, &shop, Label::Enabled), &shop);
    after.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        after,
        [
            ("shop/out".to_owned(), EnrolmentDecision::NotWanted),
            ("shop/web".to_owned(), EnrolmentDecision::Wanted)
        ]
    );
}

#[test]
fn the_weakest_label_takes_out_unless_something_else_still_enrols() {
    let settings = preview::Settings::for_tests("tulle-system", true);
    let shop = target(TargetKind::Namespace, "shop", "");
    let enrolled = relabelled(&cluster(), &shop, Label::Enabled);
    assert_eq!(opposite(&settings, &enrolled, &shop), Label::Absent);
    let web = target(TargetKind::Pod, "web", "shop");
    assert_eq!(opposite(&settings, &enrolled, &web), Label::Disabled, "its namespace would enrol it again");
    let mut istio = cluster();
    istio[1]["metadata"]["labels"] = json!({ "istio-injection": "enabled" });
    assert_eq!(opposite(&settings, &istio, &shop), Label::Disabled, "Istio's label would");
}

#[test]
fn findings_of_the_namespace_are_told_and_others_are_not() {
    let shop = target(TargetKind::Namespace, "shop", "");
    let mut facts = cluster();
    let policy = |namespace: &str| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": "bad", "namespace": namespace },
            "spec": { "action": "DENY" },
        })
    };
    facts.extend([policy("shop"), policy("elsewhere")]);
    let settings = preview::Settings::for_tests("tulle-system", true);
    let preview = Preview::of(&settings, &relabelled(&facts, &shop, Label::Enabled), &shop);
    assert!(preview.errors() > 0);
    assert!(preview.findings.iter().all(|(_, finding)| finding.contains("shop")), "{:?}", preview.findings);
}

#[test]
fn the_meshs_own_namespace_is_never_enrolled() {
    let settings = preview::Settings::for_tests("shop", true);
    let shop = target(TargetKind::Namespace, "shop", "");
    let preview = Preview::of(&settings, &relabelled(&cluster(), &shop, Label::Enabled), &shop);
    assert!(!preview.wants_any());
    let reason = preview.in_vain.unwrap();
    assert!(reason.contains("the mesh itself"), "{reason}");
    let elsewhere = preview::Settings::for_tests("tulle-system", true);
    let shop = Preview::of(&elsewhere, &relabelled(&cluster(), &shop, Label::Enabled), &shop);
    assert_eq!(shop.in_vain, None);
}
