//! Who answers for a service on a cluster: EndpointSlices as the API server's controller writes them.

use mesh_api::{Code, Compiled, Enrolled, Index, Options, compile, parse};

use crate::world::{Ask, SHOP};

fn cluster(yaml: &str) -> Compiled {
    let mut index = Index::with_options(Options::on_cluster("mesh".into()));
    let _ = index.apply_file(parse("0-shop.yaml", SHOP));
    let _ = index.apply_file(parse("1-more.yaml", yaml));
    compile(&index, &Enrolled::default())
}

/// A slice of service `back` with these endpoints.
fn slice(name: &str, family: &str, endpoints: &[&str]) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: back}}}}\naddressType: {family}\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

fn endpoint(ip: &str, pod: &str, conditions: &str) -> String {
    format!(
        "{{addresses: [\"{ip}\"], conditions: {{{conditions}}}, nodeName: n1, targetRef: {{kind: Pod, namespace: shop, {pod}}}}}"
    )
}

/// Is the pod an endpoint of `back`, and ready?
fn state(compiled: &Compiled, uid: &str) -> Option<bool> {
    compiled.workload(uid).endpoints.first().map(|end| end.ready)
}

#[test]
fn a_service_without_slices_has_no_endpoints_yet() {
    let compiled = cluster("");
    assert!(compiled.service("back").is_some(), "known, so its traffic fails and does not pass through");
    assert_eq!(state(&compiled, "shop/back-v1"), None);
}

#[test]
fn conditions_say_who_is_ready() {
    let table = [
        ("", true),
        ("ready: true, serving: true, terminating: false", true),
        ("ready: false, serving: false, terminating: false", false),
        ("ready: false, serving: false, terminating: true", false),
    ];
    for (conditions, expected) in table {
        let one = endpoint("10.1.0.2", "name: back-v1", conditions);
        assert_eq!(
            state(&cluster(&slice("a", "IPv4", &[&one])), "shop/back-v1"),
            Some(expected),
            "{conditions}"
        );
    }
}

#[test]
fn those_that_drain_serve_while_nobody_else_does() {
    let draining = endpoint("10.1.0.2", "name: back-v1", "ready: false, serving: true, terminating: true");
    let ready = endpoint("10.1.1.2", "name: back-v2", "ready: true");
    let alone = cluster(&slice("a", "IPv4", &[&draining]));
    assert_eq!(state(&alone, "shop/back-v1"), Some(true));
    let both = cluster(&[slice("a", "IPv4", &[&draining]), slice("b", "IPv4", &[&ready])].concat());
    assert_eq!((state(&both, "shop/back-v1"), state(&both, "shop/back-v2")), (Some(false), Some(true)));
}

#[test]
fn both_families_are_one_endpoint() {
    let four = endpoint("10.1.0.2", "name: back-v1", "ready: true");
    let six = endpoint("fd00:1::2", "name: back-v1", "ready: true");
    let compiled = cluster(&[slice("a", "IPv4", &[&four]), slice("b", "IPv6", &[&six])].concat());
    assert_eq!(compiled.workload("shop/back-v1").endpoints.len(), 1);
    assert_eq!(compiled.workload("shop/back-v1").ips.len(), 2);
}

#[test]
fn an_endpoint_whose_pod_has_gone_does_not_open_the_service() {
    let ghost = endpoint("10.1.0.99", "name: ghost", "ready: true");
    let compiled = cluster(&slice("a", "IPv4", &[&ghost]));
    assert!(compiled.service("back").is_some(), "passing through would be plaintext");
    assert_eq!(compiled.found(Code::ServiceNotInMesh).len(), 0);
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let old = endpoint("10.1.0.2", "name: web-0, uid: old", "ready: true");
    let heir = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-0, namespace: shop, uid: new}\nspec: {nodeName: n1, containers: []}\nstatus: {podIP: 10.1.0.50}\n---\n";
    let compiled = cluster(&[heir.to_owned(), slice("a", "IPv4", &[&old])].concat());
    assert_eq!(state(&compiled, "new"), None);
    assert!(compiled.service("back").is_some());
}

#[test]
fn a_slice_that_is_ahead_of_the_pods_address_waits_for_it() {
    let early = endpoint("10.1.0.60", "name: early", "ready: true");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: early, namespace: shop}\nspec: {nodeName: n1, containers: []}\nstatus: {phase: Pending}\n---\n";
    let compiled = cluster(&[pod.to_owned(), slice("a", "IPv4", &[&early])].concat());
    assert_eq!(state(&compiled, "shop/early"), Some(false));
}

#[test]
fn what_the_mesh_cannot_capture_passes_through_as_dialled() {
    let on_host = "apiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: shop}\nspec: {nodeName: n1, hostNetwork: true, containers: []}\nstatus: {podIP: 192.0.2.1}\n---\n";
    let mirror = "apiVersion: v1\nkind: Pod\nmetadata: {name: h, namespace: shop, annotations: {kubernetes.io/config.mirror: x}}\nspec: {nodeName: n1, containers: []}\nstatus: {podIP: 192.0.2.1}\n---\n";
    let by_name = endpoint("192.0.2.1", "name: h", "ready: true");
    let by_address = "{addresses: [192.0.2.1]}".to_owned();
    let by_fqdn = "{addresses: [db.example.com]}".to_owned();
    let table = [
        (on_host, &by_name, "IPv4"),
        (mirror, &by_name, "IPv4"),
        ("", &by_address, "IPv4"),
        ("", &by_fqdn, "FQDN"),
    ];
    for (pods, foreign, family) in table {
        let compiled = cluster(&[pods.to_owned(), slice("a", family, &[foreign])].concat());
        assert!(compiled.service("back").is_none(), "{foreign}");
        assert_eq!(compiled.found(Code::ServiceNotInMesh).len(), 1, "{foreign}");
    }
}

#[test]
fn a_finished_pod_in_a_slice_is_nobody() {
    let done = "apiVersion: v1\nkind: Pod\nmetadata: {name: job, namespace: shop}\nspec: {nodeName: n1, containers: []}\nstatus: {phase: Succeeded, podIP: 10.1.0.70}\n---\n";
    let stale = endpoint("10.1.0.70", "name: job", "ready: true");
    let compiled = cluster(&[done.to_owned(), slice("a", "IPv4", &[&stale])].concat());
    assert!(compiled.service("back").is_some() && !compiled.has_workload("shop/job"));
}

#[test]
fn a_headless_service_has_endpoints_and_no_address() {
    let headless = "apiVersion: v1\nkind: Service\nmetadata: {name: heads, namespace: shop}\nspec: {clusterIP: None, clusterIPs: [None], selector: {app: back}, publishNotReadyAddresses: true, ports: [{name: http, port: 80, targetPort: 8080}]}\n---\n";
    let unready = endpoint("10.1.0.2", "name: back-v1", "ready: true, serving: false, terminating: true");
    let slice = slice("a", "IPv4", &[&unready]).replace("service-name: back", "service-name: heads");
    let compiled = cluster(&[headless.to_owned(), slice].concat());
    assert_eq!(compiled.service("heads").map(|service| service.vips.len()), Some(0));
    let end = &compiled.workload("shop/back-v1").endpoints[0];
    assert_eq!((end.ready, end.ports.get(&80)), (true, Some(&8080)), "publishNotReadyAddresses makes it so");
}
