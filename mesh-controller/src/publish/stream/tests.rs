//! What a node is sent, and what is believed of what it says.

use std::collections::BTreeMap;

use mesh_model::{
    resource::Resource,
    workload::{Tunnel, Workload},
};

use super::*;
use crate::sample::{policy, resources, workload};

struct Wire {
    picture: Picture,
    stream: Stream,
}

impl Wire {
    fn new(items: Vec<Resource>) -> Self {
        let picture = Picture::default().next(&resources(items)).unwrap();
        Self { picture, stream: Stream::new(NodeName::new("node-1"), HashMap::new()) }
    }

    fn show(&mut self, items: Vec<Resource>) {
        if let Some(next) = self.picture.next(&resources(items)) {
            self.picture = next;
        }
    }

    fn next(&mut self) -> Option<v1::Delta> {
        self.stream.next_delta(&self.picture)
    }

    fn ack(&mut self, delta: &v1::Delta) {
        self.stream.acknowledge(delta.nonce, vec![]).unwrap();
    }

    /// Everything until the node has it all.
    fn catch_up(&mut self) -> Vec<v1::Delta> {
        let mut deltas = Vec::new();
        while let Some(delta) = self.next() {
            self.ack(&delta);
            deltas.push(delta);
        }
        deltas
    }

    fn report(&mut self, nonce: u64, uid: &str, state: v1::CaptureState) {
        let status = v1::WorkloadStatus { uid: uid.to_owned(), state: state.into(), ..Default::default() };
        self.stream.report(v1::Report { workloads: vec![status], nonce }).unwrap();
    }

    fn evidence(&self, uid: &str) -> Evidence {
        self.stream.evidence(&WorkloadUid::new(uid), &self.picture)
    }
}

fn pod(uid: &str, node: &str) -> Resource {
    Resource::Workload(workload(uid, node))
}

fn keys(delta: &v1::Delta) -> Vec<String> {
    let key = |item: &v1::VersionedResource| {
        let resource = item.resource.clone().unwrap();
        mesh_proto::decode::resource(resource).unwrap().key().to_string()
    };
    delta.upserts.iter().map(key).collect()
}

#[test]
fn first_everything_then_only_what_changed() {
    let mut wire = Wire::new(vec![pod("a", "node-1"), pod("b", "node-2")]);
    let deltas = wire.catch_up();
    assert_eq!(deltas.len(), 1);
    assert!(deltas[0].complete);
    assert_eq!(keys(&deltas[0]), ["mesh", "workload/a", "workload/b"]);
    assert_eq!(wire.stream.acked_generation(), 1);

    let changed = Resource::Workload(Workload { tunnel: Tunnel::Hbone, ..workload("b", "node-2") });
    wire.show(vec![pod("a", "node-1"), changed]);
    let deltas = wire.catch_up();
    assert_eq!(keys(&deltas[0]), ["workload/b"]);
    assert_eq!(wire.stream.acked_generation(), 2);
}

#[test]
fn a_slow_node_skips_what_came_in_between() {
    let mut wire = Wire::new(vec![pod("a", "node-1")]);
    let first = wire.next().unwrap();
    wire.show(vec![pod("a", "node-1"), pod("b", "node-2")]);
    wire.show(vec![pod("a", "node-1"), pod("c", "node-2")]);
    assert_eq!(wire.next(), None, "one delta at a time");
    wire.ack(&first);
    assert_eq!(keys(&wire.next().unwrap()), ["workload/c"]);
}

#[test]
fn what_the_node_holds_is_not_sent_again_and_what_is_gone_is_removed() {
    let mut wire = Wire::new(vec![pod("a", "node-1"), pod("b", "node-1")]);
    wire.catch_up();
    let held = wire.stream.held.clone();
    wire.stream = Stream::new(NodeName::new("node-1"), held);
    let deltas = wire.catch_up();
    assert_eq!(deltas.len(), 1, "an empty delta says that this is all");
    assert!(deltas[0].complete && deltas[0].upserts.is_empty() && deltas[0].removals.is_empty());

    let held = wire.stream.held.clone();
    wire.show(vec![pod("b", "node-1")]);
    wire.stream = Stream::new(NodeName::new("node-1"), held);
    let deltas = wire.catch_up();
    assert!(deltas[0].upserts.is_empty());
    assert_eq!(deltas[0].removals, [encode::key(&ResourceKey::Workload(WorkloadUid::new("a")))]);
}

#[test]
fn private_parts_go_to_the_own_node_only() {
    let mut wire = Wire::new(vec![pod("a", "node-1"), pod("b", "node-2")]);
    let delta = wire.next().unwrap();
    let namespaces: BTreeMap<String, Option<String>> = delta
        .upserts
        .into_iter()
        .filter_map(|item| match item.resource?.body? {
            v1::resource::Body::Workload(workload) => Some((workload.uid, workload.netns)),
            _ => None,
        })
        .collect();
    assert_eq!(namespaces["a"].as_deref(), Some("/run/netns/a"));
    assert_eq!(namespaces["b"], None);

    // And a change of theirs is no news to others.
    let contested = vec!["10.0.0.7".parse().unwrap()];
    wire.stream.acknowledge(delta.nonce, vec![]).unwrap();
    let moved = Resource::Workload(Workload {
        netns: Some("/run/netns/x".into()),
        contested_ips: contested,
        ..workload("b", "node-2")
    });
    wire.show(vec![pod("a", "node-1"), moved]);
    assert_eq!(wire.next(), None);
    assert_eq!(wire.stream.acked_generation(), wire.picture.generation());
}

#[test]
fn policies_come_before_their_workloads_and_leave_after_them() {
    let selected = |uid: &str, node: &str| {
        Resource::Workload(Workload { policies: vec![policy("p").key], ..workload(uid, node) })
    };
    let allow = Resource::Policy(policy("p"));
    let mut wire = Wire::new(vec![selected("b", "node-2"), allow.clone()]);
    assert_eq!(keys(&wire.catch_up()[0]), ["mesh", "workload/b"], "no workload of node-1 has it");

    wire.show(vec![selected("a", "node-1"), selected("b", "node-2"), allow.clone()]);
    assert_eq!(keys(&wire.catch_up()[0]), ["policy/shop/p", "workload/a"]);

    // 600 workloads go, and the policy with them: two deltas, the policy in the last.
    let many: Vec<Resource> = (0..600).map(|i| pod(&format!("w{i}"), "node-2")).collect();
    wire.show([vec![selected("a", "node-1"), allow], many].concat());
    wire.catch_up();
    wire.show(vec![pod("a", "node-1")]);
    let deltas = wire.catch_up();
    let policy_key = encode::key(&ResourceKey::Policy(policy("p").key));
    let with_policy: Vec<bool> = deltas.iter().map(|delta| delta.removals.contains(&policy_key)).collect();
    assert_eq!(with_policy, [false, true]);
    assert!(!deltas[0].complete && deltas[1].complete);
}

#[test]
fn deltas_are_bounded_in_number_and_size() {
    let mut wire = Wire::new((0..1234).map(|i| pod(&format!("w{i}"), "node-2")).collect());
    let sizes: Vec<usize> = wire.catch_up().iter().map(|delta| delta.upserts.len()).collect();
    assert_eq!(sizes, [500, 500, 235]);

    let large = |i: usize| {
        let labels = [("x".into(), "y".repeat(400 * 1024).into())].into();
        Resource::Workload(Workload { labels, ..workload(&format!("large{i}"), "node-2") })
    };
    let mut wire = Wire::new((0..5).map(large).collect());
    let deltas = wire.catch_up();
    assert_eq!(deltas.iter().map(|delta| delta.upserts.len()).sum::<usize>(), 6);
    assert!(deltas.len() == 3 && deltas.iter().rev().skip(1).all(|delta| !delta.complete));
}

#[test]
fn a_refused_resource_is_not_sent_again_until_it_changes() {
    let mut wire = Wire::new(vec![pod("a", "node-1")]);
    let delta = wire.next().unwrap();
    let key = ResourceKey::Workload(WorkloadUid::new("a"));
    wire.stream.acknowledge(delta.nonce, vec![(key.clone(), "no such thing".to_owned())]).unwrap();
    assert_eq!(wire.stream.refused().count(), 1);
    assert_eq!(wire.next(), None);
    wire.show(vec![pod("a", "node-1"), pod("b", "node-1")]);
    assert_eq!(keys(&wire.catch_up()[0]), ["workload/b"]);
    assert_eq!(wire.stream.refused().count(), 1);

    let better = Resource::Workload(Workload { netns: None, ..workload("a", "node-1") });
    wire.show(vec![better, pod("b", "node-1")]);
    assert_eq!(keys(&wire.catch_up()[0]), ["workload/a"]);
    assert_eq!(wire.stream.refused().count(), 0);
}

#[test]
fn only_reports_from_after_the_telling_count() {
    let mut wire = Wire::new(vec![pod("a", "node-1")]);
    wire.report(0, "a", v1::CaptureState::Captured);
    assert_eq!(wire.evidence("a"), Evidence::NotYet, "it was not told yet");
    let delta = wire.next().unwrap();
    wire.report(delta.nonce, "a", v1::CaptureState::Captured);
    assert_eq!(wire.evidence("a"), Evidence::NotYet, "not acknowledged");
    wire.ack(&delta);
    assert_eq!(wire.evidence("a"), Evidence::Captured);

    let changed = Resource::Workload(Workload { tunnel: Tunnel::Hbone, ..workload("a", "node-1") });
    wire.show(vec![changed]);
    assert_eq!(wire.evidence("a"), Evidence::NotYet);
    let delta = wire.next().unwrap();
    wire.ack(&delta);
    assert!(!wire.stream.report_is_current());
    assert_eq!(wire.evidence("a"), Evidence::NotYet, "the report is from before");
    wire.report(delta.nonce, "a", v1::CaptureState::Refused);
    assert_eq!(wire.evidence("a"), Evidence::Refused);
    assert!(wire.stream.report_is_current());

    // News about others does not make it old; its own end does.
    wire.show(vec![pod("a", "node-1"), pod("b", "node-2")]);
    wire.catch_up();
    wire.report(wire.stream.last_nonce, "a", v1::CaptureState::Captured);
    wire.show(vec![pod("a", "node-1"), pod("c", "node-2")]);
    wire.catch_up();
    assert_eq!(wire.evidence("a"), Evidence::Captured);
    assert!(wire.stream.report_is_current());
    wire.show(vec![]);
    wire.catch_up();
    assert!(!wire.stream.report_is_current());
}

#[test]
fn a_node_that_returns_with_everything_is_believed_at_its_first_report() {
    let mut wire = Wire::new(vec![pod("a", "node-1")]);
    wire.catch_up();
    wire.stream = Stream::new(NodeName::new("node-1"), wire.stream.held.clone());
    assert_eq!(wire.evidence("a"), Evidence::NotYet);
    wire.report(0, "a", v1::CaptureState::Captured);
    assert_eq!(wire.evidence("a"), Evidence::Captured);
}

#[test]
fn violations_are_named() {
    let mut wire = Wire::new(vec![]);
    assert_eq!(wire.stream.acknowledge(1, vec![]), Err(Violation::UnexpectedAck(1)));
    let delta = wire.next().unwrap();
    assert_eq!(wire.stream.acknowledge(7, vec![]), Err(Violation::UnexpectedAck(7)));
    wire.ack(&delta);
    assert_eq!(wire.stream.acknowledge(delta.nonce, vec![]), Err(Violation::UnexpectedAck(delta.nonce)));
    let ahead = v1::Report { workloads: vec![], nonce: 9 };
    assert_eq!(wire.stream.report(ahead), Err(Violation::ReportAhead(9)));
    let workloads = vec![v1::WorkloadStatus::default(); 10_000];
    assert_eq!(
        wire.stream.report(v1::Report { workloads, nonce: 0 }),
        Err(Violation::ReportTooLarge(10_000))
    );
}
