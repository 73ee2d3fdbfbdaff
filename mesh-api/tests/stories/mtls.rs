//! PeerAuthentications.

use mesh_api::{Code, Compiled};
use mesh_model::mtls::MtlsMode::{Disable, Permissive, Strict};

use crate::world::{Ask, shop};

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn with(peers: &[String]) -> Compiled {
    shop(&peers.concat())
}

#[test]
fn without_any_both_are_taken() {
    let compiled = with(&[]);
    let modes = &compiled.workload("shop/front").mtls;
    assert_eq!((modes.of(80), &*modes.from), (Permissive, ""));
}

#[test]
fn the_narrowest_scope_that_says_something_decides() {
    let compiled = with(&[
        peer("mesh", "istio-system", "{mtls: {mode: STRICT}}"),
        peer("ns", "shop", "{mtls: {mode: PERMISSIVE}}"),
        peer(
            "back",
            "shop",
            "{selector: {matchLabels: {app: back}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}, 9090: {mode: UNSET}}}",
        ),
    ]);
    let front = &compiled.workload("shop/front").mtls;
    assert_eq!((front.of(80), &*front.from), (Permissive, "PeerAuthentication shop/ns"));
    let back = &compiled.workload("shop/back-v1").mtls;
    assert_eq!((back.of(80), back.of(8080), back.of(9090)), (Strict, Permissive, Strict));
    assert_eq!(back.from, "PeerAuthentication shop/back");
}

#[test]
fn unset_inherits() {
    let compiled = with(&[
        peer("mesh", "istio-system", "{mtls: {mode: STRICT}}"),
        peer("ns", "shop", "{mtls: {mode: UNSET}}"),
        peer(
            "back",
            "shop",
            "{selector: {matchLabels: {app: back}}, portLevelMtls: {8080: {mode: DISABLE}}}",
        ),
    ]);
    let front = &compiled.workload("shop/front").mtls;
    assert_eq!((front.of(80), &*front.from), (Strict, "PeerAuthentication istio-system/mesh"));
    let back = &compiled.workload("shop/back-v1").mtls;
    assert_eq!((back.of(80), back.of(8080)), (Strict, Disable));
    assert_eq!(compiled.found(Code::WeakMode).len(), 1);
}

#[test]
fn a_selector_in_the_root_namespace_is_for_its_own_pods_only() {
    let compiled =
        with(&[peer("root", "istio-system", "{selector: {matchLabels: {app: back}}, mtls: {mode: STRICT}}")]);
    assert_eq!(compiled.workload("shop/back-v1").mtls.of(80), Permissive);
    assert_eq!(compiled.found(Code::SelectsNothing).len(), 1);
}

#[test]
fn the_oldest_of_a_scope_decides() {
    let new = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a-new, namespace: shop, creationTimestamp: 2024-02-01T00:00:00Z}\nspec: {mtls: {mode: STRICT}}\n---\n";
    let old = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: z-old, namespace: shop, creationTimestamp: 2024-01-01T00:00:00Z}\nspec: {mtls: {mode: PERMISSIVE}}\n---\n";
    let compiled = with(&[new.to_owned(), old.to_owned()]);
    assert_eq!(compiled.workload("shop/front").mtls.of(80), Permissive);
    let found = compiled.found(Code::ShadowedMtls);
    assert_eq!(found[0].object.as_ref().map(|object| &*object.name), Some("a-new"));
}

#[test]
fn ports_need_a_selector_and_must_be_ports() {
    let compiled = with(&[
        peer("wide", "shop", "{mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}}"),
        peer("odd", "shop", "{selector: {matchLabels: {app: back}}, portLevelMtls: {http: {mode: STRICT}}}"),
    ]);
    let fields: Vec<&str> = compiled.found(Code::Invalid).iter().map(|finding| &*finding.field).collect();
    assert_eq!(fields, ["spec.portLevelMtls.http", "spec.portLevelMtls"]);
    assert_eq!(compiled.workload("shop/front").mtls.of(80), Strict, "refused and never good: closed");
    assert_eq!(compiled.workload("shop/back-v1").mtls.of(8080), Strict);
    assert_eq!(compiled.found(Code::FailsClosed).len(), 2);
}

#[test]
fn a_misspelt_strict_is_not_permissive() {
    let compiled = with(&[peer("default", "shop", "{mtls: {mode: STRCIT}}")]);
    assert_eq!(compiled.found(Code::Malformed)[0].field, "spec.mtls.mode");
    let modes = &compiled.workload("shop/front").mtls;
    assert_eq!((modes.of(80), &*modes.from), (Strict, "PeerAuthentication shop/default"));
}
