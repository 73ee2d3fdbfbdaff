//! The root lives once and is never silently replaced; leaves say exactly what was asked.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn open(directory: &Path) -> Result<Authority, CaError> {
    Authority::open(directory, TrustDomain::default(), now())
}

fn reason(result: Result<Authority, CaError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn the_root_is_generated_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap().root().clone();
    let second = open(directory.path()).unwrap();
    assert_eq!(&first, second.root());
    assert!(second.root_not_after() > now() + Duration::from_secs(9 * 365 * 24 * 3600));
    let mode = fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read(directory.path().join("root.crt")).unwrap(),
        fs::read(directory.path().join("ca.crt")).unwrap()
    );
}

#[test]
fn a_damaged_key_is_an_error_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    let key = directory.path().join("ca.key");
    for content in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        fs::write(&key, content).unwrap();
        assert!(reason(open(directory.path())).contains("EC P-256 key"), "{content:?}");
        assert_eq!(fs::read_to_string(&key).unwrap(), content);
    }
    fs::remove_file(&key).unwrap();
    assert!(reason(open(directory.path())).contains("missing"));
    assert!(!key.exists());
}

#[test]
fn an_exposed_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    fs::set_permissions(directory.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(reason(open(directory.path())).contains("readable by others"));
}

#[test]
fn a_root_of_another_key_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(one.path()).unwrap();
    open(other.path()).unwrap();
    fs::copy(other.path().join("ca.crt"), one.path().join("ca.crt")).unwrap();
    assert!(reason(open(one.path())).contains("does not belong"));
}

#[test]
fn a_lost_root_certificate_is_made_again_from_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = open(directory.path())
        .unwrap()
        .issue(&Subject::Controller, &key, Duration::from_secs(3600), now())
        .unwrap();
    fs::remove_file(directory.path().join("ca.crt")).unwrap();
    let again = open(directory.path()).unwrap();
    verify(&again, &leaf.certificate, now()).unwrap();
}

#[test]
fn an_expired_root_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    let late = now() + Duration::from_secs(11 * 365 * 24 * 3600);
    let refused = Authority::open(directory.path(), TrustDomain::default(), late);
    assert!(reason(refused).contains("expired"));
}

#[test]
fn a_leaf_says_what_was_asked_and_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
    let issued = authority
        .issue(&Subject::Workload(identity.clone()), &key, Duration::from_secs(3600), now())
        .unwrap();
    verify(&authority, &issued.certificate, now()).unwrap();
    assert!(verify(&authority, &issued.certificate, now() + Duration::from_secs(2 * 3600)).is_err());

    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("URI({identity})")]);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    assert!(issued.not_before <= now() - Duration::from_secs(290));
    assert!(parsed.raw_serial().len() == 16);
}

#[test]
fn a_leaf_never_outlives_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = authority.issue(&Subject::Controller, &key, ROOT_TTL * 2, now()).unwrap();
    assert_eq!(issued.not_after, authority.root_not_after());
}

fn verify(authority: &Authority, leaf: &CertificateDer<'_>, at: OffsetDateTime) -> Result<(), webpki::Error> {
    let anchor = webpki::anchor_from_trusted_cert(authority.root())?;
    let at = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(at.unix_timestamp() as u64));
    webpki::EndEntityCert::try_from(leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            &[],
            at,
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .map(|_| ())
}
