//! Balancing: turns, load and avoided hosts.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    addr::UpstreamAddr,
    identity::{Identity, TrustDomain},
    name::{Namespace, NodeName, ServiceAccount, WorkloadUid},
    workload::{Enrolment, Exclusions, Telemetry, Tunnel, Workload},
};

use super::*;

fn candidates(count: u8) -> Vec<Candidate> {
    (1..=count)
        .map(|number| {
            let addr = SocketAddr::from(([10, 0, 0, number], 80));
            let workload = Workload {
                uid: WorkloadUid::new(format!("pod-{number}")),
                name: "pod".into(),
                namespace: Namespace::new("shop"),
                identity: Identity {
                    trust_domain: TrustDomain::default(),
                    namespace: Namespace::new("shop"),
                    service_account: ServiceAccount::new("a"),
                },
                node: NodeName::new("n"),
                ips: vec![addr.ip()],
                contested_ips: Vec::new(),
                labels: BTreeMap::new(),
                telemetry: Telemetry::default(),
                tunnel: Tunnel::None,
                enrolment: Enrolment::No,
                endpoints: Vec::new(),
                protocols: BTreeMap::new(),
                mtls: Default::default(),
                policies: Vec::new(),
                exclusions: Exclusions::default(),
                netns: None,
                probe_ports: Vec::new(),
            };
            Candidate { workload: Arc::new(workload), addr: UpstreamAddr::new(addr), tunnel: Tunnel::None }
        })
        .collect()
}

const GROUP: Group<'static> = Group { service: None, subset: None, port: 80 };

#[test]
fn round_robin_gives_each_its_turn() {
    let (load, candidates) = (Load::default(), candidates(3));
    let mut seen: Vec<_> = (0..3)
        .map(|_| load.pick(Balancer::RoundRobin, GROUP, &candidates, &[]).unwrap().addr.get())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[test]
fn of_two_the_one_with_less_outstanding_work_is_picked() {
    let (load, candidates) = (Load::default(), candidates(2));
    let _busy = load.begin(candidates[0].addr.get());
    for _ in 0..50 {
        let picked = load.pick(Balancer::LeastRequest, GROUP, &candidates, &[]).unwrap();
        assert_eq!(picked.addr, candidates[1].addr);
    }
}

#[test]
fn what_was_tried_is_avoided_while_there_is_another() {
    let (load, candidates) = (Load::default(), candidates(3));
    let tried = [candidates[0].addr.get(), candidates[2].addr.get()];
    for balancer in [Balancer::RoundRobin, Balancer::Random, Balancer::LeastRequest] {
        for _ in 0..50 {
            let picked = load.pick(balancer, GROUP, &candidates, &tried).unwrap();
            assert_eq!(picked.addr, candidates[1].addr);
        }
    }
    let mut all: Vec<_> = candidates.iter().map(|each| each.addr.get()).collect();
    all.push(candidates[0].addr.get());
    let longest_ago = load.pick(Balancer::Random, GROUP, &candidates, &all).unwrap();
    assert_eq!(longest_ago.addr, candidates[1].addr);
    assert!(load.pick(Balancer::Random, GROUP, &[], &[]).is_none());
}

#[test]
fn outstanding_work_ends_when_dropped() {
    let load = Load::default();
    let addr = SocketAddr::from(([10, 0, 0, 1], 80));
    let one = load.begin(addr);
    let two = load.begin(addr);
    drop(one);
    assert_eq!(two.count.get(), 1);
    drop(two);
    assert_eq!(load.outstanding.borrow()[&addr].get(), 0);
}
