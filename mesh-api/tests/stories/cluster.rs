//! Objects as an API server sends them.

use std::collections::BTreeSet;

use mesh_api::{
    Changed, Code, Compiled, Enrolled, Index, Kind, Options, Origin, Parsed, compile, parse_value,
};
use mesh_model::{mtls::MtlsMode, workload::Enrolment};
use serde_json::{Value, json};

use crate::world::Ask;

const WEB: &str = "0b1c5a52-6d0e-4a53-9f0d-6c1b6f0a1e11";

fn pod() -> Value {
    serde_json::from_str(include_str!("cluster/pod.json")).expect("JSON")
}

fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = serde_json::from_str(include_str!("cluster/others.json")).expect("JSON");
    objects.push(pod());
    objects
}

/// As the watch does it: each object is a file of its own.
fn read(value: &Value) -> Parsed {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    parse_value(&Origin { file: name.into(), line: 0 }, value)
}

fn cluster() -> Index {
    let mut index = Index::with_options(Options::on_cluster("tulle-system".into()));
    for value in objects() {
        assert_eq!(index.apply_file(read(&value)), Changed::Yes);
    }
    index
}

fn compiled(index: &Index) -> Compiled {
    compile(index, &Enrolled::default())
}

#[test]
fn every_kind_is_read_as_it_comes() {
    let mut kinds = BTreeSet::new();
    for value in objects() {
        let parsed = read(&value);
        assert_eq!(parsed.diagnostics, vec![], "{}", parsed.file);
        kinds.extend(parsed.objects.iter().map(|(object, _)| object.kind()));
    }
    let kubernetes_and_istio: BTreeSet<Kind> =
        Kind::ALL.iter().copied().filter(|kind| !kind.api().group().starts_with("gateway.")).collect();
    assert_eq!(kinds, kubernetes_and_istio);
}

#[test]
fn together_they_mean_what_they_say() {
    let compiled = compiled(&cluster());
    assert_eq!(compiled.diagnostics, vec![]);
    let web = compiled.workload(WEB);
    assert_eq!(web.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!((web.enrolment, web.ips.len()), (Enrolment::Yes, 2));
    assert_eq!(web.probe_ports, [2020, 8080]);
    assert_eq!((&*web.telemetry.workload_name, &*web.telemetry.workload_type), ("web", "deployment"));
    assert_eq!(web.endpoints[0].ports.get(&80), Some(&8080));
    assert!(web.endpoints[0].ready);
    assert_eq!(web.mtls.of(8080), MtlsMode::Strict);
    assert_eq!(web.policies.len(), 1);
    assert_eq!(compiled.routes("web").rules.len(), 1);
}

#[test]
fn what_a_cluster_writes_all_the_time_is_no_change() {
    let mut index = cluster();
    let heartbeats = [
        ("/metadata/resourceVersion", json!("99999")),
        ("/metadata/managedFields", json!([])),
        (
            "/status/containerStatuses",
            json!([{"name": "web", "restartCount": 7, "image": "", "imageID": "", "ready": true}]),
        ),
        ("/status/conditions/0/status", json!("False")),
        ("/status/conditions/2/lastProbeTime", json!("2025-11-20T10:00:00Z")),
        ("/status/startTime", json!("2025-11-20T10:00:00Z")),
    ];
    for (pointer, new) in heartbeats {
        let mut value = pod();
        *value.pointer_mut(pointer).expect(pointer) = new;
        assert_eq!(index.apply_file(read(&value)), Changed::No, "{pointer}");
    }
    let facts = [
        ("/status/conditions/2/status", json!("False")),
        ("/status/podIPs", json!([{"ip": "10.245.1.7"}])),
        ("/metadata/labels/app", json!("other")),
    ];
    for (pointer, new) in facts {
        let mut value = pod();
        *value.pointer_mut(pointer).expect(pointer) = new;
        assert_eq!(index.apply_file(read(&value)), Changed::Yes, "{pointer}");
    }
    let mut routes = objects().into_iter().find(|value| value["kind"] == "VirtualService").expect("one");
    routes["status"] = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
    assert_eq!(index.apply_file(read(&routes)), Changed::No, "what we write ourselves comes back");
}

#[test]
fn what_is_not_read_is_not_kept() {
    let kept = format!("{:?}", cluster());
    for text in
        ["not-for-the-mesh", "containerd://", "kubelet is posting", "registry", "f:spec", "binaryData"]
    {
        assert!(!kept.contains(text), "{text}");
    }
}

#[test]
fn a_typo_in_a_policy_is_refused_here_too_and_fails_closed() {
    let mut index = cluster();
    let bad = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "other", "namespace": "shop", "uid": "x", "resourceVersion": "1"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "rulse": []},
    });
    let _ = index.apply_file(read(&bad));
    let compiled = compiled(&index);
    assert_eq!(compiled.found(Code::UnknownField)[0].field, "spec.rulse");
    assert_eq!(compiled.workload(WEB).policies.len(), 2);
    assert!(!compiled.has_policy("other"), "named and missing: it denies");
}

#[test]
fn an_object_that_goes_leaves_nothing() {
    let mut index = cluster();
    for value in objects() {
        assert_eq!(index.remove_file(&read(&value).file), Changed::Yes);
    }
    assert_eq!(index, Index::with_options(Options::on_cluster("tulle-system".into())));
}
