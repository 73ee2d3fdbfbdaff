//! meshctl against the cluster: what it does, what it waits for, and its exit codes.

use anyhow::{Result, ensure};
use mesh_tests::cluster::{App, Cluster};

#[test]
fn enroll_waits_until_every_pod_is_captured_and_unenroll_until_none_is() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("verbs")?;
    let a = space.deploy(&App::echo("a").node(1))?;
    let b = space.deploy(&App::echo("b").node(2))?;
    let (code, said, stderr) = cluster.meshctl(&["enroll", "ns", space.name()])?;
    ensure!(code == 0, "{code}: {said}{stderr}");
    for pod in [&a, &b] {
        space.await_condition(pod, "True")?;
    }
    assert_eq!(a.get(&space.url("b", "/"))?.status(), 200);
    let (code, said, stderr) = cluster.meshctl(&["unenroll", "ns", space.name()])?;
    ensure!(code == 0, "{code}: {said}{stderr}");
    let (_, status, _) = cluster.meshctl(&["status", "-o", "json"])?;
    ensure!(!status.contains(a.uid()), "nothing of it is captured: {status}");
    Ok(())
}

#[test]
fn enroll_says_which_pod_cannot_be_captured_and_why() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("refused")?;
    space.deploy(&App::echo("plain").node(1))?;
    let manifest = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"hosted","namespace":"{}"}},"spec":{{"hostNetwork":true,"terminationGracePeriodSeconds":1,
        "containers":[{{"name":"app","image":"docker.io/tulle/mesh-app:0.1.0","imagePullPolicy":"Never","args":["serve","--mode","client"]}}]}}}}"#,
        space.name()
    );
    cluster.apply(&manifest)?;
    space.kubectl(&["wait", "pod/hosted", "--for=condition=Ready", "--timeout=60s"])?;
    let (code, said, stderr) = cluster.meshctl(&["enroll", "ns", space.name()])?;
    let said = format!("{said}{stderr}");
    ensure!(code == 2 && said.contains("hosted") && said.contains("host"), "{code}: {said}");
    Ok(())
}

#[test]
fn status_and_check_are_good_and_wrong_arguments_are_told() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    cluster.settle()?;
    let (code, table, stderr) = cluster.meshctl(&["status"])?;
    ensure!(
        matches!(code, 0 | 2) && table.contains("tl-node-1") && table.contains("tl-node-2"),
        "{code}: {table}{stderr}"
    );
    let (code, json, stderr) = cluster.meshctl(&["check", "-o", "json"])?;
    ensure!(matches!(code, 0 | 79), "{code}: {json}{stderr}");
    serde_json::from_str::<serde_json::Value>(&json)?;
    assert_eq!(cluster.meshctl(&["enroll", "planet", "mars"])?.0, 64, "usage");
    let (code, _, stderr) = cluster.meshctl(&["enroll", "ns", "there-is-no-such-namespace"])?;
    ensure!(code == 65 || code == 1, "{code}: {stderr}");
    Ok(())
}
