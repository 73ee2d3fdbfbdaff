//! Who may call whom: the tables of AuthorizationPolicy and PeerAuthentication.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    mtls::{MtlsMode, MtlsModes},
    resource::Resource,
    testing::{from, get, globs, identity, ip, peer, plaintext, policy, snapshot, to, workload},
};
use Action::{Allow, Deny};

/// A snapshot in which these policies select one workload.
fn world(policies: Vec<AuthzPolicy>) -> (Snapshot, Arc<Workload>) {
    let mut target = workload("target", "10.0.0.1");
    target.policies = policies.iter().map(|policy| policy.key.clone()).collect();
    with_target(target, policies)
}

fn with_target(target: Workload, policies: Vec<AuthzPolicy>) -> (Snapshot, Arc<Workload>) {
    let uid = target.uid.clone();
    let snapshot = snapshot(policies.into_iter().map(Resource::Policy).chain([Resource::Workload(target)]));
    let target = Arc::clone(snapshot.workload(&uid).expect("it was put in"));
    (snapshot, target)
}

fn l4(policies: Vec<AuthzPolicy>, peer: &Peer) -> Result<Permit, Denied> {
    let (snapshot, target) = world(policies);
    authorize(&snapshot, &target, peer, None)
}

fn l7(policies: Vec<AuthzPolicy>, peer: &Peer, request: &crate::testing::Request) -> Result<Permit, Denied> {
    let (snapshot, target) = world(policies);
    authorize(&snapshot, &target, peer, Some(&request.head()))
}

/// Whether one ALLOW rule lets this peer in.
fn rule_matches(rule: Rule, peer: &Peer) -> bool {
    l4(vec![policy("only", Allow, vec![rule])], peer).is_ok()
}

fn principals(texts: &[&str]) -> Source {
    Source { principals: globs(texts), ..Source::default() }
}

fn paths(texts: &[&str]) -> Operation {
    Operation { paths: globs(texts), ..Operation::default() }
}

#[test]
fn without_a_policy_everyone_is_let_in() {
    assert!(l4(vec![], &plaintext()).is_ok_and(|permit| permit.by().is_none()));
}

#[test]
fn an_empty_spec_denies_all_and_an_empty_rule_allows_all() {
    let denied = l4(vec![policy("nothing", Allow, vec![])], &peer()).expect_err("spec: {}");
    assert_eq!(denied, Denied::NoAllow { policies: vec![ObjectKey::new("shop", "nothing")] });
    assert_eq!(denied.detail(), "rbac_access_denied_matched_policy[none]");
    let permit = l4(vec![policy("all", Allow, vec![Rule::default()])], &plaintext()).expect("rules: [{}]");
    assert_eq!(permit.by(), Some(&ObjectKey::new("shop", "all")));
}

#[test]
fn deny_wins_over_allow_whatever_the_order() {
    let everyone = || vec![Rule::default()];
    for policies in [
        vec![policy("yes", Allow, everyone()), policy("no", Deny, everyone())],
        vec![policy("no", Deny, everyone()), policy("yes", Allow, everyone())],
    ] {
        let denied = l4(policies, &peer()).expect_err("DENY wins");
        assert_eq!(denied.detail(), "rbac_access_denied_matched_policy[ns[shop]-policy[no]-rule[0]]");
    }
}

#[test]
fn a_deny_that_does_not_match_needs_no_allow() {
    let other = policy("no", Deny, vec![from(principals(&["cluster.local/ns/shop/sa/other"]))]);
    assert!(l4(vec![other], &peer()).is_ok());
}

#[test]
fn the_denying_rule_is_named() {
    let rules = vec![to(paths(&["/other"])), to(paths(&["/admin*"]))];
    let denied = l7(vec![policy("no", Deny, rules)], &peer(), &get("/admin/x")).expect_err("denied");
    assert_eq!(denied, Denied::Policy { policy: ObjectKey::new("shop", "no"), rule: 1 });
}

#[test]
fn a_missing_policy_denies_even_beside_an_allow() {
    let allow = policy("all", Allow, vec![Rule::default()]);
    let mut target = workload("target", "10.0.0.1");
    target.policies = vec![allow.key.clone(), ObjectKey::new("shop", "late")];
    let (snapshot, target) = with_target(target, vec![allow]);
    let missing = Denied::MissingPolicy { policy: ObjectKey::new("shop", "late") };
    assert_eq!(authorize(&snapshot, &target, &peer(), None).expect_err("missing"), missing);
    assert_eq!(authorize_connection(&snapshot, &target, &peer()).expect_err("missing"), missing);
}

#[test]
fn strict_and_its_port_exceptions() {
    let mut target = workload("target", "10.0.0.1");
    target.mtls = MtlsModes {
        default: MtlsMode::Strict,
        ports: BTreeMap::from([(9000, MtlsMode::Permissive), (9001, MtlsMode::Disable)]),
        from: "PeerAuthentication shop/default".to_owned(),
    };
    let (snapshot, target) = with_target(target, vec![]);
    let ask = |peer: Peer| authorize(&snapshot, &target, &peer, None);
    let refused = ask(plaintext()).expect_err("STRICT");
    assert_eq!(refused, Denied::PlaintextToStrict { from: "PeerAuthentication shop/default".to_owned() });
    assert!(ask(peer()).is_ok());
    assert!(ask(Peer { port: 9000, ..plaintext() }).is_ok());
    assert!(ask(Peer { port: 9001, ..plaintext() }).is_ok());
    assert!(authorize_connection(&snapshot, &target, &plaintext()).is_err());
}

#[test]
fn a_strict_port_of_a_permissive_workload() {
    let mut target = workload("target", "10.0.0.1");
    target.mtls.ports = BTreeMap::from([(8080, MtlsMode::Strict)]);
    let (snapshot, target) = with_target(target, vec![]);
    assert!(authorize(&snapshot, &target, &plaintext(), None).is_err());
    assert!(authorize(&snapshot, &target, &Peer { port: 80, ..plaintext() }, None).is_ok());
}

#[test]
fn sources() {
    let nets =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Vec<IpNet>>();
    // The source, then whether it matches `shop/web` at 10.0.0.9 with an identity, and without.
    let table = [
        (Source::default(), true, true),
        (principals(&["cluster.local/ns/shop/sa/web"]), true, false),
        (principals(&["spiffe://cluster.local/ns/shop/sa/web"]), false, false),
        (principals(&["other.domain/ns/shop/sa/web"]), false, false),
        (principals(&["*/ns/shop/sa/web"]), true, false),
        (principals(&["cluster.local/ns/shop/*"]), true, false),
        (principals(&["cluster.local/ns/sh"]), false, false),
        (principals(&["x", "*"]), true, false),
        (
            Source { not_principals: globs(&["cluster.local/ns/shop/sa/web"]), ..Source::default() },
            false,
            true,
        ),
        (Source { not_principals: globs(&["*"]), ..Source::default() }, false, true),
        (
            Source { not_principals: globs(&["cluster.local/ns/shop/sa/other"]), ..Source::default() },
            true,
            true,
        ),
        (Source { namespaces: globs(&["shop"]), ..Source::default() }, true, false),
        (Source { namespaces: globs(&["sho"]), ..Source::default() }, false, false),
        (Source { namespaces: globs(&["sh*"]), ..Source::default() }, true, false),
        (Source { not_namespaces: globs(&["shop"]), ..Source::default() }, false, true),
        (Source { not_namespaces: globs(&["other"]), ..Source::default() }, true, true),
        (Source { ip_blocks: nets(&["10.0.0.0/24"]), ..Source::default() }, true, true),
        (Source { ip_blocks: nets(&["10.0.1.0/24", "fd00::/8"]), ..Source::default() }, false, false),
        (Source { not_ip_blocks: nets(&["10.0.0.9/32"]), ..Source::default() }, false, false),
        (
            Source { namespaces: globs(&["shop"]), ip_blocks: nets(&["10.0.1.0/24"]), ..Source::default() },
            false,
            false,
        ),
        (
            Source {
                namespaces: globs(&["shop"]),
                not_principals: globs(&["*/sa/web"]),
                ..Source::default()
            },
            false,
            false,
        ),
    ];
    for (source, with, without) in table {
        assert_eq!(rule_matches(from(source.clone()), &peer()), with, "with identity: {source:?}");
        assert_eq!(rule_matches(from(source.clone()), &plaintext()), without, "plaintext: {source:?}");
    }
}

#[test]
fn mapped_addresses_are_their_ipv4_addresses() {
    let source = Source { ip_blocks: vec!["10.0.0.0/24".parse().expect("a network")], ..Source::default() };
    assert!(rule_matches(from(source), &Peer { ip: ip("::ffff:10.0.0.9"), ..peer() }));
}

#[test]
fn operations_of_a_request() {
    let hosts = |texts: &[&str]| Operation { hosts: globs(texts), ..Operation::default() };
    let table = [
        (Operation::default(), true),
        (paths(&["/api/*"]), true),
        (paths(&["/api"]), false),
        (paths(&["*/b"]), true),
        (paths(&["*"]), true),
        (Operation { not_paths: globs(&["/api/*"]), ..Operation::default() }, false),
        (Operation { not_paths: globs(&["/admin"]), ..Operation::default() }, true),
        (Operation { methods: globs(&["GET", "POST"]), ..Operation::default() }, true),
        (Operation { methods: globs(&["get"]), ..Operation::default() }, false),
        (Operation { not_methods: globs(&["GET"]), ..Operation::default() }, false),
        (Operation { ports: vec![8080], ..Operation::default() }, true),
        (Operation { ports: vec![80], ..Operation::default() }, false),
        (Operation { not_ports: vec![8080], ..Operation::default() }, false),
        (Operation { ports: vec![8080], ..paths(&["/other"]) }, false),
        (hosts(&["reviews.shop"]), true),
        (hosts(&["Reviews.SHOP"]), true),
        (hosts(&["reviews.shop:9080"]), true),
        (hosts(&["reviews.shop:80"]), false),
        (hosts(&["*.shop"]), true),
        (hosts(&["*.Shop:9080"]), true),
        (hosts(&["REVIEWS*"]), true),
        (hosts(&["ratings.shop"]), false),
        (Operation { not_hosts: globs(&["reviews.shop"]), ..Operation::default() }, false),
        (Operation { not_hosts: globs(&["ratings.shop"]), ..Operation::default() }, true),
    ];
    let request = crate::testing::Request { authority: "reviews.shop:9080", ..get("/api/a/b") };
    for (operation, expected) in table {
        let allowed = l7(vec![policy("only", Allow, vec![to(operation.clone())])], &peer(), &request).is_ok();
        assert_eq!(allowed, expected, "{operation:?}");
    }
}

#[test]
fn a_prefix_with_a_slash_does_not_match_the_bare_path() {
    let only = || vec![policy("only", Allow, vec![to(paths(&["/api/*"]))])];
    assert!(l7(only(), &peer(), &get("/api")).is_err());
    assert!(l7(only(), &peer(), &get("/api/a/b")).is_ok());
}

#[test]
fn from_and_to_must_both_match_and_their_elements_are_alternatives() {
    let rule = Rule {
        from: vec![principals(&["nobody"]), principals(&["*/sa/web"])],
        to: vec![paths(&["/a"]), paths(&["/b"])],
        unsupported: false,
    };
    let ask =
        |peer: &Peer, path| l7(vec![policy("only", Allow, vec![rule.clone()])], peer, &get(path)).is_ok();
    assert!(ask(&peer(), "/a") && ask(&peer(), "/b"));
    assert!(!ask(&peer(), "/c"));
    assert!(!ask(&plaintext(), "/a"));
}

/// Each HTTP attribute alone, positive and negative.
fn http_only() -> [Operation; 6] {
    let any = || globs(&["x"]);
    [
        Operation { hosts: any(), ..Operation::default() },
        Operation { not_hosts: any(), ..Operation::default() },
        Operation { methods: any(), ..Operation::default() },
        Operation { not_methods: any(), ..Operation::default() },
        Operation { paths: any(), ..Operation::default() },
        Operation { not_paths: any(), ..Operation::default() },
    ]
}

#[test]
fn on_an_opaque_connection_http_attributes_narrow_an_allow_and_widen_a_deny() {
    for operation in http_only() {
        assert!(
            l4(vec![policy("only", Allow, vec![to(operation.clone())])], &peer()).is_err(),
            "{operation:?}"
        );
        assert!(
            l4(vec![policy("only", Deny, vec![to(operation.clone())])], &peer()).is_err(),
            "{operation:?}"
        );
        // What is known still counts.
        let elsewhere = Operation { ports: vec![1], ..operation };
        assert!(l4(vec![policy("only", Deny, vec![to(elsewhere)])], &peer()).is_ok());
    }
}

#[test]
fn an_http_connection_is_refused_only_to_whom_no_request_can_be_granted() {
    let ask = |policies| {
        let (snapshot, target) = world(policies);
        authorize_connection(&snapshot, &target, &peer()).is_ok()
    };
    for operation in http_only() {
        assert!(ask(vec![policy("only", Allow, vec![to(operation.clone())])]));
        assert!(ask(vec![policy("only", Deny, vec![to(operation.clone())])]));
        let elsewhere = Operation { ports: vec![1], ..operation };
        assert!(!ask(vec![policy("only", Allow, vec![to(elsewhere)])]));
    }
    assert!(!ask(vec![policy("only", Deny, vec![Rule::default()])]));
    assert!(!ask(vec![policy("only", Allow, vec![from(principals(&["nobody"]))])]));
    // One alternative without HTTP attributes is enough to deny.
    let mixed = Rule {
        to: vec![paths(&["/x"]), Operation { ports: vec![8080], ..Operation::default() }],
        ..Rule::default()
    };
    assert!(!ask(vec![policy("only", Deny, vec![mixed])]));
}

#[test]
fn an_unsupported_part_never_allows_and_never_saves_from_a_deny() {
    let unsupported = |rule: Rule| Rule { unsupported: true, ..rule };
    assert!(l4(vec![policy("only", Allow, vec![unsupported(Rule::default())])], &peer()).is_err());
    assert!(l4(vec![policy("only", Deny, vec![unsupported(Rule::default())])], &peer()).is_err());
    let other = unsupported(from(principals(&["nobody"])));
    assert!(l4(vec![policy("only", Deny, vec![other])], &peer()).is_ok());
}

#[test]
fn http_is_needed_if_any_rule_looks_at_it() {
    let needs = |policies| {
        let (snapshot, target) = world(policies);
        needs_http(&snapshot, &target)
    };
    assert!(!needs(vec![]));
    assert!(!needs(vec![policy(
        "l4",
        Deny,
        vec![from(principals(&["*"])), to(Operation { ports: vec![1], ..Operation::default() })]
    )]));
    for operation in http_only() {
        assert!(needs(vec![
            policy("l4", Allow, vec![Rule::default()]),
            policy("l7", Deny, vec![to(operation)])
        ]));
    }
}

#[test]
fn a_permit_is_asked_again_with_what_it_was_given_for() {
    let allow_web = policy(
        "allow",
        Allow,
        vec![Rule { from: vec![principals(&["*/sa/web"])], to: vec![paths(&["/a"])], unsupported: false }],
    );
    let (before, target) = world(vec![allow_web.clone()]);
    let permit = authorize(&before, &target, &peer(), Some(&get("/a").head())).expect("allowed");
    assert!(permit.still_allowed(&before).is_ok());

    let only_b = policy("allow", Allow, vec![to(paths(&["/b"]))]);
    let flipped = before.next(vec![Resource::Policy(only_b)], &[]);
    assert!(permit.still_allowed(&flipped).is_err());
    assert!(permit.still_allowed(&before.next(vec![Resource::Policy(allow_web)], &[])).is_ok());

    let mut strict = Workload::clone(&target);
    strict.mtls.default = MtlsMode::Strict;
    let strict = before.next(vec![Resource::Workload(strict)], &[]);
    assert!(permit.still_allowed(&strict).is_ok());

    let mut selected = Workload::clone(&target);
    selected.policies.push(ObjectKey::new("shop", "deny"));
    let deny = policy("deny", Deny, vec![from(principals(&["*"]))]);
    let selected = before.next(vec![Resource::Workload(selected), Resource::Policy(deny)], &[]);
    assert!(matches!(permit.still_allowed(&selected), Err(Denied::Policy { .. })));

    let gone = before.next(vec![], &[crate::resource::ResourceKey::Workload(target.uid.clone())]);
    assert!(matches!(permit.still_allowed(&gone), Err(Denied::WorkloadGone { .. })));
}

#[test]
fn an_admission_is_asked_again() {
    let (before, target) = world(vec![policy("allow", Allow, vec![to(paths(&["/a"]))])]);
    let admission = authorize_connection(&before, &target, &peer()).expect("a request could be allowed");
    let nobody = policy("allow", Allow, vec![from(principals(&["nobody"]))]);
    assert!(admission.still_allowed(&before).is_ok());
    assert!(admission.still_allowed(&before.next(vec![Resource::Policy(nobody)], &[])).is_err());
}

fn any_globs(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<Glob>> {
    prop::collection::vec(prop::sample::select(texts).prop_map(Glob::parse), 0..3)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let source = (
        any_globs(&["*", "*/sa/web", "nobody"]),
        any_globs(&["*/sa/web", "nobody"]),
        any_globs(&["shop", "other"]),
    )
        .prop_map(|(principals, not_principals, namespaces)| Source {
            principals,
            not_principals,
            namespaces,
            ..Source::default()
        });
    let operation = (
        any_globs(&["/a", "/b*", "*"]),
        any_globs(&["/a", "/c"]),
        any_globs(&["GET", "P*"]),
        prop::collection::vec(prop::sample::select(&[8080_u16, 9000]), 0..2),
    )
        .prop_map(|(paths, not_paths, methods, ports)| Operation {
            paths,
            not_paths,
            methods,
            ports,
            ..Operation::default()
        });
    (prop::collection::vec(source, 0..3), prop::collection::vec(operation, 0..3), prop::bool::weighted(0.1))
        .prop_map(|(from, to, unsupported)| Rule { from, to, unsupported })
}

pub(crate) fn any_policies() -> impl Strategy<Value = Vec<AuthzPolicy>> {
    let one = (prop::bool::ANY, prop::collection::vec(any_rule(), 0..3));
    prop::collection::vec(one, 0..4).prop_map(|list| {
        let named = |(number, (deny, rules)): (usize, (bool, Vec<Rule>))| {
            policy(&format!("p{number}"), if deny { Deny } else { Allow }, rules)
        };
        list.into_iter().enumerate().map(named).collect()
    })
}

pub(crate) fn any_peer() -> impl Strategy<Value = Peer> {
    let identity =
        prop_oneof![Just(None), Just(Some(identity("shop", "web"))), Just(Some(identity("other", "db")))];
    (identity, prop::sample::select(&[8080_u16, 9000])).prop_map(|(identity, port)| Peer {
        identity,
        port,
        ip: ip("10.0.0.9"),
    })
}

proptest! {
    #[test]
    fn seeing_less_never_allows_more(policies in any_policies(), peer in any_peer(), path in prop::sample::select(&["/a", "/b/x", "/c"])) {
        let (snapshot, target) = world(policies);
        let request = get(path);
        let with_head = authorize(&snapshot, &target, &peer, Some(&request.head())).is_ok();
        let opaque = authorize(&snapshot, &target, &peer, None).is_ok();
        let connection = authorize_connection(&snapshot, &target, &peer).is_ok();
        prop_assert!(!opaque || with_head, "an opaque connection was let in, but not the request");
        prop_assert!(!with_head || connection, "a request would be let in, but the connection was refused");
    }

    #[test]
    fn more_deny_rules_never_allow_more(policies in any_policies(), rule in any_rule(), peer in any_peer()) {
        let request = get("/a");
        let before = l7(policies.clone(), &peer, &request).is_ok();
        let mut more = policies;
        more.push(policy("more", Deny, vec![rule]));
        prop_assert!(before || l7(more, &peer, &request).is_err());
    }

    #[test]
    fn a_recheck_on_the_same_snapshot_says_the_same(policies in any_policies(), peer in any_peer()) {
        let (snapshot, target) = world(policies);
        let request = get("/b/x");
        if let Ok(permit) = authorize(&snapshot, &target, &peer, Some(&request.head())) {
            let again = permit.still_allowed(&snapshot).expect("still");
            prop_assert_eq!(again.by(), permit.by());
        }
    }
}
