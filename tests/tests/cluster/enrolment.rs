//! How pods come into the mesh: running ones by a label, new ones by the CNI plugin.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{App, Cluster, NodeName, OWN_NAMESPACE, Part, ROLLOUT};
use mesh_tests::{Answer, eventually};
use nix::sys::signal::Signal;

use super::STRICT;

#[test]
fn a_running_namespace_joins_and_leaves_under_load_without_a_restart() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("join")?;
    let near = space.deploy(&App::echo("near").node(1))?;
    let far = space.deploy(&App::echo("far").node(2))?;
    let a = space.deploy(&App::echo("a").node(1))?;
    let loads = ["near", "far"].map(|name| a.load(&space.url(name, "/")).rps(50).new_connections().start());
    space.enroll()?;
    for pod in [&a, &near, &far] {
        space.await_condition(pod, "True")?;
    }
    space.configure(STRICT)?;
    assert_eq!(a.get(&space.url("far", "/"))?.status(), 200, "mTLS: STRICT takes nothing else");
    space.kubectl(&["delete", "peerauthentication", "default"])?;
    space.unenroll()?;
    for load in loads {
        let load = load?;
        load.await_good(50)?;
        let report = load.stop()?;
        assert_eq!(report.failed, 0, "{report:?}");
    }
    for pod in [&a, &near, &far] {
        assert_eq!(pod.restarts()?, 0);
        assert_eq!(space.pod(pod.pod_name().split('-').next().unwrap_or_default())?.uid(), pod.uid());
    }
    Ok(())
}

#[test]
fn the_first_packet_of_an_init_container_is_captured() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("init")?;
    let server = space.deploy(&App::echo("server").node(2))?;
    space.enroll()?;
    space.configure(STRICT)?;
    for node in [1, 2] {
        let name = format!("early{node}");
        let url = format!("http://{}/", server.at(80));
        let app = App::echo(&name).node(node).init(&["get", "--fail", "--timeout", "5", &url]);
        let pod = space.deploy(&app)?;
        let said = space.kubectl(&["logs", pod.pod_name(), "-c", "init"])?;
        let answer: Answer = serde_json::from_str(said.trim()).context("the init container's answer")?;
        assert_eq!(answer.status(), 200, "plaintext is refused: only a captured call gets an answer");
        assert_eq!(space.await_condition(&pod, "True")?.0, "Captured");
        assert_eq!(pod.restarts()?, 0);
    }
    Ok(())
}

#[test]
fn a_pod_that_opts_out_stays_out_and_one_that_opts_in_is_in() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("opt")?;
    space.enroll()?;
    let server = space.deploy(&App::echo("server").node(1))?;
    let outside = space.deploy(&App::echo("outside").node(2).label("tulle.dev/mesh", "disabled"))?;
    let inside = space.deploy(&App::echo("inside").node(2))?;
    space.configure(STRICT)?;
    assert_eq!(inside.get(&format!("http://{}/", server.at(80)))?.status(), 200);
    let refused = outside.call(&format!("http://{}/", server.at(80))).fail()?;
    assert!(matches!(refused.kind.as_str(), "reset" | "closed"), "{refused:?}");
    let elsewhere = cluster.space("opt-in")?;
    let alone = elsewhere.deploy(&App::echo("alone").node(1).label("tulle.dev/mesh", "enabled"))?;
    assert_eq!(alone.get(&format!("http://{}/", server.at(80)))?.status(), 200);
    Ok(())
}

#[test]
fn without_the_controller_an_unknown_pod_fails_where_it_should_be_enrolled_and_starts_elsewhere() -> Result<()>
{
    let cluster = Cluster::with_mesh()?;
    let inside = cluster.space("unknown-in")?;
    let outside = cluster.space("unknown-out")?;
    let known = inside.deploy(&App::echo("known").node(1))?;
    inside.enroll()?;
    cluster.kubectl(&["-n", OWN_NAMESPACE, "scale", "deployment/mesh-controller", "--replicas=0"])?;
    let restore = Restore(&cluster);
    cluster.eventually("the controller is gone", Duration::from_secs(60), |cluster| {
        let pods = cluster.kubectl(&[
            "-n",
            OWN_NAMESPACE,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=mesh-controller",
            "-o",
            "name",
        ])?;
        Ok(pods.trim().is_empty().then_some(()))
    })?;
    // The plain one first: it must not wait for the other.
    outside
        .deploy(&App::echo("plain").node(1))
        .context("a pod outside the mesh does not need the controller")?;
    inside.create_app(&App::echo("late").node(1))?;
    let event = cluster.eventually("the sandbox of the late pod is refused", ROLLOUT, |_| {
        let events = inside.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "reason=FailedCreatePodSandBox",
            "-o",
            "jsonpath={.items[*].message}",
        ])?;
        Ok(events.contains("tulle").then_some(events))
    })?;
    assert!(event.contains("late"), "the reason names the pod: {event}");
    drop(restore);
    let late =
        inside.await_app("late").context("once the controller is back the kubelet's next try succeeds")?;
    inside.await_condition(&late, "True")?;
    assert_eq!(known.restarts()?, 0);
    Ok(())
}

/// Puts the controller back, also when the test fails.
struct Restore<'a>(&'a Cluster);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let scaled =
            self.0.kubectl(&["-n", OWN_NAMESPACE, "scale", "deployment/mesh-controller", "--replicas=1"]);
        if let Err(error) = scaled.and_then(|_| self.0.await_mesh()) {
            eprintln!("the controller does not come back: {error:#}");
        }
    }
}

#[test]
fn an_overwritten_conflist_is_put_back_and_new_pods_are_captured() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("conflist")?;
    space.enroll()?;
    let node = NodeName::of(1);
    let conflist = cluster.conflist(&node)?;
    let ours = std::fs::read_to_string(&conflist)?;
    ensure!(ours.contains("tulle-cni"), "the plugin is not chained: {ours}");
    let mut plain: serde_json::Value = serde_json::from_str(&ours)?;
    if let Some(plugins) = plain["plugins"].as_array_mut() {
        plugins.retain(|plugin| plugin["type"] != "tulle-cni");
    }
    std::fs::write(&conflist, serde_json::to_string_pretty(&plain)?)?;
    eventually("the entry is put back", Duration::from_secs(10), || {
        std::fs::read_to_string(&conflist).is_ok_and(|text| text.contains("tulle-cni")).then_some(())
    })?;
    let pod = space.deploy(&App::echo("after").node(1))?;
    space.await_condition(&pod, "True")?;
    Ok(())
}

#[test]
fn two_agents_on_one_kernel_keep_to_their_own_pods() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("agents")?;
    space.enroll()?;
    let pods = [space.deploy(&App::echo("one").node(1))?, space.deploy(&App::echo("two").node(2))?];
    for (number, pod) in [(1, &pods[0]), (2, &pods[1])] {
        let name = NodeName::of(number);
        let (_, stdout, stderr) = cluster.meshctl(&["status", "--node", name.as_str(), "-o", "json"])?;
        ensure!(stdout.contains(pod.uid()), "{name} does not report its pod: {stdout}{stderr}");
        let other = &pods[usize::from(number == 1)];
        ensure!(!stdout.contains(other.uid()), "{name} reports a pod of the other node: {stdout}");
    }
    Ok(())
}

#[test]
fn a_pod_that_is_deleted_by_force_stays_closed_while_it_runs() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("force")?;
    let outside = cluster.space("force-outside")?;
    space.enroll()?;
    space.configure(STRICT)?;
    let victim = space.deploy(&App::echo("victim").node(1))?;
    space.await_condition(&victim, "True")?;
    let outsider = outside.deploy(&App::echo("outsider").node(1))?;
    // As on a node that is lost to the API server: the object goes, the process stays.
    cluster.signal(&Part::Kubelet(1), Signal::SIGSTOP)?;
    let closed = (|| {
        // Its successor waits for that node, so nothing settles; the agent hears of the deletion within a second.
        space.kubectl(&["delete", "pod", victim.pod_name(), "--force", "--grace-period=0"])?;
        for _ in 0..15 {
            for (from, to) in [(&outsider, &victim), (&victim, &outsider)] {
                let talk = from.talk(&to.at(9000), &["send:x", "read:1"])?;
                ensure!(talk.received.is_empty(), "{} reached {}: {talk:?}", from.pod_name(), to.pod_name());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    })();
    cluster.signal(&Part::Kubelet(1), Signal::SIGCONT)?;
    closed
}
