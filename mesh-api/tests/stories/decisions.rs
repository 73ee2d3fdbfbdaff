//! From the YAML to the answer of the data path: the same functions that the node calls.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use mesh_api::{Compiled, Enrolled, compile};
use mesh_model::{
    authz::{Denied, Peer, authorize},
    decide,
    name::{Hostname, WorkloadUid},
    request::RequestHead,
    snapshot::Snapshot,
    workload::Workload,
};

use crate::{
    samples,
    world::{Ask, SHOP, index},
};

fn snapshot(compiled: Compiled) -> Snapshot {
    Snapshot::from_resources(compiled.resources.into_values().collect())
}

fn workload(snapshot: &Snapshot, uid: &str) -> Arc<Workload> {
    snapshot.workload(&WorkloadUid::from(uid)).cloned().unwrap_or_else(|| panic!("no workload {uid}"))
}

/// May `from` (with its identity, or as plaintext) call `to`? `method` None: an opaque connection.
fn ask(
    snapshot: &Snapshot,
    from: &str,
    plaintext: bool,
    to: &str,
    port: u16,
    method: Option<&str>,
) -> Result<(), Denied> {
    let (from, to) = (workload(snapshot, from), workload(snapshot, to));
    let ip: IpAddr = from.ips[0];
    let identity = (!plaintext).then(|| from.identity.clone());
    let headers = HeaderMap::new();
    let head = method.map(|method| RequestHead {
        method,
        scheme: "http",
        authority: "reviews",
        path: "/",
        query: None,
        headers: &headers,
    });
    authorize(snapshot, &to, &Peer { identity, ip, port }, head.as_ref()).map(|_| ())
}

#[test]
fn the_samples_decide_as_they_say() {
    let all = snapshot(samples::compiled(&["shop-routing.yaml", "shop-authz.yaml", "shop-strict.yaml"]));
    let reviews = "shop/reviews-v1";
    assert_eq!(ask(&all, "shop/productpage", false, reviews, 9080, Some("GET")), Ok(()));
    assert!(ask(&all, "shop/productpage", false, reviews, 9080, Some("DELETE")).is_err());
    assert!(ask(&all, "shop/load", false, reviews, 9080, Some("GET")).is_err());
    assert_eq!(ask(&all, "shop/ratings", false, "shop/ledger", 7000, None), Ok(()));
    assert!(matches!(ask(&all, "shop/load", false, "shop/ledger", 7000, None), Err(Denied::Policy { .. })));
    let outsider = ask(&all, "legacy/outsider", true, "shop/productpage", 9080, Some("GET"));
    assert_eq!(
        outsider,
        Err(Denied::PlaintextToStrict { from: "PeerAuthentication shop/default".to_owned() })
    );
}

#[test]
fn the_samples_route_as_they_say() {
    let all = snapshot(samples::compiled(&["shop-routing.yaml"]));
    let source = workload(&all, "shop/productpage");
    let service = all.service(&Hostname::new("reviews.shop.svc.cluster.local")).cloned().expect("reviews");
    let subset = |user: Option<&'static str>, draw: f64| {
        let mut headers = HeaderMap::new();
        if let Some(user) = user {
            headers.insert("end-user", http::HeaderValue::from_static(user));
        }
        let head = RequestHead {
            method: "GET",
            scheme: "http",
            authority: "reviews",
            path: "/",
            query: None,
            headers: &headers,
        };
        let plan = decide::request(&all, &source, &service, 9080, &head, draw).expect("a plan");
        (plan.target.subset.expect("a subset").to_string(), plan.target.candidates.len())
    };
    assert_eq!(subset(Some("jason"), 0.99), ("v2".to_owned(), 1));
    assert_eq!(subset(Some("Jason"), 0.5), ("v1".to_owned(), 1), "values have case");
    assert_eq!(subset(None, 0.89), ("v1".to_owned(), 1));
    assert_eq!(subset(None, 0.91), ("v3".to_owned(), 2));
}

#[test]
fn a_refused_policy_denies_on_the_data_path() {
    let bad = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop}\nspec: {selector: {matchLabels: {app: back}}, actoin: ALLOW, rules: [{}]}\n";
    let compiled = compile(&index(&[("0.yaml", SHOP), ("1.yaml", bad)]), &Enrolled::default());
    assert_eq!(compiled.workload("shop/back-v1").policies.len(), 1);
    let all = snapshot(compiled);
    assert!(matches!(
        ask(&all, "shop/front", false, "shop/back-v1", 8080, Some("GET")),
        Err(Denied::MissingPolicy { .. })
    ));
    assert_eq!(ask(&all, "shop/back-v1", false, "shop/front", 80, Some("GET")), Ok(()));
}
