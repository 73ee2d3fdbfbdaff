//! AuthorizationPolicies.

use mesh_api::{Code, Compiled, Enrolled, compile, parse};
use mesh_model::{authz::Action, text::Glob};

use crate::world::{Ask, SHOP, index, shop};

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:{spec}\n---\n"
    )
}

fn guarded(spec: &str) -> Compiled {
    shop(&policy("guard", "shop", spec))
}

fn selecting(compiled: &Compiled, uid: &str) -> Vec<String> {
    compiled.workload(uid).policies.iter().map(|key| key.to_string()).collect()
}

#[test]
fn scopes_are_mesh_namespace_and_selector() {
    let compiled = shop(
        &[
            policy("mesh", "istio-system", " {rules: [{}]}"),
            policy("picky", "istio-system", " {selector: {matchLabels: {version: v2}}, rules: [{}]}"),
            policy("all", "shop", " {rules: [{}]}"),
            policy("some", "shop", " {selector: {matchLabels: {app: back, version: v1}}, rules: [{}]}"),
            policy("else", "other", " {rules: [{}]}"),
        ]
        .concat(),
    );
    assert_eq!(selecting(&compiled, "shop/front"), ["istio-system/mesh", "shop/all"]);
    assert_eq!(selecting(&compiled, "shop/back-v1"), ["istio-system/mesh", "shop/all", "shop/some"]);
    assert_eq!(selecting(&compiled, "shop/back-v2"), ["istio-system/mesh", "istio-system/picky", "shop/all"]);
    assert_eq!(compiled.found(Code::SelectsNothing).len(), 1, "nobody lives in namespace other");
}

#[test]
fn an_empty_spec_allows_nothing_and_an_empty_rule_allows_all() {
    let nothing = guarded(" {}");
    assert_eq!((nothing.policy("guard").action, nothing.policy("guard").rules.len()), (Action::Allow, 0));
    let all = guarded(" {rules: [{}]}");
    let rules = &all.policy("guard").rules;
    assert_eq!((rules.len(), rules[0].from.len(), rules[0].to.len()), (1, 0, 0));
}

#[test]
fn sources_and_operations() {
    let compiled = guarded(
        r#"
  action: DENY
  rules:
    - from:
        - source:
            principals: [cluster.local/ns/shop/sa/front, "*"]
            notNamespaces: [evil*]
            ipBlocks: [10.0.0.7/8, "::1"]
        - source: {serviceAccounts: [back, other/x]}
      to:
        - operation:
            hosts: [Back.Shop]
            ports: ["8080"]
            methods: [GET]
            notPaths: ["/ok/*", "*/health"]
"#,
    );
    let rule = &compiled.policy("guard").rules[0];
    let source = &rule.from[0];
    assert_eq!(source.principals, [Glob::Exact("cluster.local/ns/shop/sa/front".to_owned()), Glob::Any]);
    assert_eq!(source.not_namespaces, [Glob::Prefix("evil".to_owned())]);
    let blocks: Vec<String> = source.ip_blocks.iter().map(ToString::to_string).collect();
    assert_eq!(blocks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(
        rule.from[1].principals,
        [Glob::Suffix("/ns/shop/sa/back".to_owned()), Glob::Suffix("/ns/other/sa/x".to_owned())]
    );
    let operation = &rule.to[0];
    assert_eq!(operation.hosts, [Glob::Exact("back.shop".to_owned())], "hosts have no case");
    assert_eq!(operation.ports, [8080]);
    assert_eq!(operation.not_paths, [Glob::Prefix("/ok/".to_owned()), Glob::Suffix("/health".to_owned())]);
    assert!(!rule.unsupported);
}

#[test]
fn cluster_local_is_the_meshs_own_trust_domain() {
    let mut index = index(&[("0.yaml", SHOP), ("mesh.yaml", "trustDomain: example.org\n")]);
    let text =
        policy("guard", "shop", " {rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]}");
    let _ = index.apply_file(parse("p.yaml", &text));
    let compiled = compile(&index, &Enrolled::default());
    let principals: Vec<String> =
        compiled.policy("guard").rules[0].from[0].principals.iter().map(ToString::to_string).collect();
    assert_eq!(principals, ["cluster.local/ns/a/sa/b", "example.org/ns/a/sa/b"]);
}

#[test]
fn parts_that_are_not_implemented_mark_the_rule() {
    for part in [
        "{when: [{key: request.auth.principal, values: [x]}]}",
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{from: [{source: {notRequestPrincipals: ['*']}}]}",
        "{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}",
        "{from: [{source: {trustDomains: [a.b]}}]}",
        "{to: [{operation: {paths: ['/a/{*}/b']}}]}",
    ] {
        let compiled = guarded(&format!(" {{rules: [{part}]}}"));
        assert!(compiled.policy("guard").rules[0].unsupported, "{part}");
        assert_eq!(compiled.found(Code::NotImplemented).len(), 1, "{part}");
    }
}

#[test]
fn actions_that_are_not_implemented() {
    let custom = guarded(" {action: CUSTOM, provider: {name: opa}, rules: [{}]}");
    assert_eq!(
        custom.policy("guard").action,
        Action::Deny,
        "without an authorizer, what it would ask about is denied"
    );
    let audit = guarded(" {action: AUDIT, rules: [{}]}");
    assert!(!audit.has_policy("guard"));
    assert_eq!(selecting(&audit, "shop/front"), [] as [String; 0]);
    let dry = shop(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}\nspec: {}\n",
    );
    assert!(!dry.has_policy("guard"));
    assert_eq!(dry.found(Code::NeverDecides).len(), 1);
}

/// What is refused never is dropped: the policy is named on the workloads, is missing, and so denies.
#[test]
fn a_refused_policy_fails_closed() {
    for (spec, field) in [
        (" {action: DENY}", "spec.rules"),
        (" {rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        (" {rules: [{to: [{operation: {}}]}]}", "spec.rules[0].to[0].operation"),
        (
            " {rules: [{from: [{source: {ipBlocks: [300.0.0.0/8]}}]}]}",
            "spec.rules[0].from[0].source.ipBlocks[0]",
        ),
        (" {rules: [{to: [{operation: {ports: [http]}}]}]}", "spec.rules[0].to[0].operation.ports[0]"),
        (
            " {rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}",
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (
            " {rules: [{from: [{source: {serviceAccounts: ['*']}}]}]}",
            "spec.rules[0].from[0].source.serviceAccounts[0]",
        ),
        (
            " {rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]}",
            "spec.rules[0].from[0].source.principals[0]",
        ),
        (" {targetRefs: [{kind: Gateway, name: waypoint}], rules: [{}]}", "spec.targetRefs"),
    ] {
        let compiled = guarded(spec);
        let fields: Vec<&str> = compiled.diagnostics.iter().map(|finding| &*finding.field).collect();
        assert!(fields.contains(&field), "{spec}: {fields:?}");
        assert!(!compiled.has_policy("guard"), "{spec}");
        assert_eq!(selecting(&compiled, "shop/front"), ["shop/guard"], "{spec}");
        assert_eq!(compiled.found(Code::FailsClosed).len(), 1, "{spec}");
    }
}

#[test]
fn a_typo_in_a_new_policy_fails_closed_for_what_it_selects() {
    let compiled =
        guarded(" {selector: {matchLabels: {app: back}}, rules: [{from: [{source: {principles: [a]}}]}]}");
    assert_eq!(compiled.found(Code::UnknownField)[0].field, "spec.rules[0].from[0].source.principles");
    assert!(!compiled.has_policy("guard"));
    assert_eq!(selecting(&compiled, "shop/back-v1"), ["shop/guard"]);
    assert_eq!(selecting(&compiled, "shop/front"), [] as [String; 0]);
}

#[test]
fn a_refused_change_leaves_the_last_good_version_in_force() {
    let mut index = index(&[("0.yaml", SHOP), ("p.yaml", &policy("guard", "shop", " {rules: [{}]}"))]);
    let _ = index.apply_file(parse("p.yaml", &policy("guard", "shop", " {action: DENY}")));
    let compiled = compile(&index, &Enrolled::default());
    assert_eq!(compiled.policy("guard").rules.len(), 1);
    assert_eq!(compiled.found(Code::Invalid).len(), 1, "and it is said");
    assert_eq!(compiled.found(Code::FailsClosed).len(), 0);
}

#[test]
fn a_policy_on_a_service_fails_closed_for_its_pods_only() {
    let compiled = guarded(" {targetRefs: [{kind: Service, name: back}], rules: [{}]}");
    assert_eq!(selecting(&compiled, "shop/back-v2"), ["shop/guard"]);
    assert_eq!(selecting(&compiled, "shop/front"), [] as [String; 0]);
}

#[test]
fn a_denied_path_that_can_be_dodged_is_said() {
    let deny = policy("guard", "shop", " {action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}");
    let compiled = shop(&deny);
    let found = compiled.found(Code::DodgeablePath);
    assert_eq!(found[0].field, "spec.rules[0].to[0].operation.paths");
    assert!(found[0].message.contains("%2F"), "{}", found[0].message);

    let with = |normalization: &str| {
        let mesh = format!("pathNormalization: {{normalization: {normalization}}}\n");
        let index = index(&[("0.yaml", SHOP), ("mesh.yaml", &mesh), ("p.yaml", &deny)]);
        compile(&index, &Enrolled::default()).found(Code::DodgeablePath).len()
    };
    assert_eq!((with("MERGE_SLASHES"), with("DECODE_AND_MERGE_SLASHES")), (1, 0));
    assert_eq!(
        guarded(" {rules: [{to: [{operation: {paths: [/admin]}}]}]}").found(Code::DodgeablePath).len(),
        0
    );
    assert_eq!(
        guarded(" {rules: [{to: [{operation: {notPaths: [/admin]}}]}]}").found(Code::DodgeablePath).len(),
        1
    );
}

#[test]
fn a_refused_policy_is_not_held_back_by_labels_no_pod_can_have() {
    let compiled = guarded(" {selector: {matchLabels: {app: '*'}}, rules: [{}]}");
    assert_eq!(compiled.found(Code::Invalid)[0].field, "spec.selector.matchLabels[\"app\"]");
    assert_eq!(selecting(&compiled, "shop/front"), ["shop/guard"]);
}

#[test]
fn an_unknown_version_of_a_policy_fails_closed() {
    let compiled = shop(&policy("guard", "shop", " {}").replace("istio.io/v1\n", "istio.io/v7\n"));
    assert_eq!(selecting(&compiled, "shop/front"), ["shop/guard"]);
}

#[test]
fn a_good_version_in_another_file_is_the_last_good_one() {
    let good = policy("guard", "shop", " {rules: [{}]}");
    let bad = policy("guard", "shop", " {action: DENY}");
    let compiled =
        compile(&index(&[("0.yaml", SHOP), ("1.yaml", &good), ("2.yaml", &bad)]), &Enrolled::default());
    assert_eq!(compiled.policy("guard").action, Action::Allow);
}
