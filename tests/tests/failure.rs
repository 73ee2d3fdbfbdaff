//! What happens when parts of the mesh, or what people write, fail.

use std::time::{Duration, Instant};

use mesh_tests::{Outcome, World, eventually};

#[test]
fn a_killed_agent_refuses_while_away_and_works_again_within_two_seconds() {
    World::new("agent-killed").run(|world| {
        world.service("near").create()?;
        world.service("far").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("near").node(1).spawn()?;
        world.pod("far").node(2).spawn()?;
        world.settle()?;
        let urls = ["http://near.shop/", "http://far.shop/"];
        let loads = urls.map(|url| a.load(url).rps(100).new_connections().start());
        for load in loads.iter().flatten() {
            load.await_good(50)?;
        }
        let capture = world.capture()?;
        world.kill_agent(1);
        for url in urls {
            let failure = a.call(url).header("x-marker", "nobody-home").timeout(2.0).fail()?;
            assert!(matches!(failure.kind.as_str(), "refused" | "reset"), "fail closed, at once: {failure:?}");
        }
        let packets = capture.stop()?;
        assert!(!packets.iter().any(|packet| packet.contains(b"nobody-home")), "plaintext while the agent is away");
        let started = Instant::now();
        world.start_agent(1)?;
        for url in urls {
            eventually("a request succeeds again", Duration::from_secs(10), || {
                matches!(a.call(url).timeout(1.0).outcome(), Ok(Outcome::Answer(answer)) if answer.status() == 200).then_some(())
            })?;
        }
        assert!(started.elapsed() < Duration::from_secs(2), "back after {:?}", started.elapsed());
        assert!(world.log("node-1").contains("adopted"), "the new agent did not adopt the pins of the old one");
        for load in loads {
            let load = load?;
            load.await_good(100)?;
            let report = load.stop()?;
            assert!(report.ok > 150 && report.failures.keys().all(|kind| kind == "refused" || kind == "reset" || kind == "closed"), "{report:?}");
        }
        Ok(())
    });
}

#[test]
fn without_its_controller_traffic_and_new_connections_go_on() {
    World::new("no-controller").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("b").node(2).spawn()?;
        world.settle()?;
        let load = a.load("http://b.shop/").rps(100).start()?;
        let fresh = a.load("http://b.shop/").rps(100).new_connections().start()?;
        let held = a.hold("b.shop:9000")?;
        world.kill_controller();
        load.await_good(100)?;
        fresh.await_good(100)?;
        world.start_controller()?;
        world.apply(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {ports: ['80'], paths: [/secret]}}]}]}
",
        )?;
        world.settle()?;
        assert_eq!(a.get("http://b.shop/secret")?.status(), 403, "a restarted controller pushes again");
        for load in [load, fresh] {
            load.await_good(50)?;
            let report = load.stop()?;
            assert_eq!(report.failed, 0, "{report:?}");
        }
        assert!(!held.stop()?.broken);
        Ok(())
    });
}

#[test]
fn bad_yaml_is_told_with_object_and_field_and_the_rest_works() {
    World::new("bad-yaml").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("b").node(2).spawn()?;
        world.settle()?;
        let good = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - headers: {response: {set: {x-route: good}}}
    route: [{destination: {host: b}}]
";
        world.apply(good)?;
        world.settle()?;
        let route = || -> anyhow::Result<Option<String>> { Ok(a.get("http://b.shop/")?.header("x-route").map(str::to_owned)) };
        assert_eq!(route()?.as_deref(), Some("good"));
        // A file that is no YAML, one with a field of the wrong type, one with a misspelt field.
        world.write_file("broken", "kind: VirtualService\n  metadata: [\n")?;
        world.write_file("wrong-type", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: wrong, namespace: shop}\nspec: {selector: {matchLabels: {app: nobody}}, action: DENY, rules: 7}\n")?;
        world.write_file("virtualservice-shop-b", &good.replace("headers: {response", "heathers: {response"))?;
        let settled = world.settle()?;
        let told = |object: &str, field: &str| {
            settled.diagnostics.iter().any(|finding| {
                finding.object.contains(object) && (finding.field.contains(field) || finding.message.contains(field))
            })
        };
        assert!(settled.diagnostics.iter().any(|finding| finding.origin.contains("broken")), "{:?}", settled.diagnostics);
        assert!(told("AuthorizationPolicy shop/wrong", "rules"), "{:?}", settled.diagnostics);
        assert!(told("VirtualService shop/b", "heathers"), "{:?}", settled.diagnostics);
        // The last good state of that file holds, and others change as before.
        assert_eq!(route()?.as_deref(), Some("good"));
        world.service("c").selects("app", "b").create()?;
        world.settle()?;
        assert_eq!(a.get("http://c.shop/")?.status(), 200);
        world.apply(good)?;
        let settled = world.settle()?;
        // `fault` keeps its warning; the misspelt field is gone.
        let gone = |finding: &_| !format!("{finding:?}").contains("heathers");
        assert!(settled.diagnostics.iter().all(gone), "{:?}", settled.diagnostics);
        Ok(())
    });
}
