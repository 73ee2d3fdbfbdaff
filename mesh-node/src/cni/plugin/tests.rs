//! Calls of the plugin where no agent answers; with one: `tests/kernel/cni.rs`.

use std::path::PathBuf;

use mesh_model::mesh::MeshSettings;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const RESULT: &str = r#"{ "cniVersion":"1.0.0", "interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/x"}],
  "ips":[{"address":"10.1.0.1/24","interface":0},{"address":"10.1.0.7/24","interface":1},{"address":"fd00::7/64"}], "x":1.50 }"#;

struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("enrolment.json")
    }

    fn enrol(&self, namespace: &str) {
        let enrolled_namespaces = [Namespace::from(namespace)].into();
        let settings = MeshSettings { enrolled_namespaces, ..MeshSettings::default() };
        Standing::of(&settings).write(&self.state()).unwrap();
    }

    fn configuration(&self, version: &str, previous: Option<&str>) -> String {
        let (socket, state) = (self.folder.path().join("cni.sock"), self.state());
        let previous = previous.map(|result| format!(",\n \"prevResult\": {result}")).unwrap_or_default();
        format!(
            r#"{{"cniVersion": "{version}", "name": "n", "type": "tulle-cni", "socket": {socket:?}, "state": {state:?},
                "ownNamespace": "tulle-system"{previous}}}"#
        )
    }

    fn call(&self, command: &str, args: &str) -> Answer {
        run(&environment(command, args), self.configuration("1.0.0", Some(RESULT)).as_bytes())
    }
}

fn environment(command: &str, args: &str) -> Environment {
    Environment {
        command: command.into(),
        container_id: "c1".into(),
        netns: Some("/proc/self/ns/net".into()),
        args: args.into(),
    }
}

fn pod(namespace: &str) -> String {
    format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=p;K8S_POD_UID=u-1")
}

fn error(answer: &Answer) -> (u64, String) {
    assert!(!answer.is_success);
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    (value["code"].as_u64().unwrap(), value["msg"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_not_kubernetes_passes_at_once_and_unchanged() {
    let answer = Node::new().call("ADD", "FOO=bar");
    assert_eq!(answer, Answer { output: RESULT.into(), is_success: true });
}

#[test]
fn exempt_namespaces_never_wait() {
    let node = Node::new();
    let began = Instant::now();
    for namespace in ["tulle-system", "kube-system"] {
        assert!(node.call("ADD", &pod(namespace)).is_success, "{namespace}");
    }
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn without_an_agent_an_enrolled_namespace_fails_and_another_passes_after_a_bounded_wait() {
    let node = Node::new();
    node.enrol("shop");
    let began = Instant::now();
    let (failed, passed) = thread::scope(|scope| {
        let failed = scope.spawn(|| node.call("ADD", &pod("shop")));
        let passed = scope.spawn(|| node.call("ADD", &pod("default")));
        (failed.join().unwrap(), passed.join().unwrap())
    });
    assert!(began.elapsed() < REACH + Duration::from_secs(1), "{:?}", began.elapsed());
    let (code, message) = error(&failed);
    assert_eq!(code, 100);
    assert!(
        message.starts_with("tulle: pod shop/p is in the mesh") && message.contains("cni.sock"),
        "{message}"
    );
    assert_eq!(passed, Answer { output: RESULT.into(), is_success: true });
}

#[test]
fn a_pod_without_a_uid_is_judged_by_its_namespace_at_once() {
    let node = Node::new();
    node.enrol("shop");
    let args = |namespace| format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=p");
    assert!(error(&node.call("ADD", &args("shop"))).1.contains("K8S_POD_UID"));
    assert!(node.call("ADD", &args("default")).is_success);
    assert_eq!(error(&node.call("ADD", "K8S_POD_UID=u")).0, 4);
}

#[test]
fn a_deletion_always_succeeds_and_status_is_not_the_agents() {
    let node = Node::new();
    for (command, args) in [("DEL", pod("shop")), ("STATUS", String::new()), ("GC", String::new())] {
        assert_eq!(node.call(command, &args), Answer { output: String::new(), is_success: true });
    }
}

#[test]
fn addresses_of_the_hosts_end_are_not_the_pods() {
    let text = Node::new().configuration("0.4.0", Some(RESULT));
    let ips = Configuration::read(&text).unwrap().addresses().unwrap();
    assert_eq!(ips, ["10.1.0.7".parse::<std::net::IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
}

#[test]
fn wrong_input_is_told_in_the_specifications_codes() {
    let node = Node::new();
    let call = |text: &str| error(&run(&environment("ADD", &pod("shop")), text.as_bytes()));
    assert_eq!(call("nonsense").0, 6);
    assert_eq!(call(&node.configuration("0.2.0", Some(RESULT))).0, 1);
    assert_eq!(call(&node.configuration("2.0.0", Some(RESULT))).0, 1);
    assert_eq!(call(&node.configuration("1.0.0", None)).0, 7);
    assert_eq!(call(&node.configuration("1.0.0", Some("[1]"))).0, 6);
    assert_eq!(error(&node.call("FLY", "")).0, 4);
}

#[test]
fn version_is_answered_in_the_callers_form() {
    let answer = run(&environment("VERSION", ""), &br#"{"cniVersion":"0.4.0"}"#[..]);
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    assert_eq!(value["cniVersion"], "0.4.0");
    assert!(value["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into()));
}
