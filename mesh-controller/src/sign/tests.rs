//! What is refused, and that a certificate never says more than the controller's data.

use mesh_model::{
    name::ServiceAccount,
    resource::Resource,
    workload::{Enrolment, Workload},
};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

use super::*;
use crate::sample;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const PLAIN: &str = "spiffe://cluster.local/ns/shop/sa/plain";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

fn workload(uri: &str, node: &str, enrolment: Enrolment) -> Resource {
    let identity = Identity::parse(uri).unwrap();
    Resource::Workload(Workload { identity, enrolment, ..sample::workload("pod", node) })
}

struct Bench {
    signer: Signer,
    _directory: tempfile::TempDir,
    placement: watch::Sender<Arc<Placement>>,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority =
        Authority::open(directory.path(), mesh_model::identity::TrustDomain::default(), now).unwrap();
    let resources = [
        workload(WEB, "node-1", Enrolment::Yes),
        workload(PLAIN, "node-1", Enrolment::No),
        workload(OTHER, "node-2", Enrolment::Yes),
    ];
    let (placement, receiver) = watch::channel(Arc::new(Placement::of(&resources)));
    let signer = Signer::new(Arc::new(authority), receiver, Duration::from_secs(3600));
    Bench { signer, _directory: directory, placement }
}

impl Bench {
    fn ask(&self, node: &str, csr: &[u8], uri: &str) -> Result<Issued, Refused> {
        self.signer.sign(
            &NodeName::new(node),
            csr,
            &Wanted::Workload(uri.to_owned()),
            OffsetDateTime::now_utc(),
        )
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn p256() -> Vec<u8> {
    csr(&KeyPair::generate().unwrap())
}

/// A request for a key whose private half the asker does not hold.
fn with_key_of_another() -> Vec<u8> {
    let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut request = csr(&own);
    let key = own.der_bytes();
    let at = request.windows(key.len()).position(|window| window == key).unwrap();
    request[at..at + key.len()].copy_from_slice(other.der_bytes());
    request
}

#[track_caller]
fn refused(result: Result<Issued, Refused>, reason: &str) {
    assert_eq!(result.map(|_| ()).unwrap_err().reason(), reason);
}

#[test]
fn an_enrolled_pod_of_this_node_gets_its_identity() {
    let issued = bench().ask("node-1", &p256(), WEB).unwrap();
    assert!(issued.not_after - issued.not_before > Duration::from_secs(3600));
}

#[test]
fn refused_by_placement() {
    let bench = bench();
    refused(bench.ask("node-1", &p256(), OTHER), "not_placed");
    refused(bench.ask("node-2", &p256(), WEB), "not_placed");
    refused(bench.ask("node-9", &p256(), WEB), "not_placed");
    refused(bench.ask("node-1", &p256(), PLAIN), "not_enrolled");
    refused(bench.ask("node-1", &p256(), "spiffe://cluster.local/ns/shop/sa/"), "identity");
    refused(bench.ask("node-1", &p256(), "spiffe://cluster.local/tulle/controller"), "identity");
    refused(bench.ask("node-1", &p256(), "spiffe://elsewhere/ns/shop/sa/web"), "trust_domain");
}

#[test]
fn a_pod_that_left_gives_no_identity() {
    let bench = bench();
    bench.ask("node-1", &p256(), WEB).unwrap();
    bench.placement.send_replace(Arc::new(Placement::default()));
    refused(bench.ask("node-1", &p256(), WEB), "not_placed");
}

#[test]
fn refused_by_the_csr() {
    let bench = bench();
    refused(bench.ask("node-1", b"", WEB), "malformed_csr");
    refused(bench.ask("node-1", &[0x30; 5000], WEB), "malformed_csr");
    let mut longer = p256();
    longer.push(0);
    refused(bench.ask("node-1", &longer, WEB), "malformed_csr");
    refused(bench.ask("node-1", &with_key_of_another(), WEB), "csr_signature");
    let mut cut = p256();
    let last = cut.len() - 1;
    cut[last] ^= 1;
    refused(bench.ask("node-1", &cut, WEB), "csr_signature");
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        refused(bench.ask("node-1", &csr(&KeyPair::generate_for(algorithm).unwrap()), WEB), "key_type");
    }
}

#[test]
fn names_and_usages_of_the_csr_are_ignored() {
    let bench = bench();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "admins");
    params.subject_alt_names = vec![SanType::URI(OTHER.try_into().unwrap())];
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap();
    let issued = bench.ask("node-1", request.der(), WEB).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().iter().count(), 0);
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<String> = names.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("URI({WEB})")]);
    assert_eq!(parsed.public_key().subject_public_key.as_ref(), key.der_bytes());
}

#[test]
fn a_node_gets_its_own_server_certificate_only() {
    let bench = bench();
    let node = NodeName::new("node-2");
    let issued = bench.signer.sign(&node, &p256(), &Wanted::NodeServer, OffsetDateTime::now_utc()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names[0].to_string(), "URI(spiffe://cluster.local/tulle/node/node-2)");
}

#[test]
fn one_node_cannot_take_all_places() {
    let bench = bench();
    let greedy = NodeName::new("node-1");
    let taken: Vec<InWork> = (0..CONCURRENT_PER_NODE).map(|_| bench.signer.admit(&greedy).unwrap()).collect();
    assert!(matches!(bench.signer.admit(&greedy), Err(Refused::Busy(_))));
    bench.signer.admit(&NodeName::new("node-2")).unwrap();
    drop(taken);
    bench.signer.admit(&greedy).unwrap();
}

#[test]
fn service_accounts_are_compared_whole() {
    let placed = [workload(WEB, "node-1", Enrolment::Yes)];
    let placement = Placement::of(&placed);
    let mut identity = Identity::parse(WEB).unwrap();
    identity.service_account = ServiceAccount::new("we");
    assert!(placement.check(&NodeName::new("node-1"), &identity).is_err());
}
