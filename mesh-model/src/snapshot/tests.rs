//! What a snapshot holds depends on its resources alone, and what does not change is shared.

use std::collections::BTreeMap as Map;

use proptest::prelude::*;

use super::*;
use crate::{
    authz::Action,
    route::Visibility,
    testing::{answering, host, ip, policy, routes, rule, service, service_key, snapshot, subsets, workload},
};

fn namespace(name: &str) -> Namespace {
    Namespace::new(name)
}

#[test]
fn generations_grow_by_one() {
    let first = Snapshot::from_resources(vec![]);
    assert_eq!(first.generation(), 1);
    assert_eq!(first.next(vec![], &[]).generation(), 2);
}

#[test]
fn an_address_that_two_claim_belongs_to_neither_until_one_leaves() {
    let (one, two) = (workload("one", "10.0.0.1"), workload("two", "10.0.0.1"));
    let both = snapshot([Resource::Workload(one.clone()), Resource::Workload(two)]);
    assert!(both.workload_at(ip("10.0.0.1")).is_none());
    assert!(both.is_contested(ip("::ffff:10.0.0.1")));
    let left = both.next(vec![], &[ResourceKey::Workload(WorkloadUid::new("two"))]);
    assert_eq!(left.workload_at(ip("10.0.0.1")).map(|found| &found.uid), Some(&one.uid));
    assert!(!left.is_contested(ip("10.0.0.1")));
}

#[test]
fn a_reused_address_is_the_new_workloads() {
    let before = snapshot([Resource::Workload(workload("old", "10.0.0.1"))]);
    let gone = [ResourceKey::Workload(WorkloadUid::new("old"))];
    let after = before.next(vec![Resource::Workload(workload("new", "10.0.0.1"))], &gone);
    assert_eq!(after.workload_at(ip("10.0.0.1")).map(|found| found.uid.as_str()), Some("new"));
}

#[test]
fn a_moved_workload_leaves_its_old_address_and_service() {
    let key = service_key("reviews", "shop");
    let before = snapshot([Resource::Workload(answering(workload("pod", "10.0.0.1"), &key))]);
    assert_eq!(before.endpoints(&key).len(), 1);
    let after = before.next(vec![Resource::Workload(workload("pod", "10.0.0.2"))], &[]);
    assert!(after.workload_at(ip("10.0.0.1")).is_none());
    assert!(after.workload_at(ip("10.0.0.2")).is_some());
    assert!(after.endpoints(&key).is_empty());
}

#[test]
fn a_vip_is_a_vip_on_every_port() {
    let snapshot = snapshot([Resource::Service(service("reviews", &["10.96.0.1", "fd96::1"]))]);
    assert!(snapshot.service_at(ip("fd96::1"), 80).is_some());
    assert!(snapshot.service_at(ip("10.96.0.1"), 81).is_none());
    assert!(snapshot.is_vip(ip("10.96.0.1")) && !snapshot.is_vip(ip("10.96.0.2")));
}

#[test]
fn equal_and_untouched_values_are_shared() {
    let key = service_key("reviews", "shop");
    let pod = answering(workload("pod", "10.0.0.1"), &key);
    let before = snapshot([
        Resource::Workload(pod.clone()),
        Resource::Service(service("reviews", &["10.96.0.1"])),
        Resource::Policy(policy("allow", Action::Allow, vec![])),
    ]);
    let changes = vec![
        Resource::Workload(pod.clone()),
        Resource::Workload(workload("other", "10.0.0.2")),
        Resource::Service(service("ratings", &["10.96.0.2"])),
    ];
    let after = before.next(changes, &[]);
    let shared = |one: &Snapshot, other: &Snapshot| {
        let of = |snapshot: &Snapshot| snapshot.workload(&pod.uid).map(Arc::as_ptr);
        of(one) == of(other) && of(one).is_some()
    };
    assert!(shared(&before, &after));
    assert!(std::ptr::eq(before.endpoints(&key), after.endpoints(&key)));
    let vip = |snapshot: &Snapshot| snapshot.service_at(ip("10.96.0.1"), 80).map(Arc::as_ptr);
    assert_eq!(vip(&before), vip(&after));
}

#[test]
fn a_key_that_is_removed_and_put_in_stays() {
    let before = snapshot([Resource::Workload(workload("pod", "10.0.0.1"))]);
    let after = before.next(
        vec![Resource::Workload(workload("pod", "10.0.0.2"))],
        &[ResourceKey::Workload(WorkloadUid::new("pod"))],
    );
    assert!(after.workload_at(ip("10.0.0.2")).is_some());
    assert_eq!(after.workloads().count(), 1);
}

/// A table with this name, hosts, creation time and visibility.
fn table(namespace: &str, name: &str, hosts: &[&str], created: &str, export_to: Visibility) -> Resource {
    let hosts: Vec<Hostname> = hosts.iter().map(|text| Hostname::new(text)).collect();
    let mut table = routes(name, &hosts, vec![rule("r", vec![], &[("v1", 1)])]);
    table.key = ObjectKey::new(namespace, name);
    table.created = created.to_owned();
    table.export_to = export_to;
    Resource::Routes(table)
}

#[test]
fn the_most_specific_route_table_that_the_client_sees() {
    let only = |name: &str| Visibility::Namespaces(vec![namespace(name)]);
    let snapshot = snapshot([
        table("shop", "all", &["*"], "1", Visibility::All),
        table("shop", "short", &["*.example.com"], "1", Visibility::All),
        table("shop", "long", &["*.api.example.com"], "1", Visibility::All),
        table("shop", "exact", &["V1.api.example.com"], "1", only("web")),
        table("shop", "old", &["tie.local"], "1", Visibility::All),
        table("shop", "young", &["tie.local"], "2", Visibility::All),
        table("shop", "a-same-age", &["tie.local"], "1", only("far")),
        table("own", "own", &["tie.local"], "9", Visibility::All),
    ]);
    let table_for = [
        ("web", "v1.api.example.com", "exact"),
        ("web", "V1.API.EXAMPLE.COM", "exact"),
        ("other", "v1.api.example.com", "long"),
        ("web", "v2.api.example.com", "long"),
        ("web", "deep.v2.api.example.com", "long"),
        ("web", "api.example.com", "short"),
        ("web", "example.com", "all"),
        ("web", "notexample.com", "all"),
        ("web", "reviews", "all"),
        ("web", "tie.local", "old"),
        ("own", "tie.local", "own"),
        ("far", "tie.local", "a-same-age"),
    ];
    for (client, host, expected) in table_for {
        let found =
            snapshot.routes_for(&namespace(client), &Hostname::new(host), 80).expect("`*` is for all");
        assert_eq!(&*found.key.name, expected, "{client} to {host}");
    }
}

#[test]
fn routes_of_the_gateway_api_hold_for_one_port_and_come_first() {
    let of_port = |resource: Resource, port: u16| match resource {
        Resource::Routes(table) => {
            Resource::Routes(RouteTable { source: RouteSource::Gateway { port }, ..table })
        }
        other => other,
    };
    let consumers = Visibility::Namespaces(vec![namespace("web")]);
    let snapshot = snapshot([
        table("shop", "virtual", &["back.local"], "1", Visibility::All),
        of_port(table("shop", "producer", &["back.local"], "2", Visibility::All), 80),
        of_port(table("web", "consumer", &["back.local"], "3", consumers), 80),
    ]);
    let cases = [("shop", 80, "producer"), ("web", 80, "consumer"), ("far", 80, "producer")];
    for (client, port, expected) in cases.into_iter().chain([("web", 81, "virtual")]) {
        let found = snapshot.routes_for(&namespace(client), &Hostname::new("back.local"), port);
        assert_eq!(found.map(|table| &*table.key.name), Some(expected), "{client} to port {port}");
    }
}

#[test]
fn a_host_without_a_table_has_none() {
    let snapshot = snapshot([table("shop", "one", &["*.example.com"], "1", Visibility::All)]);
    assert!(snapshot.routes_for(&namespace("web"), &Hostname::new("example.com"), 80).is_none());
    let hidden = snapshot.next(vec![table("shop", "one", &["a"], "1", Visibility::Namespaces(vec![]))], &[]);
    assert!(hidden.routes_for(&namespace("shop"), &Hostname::new("a"), 80).is_none());
    assert!(hidden.routes_for(&namespace("shop"), &Hostname::new("x.example.com"), 80).is_none());
}

#[test]
fn the_destination_rule_of_the_client_then_the_service_then_the_root() {
    let reviews = service("reviews", &[]);
    let key = |namespace: &str, host: Hostname| Resource::Destination(subsets(namespace, host, &["v1"]));
    let found = |snapshot: &Snapshot, client: &str| {
        let rule = snapshot.destination_for(&namespace(client), &reviews);
        rule.map(|rule| (rule.key.namespace.to_string(), rule.host.to_string()))
    };
    let exact = host("reviews", "shop");
    let root = snapshot([key("istio-system", Hostname::new("*.cluster.local"))]);
    assert_eq!(found(&root, "web"), Some(("istio-system".to_owned(), "*.cluster.local".to_owned())));
    let shop = root
        .next(vec![key("shop", Hostname::new("*.shop.svc.cluster.local")), key("shop", exact.clone())], &[]);
    assert_eq!(found(&shop, "web"), Some(("shop".to_owned(), exact.to_string())));
    let web = shop.next(vec![key("web", Hostname::new("*"))], &[]);
    assert_eq!(found(&web, "web"), Some(("web".to_owned(), "*".to_owned())));
    assert_eq!(found(&web, "shop"), Some(("shop".to_owned(), exact.to_string())));
    let mut private = subsets("shop", exact, &["v1"]);
    private.export_to = Visibility::Namespaces(vec![namespace("shop")]);
    let private = shop.next(vec![Resource::Destination(private)], &[]);
    assert_eq!(found(&private, "far"), Some(("shop".to_owned(), "*.shop.svc.cluster.local".to_owned())));
}

/// Resources of few keys, so that they collide.
fn any_resource() -> impl Strategy<Value = Resource> {
    let names = || prop::sample::select(&["a", "b", "c"]);
    let addresses = || prop::sample::select(&["10.0.0.1", "10.0.0.2", "fd00::1"]);
    let hosts = || {
        let one = prop::sample::select(&["a.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*"]);
        prop::collection::vec(one.prop_map(Hostname::new), 1..3)
    };
    prop_oneof![
        (names(), addresses(), prop::collection::vec(names(), 0..3)).prop_map(|(uid, address, services)| {
            let keys = services.into_iter().map(|name| service_key(name, "shop"));
            Resource::Workload(keys.fold(workload(uid, address), |pod, key| answering(pod, &key)))
        }),
        (names(), prop::collection::vec(addresses(), 0..3))
            .prop_map(|(name, vips)| Resource::Service(service(name, &vips))),
        (names(), prop::bool::ANY).prop_map(|(name, deny)| {
            Resource::Policy(policy(name, if deny { Action::Deny } else { Action::Allow }, vec![]))
        }),
        (names(), hosts(), names()).prop_map(|(name, hosts, created)| {
            let mut table = routes(name, &hosts, vec![]);
            table.created = created.to_owned();
            Resource::Routes(table)
        }),
        (names(), hosts()).prop_map(|(namespace, hosts)| {
            Resource::Destination(subsets(namespace, hosts[0].clone(), &["v1"]))
        }),
        names().prop_map(|domain| {
            let trust_domain = crate::identity::TrustDomain::new(domain);
            Resource::Mesh(MeshSettings { trust_domain, ..MeshSettings::default() })
        }),
    ]
}

proptest! {
    #[test]
    fn deltas_lead_to_the_same_snapshot_as_the_whole(
        deltas in prop::collection::vec((prop::collection::vec(any_resource(), 0..6), prop::collection::vec(any_resource(), 0..4)), 1..8)
    ) {
        let mut snapshot = Snapshot::default();
        let mut whole: Map<ResourceKey, Resource> = Map::new();
        for (upserts, removed) in deltas {
            let removals: Vec<ResourceKey> = removed.iter().map(Resource::key).collect();
            snapshot = snapshot.next(upserts.clone(), &removals);
            removals.iter().for_each(|key| drop(whole.remove(key)));
            whole.extend(upserts.into_iter().map(|resource| (resource.key(), resource)));
        }
        let mut at_once = Snapshot::from_resources(whole.into_values().rev().collect());
        at_once.generation = snapshot.generation;
        prop_assert_eq!(snapshot, at_once);
    }
}
