//! Answers in the shape in which API servers give them. The questions themselves are asked on a cluster.

use serde_json::json;

use super::*;

fn status(value: serde_json::Value) -> TokenReviewStatus {
    serde_json::from_value(value).unwrap()
}

/// Written by hand after the API of Kubernetes 1.34, for a pod of the DaemonSet.
fn answered() -> serde_json::Value {
    json!({
        "authenticated": true,
        "audiences": ["tulle"],
        "user": {
            "username": "system:serviceaccount:tulle-system:mesh-node",
            "uid": "0b25b2f7-5f2e-4a09-a8a8-35f3d6f0f0f5",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:tulle-system", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=7ee52be0-9045-4653-aa5e-0da57b8dccdc"],
                "authentication.kubernetes.io/node-name": ["tl-node-1"],
                "authentication.kubernetes.io/node-uid": ["497e9d9a-47aa-4930-b0f6-9f2fb574c8c6"],
                "authentication.kubernetes.io/pod-name": ["mesh-node-x7fkq"],
                "authentication.kubernetes.io/pod-uid": ["e87dbbd6-3d7e-45db-aafb-72b24627dff5"],
            },
        },
    })
}

fn reviewer(nodes: &[&str]) -> Reviewer {
    let names = nodes.iter().map(|name| NodeName::new(*name)).collect();
    let (_, nodes) = watch::channel(Some(Arc::new(names)));
    let agent = crate::sample::workload("e87dbbd6-3d7e-45db-aafb-72b24627dff5", "tl-node-7");
    let placement = Placement::of([&mesh_model::resource::Resource::Workload(agent)]);
    let (_, placement) = watch::channel(Arc::new(placement));
    // Nothing of these tests reaches a server.
    let nowhere = client_to_nowhere();
    Reviewer::new(nowhere, Namespace::new("tulle-system"), nodes, placement)
}

fn client_to_nowhere() -> Client {
    Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap()
}

#[tokio::test]
async fn a_node_is_whom_the_token_was_given_to() {
    let reviewer = reviewer(&["tl-node-1"]);
    let user = user_of(status(answered())).unwrap();
    assert_eq!(reviewer.node_of(&user), Ok(NodeName::new("tl-node-1")));

    let mut older = user.clone();
    older.extra.as_mut().unwrap().remove(NODE_CLAIM);
    assert_eq!(reviewer.node_of(&older), Ok(NodeName::new("tl-node-7")), "by the pod that we know");
    older.extra.as_mut().unwrap().insert(POD_CLAIM.to_owned(), vec!["another".to_owned()]);
    assert_eq!(reviewer.node_of(&older), Err(Refused::NoNode));
    older.extra = None;
    assert_eq!(reviewer.node_of(&older), Err(Refused::NoNode));

    for other in
        ["system:serviceaccount:tulle-system:default", "system:serviceaccount:shop:mesh-node", "mesh-node"]
    {
        let stranger = UserInfo { username: Some(other.to_owned()), ..user.clone() };
        assert_eq!(reviewer.node_of(&stranger), Err(Refused::Account(other.to_owned())));
    }
}

#[test]
fn a_token_that_is_bad_or_for_others_is_nobody_s() {
    let unauthenticated = json!({ "user": {}, "error": "[invalid bearer token, token lookup failed]" });
    assert_eq!(user_of(status(unauthenticated)), Err(Refused::Unknown));
    let mut of_another = answered();
    of_another["audiences"] = json!(["https://kubernetes.default.svc.cluster.local"]);
    assert_eq!(user_of(status(of_another.clone())), Err(Refused::Audience));
    of_another.as_object_mut().unwrap().remove("audiences");
    assert_eq!(user_of(status(of_another)), Err(Refused::Audience));
}

#[tokio::test]
async fn a_node_whose_object_is_gone_is_refused_though_its_token_was_good() {
    let reviewer = reviewer(&["tl-node-2"]);
    let key = (Sha256::digest(b"token").into(), Role::Node);
    reviewer.kept().insert(key, Caller::Node(NodeName::new("tl-node-1")), Instant::now());
    assert_eq!(reviewer.node("token").await, Err(Refused::NodeGone(NodeName::new("tl-node-1"))));
    assert_eq!(reviewer.admin("token").await, Err(unavailable_word()), "a node's token is asked about anew");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_no_verdict_about_the_token() {
    let reviewer = reviewer(&["tl-node-1"]);
    assert_eq!(reviewer.node("token").await, Err(unavailable_word()));
}

fn unavailable_word() -> Refused {
    Refused::Unavailable("the API server refused the question or is away")
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_a_minute_and_not_without_bound() {
    let mut kept = Kept::default();
    let caller = Caller::Admin("jane".into());
    let key = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        (digest, Role::Admin)
    };
    let asked = Instant::now();
    for number in 0..=MAX_KEPT {
        kept.insert(key(number), caller.clone(), asked);
    }
    assert_eq!(kept.answers.len(), MAX_KEPT);
    assert_eq!(kept.get(&key(0), asked), Some(caller.clone()));
    assert_eq!(kept.get(&(key(0).0, Role::Node), asked), None);
    assert_eq!(kept.get(&key(0), asked + KEPT), None);
    kept.insert(key(MAX_KEPT), caller, asked + KEPT);
    assert_eq!(kept.answers.len(), 1, "what is too old makes room");
}

#[test]
fn a_person_is_asked_about_with_all_that_is_known() {
    let user = user_of(status(answered())).unwrap();
    let review = serde_json::to_value(access_review(&user, &Namespace::new("tulle-system"))).unwrap();
    let spec = &review["spec"];
    assert_eq!(
        spec["resourceAttributes"],
        json!({ "group": "tulle.dev", "resource": "meshes", "verb": "get", "namespace": "tulle-system" })
    );
    assert_eq!(spec["groups"].as_array().unwrap().len(), 3);
    assert_eq!(spec["user"], "system:serviceaccount:tulle-system:mesh-node");
    assert_eq!(spec["extra"][NODE_CLAIM], json!(["tl-node-1"]));
}
