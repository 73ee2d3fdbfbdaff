//! The conversation with a controller that does not answer, over an API server of one ConfigMap.

use std::sync::{Arc, Mutex};

use kube::{Client, client::Body};
use serde_json::Value;
use tower::{BoxError, service_fn};

use super::*;

/// What the API server has: the annotations of ConfigMap `tulle-state`; None: there is none.
type Held = Arc<Mutex<Option<Value>>>;

fn cluster(held: &Held) -> Cluster {
    let held = held.clone();
    let service = service_fn(move |request: http::Request<Body>| {
        let held = held.clone();
        async move {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/tulle-system/configmaps/tulle-state");
            let is_patch = request.method() == http::Method::PATCH;
            let body = request.into_body().collect_bytes().await?;
            let mut held = held.lock().unwrap();
            if let (Some(annotations), true) = (held.as_mut(), is_patch) {
                let patch: Value = serde_json::from_slice(&body)?;
                for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
                    annotations[key] = value.clone();
                }
                annotations.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            }
            let (code, answer) = match &*held {
                Some(annotations) => {
                    (200, json!({ "metadata": { "name": STATE, "annotations": annotations } }))
                }
                None => (
                    404,
                    json!({ "kind": "Status", "status": "Failure", "code": 404, "message": "", "reason": "NotFound" }),
                ),
            };
            let answer =
                http::Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer)?))?;
            Ok::<_, BoxError>(answer)
        }
    });
    Cluster {
        client: Client::new(service, "default"),
        mesh_namespace: "tulle-system".to_owned(),
        name: String::new(),
    }
}

fn holding(annotations: Value) -> Held {
    Arc::new(Mutex::new(Some(annotations)))
}

#[tokio::test]
async fn a_controller_that_does_not_answer_is_asked_to_stay_and_nothing_else_changes() {
    let held = holding(json!({ "others": "words" }));
    let cluster = cluster(&held);
    let mut progress = Progress::new();
    let failure = leave(&cluster, Duration::from_millis(700), &mut progress).await.unwrap_err();
    assert!(failure.to_string().contains("did not leave in time"), "{failure}");
    assert_eq!(*held.lock().unwrap(), Some(json!({ "others": "words", LEAVING: "true" })));
    stay(&cluster, &mut progress).await;
    assert_eq!(*held.lock().unwrap(), Some(json!({ "others": "words" })));
}

#[tokio::test]
async fn whoever_installs_over_a_mesh_that_leaves_makes_it_stay() {
    let held = holding(json!({ LEAVING: "true", LEFT: "true" }));
    assert!(back(&cluster(&held)).await.unwrap());
    assert_eq!(*held.lock().unwrap(), Some(json!({ LEFT: "true" })), "that word is the controller's");
    assert!(!back(&cluster(&held)).await.unwrap());
}

#[tokio::test]
async fn where_the_mesh_never_ran_nobody_is_asked() {
    let cluster = cluster(&Held::default());
    let mut progress = Progress::new();
    let left = leave(&cluster, Duration::from_secs(1), &mut progress).await.unwrap();
    assert_eq!(left, Left::NeverRan);
    assert!(!back(&cluster).await.unwrap());
}

#[test]
fn only_the_word_true_is_an_answer() {
    let state = |value: &str| -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "annotations": { LEFT: value } } })).unwrap()
    };
    assert!(said(&state("true"), LEFT));
    assert!(!said(&state("false"), LEFT));
    assert!(!said(&state("true"), LEAVING));
    assert!(!said(&ConfigMap::default(), LEFT));
}
