//! The samples that people try first.

use std::{fs, path::Path};

use mesh_api::{Compiled, Enrolled, EnrolmentDecision, Index, compile, parse};
use mesh_model::{authz::Action, mtls::MtlsMode, resource::ResourceKey, service::Protocol};

use crate::world::Ask;

fn load(index: &mut Index, directory: &str, names: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").join(directory);
    for name in names {
        let text = fs::read_to_string(root.join(name)).expect("a sample");
        let parsed = parse(name, &text);
        assert!(!parsed.is_broken(), "{name}: {:#?}", parsed.diagnostics);
        let _ = index.apply_file(parsed);
    }
}

const SHOP: &[&str] = &["00-nodes.yaml", "10-namespaces.yaml", "20-pods.yaml", "30-services.yaml"];

/// The shop with these samples added.
pub fn compiled(more: &[&str]) -> Compiled {
    let mut index = Index::new();
    load(&mut index, "shop", SHOP);
    load(&mut index, "", more);
    compile(&index, &Enrolled::default())
}

#[test]
fn the_shop_compiles_without_a_finding() {
    let mut index = Index::new();
    load(&mut index, "shop", SHOP);
    let compiled = compile(&index, &Enrolled::default());

    assert_eq!(compiled.diagnostics, vec![]);
    assert_eq!(index.nodes().len(), 2);
    let workloads = compiled.resources.keys().filter(|key| matches!(key, ResourceKey::Workload(_))).count();
    assert_eq!(workloads, 10);
    let productpage = compiled.workload("shop/productpage");
    assert_eq!(productpage.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/productpage");
    assert_eq!(productpage.ips.len(), 2, "IPv4 and IPv6");
    assert_eq!(productpage.netns.as_deref(), Some("/run/netns/tl-demo-productpage"));
    assert_eq!(productpage.protocol(9080), Protocol::Http);
    assert_eq!(compiled.workload("shop/ledger").protocol(7000), Protocol::Tcp);
    let replica = compiled.workload("shop/reviews-v3-a");
    assert_eq!(
        (&*replica.telemetry.workload_name, &*replica.telemetry.workload_type),
        ("reviews-v3", "deployment")
    );
    assert!(compiled.enrolment.values().all(|decision| *decision == EnrolmentDecision::NotWanted));
}

#[test]
fn every_step_of_the_demo_compiles_without_a_finding() {
    let mut index = Index::new();
    load(&mut index, "shop", SHOP);
    load(&mut index, "", &["shop-routing.yaml", "shop-authz.yaml", "shop-strict.yaml"]);
    let compiled = compile(&index, &Enrolled::default());

    assert_eq!(compiled.diagnostics, vec![]);
    let weights: Vec<u32> =
        compiled.routes("reviews").rules[1].destinations.iter().map(|share| share.weight).collect();
    assert_eq!(weights, [90, 10]);
    assert_eq!(compiled.policy("ledger-writers").action, Action::Deny);
    assert_eq!(compiled.workload("shop/ledger").policies.len(), 1);
    assert_eq!(compiled.workload("shop/ratings").mtls.of(9080), MtlsMode::Strict);
    assert_eq!(compiled.workload("legacy/outsider").mtls.of(9080), MtlsMode::Permissive);
}

#[test]
fn changing_one_word_enrols_the_shop_and_nothing_else() {
    let mut index = Index::new();
    load(&mut index, "shop", SHOP);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/shop/10-namespaces.yaml");
    let text = fs::read_to_string(path)
        .expect("a sample")
        .replace("tulle.dev/mesh: disabled", "tulle.dev/mesh: enabled");
    let _ = index.apply_file(parse("10-namespaces.yaml", &text));
    let compiled = compile(&index, &Enrolled::default());

    let wanted = compiled.enrolment.iter().filter(|(_, decision)| **decision == EnrolmentDecision::Wanted);
    assert_eq!(wanted.count(), 9);
    assert_eq!(compiled.enrolment.get("legacy/outsider"), Some(&EnrolmentDecision::NotWanted));
}
