//! Each question has a bad answer.

use k8s_openapi::api::core::v1::Node;
use mesh_proto::v1::{Diagnostic, NodeStatus, Severity, StatusReply};
use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::install::ready::Rollout;

fn node(kernel: &str, system: &str, ready: &str) -> Option<Line> {
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "n1" },
        "status": {
            "conditions": [{ "type": "Ready", "status": ready }],
            "nodeInfo": {
                "kernelVersion": kernel, "operatingSystem": system, "architecture": "", "bootID": "", "containerRuntimeVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
            },
        },
    }))
    .unwrap();
    pre::node(&node)
}

#[test]
fn an_old_kernel_is_bad_and_other_systems_do_not_count() {
    assert_eq!(node("6.1.0-13-amd64", "linux", "True").unwrap().verdict, Verdict::Good);
    assert_eq!(node("5.17.0", "linux", "True").unwrap().verdict, Verdict::Good);
    assert_eq!(node("5.4.0-150-generic", "linux", "True").unwrap().verdict, Verdict::Bad);
    assert_eq!(node("6.1.0", "linux", "False").unwrap().verdict, Verdict::Warning);
    assert_eq!(node("unreadable", "linux", "True").unwrap().verdict, Verdict::Warning);
    assert!(node("10.0.20348", "windows", "True").is_none());
}

#[test]
fn a_definition_must_serve_a_version_that_is_read() {
    let ours = json!({ "spec": { "versions": [{ "name": "v1" }, { "name": "v1beta1" }] } });
    let found = |version: &str, served: bool| {
        serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "group": "g", "scope": "Namespaced", "names": { "kind": "K", "plural": "ks" },
                "versions": [{ "name": version, "served": served, "storage": true }],
            },
        }))
        .unwrap()
    };
    let line = |found: Option<_>, before| pre::definition_line("ks.g", &ours, found.as_ref(), before).verdict;
    assert_eq!(line(Some(found("v1beta1", true)), false), Verdict::Good);
    assert_eq!(line(Some(found("v1beta1", false)), false), Verdict::Bad);
    assert_eq!(line(Some(found("v7", true)), false), Verdict::Bad);
    assert_eq!(line(None, false), Verdict::Bad);
    assert_eq!(line(None, true), Verdict::Good);
}

fn status() -> StatusReply {
    StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ca_not_after: "2030-01-01T00:00:00Z".to_owned(),
        nodes: vec![NodeStatus {
            node: "n1".to_owned(),
            connected: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sent_generation: 3,
            acked_generation: 3,
            ..NodeStatus::default()
        }],
        ..StatusReply::default()
    }
}

fn worst(status: &StatusReply) -> Verdict {
    let lines = health::of_status(status, &[], datetime!(2026-01-01 0:00 UTC));
    let rank = |line: &Line| match line.verdict {
        Verdict::Good => 0,
        Verdict::Warning => 1,
        Verdict::Bad => 2,
    };
    lines.iter().max_by_key(|line| rank(line)).unwrap().verdict
}

#[test]
fn a_healthy_mesh_is_good() {
    assert_eq!(worst(&status()), Verdict::Good);
}

#[test]
fn what_the_controller_reports_is_judged() {
    let changed = |change: fn(&mut StatusReply)| {
        let mut status = status();
        change(&mut status);
        worst(&status)
    };
    assert_eq!(changed(|status| status.nodes[0].connected = false), Verdict::Bad);
    assert_eq!(changed(|status| status.nodes[0].acked_generation = 2), Verdict::Warning);
    assert_eq!(changed(|status| status.nodes[0].version = "0.0.1".to_owned()), Verdict::Warning);
    assert_eq!(changed(|status| status.ca_not_after = "2026-01-10T00:00:00Z".to_owned()), Verdict::Warning);
    assert_eq!(changed(|status| status.ca_not_after = "2025-12-31T00:00:00Z".to_owned()), Verdict::Bad);
    let finding = |severity: Severity| Diagnostic { severity: severity.into(), ..Diagnostic::default() };
    let mut found = status();
    found.diagnostics = vec![finding(Severity::Info)];
    assert_eq!(worst(&found), Verdict::Good);
    found.diagnostics = vec![finding(Severity::Error)];
    assert_eq!(worst(&found), Verdict::Bad);
}

#[test]
fn a_pod_that_is_not_ready_is_named_with_its_node() {
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "mesh-node-x" },
        "spec": { "nodeName": "n2", "containers": [] },
        "status": { "phase": "Pending" },
    }))
    .unwrap();
    let half = Rollout { component: "mesh-node", ready: 1, wanted: 2, observed: true };
    let lines = health::rollout(&half, &[pod], None);
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[1].what.as_str(), lines[1].detail.as_str()), ("mesh-node-x on n2", "Pending"));
    assert!(lines.iter().all(|line| line.verdict == Verdict::Bad));
}

#[test]
fn pods_that_could_not_be_created_are_said_and_nothing_is_promised_that_does_not_follow() {
    let half = Rollout { component: "mesh-node", ready: 1, wanted: 2, observed: true };
    let lines = health::rollout(&half, &[], Some("violates PodSecurity".to_owned()));
    assert_eq!(lines[0].hint, "the lines below say why");
    assert_eq!(
        (lines[1].what.as_str(), lines[1].detail.as_str()),
        ("pods of mesh-node", "violates PodSecurity")
    );
    let [alone] = &health::rollout(&half, &[], None)[..] else { panic!("nothing else is known") };
    assert_eq!(alone.hint, "see `kubectl describe` of mesh-node");
}

#[test]
fn logs_are_named_only_where_there_is_an_agent() {
    let mut away = status();
    away.nodes[0].connected = false;
    let hint = |agents: &[k8s_openapi::api::core::v1::Pod]| {
        let lines = health::of_status(&away, agents, datetime!(2026-01-01 0:00 UTC));
        lines.into_iter().find(|line| line.what == "node n1").unwrap().hint
    };
    let pod = json!({ "metadata": {}, "spec": { "nodeName": "n1", "containers": [] } });
    assert_eq!(hint(&[]), "no pod of mesh-node is there");
    assert_eq!(hint(&[serde_json::from_value(pod).unwrap()]), "see the logs of mesh-node there");
}

#[test]
fn the_hint_stands_only_beside_what_is_not_good() {
    let line = |verdict| Line::new("mesh", "x", verdict, "y").hint("do it").hint;
    assert_eq!(line(Verdict::Good), "");
    assert_eq!(line(Verdict::Warning), "do it");
}
