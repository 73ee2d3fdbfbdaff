//! Coming into the mesh, leaving it, and being gone.

use std::time::Duration;

use anyhow::Result;
use mesh_tests::{World, eventually};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
";

const DENY_A: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-a, namespace: shop}
spec:
  selector: {matchLabels: {app: b}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]}]
";

#[test]
fn enrolling_and_unenrolling_a_running_namespace_loses_no_request() {
    World::new("enrol").run(|world| {
        world.enrol("shop", false)?;
        world.service("near").create()?;
        world.service("far").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").node(1).spawn()?;
        let far = world.pod("far").node(2).spawn()?;
        world.settle()?;
        let mut loads = Vec::new();
        for callee in [&near, &far] {
            let url = format!("http://{}/", callee.at(80));
            loads.push(a.load(&url).rps(200).start()?);
            loads.push(a.load(&url).rps(200).new_connections().start()?);
        }
        for enrolled in [true, false, true, false] {
            let before = world.metrics(2)?.sum("istio_requests_total", &[("reporter", "destination")]);
            world.enrol("shop", enrolled)?;
            world.settle()?;
            for load in &loads {
                load.await_good(100)?;
            }
            let after = world.metrics(2)?.sum("istio_requests_total", &[("reporter", "destination")]);
            if enrolled {
                assert!(after > before, "enrolled, and nothing goes through the mesh");
            }
        }
        for load in loads {
            let report = load.stop()?;
            assert_eq!(report.failed, 0, "{report:?}");
            assert!(report.ok > 400, "{report:?}");
        }
        Ok(())
    });
}

#[test]
fn an_opted_out_pod_is_left_alone() {
    World::new("opt-out").run(|world| {
        let inside = world.pod("in").node(1).spawn()?;
        let out = world.pod("out").node(2).opt_out().spawn()?;
        world.settle()?;
        let capture = world.capture()?;
        let to_out = inside
            .call(&format!("http://{}/", out.at(80)))
            .header("x-marker", "to-the-one-outside")
            .send()?;
        let to_in =
            out.call(&format!("http://{}/", inside.at(80))).header("x-marker", "to-the-one-inside").send()?;
        let packets = capture.stop()?;
        assert_eq!((to_out.status(), to_in.status()), (200, 200));
        assert_eq!(to_out.text("/remote_ip"), inside.ip4().to_string());
        assert_eq!(to_in.text("/remote_ip"), out.ip4().to_string());
        for marker in ["to-the-one-outside", "to-the-one-inside"] {
            assert!(
                packets.iter().any(|packet| packet.contains(marker.as_bytes())),
                "{marker}: not in plaintext"
            );
        }
        Ok(())
    });
}

#[test]
fn a_gone_pod_is_forgotten_and_its_link_disappears() {
    World::new("gone-pod").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let stays = world.pod("stays").label("app", "b").node(2).spawn()?;
        let goes = world.pod("goes").label("app", "b").node(2).spawn()?;
        world.settle()?;
        let load = a.load("http://b.shop/").rps(100).new_connections().count_by("/pod").start()?;
        load.await_good(50)?;
        // The object first, as a kubelet does it: endpoints go before the sandbox.
        goes.remove_object()?;
        world.settle()?;
        goes.remove_sandbox();
        // The agent held a descriptor of the namespace, which alone would keep it and its veth alive.
        eventually("the link of a gone pod disappears", Duration::from_secs(5), || {
            goes.has_link().is_ok_and(|there| !there).then_some(())
        })?;
        load.await_good(50)?;
        let report = load.stop()?;
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.values.contains_key("goes") && report.values.contains_key("stays"), "{report:?}");
        assert_eq!(a.get("http://b.shop/")?.text("/pod"), stays.name());
        Ok(())
    });
}

#[test]
fn a_pod_that_is_deleted_and_runs_on_stays_closed() {
    World::new("orphan").run(|world| {
        let outsider = world.pod("outsider").node(1).opt_out().spawn()?;
        let orphan = world.pod("orphan").node(2).spawn()?;
        let other = world.pod("other").node(2).opt_out().spawn()?;
        world.apply(STRICT)?;
        world.settle()?;
        let is_closed = || -> Result<()> {
            for (from, to) in [(&outsider, &orphan), (&other, &orphan), (&orphan, &other)] {
                let talk = from.talk(&to.at(9000), &["send:x", "read:1"])?;
                assert!(talk.received.is_empty(), "{} reached {}: {talk:?}", from.name(), to.name());
            }
            Ok(())
        };
        let open = outsider.talk(&other.at(9000), &["send:x", "read:1"])?.done()?;
        assert_eq!(open.received, "x", "what is not in the mesh answers");
        orphan.remove_object()?;
        world.settle()?;
        for _ in 0..10 {
            is_closed()?;
        }
        // The next life of the agent knows nothing of it but what is pinned.
        world.kill_agent(2);
        world.start_agent(2)?;
        world.await_agent(2)?;
        world.settle()?;
        is_closed()?;
        orphan.remove_sandbox();
        eventually("the link of the orphan disappears", Duration::from_secs(10), || {
            orphan.has_link().is_ok_and(|there| !there).then_some(())
        })?;
        Ok(())
    });
}

#[test]
fn a_pod_that_vanishes_without_notice_is_forgotten() {
    World::new("vanished").nodes(1).run(|world| {
        let a = world.pod("a").spawn()?;
        let b = world.pod("b").spawn()?;
        world.settle()?;
        assert_eq!(a.get(&format!("http://{}/", b.at(80)))?.status(), 200);
        b.remove_sandbox();
        eventually("the link of a vanished pod disappears", Duration::from_secs(10), || {
            b.has_link().is_ok_and(|there| !there).then_some(())
        })?;
        Ok(())
    });
}

#[test]
fn a_reused_address_never_has_the_old_identity() {
    World::new("reuse").run(|world| {
        world.service("b").create()?;
        let first = world.pod("a").node(1).spawn()?;
        let near = world.pod("b").node(1).spawn()?;
        let far = world.pod("far").label("app", "b").node(2).spawn()?;
        world.apply(DENY_A)?;
        world.settle()?;
        let urls = [format!("http://{}/", near.at(80)), format!("http://{}/", far.at(80))];
        for url in &urls {
            assert_eq!(first.get(url)?.status(), 403, "policy names the first pod's identity");
        }
        let (ip4, ip6) = (first.ip4(), first.ip6());
        first.remove()?;
        let second = world.pod("second").node(1).address(ip4, ip6).spawn()?;
        world.settle()?;
        for url in &urls {
            let answer = second.get(url)?;
            assert_eq!((answer.status(), answer.text("/remote_ip")), (200, ip4.to_string().as_str()));
        }
        let labels = [("source_principal", second.identity())];
        let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert!(world.metrics(2)?.sum("istio_requests_total", &labels) >= 1.0);
        // And the other way round: the denied identity at an address that was allowed.
        second.remove()?;
        let third = world.pod("third").service_account("a").node(1).address(ip4, ip6).spawn()?;
        world.settle()?;
        for url in &urls {
            assert_eq!(third.get(url)?.status(), 403);
        }
        Ok(())
    });
}
