//! The mesh is removed under traffic: applications go on in plaintext, and nothing of it stays. Then it is installed again, by meshctl.

use anyhow::{Result, ensure};
use mesh_tests::cluster::{App, Cluster, NodeName, OWN_NAMESPACE};

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
