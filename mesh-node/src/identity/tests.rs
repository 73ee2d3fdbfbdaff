//! Real handshakes between configurations that the real code built; a CA in the test signs.

use std::{collections::BTreeSet, time::Duration};

use mesh_model::identity::TrustDomain;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::CertificateDer;

use super::{
    testing::{Behaviour, TestCa, handshake, identity, not_after, store},
    *,
};
use crate::clock::Clock;

const DAY: Duration = Duration::from_secs(86_400);
const WAIT: Duration = Duration::from_secs(5);

fn want(store: &Certificates, accounts: &[&str]) {
    store.want(accounts.iter().map(|account| identity(account)).collect());
}

fn ours() -> TrustDomain {
    TrustDomain::default()
}

#[tokio::test]
async fn two_workloads_of_one_mesh_know_each_other() {
    let clock = Clock::system();
    let store = store(&TestCa::new(&clock, DAY), &clock);
    want(&store, &["web", "db"]);
    let client = store.client(&identity("web"), WAIT).await.unwrap();
    let server = store.server(&identity("db"), WAIT).await.unwrap();
    let seen = handshake(client, server).await.unwrap();
    assert_eq!(*verify_peer(&seen.by_client, &ours()).unwrap().identity(), identity("db"));
    assert_eq!(*verify_peer(&seen.by_server, &ours()).unwrap().identity(), identity("web"));
    assert_eq!(seen.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(seen.key_exchange, rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_configuration_is_built_once_per_certificate() {
    let clock = Clock::system();
    let store = store(&TestCa::new(&clock, DAY), &clock);
    want(&store, &["web"]);
    let first = store.client(&identity("web"), WAIT).await.unwrap();
    let second = store.client(&identity("web"), WAIT).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_foreign_root_is_refused_on_both_sides_saying_so() {
    let clock = Clock::system();
    let (ours, theirs) = (store(&TestCa::new(&clock, DAY), &clock), store(&TestCa::new(&clock, DAY), &clock));
    want(&ours, &["web"]);
    want(&theirs, &["db"]);
    let client = ours.client(&identity("web"), WAIT).await.unwrap();
    let server = theirs.server(&identity("db"), WAIT).await.unwrap();
    let (client_saw, server_saw) = handshake(client, server).await.err().unwrap();
    assert_eq!(client_saw, Some(HandshakeError::UnknownIssuer));
    assert!(matches!(server_saw, Some(HandshakeError::RefusedByPeer(_))), "{server_saw:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_saying_so() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, Duration::from_secs(3600));
    let store = store(&ca, &clock);
    want(&store, &["web"]);
    let old = store.client(&identity("web"), WAIT).await.unwrap();
    clock.shift(7200);
    want(&store, &["db"]);
    let server = store.server(&identity("db"), WAIT).await.unwrap();
    let (client_saw, server_saw) = handshake(old, server).await.err().unwrap();
    assert!(matches!(server_saw, Some(HandshakeError::Expired { seconds: 3595..=3605 })), "{server_saw:?}");
    assert_eq!(client_saw, Some(HandshakeError::RefusedByPeer("our certificate expired".to_owned())));
}

#[tokio::test]
async fn no_client_certificate_is_refused() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let store = store(&ca, &clock);
    want(&store, &["db"]);
    let server = store.server(&identity("db"), WAIT).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let anonymous = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(trust::MeshVerifier {
            roots: store.roots().clone(),
        }))
        .with_no_client_auth();
    let (_, server_saw) = handshake(std::sync::Arc::new(anonymous), server).await.err().unwrap();
    assert_eq!(server_saw, Some(HandshakeError::NoCertificate));
}

#[tokio::test]
async fn what_came_back_must_be_what_was_asked_for() {
    let clock = Clock::system();
    let other = "spiffe://cluster.local/ns/shop/sa/admin".to_owned();
    let cases = [
        (Behaviour::OtherName(other), "the certificate is for [\"spiffe://cluster.local/ns/shop/sa/admin\"]"),
        (Behaviour::OtherKey, "the certificate is over another key than ours"),
        (Behaviour::ClientsOnly, "the certificate's chain is not good"),
        (Behaviour::Refusing, "the controller refuses to sign: not on this node"),
    ];
    for (behaviour, message) in cases {
        let ca = TestCa::new(&clock, DAY);
        ca.behave(behaviour);
        let store = store(&ca, &clock);
        want(&store, &["web"]);
        let error = store.client(&identity("web"), Duration::from_millis(200)).await.unwrap_err();
        let NoCertificate::Waited { last_error, .. } = error else { panic!("{error}") };
        assert!(last_error.starts_with(message), "{last_error}");
    }
}

#[tokio::test]
async fn an_expired_leaf_is_not_put_in_use() {
    let clock = Clock::system();
    let store = store(&TestCa::new(&clock, Duration::ZERO), &clock);
    want(&store, &["web"]);
    let error = store.client(&identity("web"), Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().ends_with("the certificate is expired already"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn refreshed_at_half_life_without_a_gap() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let store = store(&ca, &clock);
    want(&store, &["web"]);
    store.client(&identity("web"), WAIT).await.unwrap();
    let first = not_after(&store).unwrap();
    clock.shift(40_000 - 3_600);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ca.signed(), 1, "before 45 % of its life nothing is asked");
    clock.shift(3_600 * 4);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ca.signed(), 2);
    assert!(not_after(&store).unwrap() > first);
    store.client(&identity("web"), Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_old_one_in_use_until_its_end() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let store = store(&ca, &clock);
    want(&store, &["web"]);
    store.client(&identity("web"), WAIT).await.unwrap();
    ca.behave(Behaviour::Refusing);
    clock.shift(50_000);
    tokio::time::sleep(Duration::from_secs(300)).await;
    store.client(&identity("web"), Duration::ZERO).await.unwrap();
    let status = store.statuses().remove(0);
    assert!(status.is_usable && status.last_error.unwrap().contains("not on this node"));
    clock.shift(50_000);
    assert!(store.client(&identity("web"), Duration::from_millis(1)).await.is_err(), "it has ended");
    ca.behave(Behaviour::Good);
    // A connection that waits cuts the long pause short.
    store.client(&identity("web"), WAIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_controller_is_given_up_in_time() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    ca.behave(Behaviour::Silent);
    let store = store(&ca, &clock);
    want(&store, &["web"]);
    let error = store.client(&identity("web"), Duration::from_secs(11)).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 10s"), "{error}");
}

#[tokio::test]
async fn a_stranger_gets_nothing_and_the_unwanted_are_forgotten() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let store = store(&ca, &clock);
    want(&store, &["web"]);
    store.client(&identity("web"), WAIT).await.unwrap();
    assert!(matches!(store.client(&identity("db"), WAIT).await, Err(NoCertificate::NotOurs(_))));
    want(&store, &["db"]);
    assert!(matches!(store.client(&identity("web"), WAIT).await, Err(NoCertificate::NotOurs(_))));
    assert_eq!(store.statuses().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_connection_overtakes_two_hundred_prefetches() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let store = store(&ca, &clock);
    let accounts: Vec<String> = (0..200).map(|number| format!("a{number:03}")).collect();
    let all: BTreeSet<_> = accounts.iter().map(|account| identity(account)).collect();
    store.want(all);
    let last = identity("a199");
    store.client(&last, Duration::from_millis(100)).await.unwrap();
    assert!(ca.signed() < 100, "{} were signed before the one that was waited for", ca.signed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ca.signed(), 200, "each once");
    assert!(ca.most_at_once() <= 8, "{}", ca.most_at_once());
}

#[test]
fn a_name_that_is_not_a_workload_of_this_trust_domain_is_no_peer() {
    let ca = TestCa::new(&Clock::system(), DAY);
    let key = KeyPair::generate().unwrap();
    let leaf = |uri: &str| ca.leaf(uri, &key, &[ExtendedKeyUsagePurpose::ServerAuth]).der().clone();
    let peer = |certs: &[CertificateDer<'_>]| verify_peer(certs, &ours()).map(|peer| peer.identity().clone());

    assert_eq!(peer(&[leaf("spiffe://cluster.local/ns/shop/sa/web")]), Ok(identity("web")));
    assert_eq!(peer(&[]), Err(PeerError::NoCertificate));
    let node = "spiffe://cluster.local/tulle/node/n1";
    assert_eq!(peer(&[leaf(node)]), Err(PeerError::NotAWorkload(node.to_owned())));
    let foreign = Err(PeerError::ForeignTrustDomain {
        identity: mesh_model::identity::Identity::parse("spiffe://evil/ns/shop/sa/web").unwrap(),
        ours: ours(),
    });
    assert_eq!(peer(&[leaf("spiffe://evil/ns/shop/sa/web")]), foreign);
    assert!(matches!(peer(&[CertificateDer::from(vec![1, 2, 3])]), Err(PeerError::Unreadable(_))));
    assert_eq!(peer(&[ca.root()]), Err(PeerError::UriNames(0)));
}

#[test]
fn no_key_is_printed() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let clock = Clock::system();
    let store = store(&TestCa::new(&clock, DAY), &clock);
    assert_eq!(format!("{store:?}"), "Certificates(0)");
}
