//! What people are told is what the data path does.

use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::{
    authz::{Action, AuthzPolicy, Denied, Operation, Rule, Source, authorize, tests as policies},
    decide::{self, Refusal, Target},
    name::ObjectKey,
    resource::Resource,
    snapshot::Snapshot,
    testing::{
        answering, exact, from, get, globs, header, host, labelled, peer, plaintext, policy, routes, rule,
        service, service_key, snapshot, subsets, workload,
    },
    workload::Workload,
};

fn guarded(policies: Vec<AuthzPolicy>) -> (Snapshot, Arc<Workload>) {
    let mut target = workload("target", "10.0.0.1");
    target.policies = policies.iter().map(|policy| policy.key.clone()).collect();
    let snapshot = snapshot(policies.into_iter().map(Resource::Policy).chain([Resource::Workload(target)]));
    let target = Arc::clone(snapshot.workload(&"target".into()).expect("it was put in"));
    (snapshot, target)
}

/// `subject: outcome: reason` of every step.
fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| format!("{}: {}: {}", step.subject, step.outcome, step.reason)).collect()
}

#[test]
fn every_rule_that_was_tried_says_why_not() {
    let source = |text: &str| Source { principals: globs(&[text]), ..Source::default() };
    let web_reads = Rule {
        from: vec![source("*/sa/web")],
        to: vec![
            Operation { methods: globs(&["POST"]), ..Operation::default() },
            Operation { paths: globs(&["/x"]), ..Operation::default() },
        ],
        unsupported: false,
    };
    let (snapshot, target) = guarded(vec![
        policy(
            "allow",
            Action::Allow,
            vec![from(source("nobody")), web_reads, Rule { unsupported: true, ..Rule::default() }],
        ),
        policy("nothing", Action::Allow, vec![]),
        policy("no", Action::Deny, vec![from(source("*/sa/evil"))]),
    ]);
    let explained = explain_authz(&snapshot, &target, &peer(), Some(&get("/y").head()));
    assert_eq!(
        lines(&explained.steps),
        [
            "caller: fact: principal cluster.local/ns/shop/sa/web, address 10.0.0.9",
            "mTLS of port 8080: fact: PERMISSIVE, from the default",
            "AuthorizationPolicy shop/no DENY rules[0]: no match: from[0].source: principals does not match",
            "AuthorizationPolicy shop/allow ALLOW rules[0]: no match: from[0].source: principals does not match",
            "AuthorizationPolicy shop/allow ALLOW rules[1]: no match: to[0].operation: methods does not match; to[1].operation: paths does not match",
            "AuthorizationPolicy shop/allow ALLOW rules[2]: no match: it uses what this version does not know, so it never allows",
            "AuthorizationPolicy shop/nothing ALLOW: no match: it has no rules, so it never matches",
        ]
    );
    assert!(matches!(explained.verdict, Err(Denied::NoAllow { .. })));
}

#[test]
fn what_was_not_reached_and_what_is_missing_is_said() {
    let all = || vec![Rule::default()];
    let (snapshot, target) =
        guarded(vec![policy("yes", Action::Allow, all()), policy("no", Action::Deny, all())]);
    let explained = explain_authz(&snapshot, &target, &plaintext(), None);
    assert_eq!(
        &lines(&explained.steps)[2..],
        [
            "AuthorizationPolicy shop/no DENY rules[0]: match: ",
            "AuthorizationPolicy shop/yes ALLOW rules[0]: not reached: ",
        ]
    );
    let mut waiting = Workload::clone(&target);
    waiting.policies.push(ObjectKey::new("shop", "late"));
    let snapshot = snapshot.next(vec![Resource::Workload(waiting)], &[]);
    let explained = explain_authz(&snapshot, snapshot.workload(&target.uid).expect("it"), &peer(), None);
    assert!(
        lines(&explained.steps)
            .contains(&"AuthorizationPolicy shop/late: fact: not received yet: denies".to_owned())
    );
}

fn shop() -> Snapshot {
    let key = service_key("reviews", "shop");
    let version =
        |uid: &str, address, version| labelled(answering(workload(uid, address), &key), "version", version);
    snapshot([
        Resource::Workload(workload("web", "10.0.0.9")),
        Resource::Workload(version("r1", "10.0.1.1", "v1")),
        Resource::Workload(version("r2", "10.0.1.2", "v2")),
        Resource::Service(service("reviews", &["10.96.0.1"])),
        Resource::Destination(subsets("shop", host("reviews", "shop"), &["v1", "v2"])),
        Resource::Routes(routes(
            "reviews",
            &[host("reviews", "shop")],
            vec![
                rule("jason", vec![header("end-user", exact("jason"))], &[("v2", 1)]),
                rule("rest", vec![], &[("v1", 90), ("v2", 0), ("v3", 10)]),
            ],
        )),
    ])
}

#[test]
fn a_split_is_told_with_its_shares_and_what_each_reaches() {
    let snapshot = shop();
    let web = snapshot.workload(&"web".into()).expect("the caller");
    let to = To::Address("10.96.0.1:80".parse().expect("an address"));
    let explained = explain_route(&snapshot, web, &to, Some(&get("/").head()));
    assert_eq!(
        lines(&explained.steps),
        [
            "10.96.0.1:80: fact: a VIP of service shop/reviews.shop.svc.cluster.local",
            "port 80 of shop/reviews.shop.svc.cluster.local: fact: protocol http",
            "VirtualService shop/reviews jason match[0]: no match: headers.end-user does not match",
            "VirtualService shop/reviews rest: match: ",
        ]
    );
    assert!(!explained.verdict.is_reachable(), "subset v3 is not defined");
    match explained.verdict {
        RouteVerdict::Request { shares, .. } => {
            let told: Vec<(f64, bool)> =
                shares.iter().map(|share| (share.share, share.target.is_ok())).collect();
            assert_eq!(told, [(0.9, true), (0.1, false)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts_addresses_and_what_is_unknown() {
    let snapshot = shop();
    let web = snapshot.workload(&"web".into()).expect("the caller");
    let verdict = |to: To| explain_route(&snapshot, web, &to, None).verdict;
    let address = |text: &str| To::Address(text.parse().expect("an address"));
    assert!(matches!(verdict(To::Host(host("reviews", "shop"), 80)), RouteVerdict::Connection(_)));
    assert!(matches!(
        verdict(To::Host(host("reviews", "shop"), 81)),
        RouteVerdict::Refused(Refusal::NoCluster(_))
    ));
    assert!(matches!(verdict(To::Host(host("nobody", "shop"), 80)), RouteVerdict::UnknownHost(_)));
    assert!(matches!(verdict(address("10.0.1.1:8080")), RouteVerdict::Workload(_)));
    assert!(matches!(verdict(address("192.0.2.1:80")), RouteVerdict::Passthrough(_)));
    assert!(matches!(verdict(address("10.96.0.1:81")), RouteVerdict::Refused(Refusal::NoSuchPort(_))));
}

proptest! {
    #[test]
    fn the_verdict_is_the_data_paths(list in policies::any_policies(), peer in policies::any_peer(), opaque in prop::bool::ANY) {
        let (snapshot, target) = guarded(list);
        let request = get("/a");
        let head = request.head();
        let head = (!opaque).then_some(&head);
        let done = authorize(&snapshot, &target, &peer, head).map(|permit| permit.by().cloned());
        let told = explain_authz(&snapshot, &target, &peer, head).verdict.map(|permit| permit.by().cloned());
        prop_assert_eq!(done, told);
    }

    #[test]
    fn the_drawn_target_is_among_the_shares(draw in 0.0..1.0_f64, jason in prop::bool::ANY) {
        let snapshot = shop();
        let web = snapshot.workload(&"web".into()).expect("the caller");
        let reviews = snapshot.service(&host("reviews", "shop")).expect("the service");
        let request = if jason { get("/").with("end-user", "jason") } else { get("/") };
        let done = decide::request(&snapshot, web, reviews, 80, &request.head(), draw);
        let to = To::Host(host("reviews", "shop"), 80);
        let RouteVerdict::Request { shares, .. } = explain_route(&snapshot, web, &to, Some(&request.head())).verdict else {
            return Err(TestCaseError::fail("not a request"));
        };
        let named = |target: &Result<Target, Refusal>| match target {
            Ok(target) => target.candidates.iter().map(|candidate| candidate.workload.uid.to_string()).collect::<Vec<_>>().join(","),
            Err(refusal) => refusal.to_string(),
        };
        let done = named(&done.map(|plan| plan.target));
        prop_assert!(shares.iter().any(|share| named(&share.target) == done), "{done}");
    }
}
