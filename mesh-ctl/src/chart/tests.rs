//! The chart renders, and says what the design demands, without a cluster and without Helm.

use super::*;

fn release() -> Release {
    Release { name: "tulle".to_owned(), namespace: "tulle-system".to_owned() }
}

fn rendered(overrides: &[&str]) -> Vec<Manifest> {
    let mut values = default_values().unwrap();
    for argument in overrides {
        set(&mut values, argument).unwrap();
    }
    render(&release(), &values).unwrap()
}

fn find<'a>(objects: &'a [Manifest], kind: &str, name: &str) -> &'a Manifest {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn container(object: &Manifest) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]
}

fn variable<'a>(object: &'a Manifest, name: &str) -> Option<&'a Value> {
    container(object)["env"].as_array().unwrap().iter().find(|variable| variable["name"] == name)
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart = parse("Chart.yaml", text("Chart.yaml").unwrap()).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_object_carries_the_labels_by_which_it_is_removed_and_stands_in_the_release() {
    for object in rendered(&[]) {
        let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
        assert_eq!(metadata["labels"]["app.kubernetes.io/part-of"], "tulle", "{kind} {}", metadata["name"]);
        assert_eq!(metadata["labels"]["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"));
        match kind.starts_with("Cluster") {
            true => assert!(metadata["name"].as_str().unwrap().starts_with("tulle-"), "{metadata}"),
            false => assert_eq!(metadata["namespace"], "tulle-system", "{metadata}"),
        }
    }
}

#[test]
fn hooks_are_not_installed_and_crds_are_apart() {
    let objects = rendered(&[]);
    assert!(objects.iter().all(|object| object["kind"] != "Job"));
    assert!(objects.iter().all(|object| object["kind"] != "CustomResourceDefinition"));
    assert!(crds().unwrap().iter().all(|object| object["kind"] == "CustomResourceDefinition"));
    assert!(crds().unwrap().len() >= 4);
}

#[test]
fn the_node_is_not_privileged_and_mounts_only_what_the_values_name() {
    let objects = rendered(&[]);
    let node = find(&objects, "DaemonSet", "mesh-node");
    let security = &container(node)["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let volumes = node["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let mut paths: Vec<&str> =
        volumes.iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
    paths.sort_unstable();
    let expected =
        ["/etc/cni/net.d", "/opt/cni/bin", "/run/tulle", "/sys/fs/bpf", "/sys/fs/cgroup", "/var/lib/tulle"];
    assert_eq!(paths, expected);
    let token = &volumes.iter().find(|volume| volume["name"] == "token").unwrap()["projected"];
    assert_eq!(token["sources"][0]["serviceAccountToken"]["audience"], "tulle");
    assert_eq!(token["defaultMode"], 0o400);
}

#[test]
fn the_nodes_account_may_do_nothing() {
    for object in rendered(&[]) {
        let subjects = object["subjects"].as_array().cloned().unwrap_or_default();
        assert!(subjects.iter().all(|subject| subject["name"] != "mesh-node"), "{object}");
    }
}

#[test]
fn the_controller_runs_without_any_privilege() {
    let objects = rendered(&[]);
    let controller = find(&objects, "Deployment", "mesh-controller");
    assert_eq!(controller["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"], true);
    let security = &container(controller)["securityContext"];
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(security["allowPrivilegeEscalation"], false);
}

#[test]
fn values_reach_the_objects() {
    let objects = rendered(&[
        "image.registry=registry.example/x,image.tag=7",
        "node.failOpen=true,node.workers=3,cni.enabled=false",
        "node.limits.tls_handshake=5s,node.limits.header_bytes=32KiB",
        "compat.istioLabels=false,log.format=json",
    ]);
    let node = find(&objects, "DaemonSet", "mesh-node");
    assert_eq!(container(node)["image"], "registry.example/x/mesh-node:7");
    assert_eq!(variable(node, "TULLE_WORKERS").unwrap()["value"], "3");
    assert_eq!(variable(node, "TULLE_FAIL_OPEN").unwrap()["value"], "true");
    assert_eq!(variable(node, "TULLE_LOG_JSON").unwrap()["value"], "true");
    assert_eq!(variable(node, "TULLE_LIMITS").unwrap()["value"], "header_bytes=32KiB,tls_handshake=5s");
    assert!(
        node["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|volume| volume["name"] != "cni-bin")
    );
    let controller = find(&objects, "Deployment", "mesh-controller");
    assert_eq!(variable(controller, "MESH_COMPAT_ISTIO_LABELS").unwrap()["value"], "false");
    let plain = rendered(&[]);
    let node = find(&plain, "DaemonSet", "mesh-node");
    assert!(variable(node, "TULLE_WORKERS").is_none() && variable(node, "TULLE_FAIL_OPEN").is_none());
}

#[test]
fn a_value_that_would_break_its_line_is_an_error_and_nothing_else() {
    let mut values = default_values().unwrap();
    values["image"]["pullPolicy"] = "Always\n      evil: [".into();
    assert!(matches!(render(&release(), &values), Err(ChartError::Yaml { .. })));
}
