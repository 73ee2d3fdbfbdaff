//! Pods -> workloads.

use mesh_api::{Code, Enrolled, EnrolmentDecision, Index, Options, compile, parse};
use mesh_model::{name::WorkloadUid, workload::Enrolment};

use crate::world::{Ask, SHOP, index, shop};

fn pod(name: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n{more}\n---\n")
}

#[test]
fn a_finished_an_unplaced_and_a_mirror_pod_are_no_workloads() {
    let compiled = shop(&[
        pod("done", "spec: {nodeName: n1, containers: []}\nstatus: {phase: Succeeded, podIP: 10.1.0.9}"),
        pod("failed", "spec: {nodeName: n1, containers: []}\nstatus: {phase: Failed}"),
        pod("waiting", "spec: {containers: []}\nstatus: {phase: Pending}"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: static, namespace: shop, annotations: {kubernetes.io/config.mirror: x}}\nspec: {nodeName: n1, containers: []}\n".to_owned(),
    ]
    .concat());
    for name in ["done", "failed", "waiting", "static"] {
        assert!(!compiled.has_workload(&format!("shop/{name}")), "{name}");
    }
}

#[test]
fn an_absent_service_account_is_default_and_an_empty_one_is_no_identity() {
    let compiled = shop(
        &[
            pod("plain", "spec: {nodeName: n1, containers: []}"),
            pod("nobody", "spec: {nodeName: n1, serviceAccountName: \"\", containers: []}"),
        ]
        .concat(),
    );
    assert_eq!(compiled.workload("shop/plain").identity.service_account.as_str(), "default");
    assert!(!compiled.has_workload("shop/nobody"));
}

#[test]
fn what_would_break_an_identity_is_refused() {
    let compiled = shop(&pod("evil", "spec: {nodeName: n1, serviceAccountName: a/sa/b, containers: []}"));
    assert!(!compiled.has_workload("shop/evil"));
    assert_eq!(compiled.found(Code::Invalid)[0].field, "spec.serviceAccountName");

    let compiled = shop("apiVersion: v1\nkind: Node\nmetadata: {name: ../../etc/x}\n");
    assert_eq!(compiled.found(Code::Invalid)[0].field, "metadata.name");
}

#[test]
fn of_two_pods_with_one_address_the_newest_has_it() {
    let compiled = shop(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: heir, namespace: shop, creationTimestamp: 2024-01-01T00:00:00Z}\nspec: {nodeName: n2, serviceAccountName: heir, containers: []}\nstatus: {podIP: 10.1.0.2}\n",
    );
    assert_eq!(compiled.workload("shop/heir").ips.len(), 1);
    assert_eq!(compiled.workload("shop/back-v1").ips.len(), 0, "it loses every address, the IPv6 one too");
    let found = compiled.found(Code::AddressConflict);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].object.as_ref().map(|object| &*object.name), Some("back-v1"));
}

#[test]
fn a_claim_to_its_address_takes_no_pod_out_of_the_mesh() {
    let heir = |node: &str| {
        let compiled = shop(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: thief, namespace: den, creationTimestamp: 2024-01-01T00:00:00Z}}\nspec: {{nodeName: {node}, containers: []}}\nstatus: {{podIP: 10.1.0.2}}\n"
        ));
        let loser =
            |uid: &str| (compiled.workload(uid).ips.len(), compiled.workload(uid).contested_ips.len());
        let back = WorkloadUid::from("shop/back-v1");
        assert_eq!(compiled.enrolment.get(&back), Some(&EnrolmentDecision::Wanted));
        assert_eq!(compiled.workload("shop/back-v1").enrolment, Enrolment::Yes, "captured as before");
        assert_eq!(compiled.found(Code::EnrolmentRefused).len(), 0);
        assert_eq!(compiled.found(Code::AddressConflict).len(), 1);
        let ready = compiled.workload("shop/back-v1").endpoints[0].ready;
        (loser("shop/back-v1"), loser("den/thief"), ready)
    };
    let lost = ((0, 2), (1, 0), false);
    assert_eq!(heir("n2"), lost, "nobody calls it there, and its own node still knows it by its addresses");
    let kept = ((2, 0), (0, 1), true);
    assert_eq!(heir("no-such-node"), kept, "a pod that runs nowhere takes nothing from anybody");
}

#[test]
fn a_pod_that_is_being_deleted_gives_its_address_up_in_silence() {
    let with = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, {more}}}\nspec: {{nodeName: n1, containers: []}}\nstatus: {{podIP: 10.1.0.77}}\n---\n"
        )
    };
    let gone = "creationTimestamp: 2024-01-02T00:00:00Z, deletionTimestamp: 2024-01-03T00:00:00Z";
    let compiled =
        shop(&[with("heir", "creationTimestamp: 2024-01-01T00:00:00Z"), with("gone", gone)].concat());
    assert_eq!(compiled.workload("shop/heir").ips.len(), 1, "it was created earlier and placed later");
    assert_eq!(compiled.workload("shop/gone").ips.len(), 0);
    assert_eq!(compiled.complaints(), [] as [&str; 0], "that is how pods come and go");
}

#[test]
fn a_pod_without_an_address_yet_is_a_workload_and_answers_for_nobody() {
    let compiled = shop(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: shop, labels: {app: back}}\nspec: {nodeName: n1, serviceAccountName: back, containers: [{name: a, ports: [{name: web, containerPort: 1}]}]}\n",
    );
    let workload = compiled.workload("shop/new");
    assert_eq!(workload.ips.len(), 0);
    assert_eq!(workload.enrolment, Enrolment::Yes, "captured before it runs");
    assert!(!workload.endpoints[0].ready);
}

#[test]
fn on_a_cluster_nobody_names_a_network_namespace() {
    let annotated = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, annotations: {tulle.dev/netns: /proc/1/ns/net}}\nspec: {nodeName: n1, containers: []}\n";
    assert_eq!(shop(annotated).workload("shop/p").netns.as_deref(), Some("/proc/1/ns/net"));

    let mut index = Index::with_options(Options::on_cluster("mesh".into()));
    let _ = index.apply_file(parse("1.yaml", annotated));
    let compiled = compile(&index, &Enrolled::default());
    assert_eq!(compiled.workload("shop/p").netns, None);
    assert!(compiled.found(Code::LabelWithoutEffect)[0].field.contains("tulle.dev/netns"));

    let relative = shop(&annotated.replace("/proc/1/ns/net", "ns/net"));
    assert_eq!(relative.workload("shop/p").netns, None);
    assert_eq!(relative.found(Code::InvalidAnnotation).len(), 1);
}

#[test]
fn probe_ports_are_those_that_probes_and_hooks_name() {
    let table: &[(&str, &[u16])] = &[
        ("containers: [{name: a, ports: [{containerPort: 80}]}]", &[]),
        ("containers: [{name: a, livenessProbe: {httpGet: {port: 81}}}]", &[81]),
        (
            "containers: [{name: a, readinessProbe: {tcpSocket: {port: 82}}, startupProbe: {grpc: {port: 83}}}]",
            &[82, 83],
        ),
        ("containers: [{name: a, livenessProbe: {exec: {command: [x]}}}]", &[]),
        (
            "containers: [{name: a, lifecycle: {postStart: {httpGet: {port: 85}}, preStop: {tcpSocket: {port: 84}}}}]",
            &[84, 85],
        ),
        (
            "containers: [{name: a, livenessProbe: {httpGet: {port: 86}}, readinessProbe: {httpGet: {port: 86}}}]",
            &[86],
        ),
        (
            "containers: [{name: a, ports: [{name: web, containerPort: 87}], livenessProbe: {httpGet: {port: web}}}]",
            &[87],
        ),
        (
            "containers: [{name: a, livenessProbe: {httpGet: {port: web}}}, {name: b, ports: [{name: web, containerPort: 88}]}]",
            &[],
        ),
        ("containers: [{name: a, livenessProbe: {httpGet: {port: \"89\"}}}]", &[89]),
        (
            "containers: [{name: a, livenessProbe: {httpGet: {host: 10.0.0.1, port: 90}}, readinessProbe: {tcpSocket: {host: db, port: 91}}}]",
            &[],
        ),
        (
            "containers: [{name: a, livenessProbe: {httpGet: {port: 0}}, readinessProbe: {httpGet: {port: 70000}}}]",
            &[],
        ),
        (
            "containers: [], initContainers: [{name: a, restartPolicy: Always, startupProbe: {httpGet: {port: 92}}}]",
            &[92],
        ),
        ("containers: [], initContainers: [{name: a, startupProbe: {httpGet: {port: 93}}}]", &[]),
    ];
    for (spec, expected) in table {
        let compiled = shop(&pod("p", &format!("spec: {{nodeName: n1, {spec}}}")));
        assert_eq!(compiled.workload("shop/p").probe_ports, *expected, "{spec}");
    }
}

#[test]
fn whoever_lets_the_kubelet_call_another_is_named() {
    let said = |more: &str, container: &str| -> Vec<String> {
        let spec = format!("spec: {{nodeName: n1, {more}containers: [{{name: a, {container}}}]}}");
        let compiled = shop(&pod("p", &format!("{spec}\nstatus: {{podIP: 10.1.0.77}}")));
        compiled.found(Code::ProbeOfAnother).iter().map(|finding| finding.message.clone()).collect()
    };
    let victim = "readinessProbe: {httpGet: {host: 10.1.0.2, port: 80, path: /admin/delete-all}}";
    let found = said("", victim);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("10.1.0.2"), "{}", found[0]);
    let hook = "lifecycle: {preStop: {tcpSocket: {host: back.shop, port: 80}}}";
    assert!(said("", hook)[0].contains("back.shop"));

    let node_s = "livenessProbe: {tcpSocket: {host: 127.0.0.1, port: 80}}";
    assert_eq!(said("", node_s).len(), 1, "the node's loopback, not the pod's");
    let own = "livenessProbe: {httpGet: {host: 10.1.0.77, port: 80}}, startupProbe: {httpGet: {port: 80}}";
    for (more, container) in [("", own), ("hostNetwork: true, ", node_s)] {
        assert_eq!(said(more, container), [] as [&str; 0], "{container}");
    }
}

#[test]
fn without_times_the_later_file_is_newer() {
    let older = pod("b", "spec: {nodeName: n1, containers: []}\nstatus: {podIP: 10.1.0.77}");
    let newer = pod("a", "spec: {nodeName: n1, containers: []}\nstatus: {podIP: 10.1.0.77}");
    let compiled =
        compile(&index(&[("0.yaml", SHOP), ("1.yaml", &older), ("2.yaml", &newer)]), &Enrolled::default());
    assert_eq!(compiled.workload("shop/a").ips.len(), 1);
    assert_eq!(compiled.workload("shop/b").ips.len(), 0);
}

#[test]
fn a_mapped_address_is_the_same_address() {
    let compiled =
        shop(&pod("six", "spec: {nodeName: n1, containers: []}\nstatus: {podIP: \"::ffff:10.1.0.1\"}"));
    assert_eq!(compiled.found(Code::AddressConflict).len(), 1);
}

#[test]
fn a_uid_names_one_workload() {
    let twin = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: u-1}}\nspec: {{nodeName: n1, containers: []}}\n---\n"
        )
    };
    let compiled = shop(&[twin("one"), twin("two")].concat());
    assert_eq!(&*compiled.workload("u-1").name, "two");
    assert_eq!(compiled.found(Code::AddressConflict)[0].field, "metadata.uid");
}

#[test]
fn a_pod_on_the_hosts_network_has_no_address_of_its_own() {
    let compiled = shop(&pod(
        "agent",
        "spec: {nodeName: n1, hostNetwork: true, containers: []}\nstatus: {podIP: 192.168.0.1}",
    ));
    assert_eq!(compiled.workload("shop/agent").ips.len(), 0);
}

#[test]
fn names_for_telemetry_come_from_owners_and_labels() {
    let compiled = shop(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-5d8f-x1\n  namespace: shop\n  labels: {app.kubernetes.io/name: web, pod-template-hash: 5d8f}\n  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d8f, uid: u, controller: true}]\nspec: {nodeName: n1, containers: []}\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: nightly-28512345-abc\n  namespace: shop\n  ownerReferences: [{apiVersion: batch/v1, kind: Job, name: nightly-28512345, uid: u, controller: true}]\nspec: {nodeName: n1, containers: []}\n",
    );
    let web = &compiled.workload("shop/web-5d8f-x1").telemetry;
    assert_eq!((&*web.workload_name, &*web.workload_type, &*web.app), ("web", "deployment", "web"));
    assert_eq!(
        (&*web.version, &*web.canonical_service, &*web.canonical_revision),
        ("unknown", "web", "latest")
    );
    let job = &compiled.workload("shop/nightly-28512345-abc").telemetry;
    assert_eq!((&*job.workload_name, &*job.workload_type, &*job.app), ("nightly", "cronjob", "unknown"));
    let front = &compiled.workload("shop/front").telemetry;
    assert_eq!((&*front.workload_name, &*front.workload_type), ("front", "pod"));
}

#[test]
fn exclusions_are_read_from_both_names_and_bad_ones_are_said() {
    let compiled = shop(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: shop\n  annotations:\n    tulle.dev/exclude-outbound-ports: \"5432, 6379\"\n    traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.0.0.1/8\n    traffic.sidecar.istio.io/excludeInboundPorts: \"9000,x\"\nspec: {nodeName: n1, containers: []}\n",
    );
    let exclusions = &compiled.workload("shop/p").exclusions;
    assert_eq!(exclusions.outbound_ports, [5432, 6379]);
    assert_eq!(exclusions.outbound_cidrs[0].to_string(), "10.0.0.0/8");
    assert_eq!(exclusions.inbound_ports, [9000]);
    assert!(compiled.found(Code::InvalidAnnotation)[0].field.contains("excludeInboundPorts"));
}

#[test]
fn a_pod_on_a_node_that_is_not_declared_is_said() {
    let compiled = shop(&pod("lost", "spec: {nodeName: n9, containers: []}"));
    assert_eq!(compiled.found(Code::ReferenceNotFound)[0].field, "spec.nodeName");
}

#[test]
fn a_network_namespace_belongs_to_one_pod_of_a_node() {
    let at = |name: &str, node: &str, ip: u8| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, annotations: {{tulle.dev/netns: /run/netns/x}}}}\nspec: {{nodeName: {node}, containers: []}}\nstatus: {{podIP: 10.7.0.{ip}}}\n---\n"
        )
    };
    let compiled = shop(&[at("old", "n1", 1), at("new", "n1", 2), at("far", "n2", 3)].concat());
    let found = compiled.found(Code::AddressConflict);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].object.as_ref().map(|object| &*object.name), Some("old"));
    assert_eq!(compiled.workload("shop/old").ips.len(), 0);
    assert_eq!(compiled.workload("shop/far").ips.len(), 1);
}
