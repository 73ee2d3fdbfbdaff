//! One chart, two renderers: what `meshctl install` applies is what Helm would install.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{Cluster, OWN_NAMESPACE};
use mesh_tests::repo_root;
use serde::Deserialize;
use serde_json::Value;

/// Values that reach every branch of the templates.
const VALUES: &[&[&str]] = &[
    &[],
    &["compat.istioLabels=false", "log.format=json", "log.level=info\\,mesh_node=debug"],
    &["cni.enabled=false", "node.mountBpffs=false", "node.appArmorProfile=", "node.seLinuxType=spc_t"],
    &[
        "node.failOpen=true",
        "node.workers=3",
        "node.limits.tls_handshake=5s",
        "node.limits.header_bytes=32KiB",
    ],
    &[
        "image.registry=registry.example/x",
        "image.tag=v7",
        "image.pullPolicy=Never",
        "image.pullSecrets={one,two}",
    ],
    &[
        "controller.nodeSelector.zone=a",
        "controller.priorityClassName=",
        "node.kubelet.names=k3s",
        "node.kubelet.port=1",
    ],
    &["node.resources.limits.memory=1Gi", "node.maxUnavailable=10%", "trustDomain=example.org"],
];

#[test]
fn helm_and_meshctl_give_the_same_objects() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let chart = repo_root().join("helm/tulle").display().to_string();
    for values in VALUES {
        let set: Vec<&str> = values.iter().flat_map(|value| ["--set", *value]).collect();
        let mut arguments =
            vec!["template", "tulle", &chart, "-n", OWN_NAMESPACE, "--include-crds", "--no-hooks"];
        arguments.extend(["--kube-version", "1.34.4"]);
        arguments.extend(&set);
        let helm = objects(&cluster.helm(&arguments)?)?;
        let mut arguments = vec!["install", "--dry-run", "-o", "yaml"];
        arguments.extend(&set);
        let (code, ours, stderr) = cluster.meshctl(&arguments)?;
        ensure!(code == 0, "{values:?}: {code}: {stderr}");
        let ours = objects(&ours)?;
        assert!(ours.len() > 15, "{values:?}: only {} objects", ours.len());
        assert_eq!(ours.keys().collect::<Vec<_>>(), helm.keys().collect::<Vec<_>>(), "{values:?}");
        for (name, object) in &ours {
            assert_eq!(Some(object), helm.get(name), "{values:?}: {name}");
        }
    }
    Ok(())
}

#[test]
fn the_chart_has_no_finding_of_helms_own() -> Result<()> {
    let chart = repo_root().join("helm/tulle").display().to_string();
    let said = Cluster::with_mesh()?.helm(&["lint", "--strict", &chart])?;
    ensure!(said.contains("0 chart(s) failed"), "{said}");
    Ok(())
}

/// The documents of a stream, by kind, namespace and name.
fn objects(text: &str) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        if object.is_null() {
            continue;
        }
        let field = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}/{}", field("/kind"), field("/metadata/namespace"), field("/metadata/name"));
        let twice = all.insert(name.clone(), object);
        ensure!(twice.is_none(), "{name} is there twice");
    }
    Some(all).filter(|all| !all.is_empty()).context("no object at all")
}
