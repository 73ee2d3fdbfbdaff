//! What is kept, without an API server; calls are tested on a cluster.

use super::*;

fn uids(count: usize) -> BTreeSet<WorkloadUid> {
    (0..count).map(|number| WorkloadUid::new(format!("{number:032x}"))).collect()
}

#[test]
fn what_was_published_is_read_back() {
    for count in [0, 1, 10_000] {
        assert_eq!(unpack(&pack(&uids(count)).unwrap()).unwrap(), uids(count));
    }
}

#[test]
fn more_than_an_object_holds_is_refused_before_it_is_sent() {
    let random = (0..80_000).map(|_| WorkloadUid::new(format!("{:032x}", rand::random::<u128>()))).collect();
    assert!(matches!(pack(&random), Err(ClusterStateError::TooLarge(80_000))));
}

#[test]
fn a_damaged_state_is_an_error_and_an_absent_one_is_empty() {
    assert!(unpack(b"not gzip").unwrap_err().to_string().contains("remove the ConfigMap only if"));
    let map = |data: serde_json::Value| serde_json::from_value::<ConfigMap>(data).unwrap();
    assert!(published_in(&map(json!({ "binaryData": { PUBLISHED: "bm90IGd6aXA=" } }))).is_err());
    let made_by_the_hook = map(json!({ "metadata": { "annotations": { LEAVING: "true" } } }));
    assert!(published_in(&made_by_the_hook).unwrap().is_empty());
    assert!(is_leaving(&made_by_the_hook) && !has_left(&made_by_the_hook));
    assert!(!is_leaving(&map(json!({ "metadata": { "annotations": { LEAVING: "false" } } }))));
}

#[test]
fn a_root_survives_its_secret_and_half_of_one_is_refused() {
    let (trust_domain, now) = (TrustDomain::default(), OffsetDateTime::now_utc());
    let fresh = RootPem::generate(&trust_domain, now).unwrap();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let whole = BTreeMap::from([
        (CA_KEY.to_owned(), bytes(&fresh.key)),
        (CA_CERTIFICATE.to_owned(), bytes(&fresh.certificate)),
    ]);
    let secret = Secret { data: Some(whole.clone()), ..Secret::default() };
    let read = root_of(secret).unwrap();
    let place = std::path::Path::new("Secret tulle-ca");
    let authority = crate::ca::Authority::of(read, place, trust_domain, now).unwrap();
    assert_eq!(authority.root_pem(), fresh.certificate);
    for missing in [CA_KEY, CA_CERTIFICATE] {
        let mut half = whole.clone();
        half.remove(missing);
        let Err(error) = root_of(Secret { data: Some(half), ..Secret::default() }) else {
            panic!("{missing}")
        };
        assert_eq!(error.to_string(), format!("Secret tulle-ca: {missing} is missing"));
    }
}
