//! DestinationRules.

use std::time::Duration;

use mesh_api::{Code, Compiled};
use mesh_model::traffic::{Balancer, DestinationPolicy};

use crate::world::{Ask, shop};

fn rule(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}\n---\n"
    )
}

fn ruled(spec: &str) -> Compiled {
    shop(&rule("back", spec))
}

fn only(compiled: &Compiled) -> &DestinationPolicy {
    let all = compiled.destinations();
    assert_eq!(all.len(), 1, "{:#?}", compiled.diagnostics);
    all[0]
}

#[test]
fn a_subset_overrides_block_by_block_and_a_port_replaces() {
    let compiled = ruled(
        r#"
  host: back
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {connectTimeout: 3s}, http: {maxRequestsPerConnection: 7}}
    portLevelSettings:
      - port: {number: 81}
        loadBalancer: {simple: RANDOM}
  subsets:
    - name: v1
      labels: {version: v1}
    - name: v2
      labels: {version: v2}
      trafficPolicy:
        loadBalancer: {simple: LEAST_CONN}
        portLevelSettings:
          - port: {number: 82}
            connectionPool: {tcp: {connectTimeout: 1s}}
"#,
    );
    assert_eq!(compiled.complaints(), [] as [String; 0]);
    let rule = only(&compiled);
    assert_eq!(rule.host.as_str(), "back.shop.svc.cluster.local");
    let whole = rule.policy.of(80);
    assert_eq!((whole.balancer, whole.connect_timeout), (Balancer::RoundRobin, Some(Duration::from_secs(3))));
    assert_eq!(whole.max_requests_per_connection, Some(7));
    let port = rule.policy.of(81);
    assert_eq!((port.balancer, port.connect_timeout), (Balancer::Random, None), "a port does not inherit");

    let v1 = &rule.subsets.get("v1").expect("v1").policy;
    assert_eq!(v1.of(80), whole);
    let v2 = &rule.subsets.get("v2").expect("v2").policy;
    assert_eq!(v2.of(80).balancer, Balancer::LeastRequest, "LEAST_CONN is its old name");
    assert_eq!(v2.of(80).connect_timeout, Some(Duration::from_secs(3)), "the other block stays");
    assert_eq!(v2.of(81).balancer, Balancer::LeastRequest, "the subset's block over the host's port");
    assert_eq!(
        v2.of(82).balancer,
        Balancer::RoundRobin,
        "the subset's port says nothing of it, the host does"
    );
    assert_eq!(v2.of(82).connect_timeout, Some(Duration::from_secs(1)));
}

#[test]
fn several_rules_for_a_host_are_merged_the_oldest_first() {
    let compiled = shop(
        &[
            rule("a", "  host: back\n  subsets: [{name: v1, labels: {version: v1}}]"),
            rule(
                "b",
                "  host: back\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n  subsets: [{name: v1, labels: {version: v2}}, {name: v2, labels: {version: v2}}]",
            ),
            rule("c", "  host: back\n  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}"),
        ]
        .concat(),
    );
    let rule = only(&compiled);
    assert_eq!(&*rule.key.name, "a");
    assert_eq!(rule.policy.all.balancer, Balancer::Random, "the first that has a policy");
    assert_eq!(&*rule.subsets.get("v1").expect("v1").labels["version"], "v1");
    assert!(rule.subsets.contains_key("v2"));
    let fields: Vec<&str> =
        compiled.found(Code::DefinedByOlder).iter().map(|finding| &*finding.field).collect();
    assert_eq!(fields, ["spec.subsets", "spec.trafficPolicy"]);
}

#[test]
fn nonsense_is_refused_with_its_field() {
    let cases = [
        ("  host: ''", "spec.host"),
        ("  host: back\n  subsets: [{labels: {}}]", "spec.subsets[0].name"),
        ("  host: back\n  subsets: [{name: a}, {name: a}]", "spec.subsets[1].name"),
        (
            "  host: back\n  trafficPolicy: {portLevelSettings: [{port: {number: 0}}]}",
            "spec.trafficPolicy.portLevelSettings[0].port.number",
        ),
        (
            "  host: back\n  trafficPolicy: {connectionPool: {tcp: {connectTimeout: soon}}}",
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
        ),
        (
            "  host: back\n  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: -1}}}",
            "spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection",
        ),
        ("  host: back\n  workloadSelector: {matchLabels: {app: front}}", "spec.workloadSelector"),
    ];
    for (spec, field) in cases {
        let compiled = ruled(spec);
        let fields: Vec<&str> = compiled.diagnostics.iter().map(|finding| &*finding.field).collect();
        assert!(fields.contains(&field), "{spec}\nfound {fields:?}");
        assert!(compiled.destinations().is_empty(), "{spec}");
    }
}

#[test]
fn what_is_not_implemented_is_named_and_the_rest_is_used() {
    let compiled = ruled(
        "  host: back\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 5}\n    tls: {mode: SIMPLE}\n    loadBalancer: {simple: RANDOM, warmup: {}}\n    connectionPool: {tcp: {maxConnections: 100}, http: {http1MaxPendingRequests: 10}}",
    );
    assert_eq!(only(&compiled).policy.all.balancer, Balancer::Random);
    let fields: Vec<&str> =
        compiled.found(Code::NotImplemented).iter().map(|finding| &*finding.field).collect();
    assert_eq!(
        fields,
        [
            "spec.trafficPolicy.connectionPool.http.http1MaxPendingRequests",
            "spec.trafficPolicy.connectionPool.tcp.maxConnections",
            "spec.trafficPolicy.loadBalancer.warmup",
            "spec.trafficPolicy.outlierDetection",
            "spec.trafficPolicy.tls",
        ]
    );
}

#[test]
fn a_host_nobody_has_and_a_subset_nobody_is_in_are_said() {
    let compiled = shop(
        &[
            rule("ghost", "  host: ghost"),
            rule("back", "  host: back\n  subsets: [{name: v9, labels: {version: v9}}]"),
        ]
        .concat(),
    );
    assert_eq!(compiled.found(Code::UnknownDestinationHost)[0].field, "spec.host");
    assert_eq!(compiled.found(Code::EmptySubset)[0].field, "spec.subsets[0].labels");
}

#[test]
fn a_wildcard_stands_for_every_service_it_matches() {
    let compiled =
        ruled("  host: '*.shop.svc.cluster.local'\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    assert_eq!(only(&compiled).host.as_str(), "*.shop.svc.cluster.local");
    assert_eq!(compiled.complaints(), [] as [String; 0]);
}
