//! The mesh is removed under traffic: applications go on in plaintext, and nothing of it stays. Then it is installed again, by meshctl.
//! And it is not removed while a node does not answer: then it stays as it was.

use anyhow::{Result, ensure};
use mesh_tests::cluster::{App, Cluster, NodeName, OWN_NAMESPACE};

use super::STRICT;

#[test]
fn uninstalling_under_traffic_loses_no_request_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("leave")?;
    space.enroll()?;
    let server = space.deploy(&App::echo("server").node(2))?;
    let client = space.deploy(&App::echo("client").node(1))?;
    space.await_condition(&server, "True")?;
    space.await_condition(&client, "True")?;
    let load = client.load(&space.url("server", "/")).rps(50).new_connections().start()?;
    cluster.uninstall_mesh()?;
    load.await_good(100)?;
    let report = load.stop()?;
    assert_eq!(report.failed, 0, "{report:?}");
    for number in [1, 2] {
        let node = NodeName::of(number);
        ensure!(!cluster.has_pins(&node), "{node}: pins are left");
        let conflist = std::fs::read_to_string(cluster.conflist(&node)?)?;
        ensure!(!conflist.contains("tulle"), "{node}: the CNI entry is left: {conflist}");
        ensure!(!cluster.has_plugin(&node)?, "{node}: the CNI plugin is left");
    }
    ensure!(cluster.attached_programs()?.is_empty(), "programs are left: {:?}", cluster.attached_programs()?);
    let labels = cluster.kubectl(&["get", "namespaces", "-l", "tulle.dev/mesh", "-o", "name"])?;
    ensure!(labels.trim().is_empty(), "labels are left: {labels}");
    ensure!(space.condition(&server)?.is_none(), "the condition of a pod is left");
    let left = cluster.kubectl(&[
        "-n",
        OWN_NAMESPACE,
        "get",
        "all,secrets,configmaps",
        "-l",
        "app.kubernetes.io/part-of=tulle",
        "-o",
        "name",
    ])?;
    ensure!(left.trim().is_empty(), "objects are left: {left}");
    // New pods start without us.
    space.deploy(&App::echo("after").node(1))?;

    let (code, said, stderr) = cluster.meshctl(&["install", "-y"])?;
    ensure!(code == 0, "{code}: {said}{stderr}");
    cluster.await_mesh()?;
    space.enroll()?;
    space.await_condition(&client, "True")?;
    let (code, said, stderr) = cluster.meshctl(&["uninstall", "-y"])?;
    ensure!(code == 0, "{code}: {said}{stderr}");
    cluster.install_mesh()
}

#[test]
fn an_uninstallation_that_a_node_does_not_answer_leaves_the_mesh_as_it_was() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    // Helm's mesh is Helm's to remove: the hook of its chart is run as it would be.
    let space = cluster.space("stays")?;
    space.enroll()?;
    let server = space.deploy(&App::echo("server").node(1))?;
    let client = space.deploy(&App::echo("client").node(2))?;
    space.configure(STRICT)?;
    space.await_condition(&server, "True")?;
    space.await_condition(&client, "True")?;
    let outside = cluster.space("stays-out")?;
    let stranger = outside.deploy(&App::echo("stranger").node(1))?;
    let url = format!("http://{}/", server.at(80));
    // STRICT holds, before and after.
    stranger.call(&url).fail()?;

    let stopped = cluster.stop_agent(&NodeName::of(2))?;
    let (code, said, stderr) = cluster.meshctl(&["uninstall", "--hook", "--timeout", "12s"])?;
    drop(stopped);
    ensure!(code == 124, "{code}: {said}{stderr}");
    ensure!(stderr.contains("did not leave in time") && stderr.contains("stays"), "{stderr}");
    let state = cluster.get(&["configmap", "-n", OWN_NAMESPACE, "tulle-state"])?;
    ensure!(state["metadata"]["annotations"]["tulle.dev/leaving"].is_null(), "the mark stays: {state}");
    space.await_condition(&server, "True")?;
    space.await_condition(&client, "True")?;
    cluster.settle()?;
    stranger.call(&url).fail()?;
    ensure!(client.get(&space.url("server", "/"))?.status() == 200, "the mesh does not carry");
    let (_, said, _) = cluster.meshctl(&["status", "-o", "json"])?;
    ensure!(!said.contains("MESH0070"), "it says that it leaves: {said}");
    Ok(())
}
