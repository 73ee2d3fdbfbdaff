//! Who gets in, over real TLS, and with what kind of grant.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_model::{identity::TrustDomain, mesh::MeshSettings, resource::Resource, snapshot::Snapshot};
use mesh_proto::v1::{
    CertificatesRequest, ConnectionsRequest, NodeDumpRequest, node_inspect_client::NodeInspectClient,
};
use rcgen::KeyPair;
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{
    grant::{GrantError, Judge},
    *,
};
use crate::{
    identity::{
        Roots,
        testing::{TestCa, identity, store},
    },
    phase, state,
};

const DAY: Duration = Duration::from_secs(86_400);
const GRANT: &str = "spiffe://cluster.local/tulle/grant";

/// A grant as the controller mints it, unless a field says otherwise.
struct Mint<'a> {
    ca: &'a TestCa,
    certified_for: &'a str,
    audience: &'a str,
    issued: i64,
    life: i64,
}

impl Mint<'_> {
    fn token(&self) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = self.ca.leaf(self.certified_for, &key, &[]).pem();
        let der = certificate.lines().filter(|line| !line.starts_with("-----")).collect();
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(vec![der]);
        let claims = serde_json::json!({
            "iss": GRANT, "sub": "admin", "aud": self.audience, "iat": self.issued, "exp": self.issued + self.life
        });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der())).unwrap()
    }
}

fn mint<'a>(ca: &'a TestCa, clock: &Clock) -> Mint<'a> {
    Mint { ca, certified_for: GRANT, audience: "n1", issued: clock.unix_seconds(), life: 60 }
}

fn judge(ca: &TestCa, clock: &Clock) -> Judge {
    let roots = Roots::default();
    roots.replace(&[ca.root()]).unwrap();
    Judge { node: NodeName::new("n1"), trust_domain: TrustDomain::default(), roots, clock: clock.clone() }
}

#[test]
fn a_grant_of_the_controller_for_this_node_is_good_for_a_minute() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let judge = judge(&ca, &clock);
    let token = mint(&ca, &clock).token();
    assert_eq!(judge.check(&token).unwrap().sub, "admin");
    clock.shift(121);
    assert_eq!(judge.check(&token), Err(GrantError::Expired));
}

#[test]
fn every_other_grant_is_refused_saying_why() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let judge = judge(&ca, &clock);
    let check = |mint: Mint<'_>| judge.check(&mint.token()).unwrap_err().to_string();

    let other_node = check(Mint { audience: "n2", ..mint(&ca, &clock) });
    assert_eq!(other_node, "the grant is not good for this node: InvalidAudience");
    let workload = "spiffe://cluster.local/ns/shop/sa/web";
    let by_workload = check(Mint { certified_for: workload, ..mint(&ca, &clock) });
    assert!(
        by_workload.contains("its certificate is for [\"spiffe://cluster.local/ns/shop/sa/web\"]"),
        "{by_workload}"
    );
    let foreign_ca = TestCa::new(&clock, DAY);
    let foreign = check(mint(&foreign_ca, &clock));
    assert!(foreign.starts_with("the grant's key is not the controller's"), "{foreign}");
    let long = check(Mint { life: 3600, ..mint(&ca, &clock) });
    assert!(long.starts_with("the grant is expired or lives longer"), "{long}");
    let from_the_future = check(Mint { issued: clock.unix_seconds() + 300, ..mint(&ca, &clock) });
    assert!(from_the_future.starts_with("the grant is expired or lives longer"), "{from_the_future}");
}

#[test]
fn what_is_no_grant_at_all_is_refused() {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let judge = judge(&ca, &clock);
    let token = mint(&ca, &clock).token();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert!(matches!(judge.check(&forged), Err(GrantError::NotGood(_))));
    for text in ["", "a.b.c", "not a token", &"x".repeat(100_000)] {
        assert!(matches!(judge.check(text), Err(GrantError::Unreadable(_))));
    }
    let symmetric = jsonwebtoken::encode(
        &Header::default(),
        &serde_json::json!({"aud": "n1"}),
        &EncodingKey::from_secret(b"x"),
    );
    assert!(matches!(judge.check(&symmetric.unwrap()), Err(GrantError::ForeignKey(_))));
}

struct Bench {
    ca: TestCa,
    clock: Clock,
    channel: Channel,
    _phase: phase::PhaseControl,
}

async fn bench() -> Bench {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, DAY);
    let certificates = store(&ca, &clock);
    certificates.want([identity("web")].into());
    let (writer, state) = state::new();
    writer.publish(Snapshot::default().next(vec![Resource::Mesh(MeshSettings::default())], &[]), true);
    let (phase_control, phase) = phase::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connection = Connection { direction: "inbound".to_owned(), ..Connection::default() };
    let inspected = Inspected {
        node: NodeName::new("n1"),
        state,
        certificates,
        reporter: Reporter::new(),
        connections: Arc::new(move || {
            let connection = connection.clone();
            Box::pin(async move { vec![connection] })
        }),
        clock: clock.clone(),
        phase,
        limits: Limits::default(),
    };
    tokio::spawn(run(listener, inspected));
    // The host name that the controller puts beside the node's SPIFFE id.
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca.root_pem()))
        .domain_name("n1.mesh-node");
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap().tls_config(tls).unwrap();
    Bench { channel: endpoint.connect().await.unwrap(), ca, clock, _phase: phase_control }
}

impl Bench {
    fn granted<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", mint(&self.ca, &self.clock).token());
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        request
    }
}

#[tokio::test]
async fn with_a_grant_everything_is_shown_and_without_nothing() {
    let bench = bench().await;
    let mut client = NodeInspectClient::new(bench.channel.clone());
    let refused = client.node_dump(NodeDumpRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(client.certificates(CertificatesRequest {}).await.is_err());
    assert!(client.connections(ConnectionsRequest {}).await.is_err());

    let dump = client.node_dump(bench.granted(NodeDumpRequest {})).await.unwrap().into_inner();
    assert_eq!((dump.generation, dump.resources.len()), (1, 1));
    let shown =
        client.certificates(bench.granted(CertificatesRequest {})).await.unwrap().into_inner().certificates;
    let names: Vec<_> =
        shown.iter().map(|certificate| (&*certificate.identity, &*certificate.state)).collect();
    let expected = [
        ("spiffe://cluster.local/ns/shop/sa/web", "ready"),
        ("spiffe://cluster.local/tulle/node/n1", "ready"),
    ];
    assert_eq!(names, expected);
    let open = client.connections(bench.granted(ConnectionsRequest {})).await.unwrap().into_inner();
    assert_eq!(open.connections[0].direction, "inbound");
}
