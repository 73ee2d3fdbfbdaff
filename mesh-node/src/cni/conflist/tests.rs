//! Edits of conflists: identities over arbitrary lists, and the texts that real CNIs write.

use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use super::*;

fn entry() -> Entry {
    Entry {
        kind: ENTRY_TYPE.into(),
        socket: "/run/tulle/cni.sock".into(),
        state: "/var/lib/tulle/enrolment.json".into(),
        own_namespace: Some("tulle-system".into()),
    }
}

fn types(text: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(text).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect()
}

const CALICO: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico", "mtu": 0, "big": 12345678901234567890123, "ipam": {"type": "calico-ipam"}
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
"#;

#[test]
fn the_entry_stands_last_and_nothing_else_changes() {
    let text = with_entry(CALICO, &entry()).unwrap();
    assert_eq!(types(&text), ["calico", "portmap", "tulle-cni"]);
    let ours = text.lines().find(|line| line.contains("tulle-cni")).unwrap();
    assert_eq!(
        ours,
        r#"    {"type":"tulle-cni","socket":"/run/tulle/cni.sock","state":"/var/lib/tulle/enrolment.json","ownNamespace":"tulle-system"}"#
    );
    assert_eq!(without_entry(&text).unwrap(), CALICO);
}

#[test]
fn an_entry_that_is_old_or_not_last_is_replaced() {
    let old = Entry { socket: "/elsewhere".into(), ..entry() };
    let text = with_entry(CALICO, &old).unwrap();
    assert_eq!(with_entry(&text, &entry()).unwrap(), with_entry(CALICO, &entry()).unwrap());
    let front = CALICO.replace("\"plugins\": [", "\"plugins\": [ {\"type\": \"tulle-cni\"}, ");
    let text = with_entry(&front, &entry()).unwrap();
    assert_eq!(types(&text), ["calico", "portmap", "tulle-cni"]);
}

#[test]
fn what_is_no_list_is_left_alone() {
    for text in
        ["", "[]", "{}", "{\"plugins\":[]}", "{\"plugins\":{}}", "{\"plugins\":[{}],\"plugins\":[{}]}"]
    {
        assert!(with_entry(text, &entry()).is_err(), "{text}");
    }
    assert_eq!(types(&without_entry("{\"plugins\":[{\"type\":\"tulle-cni\"}]}").unwrap()), [""; 0]);
}

#[test]
fn a_single_configuration_becomes_a_list_that_holds_it_unchanged() {
    let conf = "{ \"cniVersion\": \"1.0.0\", \"name\": \"n\", \"type\": \"ptp\", \"mtu\": 1500.0 }\n";
    let text = list_of(conf, &entry()).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list["cniVersion"], &list["name"]), (&"1.0.0".into(), &"n".into()));
    assert_eq!(types(&text), ["ptp", "tulle-cni"]);
    assert!(text.contains(conf.trim()));
    assert_eq!(with_entry(&text, &entry()).unwrap(), text);
    assert!(list_of("{\"name\":\"no type\"}", &entry()).is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

/// A list of arbitrary plugins among arbitrary members, written in one of two ways.
fn conflist() -> impl Strategy<Value = String> {
    let plugin =
        ("[a-z]{1,8}", json()).prop_map(|(kind, more)| serde_json::json!({"type": kind, "more": more}));
    let plugins = vec(prop_oneof![4 => plugin, 1 => json()], 1..5);
    (plugins, vec(("[a-o]{1,6}", json()), 0..4), any::<bool>()).prop_map(|(plugins, more, is_pretty)| {
        let mut list: serde_json::Map<String, Value> = more.into_iter().collect();
        list.insert("plugins".into(), plugins.into());
        let list = Value::Object(list);
        if is_pretty { serde_json::to_string_pretty(&list).unwrap() } else { list.to_string() }
    })
}

proptest! {
    #[test]
    fn taking_out_what_was_put_in_gives_the_text_as_it_was(text in conflist()) {
        let with = with_entry(&text, &entry()).unwrap();
        let (before, after) = (types(&text), types(&with));
        prop_assert_eq!(after.last().map(String::as_str), Some(ENTRY_TYPE));
        prop_assert_eq!(&after[..before.len()], &before[..]);
        prop_assert_eq!(without_entry(&with).unwrap(), text);
    }

    #[test]
    fn putting_in_twice_is_putting_in_once(text in conflist()) {
        let once = with_entry(&text, &entry()).unwrap();
        prop_assert_eq!(with_entry(&once, &entry()).unwrap(), once);
    }

    #[test]
    fn no_text_makes_an_edit_panic(text in any::<String>()) {
        let _ = with_entry(&text, &entry());
        let _ = list_of(&text, &entry());
    }
}
