//! VirtualServices.

use std::time::Duration;

use mesh_api::{Code, Compiled};
use mesh_model::{
    route::{RetryPolicy, Visibility},
    text::StringMatch,
};

use crate::world::{Ask, shop};

/// A VirtualService of namespace shop whose spec is `spec`, in flow or block style, indented by two.
fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}\n---\n"
    )
}

fn routed(spec: &str) -> Compiled {
    shop(&virtual_service("back", spec))
}

const SUBSETS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: back, namespace: shop}\nspec: {host: back, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";

#[test]
fn matches_shares_and_short_names() {
    let compiled = shop(
        &[
            &virtual_service(
                "back",
                r#"
  hosts: [back]
  http:
    - name: tester
      match:
        - headers: {End-User: {exact: jason}, x-trace: {}}
          uri: {prefix: /api}
          method: {regex: "GET|HEAD"}
          withoutHeaders: {x-bot: {regex: "*"}}
          queryParams: {v: {exact: "2"}}
          port: 80
          sourceLabels: {app: front}
          sourceNamespace: shop
      route: [{destination: {host: back, subset: v2}}]
      timeout: 1m30s
    - route:
        - {destination: {host: back, subset: v1}, weight: 90}
        - {destination: {host: back.shop.svc.cluster.local, subset: v2, port: {number: 80}}, weight: 10}
"#,
            ),
            SUBSETS,
        ]
        .map(|text: &str| text.to_owned())
        .concat(),
    );
    assert_eq!(compiled.complaints(), [] as [String; 0]);
    let table = compiled.routes("back");
    assert_eq!(table.hosts[0].as_str(), "back.shop.svc.cluster.local");
    assert_eq!(table.export_to, Visibility::All);
    let rule = &table.rules[0];
    assert_eq!((&*rule.name, rule.timeout), ("tester", Some(Duration::from_secs(90))));
    let one = &rule.matches[0];
    assert_eq!(
        one.headers.get("end-user"),
        Some(&StringMatch::Exact("jason".to_owned())),
        "names are lower-cased"
    );
    assert_eq!(one.headers.get("x-trace"), Some(&StringMatch::Present));
    assert_eq!(one.without_headers.get("x-bot"), Some(&StringMatch::Present));
    assert_eq!((one.port, one.source_namespace.as_ref().map(|name| name.as_str())), (Some(80), Some("shop")));
    let shares: Vec<_> = table.rules[1]
        .destinations
        .iter()
        .map(|share| (share.weight, share.destination.host.as_str().to_owned(), share.destination.port))
        .collect();
    let host = "back.shop.svc.cluster.local".to_owned();
    assert_eq!(shares, [(90, host.clone(), None), (10, host, Some(80))]);
    assert_eq!(table.rules[1].name, "http[1]");
}

#[test]
fn retries_and_their_default() {
    let compiled = routed(
        r#"
  hosts: [back]
  http:
    - match: [{uri: {exact: /a}}]
      route: [{destination: {host: back}}]
      retries: {attempts: 3, perTryTimeout: 2s, retryOn: "5xx,503,unavailable"}
    - match: [{uri: {exact: /b}}]
      route: [{destination: {host: back}}]
      retries: {attempts: 0}
    - match: [{uri: {exact: /c}}]
      route: [{destination: {host: back}}]
      retries: {attempts: 5, backoff: 100ms}
    - route: [{destination: {host: back}}]
      timeout: 0s
"#,
    );
    assert_eq!(compiled.complaints(), [] as [String; 0]);
    let rules = &compiled.routes("back").rules;
    let first = &rules[0].retry;
    assert_eq!((first.attempts, first.per_try_timeout), (3, Some(Duration::from_secs(2))));
    assert!(first.on.server_error && first.on.connect_failure && first.on.refused_stream, "5xx covers these");
    assert_eq!((&*first.on.statuses, &*first.on.grpc), (&[503][..], &[14][..]));
    assert_eq!(rules[1].retry.attempts, 0);
    assert_eq!((rules[2].retry.attempts, rules[2].retry.backoff), (5, Duration::from_millis(100)));
    assert_eq!(rules[2].retry.on, RetryPolicy::mesh_default().on);
    assert_eq!(rules[3].retry, RetryPolicy::mesh_default());
    assert_eq!(rules[3].timeout, None, "0s is none");
}

#[test]
fn header_operations() {
    let compiled = routed(
        "  hosts: [back]\n  http:\n    - headers: {request: {set: {X-A: a}, remove: [X-B]}}\n      route: [{destination: {host: back}, headers: {response: {add: {x-c: c}}}}]",
    );
    let rule = &compiled.routes("back").rules[0];
    assert_eq!(rule.request_headers.set, [("x-a".to_owned(), "a".to_owned())]);
    assert_eq!(rule.request_headers.remove, ["x-b"]);
    assert_eq!(rule.destinations[0].response_headers.add, [("x-c".to_owned(), "c".to_owned())]);
}

/// What is written, and the field that is complained about. Each refuses the object: there are no routes.
#[test]
fn nonsense_is_refused_with_its_field() {
    let to = "route: [{destination: {host: back}}]";
    let cases = [
        ("  hosts: []\n  http: [{route: [{destination: {host: back}}]}]".to_owned(), "spec.hosts"),
        ("  hosts: [back]".to_owned(), "spec"),
        (format!("  hosts: ['b ck']\n  http: [{{{to}}}]"), "spec.hosts[0]"),
        ("  hosts: [back]\n  http: [{}]".to_owned(), "spec.http[0].route"),
        ("  hosts: [back]\n  http: [{route: [{destination: {}}]}]".to_owned(), "spec.http[0].route[0].destination.host"),
        (
            "  hosts: [back]\n  http: [{route: [{destination: {host: back}, weight: -1}]}]".to_owned(),
            "spec.http[0].route[0].weight",
        ),
        (
            "  hosts: [back]\n  http: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}]".to_owned(),
            "spec.http[0].route",
        ),
        (
            "  hosts: [back]\n  http: [{route: [{destination: {host: back, port: {number: 70000}}}]}]".to_owned(),
            "spec.http[0].route[0].destination.port.number",
        ),
        (format!("  hosts: [back]\n  http: [{{{to}, timeout: 2}}]").replace("2}", "\"2\"}"), "spec.http[0].timeout"),
        (format!("  hosts: [back]\n  http: [{{{to}, timeout: 10us}}]"), "spec.http[0].timeout"),
        (
            format!("  hosts: [back]\n  http: [{{{to}, retries: {{attempts: 0, retryOn: reset}}}}]"),
            "spec.http[0].retries.attempts",
        ),
        (
            format!("  hosts: [back]\n  http: [{{{to}, retries: {{attempts: 1, retryOn: often}}}}]"),
            "spec.http[0].retries.retryOn",
        ),
        (
            format!("  hosts: [back]\n  http: [{{{to}, match: [{{uri: {{regex: '('}}}}]}}]"),
            "spec.http[0].match[0].uri.regex",
        ),
        (
            format!("  hosts: [back]\n  http: [{{{to}, match: [{{uri: {{exact: a, prefix: b}}}}]}}]"),
            "spec.http[0].match[0].uri",
        ),
        (
            format!("  hosts: [back]\n  http: [{{{to}, match: [{{headers: {{':path': {{exact: a}}}}}}]}}]"),
            "spec.http[0].match[0].headers.:path",
        ),
        (
            format!("  hosts: [back]\n  http: [{{{to}, headers: {{request: {{set: {{'a b': c}}}}}}}}]"),
            "spec.http[0].headers.request.set.a b",
        ),
        ("  hosts: [back]\n  http: [{redirect: {uri: /x}}]".to_owned(), "spec.http[0].redirect"),
        (format!("  hosts: [back]\n  http: [{{{to}, rewrite: {{uri: /x}}}}]"), "spec.http[0].rewrite"),
        (format!("  hosts: [back]\n  http: [{{{to}}}]\n  exportTo: ['A B']"), "spec.exportTo[0]"),
    ];
    for (spec, field) in cases {
        let compiled = routed(&spec);
        let fields: Vec<&str> = compiled.diagnostics.iter().map(|finding| &*finding.field).collect();
        assert!(fields.contains(&field), "{spec}\nfound {:#?}", compiled.diagnostics);
        assert!(
            !compiled
                .resources
                .values()
                .any(|resource| matches!(resource, mesh_model::resource::Resource::Routes(_))),
            "{spec}"
        );
    }
}

#[test]
fn what_is_not_implemented_is_named_and_the_rest_is_used() {
    let compiled = routed(
        "  hosts: [back]\n  tcp: [{route: []}]\n  http:\n    - route: [{destination: {host: back}}]\n      fault: {delay: {fixedDelay: 5s}}\n      mirror: {host: back}\n      corsPolicy: {}",
    );
    let fields: Vec<&str> =
        compiled.found(Code::NotImplemented).iter().map(|finding| &*finding.field).collect();
    assert_eq!(fields, ["spec.http[0].corsPolicy", "spec.http[0].fault", "spec.http[0].mirror", "spec.tcp"]);
    assert_eq!(compiled.routes("back").rules.len(), 1);
}

#[test]
fn what_is_named_and_not_there_is_said() {
    let compiled = routed(
        "  hosts: [back]\n  http:\n    - route:\n        - {destination: {host: ghost}, weight: 1}\n        - {destination: {host: back, subset: canary}, weight: 1}\n        - {destination: {host: back, port: {number: 81}}, weight: 1}",
    );
    let found = compiled.found(Code::ReferenceNotFound);
    let fields: Vec<&str> = found.iter().map(|finding| &*finding.field).collect();
    assert_eq!(
        fields,
        [
            "spec.http[0].route[0].destination.host",
            "spec.http[0].route[1].destination.subset",
            "spec.http[0].route[2].destination.port.number"
        ]
    );
    assert!(found[0].message.contains("ghost.shop.svc.cluster.local"));
    assert_eq!(compiled.routes("back").rules[0].destinations.len(), 3, "the shares stay as they are written");
}

#[test]
fn rules_after_a_catch_all_are_dead() {
    let compiled = routed(
        "  hosts: [back]\n  http:\n    - match: [{uri: {exact: /a}}]\n      route: [{destination: {host: back}}]\n    - match: [{uri: {exact: /a}}]\n      route: [{destination: {host: back}}]\n    - route: [{destination: {host: back}}]\n    - name: dead\n      route: [{destination: {host: back}}]",
    );
    assert_eq!(compiled.routes("back").rules.len(), 3);
    assert_eq!(compiled.found(Code::UnreachableRule)[0].field, "spec.http[3]");
    assert_eq!(compiled.found(Code::IneffectiveMatch)[0].field, "spec.http[1].match");
}

#[test]
fn a_partial_name_is_completed_and_said() {
    let compiled = routed("  hosts: [back.shop]\n  http: [{route: [{destination: {host: back.shop.svc}}]}]");
    let table = compiled.routes("back");
    assert_eq!(table.hosts[0].as_str(), "back.shop.svc.cluster.local");
    assert_eq!(table.rules[0].destinations[0].destination.host.as_str(), "back.shop.svc.cluster.local");
    assert_eq!(compiled.found(Code::PartialHost).len(), 2);
}

#[test]
fn routes_for_others_and_for_nobody_are_said() {
    let compiled = shop(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: far, namespace: other}\nspec:\n  hosts: [back.shop.svc.cluster.local, ghost]\n  http: [{route: [{destination: {host: back.shop.svc.cluster.local}}]}]\n",
    );
    assert_eq!(compiled.found(Code::ForeignHost)[0].field, "spec.hosts[0]");
    assert_eq!(compiled.found(Code::RouteWithoutService)[0].field, "spec.hosts[1]");
}

#[test]
fn of_two_objects_for_a_host_the_older_is_used_and_the_other_is_told() {
    let second =
        virtual_service("second", "  hosts: [back]\n  http: [{route: [{destination: {host: back}}]}]");
    let first = virtual_service("first", "  hosts: [back]\n  http: [{route: [{destination: {host: back}}]}]");
    let compiled = shop(&[second, first].concat());
    let found = compiled.found(Code::DuplicateHost);
    assert_eq!(found[0].object.as_ref().map(|object| &*object.name), Some("second"));
    assert!(found[0].message.contains("shop/first"), "{}", found[0].message);
}

#[test]
fn routes_for_gateways_are_not_for_the_mesh() {
    let compiled = routed(
        "  hosts: [back]\n  gateways: [mesh, edge]\n  http:\n    - match: [{gateways: [edge]}]\n      route: [{destination: {host: back}}]\n    - match: [{gateways: [mesh], uri: {exact: /}}, {gateways: [edge]}]\n      route: [{destination: {host: back}}]",
    );
    let rules = &compiled.routes("back").rules;
    assert_eq!(rules.len(), 1, "a rule for gateways only is no catch-all of the mesh");
    assert_eq!((&*rules[0].name, rules[0].matches.len()), ("http[1]", 1));

    let compiled =
        routed("  hosts: [back]\n  gateways: [edge]\n  http: [{route: [{destination: {host: back}}]}]");
    assert_eq!(compiled.found(Code::NotImplemented)[0].field, "spec.gateways");
}

#[test]
fn export_to_is_resolved() {
    let compiled =
        routed("  hosts: [back]\n  exportTo: ['.', other]\n  http: [{route: [{destination: {host: back}}]}]");
    let expected = ["shop", "other"].map(mesh_model::name::Namespace::from).to_vec();
    assert_eq!(compiled.routes("back").export_to, Visibility::Namespaces(expected));
}
