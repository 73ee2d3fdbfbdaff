//! Whatever the model says survives the wire; whatever is bad is refused with its path; nothing panics.

use std::collections::BTreeMap;

use mesh_model::{identity::Identity, resource::Resource, workload::Workload};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{encode, version::Version};

mod strategy;

use strategy::any_resource;

proptest! {
    #[test]
    fn every_resource_survives_the_wire(original in any_resource()) {
        let bytes = encode::resource(&original).encode_to_vec();
        let wire = v1::Resource::decode(bytes.as_slice()).expect("our own encoding");
        prop_assert_eq!(&resource(wire).expect("our own resource"), &original);
        let key = encode::key(&original.key());
        prop_assert_eq!(super::key(key).expect("our own key"), original.key());
    }

    #[test]
    fn equal_resources_have_equal_versions_and_others_do_not(one in any_resource(), other in any_resource()) {
        let version = |resource: &Resource| Version::of(&encode::resource(resource));
        prop_assert_eq!(version(&one), version(&one.clone()));
        prop_assert_eq!(version(&one) == version(&other), one == other);
        prop_assert_eq!(Version::try_from(version(&one).to_bytes().as_ref()), Ok(version(&one)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(wire) = v1::Resource::decode(bytes.as_slice()) {
            drop(resource(wire));
        }
        if let Ok(wire) = v1::ResourceKey::decode(bytes.as_slice()) {
            drop(key(wire));
        }
    }

    /// Bytes near a good message reach further into the decoder than random ones.
    #[test]
    fn damaged_messages_never_panic(
        original in any_resource(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = encode::resource(&original).encode_to_vec();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(wire) = v1::Resource::decode(bytes.as_slice()) {
            drop(resource(wire));
        }
    }
}

fn good_workload() -> v1::Workload {
    v1::Workload {
        uid: "uid".to_owned(),
        name: "web".to_owned(),
        namespace: "shop".to_owned(),
        identity: Some(v1::Identity {
            trust_domain: "cluster.local".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
        }),
        node: "node-a".to_owned(),
        ips: vec!["10.0.0.1".to_owned()],
        telemetry: Some(v1::Telemetry::default()),
        mtls: Some(Default::default()),
        exclusions: Some(v1::Exclusions::default()),
        ..v1::Workload::default()
    }
}

fn decoded(workload: v1::Workload) -> Result<Workload, String> {
    let wire = v1::Resource { body: Some(v1::resource::Body::Workload(workload)) };
    match resource(wire).map_err(|error| error.to_string())? {
        Resource::Workload(workload) => Ok(workload),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn addresses_become_canonical() {
    let workload =
        decoded(v1::Workload { ips: vec!["::ffff:10.0.0.1".to_owned()], ..good_workload() }).expect("good");
    assert_eq!(workload.ips, ["10.0.0.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(Ok(workload.identity), Identity::parse("spiffe://cluster.local/ns/shop/sa/web"));
}

#[test]
fn a_bad_workload_is_refused_with_the_path_of_the_field() {
    let good = good_workload;
    let endpoint = |service: Option<v1::ServiceKey>, ports: &[(u32, u32)]| {
        vec![v1::EndpointOf { service, ports: ports.iter().copied().collect(), ready: true }]
    };
    let key = || Some(v1::ServiceKey { namespace: "shop".to_owned(), host: "reviews".to_owned() });
    let table = [
        (v1::Workload { uid: String::new(), ..good() }, "workload.uid: is empty"),
        (v1::Workload { node: String::new(), ..good() }, "workload.node: is empty"),
        (v1::Workload { identity: None, ..good() }, "workload.identity: is missing"),
        (
            v1::Workload {
                identity: Some(v1::Identity { service_account: String::new(), ..good().identity.unwrap() }),
                ..good()
            },
            "workload.identity.service_account: is empty",
        ),
        (
            v1::Workload { ips: vec!["10.0.0.1".to_owned(), "10.0.0".to_owned()], ..good() },
            "workload.ips[1]: \"10.0.0\" is not an IP address",
        ),
        (v1::Workload { tunnel: 7, ..good() }, "workload.tunnel: enum Tunnel has no value 7"),
        (
            v1::Workload { protocols: BTreeMap::from([(80, 99)]), ..good() },
            "workload.protocols[80]: enum Protocol has no value 99",
        ),
        (
            v1::Workload { protocols: BTreeMap::from([(70_000, 0)]), ..good() },
            "workload.protocols[70000]: 70000 is not in 1..=65535",
        ),
        (
            v1::Workload { mtls: Some(v1::MtlsModes { default: -1, ..Default::default() }), ..good() },
            "workload.mtls.default: enum MtlsMode has no value -1",
        ),
        (
            v1::Workload { endpoints: endpoint(None, &[]), ..good() },
            "workload.endpoints[0].service: is missing",
        ),
        (
            v1::Workload { endpoints: endpoint(key(), &[(80, 0)]), ..good() },
            "workload.endpoints[0].ports[80]: 0 is not in 1..=65535",
        ),
        (
            v1::Workload {
                policies: vec![v1::ObjectKey { namespace: "shop".to_owned(), name: String::new() }],
                ..good()
            },
            "workload.policies[0].name: is empty",
        ),
        (
            v1::Workload {
                exclusions: Some(v1::Exclusions {
                    outbound_cidrs: vec!["10.0.0.0/40".to_owned()],
                    ..v1::Exclusions::default()
                }),
                ..good()
            },
            "workload.exclusions.outbound_cidrs[0]: \"10.0.0.0/40\" is not an IP network",
        ),
        (v1::Workload { netns: Some(String::new()), ..good() }, "workload.netns: is empty"),
    ];
    assert!(decoded(good()).is_ok());
    for (bad, expected) in table {
        assert_eq!(decoded(bad).expect_err("bad"), expected);
    }
}

/// A table with one rule, changed by the test.
fn decoded_rule(change: impl FnOnce(&mut v1::HttpRule)) -> Result<Resource, String> {
    let mut rule = v1::HttpRule {
        name: "rule".to_owned(),
        matches: vec![v1::HttpMatch::default()],
        destinations: vec![v1::WeightedDestination {
            host: "reviews".to_owned(),
            ..v1::WeightedDestination::default()
        }],
        retry: Some(v1::RetryPolicy {
            on: Some(v1::RetryOn::default()),
            backoff: Some(v1::Nanos { nanos: 1 }),
            ..v1::RetryPolicy::default()
        }),
        ..v1::HttpRule::default()
    };
    change(&mut rule);
    let table = v1::RouteTable {
        key: Some(v1::ObjectKey { namespace: "shop".to_owned(), name: "reviews".to_owned() }),
        hosts: vec!["reviews".to_owned()],
        export_to: Some(v1::Visibility { all: true, namespaces: vec![] }),
        created: String::new(),
        rules: vec![rule],
        gateway_port: None,
    };
    let wire = v1::Resource { body: Some(v1::resource::Body::Routes(table)) };
    resource(wire).map_err(|error| error.to_string())
}

#[test]
fn a_bad_rule_is_refused_with_the_path_of_the_field() {
    let string = |kind| Some(v1::StringMatch { kind });
    let regex = |source: &str| string(Some(v1::string_match::Kind::Regex(source.to_owned())));
    let set = |name: &str, value: &str| {
        let set = vec![v1::HeaderPair { name: name.to_owned(), value: value.to_owned() }];
        Some(v1::HeaderEdits { set, ..v1::HeaderEdits::default() })
    };
    let refused = |change: &dyn Fn(&mut v1::HttpRule)| decoded_rule(change).expect_err("bad");
    assert!(decoded_rule(|_| ()).is_ok());
    assert_eq!(refused(&|rule| rule.destinations.clear()), "routes.rules[0].destinations: is empty");
    assert_eq!(
        refused(&|rule| rule.destinations.push(rule.destinations[0].clone())),
        "routes.rules[0].destinations: total destination weight = 0"
    );
    assert_eq!(refused(&|rule| rule.retry = None), "routes.rules[0].retry: is missing");
    assert_eq!(
        refused(&|rule| rule.matches[0].uri = string(None)),
        "routes.rules[0].matches[0].uri.kind: is missing"
    );
    let bad = refused(&|rule| rule.matches[0].uri = regex("("));
    assert!(
        bad.starts_with("routes.rules[0].matches[0].uri.regex: regular expression \"(\" is refused"),
        "{bad}"
    );
    let huge = refused(&|rule| rule.matches[0].uri = regex("((a{100}){100}){100}"));
    assert!(huge.contains("is refused"), "{huge}");
    let upper = |rule: &mut v1::HttpRule| {
        rule.matches[0].headers.insert(
            "End-User".to_owned(),
            v1::StringMatch { kind: Some(v1::string_match::Kind::Present(v1::Unit {})) },
        );
    };
    assert_eq!(
        refused(&upper),
        "routes.rules[0].matches[0].headers[End-User]: \"End-User\" is not a legal header name"
    );
    assert_eq!(
        refused(&|rule| rule.request_headers = set("x y", "v")),
        "routes.rules[0].request_headers.set[0].name: \"x y\" is not a legal header name"
    );
    assert_eq!(
        refused(&|rule| rule.response_headers = set("x", "secret\r\nevil: 1")),
        "routes.rules[0].response_headers.set[0].value: is not a legal header value"
    );
    let status = |rule: &mut v1::HttpRule| {
        if let Some(on) = rule.retry.as_mut().and_then(|retry| retry.on.as_mut()) {
            on.statuses = vec![503, 70_000];
        }
    };
    assert_eq!(refused(&status), "routes.rules[0].retry.on.statuses[1]: 70000 is not in 100..=999");
}

#[test]
fn nothing_at_all_is_refused() {
    assert_eq!(
        resource(v1::Resource { body: None }).map_err(|error| error.to_string()),
        Err("body: is missing".to_owned())
    );
    assert_eq!(
        key(v1::ResourceKey { key: None }).map_err(|error| error.to_string()),
        Err("key: is missing".to_owned())
    );
}

#[test]
fn a_grant_is_not_shown() {
    let grant = v1::GrantReply { token: "hush".to_owned(), ..v1::GrantReply::default() };
    assert!(!format!("{grant:?}").contains("hush"));
}

#[test]
fn a_version_is_the_hash_of_a_known_encoding() {
    let empty = v1::Resource { body: None };
    assert_eq!(Version::of(&empty).to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
}
