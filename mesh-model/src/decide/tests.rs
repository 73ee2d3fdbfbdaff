//! Where connections and requests go.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    mesh::MeshSettings,
    name::Hostname,
    resource::Resource,
    route::Visibility,
    service::ServicePort,
    testing::{
        answering, exact, get, header, host, ip, labelled, routes, rule, service, service_key, snapshot,
        subsets, workload,
    },
    traffic::TrafficPolicy,
};

const VIP: &str = "10.96.0.1";

/// `reviews` with three versions, one of them not ready, and a caller `web`.
fn shop() -> Vec<Resource> {
    let key = service_key("reviews", "shop");
    let version =
        |uid: &str, address, version| labelled(answering(workload(uid, address), &key), "version", version);
    let mut sick = version("r9", "10.0.1.9", "v1");
    sick.endpoints[0].ready = false;
    vec![
        Resource::Workload(workload("web", "10.0.0.9")),
        Resource::Workload(version("r1", "10.0.1.1", "v1")),
        Resource::Workload(version("r2", "10.0.1.2", "v2")),
        Resource::Workload(version("r3", "10.0.1.3", "v3")),
        Resource::Workload(sick),
        Resource::Service(service("reviews", &[VIP])),
        Resource::Destination(subsets("shop", host("reviews", "shop"), &["v1", "v2", "v3", "v4"])),
    ]
}

/// Jason to v2, others 90/10 to v1 and v3.
fn jason() -> Resource {
    Resource::Routes(routes(
        "reviews",
        &[host("reviews", "shop")],
        vec![
            rule("jason", vec![header("end-user", exact("jason"))], &[("v2", 1)]),
            rule("rest", vec![], &[("v1", 90), ("v3", 10)]),
        ],
    ))
}

fn world(more: impl IntoIterator<Item = Resource>) -> Snapshot {
    snapshot(shop().into_iter().chain(more))
}

fn web(snapshot: &Snapshot) -> &Workload {
    snapshot.workload(&"web".into()).expect("the caller")
}

fn to(address: &str) -> OrigDst {
    OrigDst::new(address.parse().expect("an address and a port"))
}

fn reviews(snapshot: &Snapshot) -> &Arc<Service> {
    snapshot.service(&host("reviews", "shop")).expect("the service")
}

fn ask(snapshot: &Snapshot, request: &crate::testing::Request, draw: f64) -> Result<RequestPlan, Refusal> {
    super::request(snapshot, web(snapshot), reviews(snapshot), 80, &request.head(), draw)
}

fn uids(target: &Target) -> Vec<&str> {
    target.candidates.iter().map(|candidate| candidate.workload.uid.as_str()).collect()
}

#[test]
fn who_lost_its_address_calls_as_before_and_itself_by_it() {
    let mut web = workload("web", "10.0.0.9");
    web.contested_ips = std::mem::take(&mut web.ips);
    let heir = workload("heir", "10.0.0.9");
    let snapshot = world([Resource::Workload(web.clone()), Resource::Workload(heir)]);
    let meant = |source: &Workload| match outbound(&snapshot, source, to("10.0.0.9:80")) {
        Outbound::Workload { workload, .. } => workload.uid.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(meant(&web), "web");
    assert_eq!(meant(&workload("r1", "10.0.1.1")), "heir");
    let plan = ask(&snapshot, &get("/"), 0.0);
    assert_eq!(plan.expect("it holds an address of that family").target.candidates.len(), 3);
}

#[test]
fn a_vip_and_port_of_a_service() {
    let snapshot = world([]);
    let found = outbound(&snapshot, web(&snapshot), to("10.96.0.1:80"));
    assert!(matches!(found, Outbound::Service { port: 80, protocol: Protocol::Http, .. }), "{found:?}");
}

#[test]
fn a_vip_without_the_port_is_refused_not_passed_through() {
    let snapshot = world([]);
    let found = outbound(&snapshot, web(&snapshot), to("10.96.0.1:81"));
    assert!(matches!(found, Outbound::Refused(Refusal::NoSuchPort(_))), "{found:?}");
}

#[test]
fn a_vip_wins_over_a_pod_of_the_same_address() {
    let snapshot = world([Resource::Workload(workload("thief", VIP))]);
    assert!(matches!(outbound(&snapshot, web(&snapshot), to("10.96.0.1:80")), Outbound::Service { .. }));
}

#[test]
fn a_pod_address_is_that_pod_and_no_route_of_a_vip_service_applies() {
    let snapshot = world([]);
    match outbound(&snapshot, web(&snapshot), to("10.0.1.1:8080")) {
        Outbound::Workload { workload, port: 8080, service: None, .. } => {
            assert_eq!(workload.uid.as_str(), "r1")
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        outbound(&snapshot, web(&snapshot), to("[::ffff:10.0.1.1]:8080")),
        Outbound::Workload { .. }
    ));
}

#[test]
fn the_own_address_is_the_own_workload_even_when_contested() {
    let snapshot = world([Resource::Workload(workload("thief", "10.0.0.9"))]);
    match outbound(&snapshot, web(&snapshot), to("10.0.0.9:1234")) {
        Outbound::Workload { workload, .. } => assert_eq!(workload.uid.as_str(), "web"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_contested_address_is_called_by_nobody() {
    let snapshot = world([Resource::Workload(answering(
        workload("thief", "10.0.1.1"),
        &service_key("reviews", "shop"),
    ))]);
    let found = outbound(&snapshot, web(&snapshot), to("10.0.1.1:8080"));
    assert!(matches!(found, Outbound::Refused(Refusal::ContestedAddress(_))), "{found:?}");
    let target = connection(&snapshot, web(&snapshot), reviews(&snapshot), 80).expect("others are left");
    assert_eq!(uids(&target), ["r2", "r3"]);
}

#[test]
fn the_unknown_is_passed_through_or_refused() {
    let open = world([]);
    let found = outbound(&open, web(&open), to("192.0.2.1:443"));
    assert!(matches!(found, Outbound::Passthrough(dst) if dst == to("192.0.2.1:443")));
    let mesh = MeshSettings { outbound_policy: OutboundPolicy::RegistryOnly, ..MeshSettings::default() };
    let closed = world([Resource::Mesh(mesh)]);
    let found = outbound(&closed, web(&closed), to("192.0.2.1:443"));
    assert!(matches!(found, Outbound::Refused(Refusal::UnknownDestination(_))));
}

#[test]
fn without_a_table_a_request_goes_to_the_service_with_the_default_retries() {
    let snapshot = world([]);
    let plan = ask(&snapshot, &get("/"), 0.0).expect("a plan");
    assert!(plan.rule.is_none() && plan.timeout.is_none());
    assert_eq!(plan.retry, RetryPolicy::mesh_default());
    assert_eq!(uids(&plan.target), ["r1", "r2", "r3"]);
    assert_eq!(plan.target.candidates[0].addr.get(), "10.0.1.1:8080".parse().expect("an address"));
}

#[test]
fn a_table_without_http_rules_is_default_routing() {
    let snapshot = world([Resource::Routes(routes("tcp-only", &[host("reviews", "shop")], vec![]))]);
    assert!(ask(&snapshot, &get("/"), 0.0).expect("a plan").rule.is_none());
}

#[test]
fn jason_goes_to_v2_and_the_rest_is_split() {
    let snapshot = world([jason()]);
    let plan = ask(&snapshot, &get("/").with("end-user", "jason"), 0.99).expect("a plan");
    assert_eq!(plan.rule.as_ref().map(|(_, rule)| rule.name.as_str()), Some("jason"));
    assert_eq!(uids(&plan.target), ["r2"]);
    let rest = |draw| ask(&snapshot, &get("/"), draw).expect("a plan");
    assert_eq!((rest(0.0).destination, uids(&rest(0.0).target)), (0, vec!["r1"]));
    assert_eq!(rest(0.899).destination, 0);
    assert_eq!((rest(0.901).destination, uids(&rest(0.901).target)), (1, vec!["r3"]));
}

#[test]
fn no_rule_matches_no_subset_no_host_no_endpoint() {
    let only_jason = |split: &[(&str, u32)]| {
        Resource::Routes(routes(
            "reviews",
            &[host("reviews", "shop")],
            vec![rule("r", vec![header("end-user", exact("jason"))], split)],
        ))
    };
    let refusal = |more: Resource| {
        let snapshot = world([more]);
        ask(&snapshot, &get("/").with("end-user", "jason"), 0.0).expect_err("refused")
    };
    let snapshot = world([only_jason(&[("v1", 1)])]);
    assert_eq!(ask(&snapshot, &get("/"), 0.0).expect_err("refused"), Refusal::NoRoute);
    let named = |subset: &str| format!("reviews.shop.svc.cluster.local:80 subset {subset}");
    assert_eq!(refusal(only_jason(&[("v7", 1)])), Refusal::NoCluster(named("v7")));
    assert_eq!(refusal(only_jason(&[("v4", 1)])), Refusal::NoEndpoint(named("v4")));
    let mut elsewhere = rule("r", vec![], &[("v1", 1)]);
    elsewhere.destinations[0].destination.host = Hostname::new("nowhere.shop.svc.cluster.local");
    let elsewhere = Resource::Routes(routes("reviews", &[host("reviews", "shop")], vec![elsewhere]));
    assert_eq!(refusal(elsewhere), Refusal::NoCluster("nowhere.shop.svc.cluster.local".to_owned()));
}

#[test]
fn the_destination_port_is_the_named_one_then_the_only_one_then_the_dialled_one() {
    let port = |port, name: &str| ServicePort { port, name: name.to_owned(), protocol: Protocol::Http };
    let mut two = service("two", &["10.96.0.2"]);
    two.ports = vec![port(80, "a"), port(81, "b")];
    let mut one = service("one", &["10.96.0.3"]);
    one.ports = vec![port(8000, "a")];
    let pod = |uid: &str, address, name, ports: &[(u16, u16)]| {
        let mut pod = answering(workload(uid, address), &service_key(name, "shop"));
        pod.endpoints[0].ports = ports.iter().copied().collect();
        Resource::Workload(pod)
    };
    let target = |name: &str, port: Option<u16>| {
        let mut only = rule("r", vec![], &[("v1", 1)]);
        only.destinations[0].destination = Destination { host: host(name, "shop"), subset: None, port };
        let table = routes("reviews", &[host("reviews", "shop")], vec![only]);
        let snapshot = world([
            Resource::Service(two.clone()),
            Resource::Service(one.clone()),
            pod("t", "10.0.2.1", "two", &[(80, 1080), (81, 1081)]),
            pod("o", "10.0.2.2", "one", &[(8000, 9000)]),
            Resource::Routes(table),
        ]);
        ask(&snapshot, &get("/"), 0.0).map(|plan| (plan.target.port, plan.target.candidates[0].addr.port()))
    };
    assert_eq!(target("two", Some(81)), Ok((81, 1081)));
    assert_eq!(target("two", None), Ok((80, 1080)));
    assert_eq!(target("one", None), Ok((8000, 9000)));
    assert!(matches!(target("one", Some(80)), Err(Refusal::NoCluster(_))));
}

#[test]
fn the_policy_of_the_port_of_the_subset_of_the_clients_namespace() {
    let balancer = |balancer| PortPolicy { balancer, ..PortPolicy::default() };
    let mut rule = subsets("shop", host("reviews", "shop"), &["v1", "v2", "v3"]);
    rule.policy = TrafficPolicy { all: balancer(Balancer::RoundRobin), ports: BTreeMap::new() };
    let v1 = rule.subsets.get_mut("v1").expect("a subset");
    v1.policy = TrafficPolicy {
        all: balancer(Balancer::RoundRobin),
        ports: BTreeMap::from([(80, balancer(Balancer::Random))]),
    };
    let mut hidden = rule.clone();
    let snapshot = world([Resource::Destination(rule), jason()]);
    assert_eq!(ask(&snapshot, &get("/"), 0.0).expect("a plan").target.policy.balancer, Balancer::Random);
    let opaque = connection(&snapshot, web(&snapshot), reviews(&snapshot), 80).expect("a target");
    assert_eq!(opaque.policy.balancer, Balancer::RoundRobin);
    // Hidden from the client, it neither balances nor defines subsets.
    hidden.export_to = Visibility::Namespaces(vec!["far".into()]);
    let snapshot = world([Resource::Destination(hidden), jason()]);
    assert!(matches!(ask(&snapshot, &get("/"), 0.0), Err(Refusal::NoCluster(_))));
}

#[test]
fn an_endpoint_is_dialled_in_a_family_that_the_source_has() {
    let mut both = answering(workload("r5", "fd00::5"), &service_key("reviews", "shop"));
    both.ips.push(ip("10.0.1.5"));
    let only_v6 = answering(workload("r6", "fd00::6"), &service_key("reviews", "shop"));
    let snapshot = world([Resource::Workload(both), Resource::Workload(only_v6)]);
    let target = connection(&snapshot, web(&snapshot), reviews(&snapshot), 80).expect("a target");
    assert_eq!(uids(&target), ["r1", "r2", "r3", "r5"]);
    assert_eq!(target.candidates[3].addr.ip(), ip("10.0.1.5"));
}

#[test]
fn the_dialled_family_is_kept_where_the_endpoint_has_it() {
    let mut both = answering(workload("r5", "10.0.1.5"), &service_key("reviews", "shop"));
    both.ips.push(ip("fd00::5"));
    let snapshot = world([Resource::Workload(both)]);
    let of = |dialled: &str| {
        let target = connection(&snapshot, web(&snapshot), reviews(&snapshot), 80).expect("a target");
        let target = target.in_family_of(&snapshot, ip(dialled));
        (target.candidates[0].addr.ip().is_ipv4(), target.candidates[3].addr.ip())
    };
    // r1 has no IPv6 address and keeps the one it has.
    assert_eq!(of("fd00:96::1"), (true, ip("fd00::5")));
    assert_eq!(of("10.96.0.1"), (true, ip("10.0.1.5")));
    assert_eq!(of("::ffff:10.96.0.1"), (true, ip("10.0.1.5")));
}

#[test]
fn a_service_without_ready_endpoints_fails() {
    let snapshot = world([Resource::Service(service("empty", &["10.96.0.7"]))]);
    let empty = snapshot.service(&host("empty", "shop")).expect("the service");
    assert!(matches!(connection(&snapshot, web(&snapshot), empty, 80), Err(Refusal::NoEndpoint(_))));
}

/// `db`, headless, with two pods of which one is not ready.
fn headless() -> Vec<Resource> {
    let key = service_key("db", "shop");
    let mut sick = answering(workload("db-1", "10.0.3.2"), &key);
    sick.endpoints[0].ready = false;
    vec![
        Resource::Service(service("db", &[])),
        Resource::Workload(answering(workload("db-0", "10.0.3.1"), &key)),
        Resource::Workload(sick),
    ]
}

#[test]
fn a_pod_of_a_headless_service_is_dialled_itself_under_the_routes_of_the_service() {
    let to_db = |host: Hostname| {
        let mut all = rule("all", vec![], &[("v1", 1)]);
        all.destinations[0].destination = Destination { host, subset: None, port: None };
        Resource::Routes(routes("db", &[self::host("db", "shop")], vec![all]))
    };
    let plan = |more: Option<Resource>, address: &str| {
        let snapshot = world(headless().into_iter().chain(more));
        match outbound(&snapshot, web(&snapshot), to(address)) {
            Outbound::Workload { workload, service: Some((service, port)), protocol, .. } => {
                assert_eq!((port, protocol), (80, Protocol::Http));
                let pod = Candidate::dialled(&workload, to(address));
                request_at(&snapshot, web(&snapshot), &service, port, &pod, &get("/").head(), 0.0)
            }
            other => panic!("{other:?}"),
        }
    };
    let chosen = |plan: Result<RequestPlan, Refusal>| {
        let plan = plan.expect("a plan");
        (plan.rule.is_some(), uids(&plan.target).join(","))
    };
    assert_eq!(chosen(plan(None, "10.0.3.2:8080")), (false, "db-1".to_owned()));
    assert_eq!(chosen(plan(Some(to_db(host("db", "shop"))), "10.0.3.2:8080")), (true, "db-1".to_owned()));
    assert_eq!(
        chosen(plan(Some(to_db(host("reviews", "shop"))), "10.0.3.1:8080")),
        (true, "r1,r2,r3".to_owned())
    );
}

#[test]
fn a_passthrough_destination_is_the_pod_that_was_dialled() {
    let mut rule = subsets("shop", host("db", "shop"), &[]);
    rule.policy.all.balancer = Balancer::Passthrough;
    let snapshot = world(headless().into_iter().chain([Resource::Destination(rule)]));
    let db = snapshot.service(&host("db", "shop")).expect("the service");
    let pod = Candidate::dialled(snapshot.workload(&"db-1".into()).expect("the pod"), to("10.0.3.2:8080"));
    let plan = request_at(&snapshot, web(&snapshot), db, 80, &pod, &get("/").head(), 0.0).expect("a plan");
    assert_eq!(uids(&plan.target), ["db-1"]);
}

#[test]
fn another_port_of_a_headless_pod_has_no_service() {
    let snapshot = world(headless());
    let found = outbound(&snapshot, web(&snapshot), to("10.0.3.1:22"));
    assert!(
        matches!(found, Outbound::Workload { service: None, protocol: Protocol::Unknown, .. }),
        "{found:?}"
    );
}

proptest! {
    #[test]
    fn a_target_is_never_empty_and_only_of_ready_endpoints(draw in 0.0..1.0_f64, jason_asks in prop::bool::ANY) {
        let snapshot = world([jason()]);
        let request = if jason_asks { get("/").with("end-user", "jason") } else { get("/") };
        let plan = ask(&snapshot, &request, draw).expect("a plan");
        prop_assert!(!plan.target.candidates.is_empty());
        prop_assert!(!uids(&plan.target).contains(&"r9"));
        prop_assert!(plan.target.candidates.iter().all(|candidate| candidate.addr.port() == 8080));
    }
}
