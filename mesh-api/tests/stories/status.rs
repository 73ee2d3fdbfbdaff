//! The status of routes: what is written, and what is left alone.

use mesh_api::status::{CONTROLLER_NAME, Condition, ConditionKind, ParentStatus, RouteStatus};
use serde_json::{Value, json};

fn status(holds: bool) -> RouteStatus {
    let condition = Condition {
        kind: ConditionKind::Accepted,
        holds,
        reason: if holds { "Accepted" } else { "NoMatchingParent" },
        message: "said".to_owned(),
        observed_generation: 3,
    };
    let parent = json!({ "group": "", "kind": "Service", "name": "back" });
    RouteStatus { parents: vec![ParentStatus { parent, conditions: vec![condition] }] }
}

fn time(status: &Value, parent: usize) -> Option<&str> {
    status.pointer(&format!("/parents/{parent}/conditions/0/lastTransitionTime"))?.as_str()
}

#[test]
fn a_status_is_written_once_and_keeps_its_time() {
    let first = status(true).merged(None, "t1").expect("nothing is there yet");
    assert_eq!(first.pointer("/parents/0/controllerName"), Some(&json!(CONTROLLER_NAME)));
    assert_eq!(first.pointer("/parents/0/conditions/0/observedGeneration"), Some(&json!(3)));
    assert_eq!(status(true).merged(Some(&first), "t2"), None, "it says this already");

    let mut other_words = status(true);
    other_words.parents[0].conditions[0].message = "said otherwise".to_owned();
    let second = other_words.merged(Some(&first), "t2").expect("the message is new");
    assert_eq!(time(&second, 0), Some("t1"), "its truth did not change");

    let third = status(false).merged(Some(&second), "t3").expect("it does not hold any more");
    assert_eq!(time(&third, 0), Some("t3"));
}

#[test]
fn entries_of_other_controllers_stay() {
    let foreign =
        json!({ "parentRef": { "name": "edge" }, "controllerName": "example.com/edge", "conditions": [] });
    let present = json!({ "parents": [foreign] });
    let both = status(true).merged(Some(&present), "t1").expect("ours is not there yet");
    assert_eq!(both.pointer("/parents/0"), Some(&foreign));
    assert_eq!(both["parents"].as_array().map(Vec::len), Some(2));

    let gone = RouteStatus::default().merged(Some(&both), "t2").expect("ours is taken back");
    assert_eq!(gone, present);
    assert_eq!(RouteStatus::default().merged(Some(&present), "t2"), None);
    assert_eq!(RouteStatus::default().merged(None, "t2"), None);
}
