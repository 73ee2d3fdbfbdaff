//! Routing of HTTP/1.1: matches, weights, subsets, retries, time-outs, balancing.

use std::time::Duration;

use anyhow::Result;
use mesh_tests::{Pod, World};

/// The chance that a fair split is reported as unfair: below 1e-6 (DESIGN §8) lies beyond 4.9 standard deviations.
const SIGMAS: f64 = 4.9;

/// `reviews` v1, v2 and v3 on both nodes, and a caller.
fn with_reviews(name: &str, story: impl FnOnce(&World, &Pod) -> Result<()>) {
    World::new(name).run(|world| {
        world.service("reviews").create()?;
        let caller = world.pod("caller").node(1).spawn()?;
        for (version, node) in [("v1", 1), ("v2", 2), ("v3", 2)] {
            let name = format!("reviews-{version}");
            world
                .pod(&name)
                .label("app", "reviews")
                .version(version)
                .service_account("reviews")
                .node(node)
                .spawn()?;
        }
        world.apply(
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
",
        )?;
        world.settle()?;
        story(world, &caller)
    });
}

/// A VirtualService for `reviews` with this `http` list.
fn virtual_service(http: &str) -> String {
    let http = http.trim_start_matches('\n').replace('\n', "\n  ");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\n\
         spec:\n  hosts: [reviews]\n  http:\n  {http}"
    )
}

#[test]
fn matches_on_uri_headers_and_method() {
    with_reviews("matches", |world, caller| {
        world.apply(&virtual_service(
            "
- match: [{headers: {end-user: {exact: jason}}}, {headers: {x-beta: {regex: 'y(es)?'}}}]
  route: [{destination: {host: reviews, subset: v2}}]
- match: [{uri: {prefix: /three}, method: {exact: POST}}]
  route: [{destination: {host: reviews, subset: v3}}]
- route: [{destination: {host: reviews, subset: v1}}]
",
        ))?;
        world.settle()?;
        let version = |path: &str| caller.call(&format!("http://reviews.shop{path}"));
        let cases = [
            (version("/").header("end-user", "jason"), "v2"),
            (version("/").header("x-beta", "yes"), "v2"),
            (version("/").header("x-beta", "yesno"), "v1"),
            (version("/").header("end-user", "jasonx"), "v1"),
            (version("/three/x").method("POST"), "v3"),
            (version("/three/x"), "v1"),
            (version("/"), "v1"),
        ];
        for (call, expected) in cases {
            let shown = format!("{call:?}");
            let answer = call.times(5).keep_alive().answers()?;
            assert!(answer.iter().all(|answer| answer.text("/version") == expected), "{shown}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn weights_split_and_change_without_a_lost_request() {
    with_reviews("weights", |world, caller| {
        let split = |v1: u32, v3: u32| {
            virtual_service(&format!(
                "- route:\n  - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}\n  - {{destination: {{host: reviews, subset: v3}}, weight: {v3}}}\n"
            ))
        };
        for (v1, v3) in [(90, 10), (25, 75)] {
            world.apply(&split(v1, v3))?;
            world.settle()?;
            let report =
                caller.load("http://reviews.shop/").count_by("/version").run(Duration::from_secs(2))?;
            assert_eq!(report.failed, 0, "{report:?}");
            let (n, share) = (report.requests as f64, f64::from(v1) / 100.0);
            let count = report.values.get("v1").copied().unwrap_or_default() as f64;
            let sigma = (n * share * (1.0 - share)).sqrt();
            assert!((count - n * share).abs() < SIGMAS * sigma, "{v1}/{v3}: {count} of {n} went to v1");
            assert!(!report.values.contains_key("v2"), "{report:?}");
        }
        let load = caller.load("http://reviews.shop/").rps(300).start()?;
        for v1 in [10, 90, 50] {
            world.apply(&split(v1, 100 - v1))?;
            world.settle()?;
            load.await_good(50)?;
        }
        let report = load.stop()?;
        assert_eq!(report.failed, 0, "{report:?}");
        Ok(())
    });
}

#[test]
fn retries_hide_a_killed_replica() {
    World::new("retries").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").label("app", "b").node(1).spawn()?;
        let far = world.pod("far").label("app", "b").node(2).spawn()?;
        world.apply(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - route: [{destination: {host: b}}]
    retries: {attempts: 3, retryOn: 'reset,connect-failure'}
",
        )?;
        world.settle()?;
        let load = a.load("http://b.shop/").rps(200).count_by("/pod").start()?;
        load.await_good(100)?;
        // Behind a tunnel it is the other side that finds the application dead; here it is ours.
        far.kill_application();
        load.await_good(200)?;
        far.restart_application()?;
        // A request that met the dead `far` must be over: the next replica dies only when the other one serves.
        load.await_good(100)?;
        near.kill_application();
        load.await_good(200)?;
        let report = load.stop()?;
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.values.len() == 2, "{report:?}");
        // Without retries a refused upstream is told as such.
        world.delete("VirtualService", "shop", "b")?;
        world.settle()?;
        let answer = a.get(&format!("http://{}/", near.at(80)))?;
        assert_eq!(answer.status(), 503, "{answer:?}");
        Ok(())
    });
}

#[test]
fn retries_on_status_and_their_limit() {
    with_reviews("retry-status", |world, caller| {
        world.apply(&virtual_service(
            "- route: [{destination: {host: reviews, subset: v1}}]\n  retries: {attempts: 2, retryOn: '5xx'}\n",
        ))?;
        world.settle()?;
        assert_eq!(caller.get("http://reviews.shop/fail/two/2")?.status(), 200, "the third try succeeds");
        assert_eq!(caller.get("http://reviews.shop/fail/three/3")?.status(), 503, "there is no fourth try");
        Ok(())
    });
}

#[test]
fn timeouts_answer_504() {
    with_reviews("timeout", |world, caller| {
        world.apply(&virtual_service(
            "- timeout: 300ms\n  route: [{destination: {host: reviews, subset: v2}}]\n",
        ))?;
        world.settle()?;
        assert_eq!(caller.get("http://reviews.shop/delay/50")?.status(), 200);
        let answer = caller.get("http://reviews.shop/delay/3000")?;
        assert_eq!((answer.status(), answer.body().as_str()), (504, Some("upstream request timeout")));
        assert!((290.0..1500.0).contains(&answer.millis), "{answer:?}");
        Ok(())
    });
}

#[test]
fn round_robin_is_even_and_least_request_avoids_the_slow() {
    World::new("balance").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        for (name, node) in [("b1", 1), ("b2", 2), ("b3", 2)] {
            world.pod(name).label("app", "b").node(node).spawn()?;
        }
        let rule = |algorithm: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: b, namespace: shop}}\n\
                 spec: {{host: b, trafficPolicy: {{loadBalancer: {{simple: {algorithm}}}}}}}\n"
            )
        };
        world.apply(&rule("ROUND_ROBIN"))?;
        world.settle()?;
        let answers = a.call("http://b.shop/").times(300).keep_alive().answers()?;
        for name in ["b1", "b2", "b3"] {
            let count = answers.iter().filter(|answer| answer.text("/pod") == name).count();
            assert!((90..=110).contains(&count), "{name} got {count} of 300");
        }
        world.apply(&rule("LEAST_REQUEST"))?;
        world.settle()?;
        let report = a.load("http://b.shop/").connections(8).count_by("/pod").run(Duration::from_secs(1))?;
        assert!(report.failed == 0 && report.values.len() == 3, "{report:?}");
        Ok(())
    });
}

#[test]
fn a_service_without_endpoints_is_503_uh_and_a_refused_one_uf() {
    World::new("no-endpoints").nodes(1).run(|world| {
        world.service("empty").create()?;
        world.service("b").create()?;
        let a = world.pod("a").spawn()?;
        let b = world.pod("b").spawn()?;
        world.settle()?;
        let answer = a.get("http://empty.shop/")?;
        assert_eq!((answer.status(), answer.body().as_str()), (503, Some("no healthy upstream")));
        let talk = a.talk("empty.shop:9000", &["send:x", "read:1"])?;
        assert!(!talk.failed().is_empty(), "{talk:?}");
        b.kill_application();
        assert_eq!(a.get("http://b.shop/")?.status(), 503);
        let metrics = world.metrics(1)?;
        let flags = |flags: &str| {
            metrics.sum("istio_requests_total", &[("response_flags", flags), ("reporter", "source")])
        };
        assert!(flags("UH") >= 1.0 && flags("UF") + flags("UF,URX") >= 1.0);
        Ok(())
    });
}
