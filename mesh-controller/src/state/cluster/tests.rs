//! What is kept, over an API server of a few objects; the real one is asked on a cluster.

use std::sync::Mutex;

use kube::client::Body;
use serde_json::Value;
use tower::{BoxError, service_fn};

use super::*;

/// Objects by the last part of their path.
type Held = Arc<Mutex<BTreeMap<String, Value>>>;

/// Reads, and creates what is not there.
fn state_over(held: &Held) -> ClusterState {
    let held = held.clone();
    let service = service_fn(move |request: http::Request<Body>| {
        let held = held.clone();
        async move {
            let is_create = request.method() == http::Method::POST;
            let mut name = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let body = request.into_body().collect_bytes().await?;
            let mut held = held.lock().unwrap();
            let mut code = 200;
            if is_create {
                let object: Value = serde_json::from_slice(&body)?;
                name = object["metadata"]["name"].as_str().unwrap().to_owned();
                match held.contains_key(&name) {
                    true => code = 409,
                    false => drop(held.insert(name.clone(), object)),
                }
            }
            let answer = match held.get(&name) {
                Some(object) if code == 200 => object.clone(),
                Some(_) => {
                    json!({ "status": "Failure", "code": 409, "reason": "AlreadyExists", "message": "" })
                }
                None => {
                    code = 404;
                    json!({ "status": "Failure", "code": 404, "reason": "NotFound", "message": "" })
                }
            };
            let answer =
                http::Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer)?))?;
            Ok::<_, BoxError>(answer)
        }
    });
    ClusterState {
        client: Client::new(service, "default"),
        namespace: Namespace::new("tulle-system"),
        owner: None,
    }
}

async fn root_over(held: &Held) -> Result<RootPem, ClusterStateError> {
    state_over(held).root(&TrustDomain::default(), OffsetDateTime::now_utc()).await
}

#[tokio::test]
async fn the_first_start_makes_a_root_and_the_next_finds_it() {
    let held = Held::default();
    let first = root_over(&held).await.unwrap();
    assert_eq!(root_over(&held).await.unwrap().certificate, first.certificate);
    // What an uninstallation that found no mesh leaves.
    let left = json!({ "metadata": { "name": STATE, "annotations": { LEAVING: "true" } } });
    root_over(&Arc::new(Mutex::new([(STATE.to_owned(), left)].into()))).await.unwrap();
}

#[tokio::test]
async fn a_root_whose_secret_is_gone_is_not_replaced() {
    let published = |count| {
        let packed = ByteString(pack(&uids(count)).unwrap());
        json!({ "metadata": { "name": STATE }, "binaryData": { PUBLISHED: packed } })
    };
    let damaged = json!({ "metadata": { "name": STATE }, "binaryData": { PUBLISHED: "bm90IGd6aXA=" } });
    let root = json!({ "metadata": { "name": ROOT_CERT }, "data": {} });
    for (name, trace) in [(ROOT_CERT, root), (STATE, published(1)), (STATE, damaged)] {
        let held: Held = Arc::new(Mutex::new([(name.to_owned(), trace)].into()));
        let Err(error) = root_over(&held).await else { panic!("{name}: a second root") };
        assert!(matches!(error, ClusterStateError::RootMissing(found) if found == name), "{error}");
        assert!(error.to_string().contains("restore the Secret"), "{error}");
        assert!(!held.lock().unwrap().contains_key(CA_SECRET));
    }
    let nothing_published: Held = Arc::new(Mutex::new([(STATE.to_owned(), published(0))].into()));
    root_over(&nothing_published).await.unwrap();
}

#[tokio::test]
async fn what_a_former_installation_left_to_be_collected_does_not_count() {
    let owner = |uid: &str| OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() };
    let held_by = |uid: &str| -> Held {
        let metadata = json!({ "name": ROOT_CERT, "ownerReferences": [owner(uid)] });
        Arc::new(Mutex::new([(ROOT_CERT.to_owned(), json!({ "metadata": metadata, "data": {} }))].into()))
    };
    let start = async |held: Held| {
        let state = ClusterState { owner: Some(Arc::new(owner("now"))), ..state_over(&held) };
        state.root(&TrustDomain::default(), OffsetDateTime::now_utc()).await
    };
    assert!(start(held_by("before")).await.is_ok());
    assert!(matches!(start(held_by("now")).await, Err(ClusterStateError::RootMissing(ROOT_CERT))));
}

#[tokio::test]
async fn the_secret_that_is_put_back_is_the_one_that_was_there() {
    let held = Held::default();
    let (trust_domain, now) = (TrustDomain::default(), OffsetDateTime::now_utc());
    let first = root_over(&held).await.unwrap();
    let place = std::path::Path::new(SECRET);
    let authority = crate::ca::Authority::of(first, place, trust_domain, now).unwrap();
    let secret =
        |held: &Held| serde_json::from_value::<Secret>(held.lock().unwrap()[CA_SECRET].clone()).unwrap();
    let before = secret(&held);
    assert!(is_root(&before, authority.root_pem()));
    assert!(!is_root(&Secret::default(), authority.root_pem()));
    let state = state_over(&held);
    assert!(!state.put_back(&authority.kept()).await.unwrap(), "it is there");
    held.lock().unwrap().clear();
    assert!(state.put_back(&authority.kept()).await.unwrap());
    assert_eq!(secret(&held).data, before.data);
}

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
