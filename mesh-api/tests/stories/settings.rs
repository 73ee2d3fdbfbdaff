//! The mesh's settings.

use mesh_api::{Code, Compiled, Enrolled, Index, Options, compile, parse};
use mesh_model::{
    identity::TrustDomain,
    mesh::{AccessLog, MeshSettings, OutboundPolicy, PathNormalization, SameNode},
    name::Namespace,
    resource::{Resource, ResourceKey},
};

use crate::world::{Ask, SHOP, index};

fn settings(compiled: &Compiled) -> MeshSettings {
    match compiled.resources.get(&ResourceKey::Mesh) {
        Some(Resource::Mesh(settings)) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

fn with(mesh: &str) -> Compiled {
    compile(&index(&[("0.yaml", SHOP), ("mesh.yaml", mesh)]), &Enrolled::default())
}

#[test]
fn there_always_are_settings() {
    let shop = [Namespace::new("shop")].into();
    assert_eq!(
        settings(&with("")),
        MeshSettings { enrolled_namespaces: shop, ..MeshSettings::default() },
        "which namespaces are enrolled is no setting, but travels with them"
    );
}

#[test]
fn excluded_namespaces_are_those_that_are_named() {
    let excluded = |mesh: &str| -> Vec<String> {
        settings(&with(mesh)).excluded_namespaces.iter().map(ToString::to_string).collect()
    };
    assert_eq!(excluded(""), ["kube-system"]);
    assert_eq!(excluded("tulle: {excludedNamespaces: [shop, ops]}\n"), ["ops", "shop"]);
    assert_eq!(excluded("tulle: {excludedNamespaces: []}\n"), [] as [&str; 0]);
    let compiled = with("tulle: {excludedNamespaces: [a.b]}\n");
    assert_eq!(compiled.found(Code::Invalid)[0].field, "data.mesh.tulle.excludedNamespaces[0]");
}

#[test]
fn the_process_names_a_trust_domain_and_the_settings_may_name_another() {
    let options = Options { trust_domain: TrustDomain::new("flag.example"), ..Options::default() };
    let mut index = Index::with_options(options);
    let domain = |index: &Index| settings(&compile(index, &Enrolled::default())).trust_domain.to_string();
    assert_eq!(domain(&index), "flag.example");
    let _ = index.apply_file(parse("mesh.yaml", "trustDomain: file.example\n"));
    assert_eq!(domain(&index), "file.example");
}

#[test]
fn a_config_map_says_it_and_so_does_a_plain_file() {
    let text = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\npathNormalization: {normalization: MERGE_SLASHES}\naccessLogFile: /dev/stdout\naccessLogEncoding: JSON\ndefaultHttpRetryPolicy: {attempts: 0}\ntulle: {sameNode: encrypt}\nrootNamespace: root\n";
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {}\n",
        text.trim_end().replace('\n', "\n    ")
    );
    for (file, text) in [("mesh.yaml", text), ("config.yaml", &*map)] {
        let compiled = compile(&index(&[(file, text)]), &Enrolled::default());
        assert_eq!(compiled.diagnostics, vec![]);
        let settings = settings(&compiled);
        assert_eq!(settings.outbound_policy, OutboundPolicy::RegistryOnly);
        assert_eq!(settings.path_normalization, PathNormalization::MergeSlashes);
        assert_eq!((settings.access_log, settings.same_node), (AccessLog::Json, SameNode::Encrypt));
        assert_eq!((settings.default_retry.attempts, settings.root_namespace.as_str()), (0, "root"));
    }
    assert_eq!(settings(&with("accessLogFile: \"\"\n")).access_log, AccessLog::Off);
}

#[test]
fn settings_without_effect_are_said_and_a_typo_keeps_the_last_good_ones() {
    let compiled = with("enableTracing: true\n");
    assert_eq!(compiled.found(Code::SettingWithoutEffect)[0].field, "data.mesh.enableTracing");

    let mut index = index(&[("mesh.yaml", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n")]);
    for (text, field) in [
        ("outboundTrafficPolicies: {}\n", "data.mesh.outboundTrafficPolicies"),
        ("outboundTrafficPolicy: {mode: CLOSED}\n", "data.mesh.outboundTrafficPolicy.mode"),
        ("trustDomain: a b\n", "data.mesh.trustDomain"),
        ("rootNamespace: a.b\n", "data.mesh.rootNamespace"),
    ] {
        let _ = index.apply_file(parse("mesh.yaml", text));
        let compiled = compile(&index, &Enrolled::default());
        assert_eq!(settings(&compiled).outbound_policy, OutboundPolicy::RegistryOnly, "{text}");
        assert_eq!(compiled.found(Code::Invalid)[0].field, field);
    }
}

#[test]
fn settings_in_another_namespace_are_not_the_meshs() {
    let compiled = compile(
        &index(&[(
            "a.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: shop}\ndata: {mesh: 'trustDomain: evil'}\n",
        )]),
        &Enrolled::default(),
    );
    assert_eq!(settings(&compiled), MeshSettings::default());
    assert_eq!(compiled.found(Code::SettingWithoutEffect).len(), 1);
}
