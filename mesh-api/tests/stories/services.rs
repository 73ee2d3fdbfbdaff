//! Services, endpoints, and what ports speak.

use std::collections::BTreeMap;

use mesh_api::Code;
use mesh_model::service::Protocol;

use crate::world::{Ask, shop};

#[test]
fn endpoints_are_the_ready_pods_of_the_selector_at_their_own_ports() {
    let compiled = shop("");
    let one = &compiled.workload("shop/back-v1").endpoints[0];
    assert_eq!(one.service.to_string(), "shop/back.shop.svc.cluster.local");
    assert_eq!(one.ports, BTreeMap::from([(80, 8080)]), "the named port is looked up on the pod");
    assert!(one.ready);
    assert_eq!(compiled.workload("shop/back-v2").endpoints[0].ports, BTreeMap::from([(80, 8081)]));
    assert_eq!(compiled.workload("shop/front").endpoints.len(), 0);
    assert_eq!(compiled.workload("shop/back-v2").protocol(8081), Protocol::Http);
}

#[test]
fn a_pod_that_is_not_ready_or_going_away_takes_no_new_connections() {
    let compiled = shop(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: sick, namespace: shop, labels: {app: back}}\nspec: {nodeName: n1, containers: [{name: a, ports: [{name: web, containerPort: 1}]}]}\nstatus: {phase: Running, conditions: [{type: Ready, status: \"False\"}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: leaving, namespace: shop, labels: {app: back}, deletionTimestamp: 2024-01-01T00:00:00Z}\nspec: {nodeName: n1, containers: [{name: a, ports: [{name: web, containerPort: 1}]}]}\nstatus: {phase: Running, conditions: [{type: Ready, status: \"True\"}]}\n",
    );
    assert!(!compiled.workload("shop/sick").endpoints[0].ready);
    assert!(!compiled.workload("shop/leaving").endpoints[0].ready);
}

#[test]
fn app_protocol_decides_before_the_name() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: many, namespace: shop}\nspec:\n  clusterIP: 10.9.0.9\n  ports:\n    - {name: http-a, port: 1, appProtocol: kubernetes.io/h2c}\n    - {name: grpc-b, port: 2}\n    - {name: web, port: 3}\n    - {name: tcp, port: 4}\n    - {name: dns, port: 5, protocol: UDP}\n",
    );
    let ports: Vec<_> =
        compiled.service("many").expect("it").ports.iter().map(|port| (port.port, port.protocol)).collect();
    assert_eq!(
        ports,
        [(1, Protocol::Http2), (2, Protocol::Grpc), (3, Protocol::Unknown), (4, Protocol::Tcp)]
    );
    let found = compiled.found(Code::PortName);
    assert_eq!((found.len(), &*found[0].field), (1, "spec.ports[2].name"));
}

#[test]
fn two_services_that_disagree_about_a_port_make_it_unknown() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: raw, namespace: shop}\nspec: {selector: {app: back}, ports: [{name: tcp, port: 80, targetPort: 8080}]}\n",
    );
    assert_eq!(compiled.workload("shop/back-v1").protocol(8080), Protocol::Unknown);
    let found = compiled.found(Code::ProtocolConflict);
    assert!(
        found[0].message.contains("8080") && found[0].message.contains("Service shop/back"),
        "{}",
        found[0].message
    );
}

#[test]
fn a_service_that_says_nothing_does_not_contradict() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: raw, namespace: shop}\nspec: {selector: {app: back}, ports: [{port: 80, targetPort: 8080}]}\n",
    );
    assert_eq!(compiled.workload("shop/back-v1").protocol(8080), Protocol::Http);
}

#[test]
fn headless_and_external_addresses() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: heads, namespace: shop}\nspec: {clusterIP: None, clusterIPs: [None], selector: {app: back}, ports: [{name: http, port: 8080}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: wide, namespace: shop}\nspec: {clusterIP: 10.9.1.1, clusterIPs: [10.9.1.1, \"fd00:9::1\"], externalIPs: [192.0.2.1], ports: [{port: 80}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.2}]}}\n",
    );
    assert_eq!(compiled.service("heads").expect("it").vips, [] as [std::net::IpAddr; 0]);
    let vips: Vec<String> =
        compiled.service("wide").expect("it").vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["10.9.1.1", "fd00:9::1", "192.0.2.1", "192.0.2.2"]);
}

#[test]
fn slices_decide_when_there_are_any() {
    let compiled = shop(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: back-1, namespace: shop, labels: {kubernetes.io/service-name: back}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints:\n  - addresses: [10.1.0.2]\n    conditions: {ready: true}\n    targetRef: {kind: Pod, name: back-v1, namespace: shop}\n  - addresses: [10.1.0.1]\n    conditions: {ready: false}\n",
    );
    assert!(compiled.workload("shop/back-v1").endpoints[0].ready);
    assert!(!compiled.workload("shop/front").endpoints[0].ready, "found by its address");
    assert_eq!(compiled.workload("shop/back-v2").endpoints.len(), 0);
}

#[test]
fn a_service_of_addresses_that_are_no_pods_is_left_alone() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: 10.9.0.5, ports: [{name: tcp, port: 5432}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{name: tcp, port: 5432}]\nendpoints: [{addresses: [192.0.2.7]}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: shop}\nspec: {type: ExternalName, externalName: example.com}\n",
    );
    assert!(compiled.service("db").is_none(), "known without endpoints would mean refused");
    assert!(compiled.service("alias").is_none());
    assert_eq!(compiled.found(Code::ServiceNotInMesh).len(), 2);
}

#[test]
fn a_service_without_pods_is_known_and_fails() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: shop}\nspec: {clusterIP: 10.9.0.6, selector: {app: nobody}, ports: [{port: 80}]}\n",
    );
    assert!(compiled.service("empty").is_some());
}

#[test]
fn a_target_port_that_no_container_has_is_said() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: odd, namespace: shop}\nspec: {selector: {app: front}, ports: [{name: http, port: 80, targetPort: web}]}\n",
    );
    assert_eq!(compiled.workload("shop/front").endpoints[0].ports, BTreeMap::new());
    assert_eq!(compiled.found(Code::UnknownTargetPort)[0].field, "spec.ports[0].targetPort");
}

#[test]
fn external_addresses_take_nothing_from_services_and_pods() {
    let outside_the_mesh = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: 10.9.0.5, ports: [{name: tcp, port: 5432}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{name: tcp, port: 5432}]\nendpoints: [{addresses: [192.0.2.7]}]\n---\n";
    let thief = |more: &str| {
        let compiled = shop(&format!(
            "{outside_the_mesh}apiVersion: v1\nkind: Service\nmetadata: {{name: thief, namespace: a-den}}\nspec: {{clusterIP: 10.9.9.9, ports: [{{port: 80}}]{more}\n"
        ));
        let vips: Vec<String> =
            compiled.service("thief").expect("it").vips.iter().map(ToString::to_string).collect();
        let found = compiled.found(Code::AddressConflict);
        (vips, found.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>())
    };
    let table = [
        (", externalIPs: [10.9.0.2]}", "Service shop/back"),
        (", externalIPs: [10.9.0.5]}", "Service shop/db"),
        (", externalIPs: [\"::ffff:10.1.0.1\"]}", "Pod shop/front"),
        (", externalIPs: [\"fd00:1::2\"]}", "Pod shop/back-v1"),
        ("}\nstatus: {loadBalancer: {ingress: [{ip: 10.9.0.2}]}}", "Service shop/back"),
    ];
    for (more, owner) in table {
        let (vips, said) = thief(more);
        assert_eq!(vips, ["10.9.9.9"], "{more}");
        assert_eq!(said.len(), 1, "{more}");
        assert!(said[0].contains(owner), "{}", said[0]);
    }
    let (vips, said) = thief(", externalIPs: [10.9.9.9, 192.0.2.1]}");
    assert_eq!((vips, said.len()), (vec!["10.9.9.9".to_owned(), "192.0.2.1".to_owned()], 0));
}

#[test]
fn a_cluster_address_belongs_to_one_service() {
    let compiled = shop(
        "apiVersion: v1\nkind: Service\nmetadata: {name: thief, namespace: shop}\nspec: {clusterIP: 10.9.0.2, ports: [{port: 80}]}\n",
    );
    assert!(compiled.found(Code::AddressConflict)[0].message.contains("Service shop/back"));
}
