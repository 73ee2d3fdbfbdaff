//! Objects as an API server gives them, up to who may be signed for.

use kube::api::GroupVersionKind;
use mesh_api::{Changed, Enrolled, Index, Options, compile};
use mesh_model::{
    identity::Identity,
    name::{Namespace, NodeName},
};
use serde_json::{Value, json};

use super::*;
use crate::placement::Placement;

/// In the shape of `kubectl get pod -o json` of Kubernetes 1.34, written by hand.
const POD: &str = include_str!("pod.json");
/// A static pod's mirror in the API.
const MIRROR: &str = include_str!("mirror-pod.json");

fn resource(kind: Kind) -> ApiResource {
    let api = kind.api();
    ApiResource::from_gvk(&GroupVersionKind::gvk(api.group(), api.versions()[0], kind.as_str()))
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn pod() -> Value {
    serde_json::from_str(POD).unwrap()
}

fn read_one(kind: Kind, value: Value) -> Parsed {
    read(kind, &resource(kind), object(value))
}

/// The mesh that has this pod and its enrolled namespace.
fn placed(pod: Value) -> Placement {
    let mut index = Index::with_options(Options::on_cluster(Namespace::new("tulle-system")));
    let namespace = json!({
        "metadata": { "name": "shop", "labels": { "tulle.dev/mesh": "enabled" } },
    });
    for (kind, value) in [
        (Kind::Node, json!({ "metadata": { "name": "tl-node-1" } })),
        (Kind::Namespace, namespace),
        (Kind::Pod, pod),
    ] {
        let parsed = read_one(kind, value);
        assert!(!parsed.is_broken(), "{:?}", parsed.diagnostics);
        assert_eq!(index.apply_file(parsed), Changed::Yes);
    }
    Placement::of(compile(&index, &Enrolled::default()).resources.values())
}

fn identity(account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap()
}

#[test]
fn a_running_pod_is_signed_for_on_the_node_that_the_scheduler_chose_and_on_no_other() {
    let placement = placed(pod());
    assert_eq!(placement.check(&NodeName::new("tl-node-1"), &identity("reviews")), Ok(()));
    assert!(placement.check(&NodeName::new("tl-node-2"), &identity("reviews")).is_err());
    assert!(placement.check(&NodeName::new("tl-node-1"), &identity("default")).is_err());
}

#[test]
fn mirror_pods_finished_pods_unplaced_pods_and_pods_without_account_are_not_signed_for() {
    let with = |pointer: &str, value: Value| {
        let mut changed = pod();
        *changed.pointer_mut(pointer).unwrap() = value;
        assert_ne!(changed, pod());
        changed
    };
    let mut mirror: Value = serde_json::from_str(MIRROR).unwrap();
    // Whoever can write static pods on a node could name any account, if the kubelet's word counted.
    mirror["spec"]["serviceAccountName"] = json!("reviews");
    for (what, refused) in [
        ("mirror", mirror),
        ("succeeded", with("/status/phase", json!("Succeeded"))),
        ("failed", with("/status/phase", json!("Failed"))),
        ("unplaced", with("/spec/nodeName", json!(""))),
        ("no account", with("/spec/serviceAccountName", json!(""))),
    ] {
        let checked = placed(refused).check(&NodeName::new("tl-node-1"), &identity("reviews"));
        assert!(checked.is_err(), "{what}");
    }
}

#[test]
fn bookkeeping_makes_no_difference() {
    let first = read_one(Kind::Pod, pod());
    let mut touched = pod();
    touched["metadata"]["resourceVersion"] = json!("999999");
    touched["metadata"]["managedFields"] = json!([]);
    touched["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!("{}");
    let ours =
        json!({ "type": "tulle.dev/Mesh", "status": "True", "lastTransitionTime": "2026-11-21T10:00:09Z" });
    touched["status"]["conditions"].as_array_mut().unwrap().push(ours);
    assert_eq!(read_one(Kind::Pod, touched), first);

    let node = |heartbeat: &str| {
        json!({
            "metadata": { "name": "tl-node-1", "resourceVersion": heartbeat },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat }] },
        })
    };
    let (one, other) = ("2026-11-21T10:00:00Z", "2026-11-21T10:05:00Z");
    assert_eq!(read_one(Kind::Node, node(one)), read_one(Kind::Node, node(other)));
}

#[test]
fn an_object_is_named_as_findings_name_it() {
    for (kind, value, name) in [
        (Kind::Pod, pod(), "Pod shop/reviews-v1-5d8f9c7b6-x2x4z"),
        (Kind::Node, json!({ "metadata": { "name": "tl-node-1" } }), "Node tl-node-1"),
    ] {
        let parsed = read_one(kind, value);
        assert_eq!(parsed.file, name);
        assert_eq!(parsed.objects[0].0.reference().to_string(), name);
        assert_eq!(&*parsed.objects[0].1.file, name);
    }
}

#[test]
fn status_that_others_wrote_on_a_policy_is_no_unknown_field_and_a_typo_is() {
    let policy = |spec: Value| {
        json!({
            "metadata": { "name": "deny", "namespace": "shop", "generation": 3, "uid": "8a4ed1d0" },
            "spec": spec,
            "status": { "validationMessages": [], "conditions": [{ "type": "Reconciled", "status": "True" }] },
        })
    };
    assert!(!read_one(Kind::AuthorizationPolicy, policy(json!({ "action": "DENY" }))).is_broken());
    let typo = read_one(Kind::AuthorizationPolicy, policy(json!({ "acton": "DENY" })));
    assert!(typo.is_broken());
    assert_eq!(typo.refused.len(), 1, "it fails closed");
    let line = typo.diagnostics[0].to_string();
    assert_eq!(line.matches("shop/deny").count(), 1, "an object of the API has no other place: {line}");
}

#[test]
fn an_error_is_told_in_a_line_with_its_code() {
    let status = kube::core::Status {
        code: 403,
        message: "pods is forbidden".to_owned(),
        reason: "Forbidden".to_owned(),
        ..kube::core::Status::default()
    };
    assert_eq!(brief(&Error::Api(Box::new(status))), "pods is forbidden (403)");
}
