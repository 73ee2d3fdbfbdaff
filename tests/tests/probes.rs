//! Pods as Kubernetes has them: found by their processes, and probed by a kubelet that is known by more than its name.

use std::time::Duration;

use anyhow::{Context, Result};
use mesh_tests::{Pod, World, eventually};
use serde_json::Value;

/// The port of the kubelet's API.
const KUBELET: u16 = 10250;

/// A kubelet that starts again is known within a second, and a probe takes its time.
const RECOGNISED: Duration = Duration::from_secs(3);

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

/// What is probed: the port that the pod's probe names, by both families, and another one.
fn probes(pod: &Pod) -> [(&'static str, String); 3] {
    [("named", pod.at(80)), ("named6", pod.at6(80)), ("other", pod.at(8080))]
}

/// Who was answered.
fn passed(answers: &Value) -> Vec<&str> {
    ["named", "named6", "other"].into_iter().filter(|probe| answers[*probe].get("error").is_none()).collect()
}

fn kernel_event(world: &World, event: &str) -> Result<f64> {
    Ok(world.metrics(1)?.sum("mesh_kernel_events_total", &[("event", event)]))
}

#[test]
fn only_the_process_that_is_the_kubelet_probes_a_strict_pod_and_only_where_its_probes_are() {
    World::new("probes").nodes(1).run(|world| {
        let pod = world.pod("b").env("SHOP_PORT", "80,8080").probed(80).spawn()?;
        let inside = world.pod("a").spawn()?;
        world.apply(STRICT)?;
        world.settle()?;
        for port in [80, 8080] {
            assert_eq!(inside.get(&format!("http://{}/", pod.at(port)))?.status(), 200);
        }

        // Its name alone is nothing.
        let namesake = world.host_process(1, "kubelet", 10251, &probes(&pod))?;
        assert_eq!(passed(&namesake.probe()?), [""; 0], "not the kubelet: it has not its port");
        let kubelet = world.host_process(1, "kubelet", KUBELET, &probes(&pod))?;
        eventually("the kubelet's probes to pass", RECOGNISED, || {
            (passed(&kubelet.probe().ok()?) == ["named", "named6"]).then_some(())
        })?;
        let admitted = kernel_event(world, "probe_admitted")?;
        assert_eq!(passed(&kubelet.probe()?), ["named", "named6"]);
        assert_eq!(kernel_event(world, "probe_admitted")?, admitted + 2.0);
        assert!(kernel_event(world, "probe_unnamed")? > 0.0, "what no probe names is refused, and counted");
        assert_eq!(passed(&namesake.probe()?), [""; 0]);
        assert_eq!(world.metrics(1)?.sum("mesh_kubelet_found", &[]), 1.0);

        // Nor is its port alone.
        drop((namesake, kubelet));
        let usurper = world.host_process(1, "usurper", KUBELET, &probes(&pod))?;
        world.await_line("node-1", |line| line.contains("is not the kubelet"))?;
        assert_eq!(passed(&usurper.probe()?), [""; 0], "it is not called as the kubelet is");
        assert_eq!(world.metrics(1)?.sum("mesh_kubelet_found", &[]), 0.0);
        drop(usurper);

        // A kubelet that starts again is known again.
        let kubelet = world.host_process(1, "kubelet", KUBELET, &probes(&pod))?;
        eventually("the new kubelet's probes to pass", RECOGNISED, || {
            (passed(&kubelet.probe().ok()?) == ["named", "named6"]).then_some(())
        })?;
        Ok(())
    });
}

#[test]
fn a_pod_on_the_nodes_network_that_plays_the_kubelet_is_refused() {
    World::new("probes-pod").nodes(1).run(|world| {
        let pod = world.pod("b").env("SHOP_PORT", "80,8080").probed(80).spawn()?;
        world.apply(STRICT)?;
        world.settle()?;
        // It is called as the kubelet is before it takes the kubelet's port, and in its pod before that, too: as the
        // runtime starts a container.
        world.stop_agent(1);
        let mut usurper = world.host_process(1, "kubelet", KUBELET, &probes(&pod))?;
        usurper.enter_pod(UID)?;
        world.start_agent(1)?;
        world.await_agent(1)?;
        world.settle()?;
        world.await_line("node-1", |line| line.contains("is not the kubelet"))?;
        assert_eq!(passed(&usurper.probe()?), [""; 0]);
        Ok(())
    });
}

#[test]
fn a_pod_to_which_no_path_leads_is_found_by_its_processes_and_again_when_its_sandbox_is_new() {
    World::new("located").nodes(1).run(|world| {
        let caller = world.pod("a").spawn()?;
        let first = world.pod("b").located(UID).spawn()?;
        world.apply(STRICT)?;
        world.settle()?;
        let url = format!("http://{}/", first.at(80));
        let outside = world.pod("out").namespace("legacy").opt_out().spawn()?;
        assert_eq!(caller.get(&url)?.status(), 200);
        assert!(outside.get(&url).is_err(), "captured, so that STRICT holds");

        // The sandbox dies; the pod is the same, its namespace another.
        first.remove_sandbox();
        world.await_line("node-1", |line| line.contains("the pod is gone"))?;
        let (ip4, ip6) = (first.ip4(), first.ip6());
        let second = world.pod("b").located(UID).address(ip4, ip6).declared_elsewhere().spawn()?;
        eventually("the new sandbox to be captured", Duration::from_secs(5), || {
            outside.get(&url).is_err().then_some(())?;
            (caller.get(&url).ok()?.status() == 200).then_some(())
        })?;
        assert_eq!(second.ip4(), ip4);
        Ok(())
    });
}

#[test]
fn a_pod_without_an_address_awaits_its_network_and_nobody_is_warned() {
    World::new("addressless").nodes(1).run(|world| {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: late, namespace: shop, uid: {UID}}}\n\
             spec: {{nodeName: node-1, serviceAccountName: late, containers: [{{name: app, image: mesh-app}}]}}\n\
             status: {{phase: Pending}}\n"
        );
        let _enrolled = world.pod("a").spawn()?;
        world.apply(&yaml)?;
        let line = world.await_line("node-1", |line| line.contains(UID))?;
        assert!(line.contains("awaits its network") && !line.contains("WARN"), "{line}");
        // An address comes, and a process after it.
        let late = world.pod("late").located(UID).spawn().context("the pod starts")?;
        world.settle()?;
        let captured = world.await_line("node-1", |line| line.contains(UID) && line.contains("captured"))?;
        assert!(captured.contains(UID), "{captured}");
        assert_eq!(late.get(&format!("http://{}/", late.at(80)))?.status(), 200);
        Ok(())
    });
}
