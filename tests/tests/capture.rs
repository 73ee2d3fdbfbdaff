//! Capture: what is carried, unchanged, between pods; and what is left alone.

use std::time::Duration;

use anyhow::Result;
use mesh_tests::{Pod, World};

/// HTTP by pod address and by service name, both families: the answer is the callee's, and it saw the real caller.
fn reaches_every_way(caller: &Pod, callee: &Pod) -> Result<()> {
    let own = |family: &str| match family {
        "v4" => caller.ip4().to_string(),
        _ => caller.ip6().map(|ip| ip.to_string()).unwrap_or_default(),
    };
    for family in ["v4", "v6"] {
        for host in [format!("{}.pod", callee.name()), format!("{}.shop", callee.name())] {
            let answer = caller.call(&format!("http://{host}/hello?x=1")).family(family).send()?;
            assert_eq!(
                (answer.status(), answer.text("/pod"), answer.text("/path")),
                (200, callee.name(), "/hello")
            );
            assert_eq!(answer.text("/remote_ip"), own(family), "the callee sees another caller: {answer:?}");
            assert_eq!(answer.text("/remote"), answer.text("/peer"), "accept() and getpeername() differ");
            // The application that connected is told that it talks to whom it asked for.
            assert!(answer.peer.ends_with(":80") && !answer.peer.contains("127.0.0.1"), "{answer:?}");
            let talk =
                caller.talk_with(&["--family", family], &format!("{host}:9000"), &["send:hi", "until:hi"])?;
            talk.done()?;
        }
    }
    Ok(())
}

#[test]
fn same_node_pod_and_service_v4_and_v6() {
    World::new("same-node").nodes(1).run(|world| {
        world.service("b").create()?;
        let (a, b) = (world.pod("a").spawn()?, world.pod("b").spawn()?);
        world.settle()?;
        reaches_every_way(&a, &b)?;
        let seen = world.metrics(1)?.sum("istio_requests_total", &[("destination_workload", "b")]);
        assert!(seen >= 8.0, "4 requests by 2 reporters, counted {seen}");
        Ok(())
    });
}

#[test]
fn other_node_pod_and_service_v4_and_v6() {
    World::new("other-node").run(|world| {
        world.service("b").create()?;
        let (a, b) = (world.pod("a").node(1).spawn()?, world.pod("b").node(2).spawn()?);
        world.settle()?;
        reaches_every_way(&a, &b)?;
        let principal = a.identity();
        let labels = [
            ("reporter", "destination"),
            ("source_principal", principal.as_str()),
            ("connection_security_policy", "mutual_tls"),
        ];
        let seen = world.metrics(2)?.sum("istio_requests_total", &labels);
        assert!(seen >= 4.0, "mutual TLS requests at the destination: {seen}");
        Ok(())
    });
}

#[test]
fn a_caller_with_a_v4_mapped_address() {
    World::new("mapped").run(|world| {
        world.service("b").create()?;
        let (a, _b) = (world.pod("a").node(1).spawn()?, world.pod("b").node(2).spawn()?);
        world.settle()?;
        let answer = a.call("http://b.shop/").family("v4").option("--mapped").send()?;
        assert_eq!((answer.text("/pod"), answer.text("/remote_ip")), ("b", a.ip4().to_string().as_str()));
        Ok(())
    });
}

/// Runs `story` with a caller and two callees, `near` on its node and `far` on the other.
fn with_near_and_far(name: &str, story: impl FnOnce(&World, &Pod, &[&Pod]) -> Result<()>) {
    World::new(name).run(|world| {
        world.service("near").create()?;
        world.service("far").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").node(1).spawn()?;
        let far = world.pod("far").node(2).spawn()?;
        world.settle()?;
        story(world, &a, &[&near, &far])
    });
}

#[test]
fn a_server_may_speak_first() {
    with_near_and_far("speaks-first", |_, a, callees| {
        for callee in callees {
            for authority in [callee.at(9001), format!("{}.shop:9001", callee.name())] {
                let talk =
                    a.talk(&authority, &["until:first\\r\\n", "send:thanks", "until:thanks"])?.done()?;
                assert!(talk.received.starts_with("220 "), "{talk:?}");
                assert!(talk.millis < 1000.0, "speaking first must not wait for the client: {talk:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn half_close_is_carried() {
    with_near_and_far("half-close", |_, a, callees| {
        for callee in callees {
            // The server answers only after it has seen the end of what the client sends.
            let talk =
                a.talk(&format!("{}.shop:9002", callee.name()), &["send:abc", "shut", "eof"])?.done()?;
            assert!(talk.received.starts_with("3 ba7816bf"), "count and SHA-256 of abc: {talk:?}");
            // And a server that closes first is seen to close.
            let talk = a.talk(&format!("{}.shop:9004", callee.name()), &["eof"])?;
            assert!(talk.eof || talk.failed() == "reset", "{talk:?}");
        }
        Ok(())
    });
}

#[test]
fn one_gib_arrives_whole() {
    with_near_and_far("one-gib", |_, a, callees| {
        for callee in callees {
            for (port, upload) in [(9003, false), (9002, true)] {
                let gbit = a.stream(&format!("{}.shop:{port}", callee.name()), 1 << 30, upload)?;
                eprintln!("1 GiB {} {}: {gbit:.2} Gbit/s", if upload { "to" } else { "from" }, callee.name());
            }
        }
        Ok(())
    });
}

#[test]
fn two_thousand_client_closed_connections_a_second_for_a_minute() {
    World::new("many").nodes(1).run(|world| {
        world.service("b").create()?;
        let (a, _b) = (world.pod("a").spawn()?, world.pod("b").spawn()?);
        world.settle()?;
        let load = a.load("http://b.shop/bytes/10").rps(2000).connections(64).new_connections();
        let report = load.run(Duration::from_secs(60))?;
        assert_eq!((report.failed, report.failures.get("no_local_port")), (0, None), "{report:?}");
        assert!(report.ok > 115_000, "the rate was not reached: {report:?}");
        Ok(())
    });
}

#[test]
fn a_v4_only_pod_and_a_name_with_both_families() {
    World::new("v4-only").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).v4_only().spawn()?;
        world.pod("b").node(2).spawn()?;
        world.settle()?;
        // AAAA first, as a resolver sorts them: the connect must fail at once, so that the client takes the other.
        let six = a.call("http://b.shop/").family("v6").timeout(2.0).fail()?;
        assert!(matches!(six.kind.as_str(), "unreachable" | "no_local_port"), "{six:?}");
        let answer = a.get("http://b.shop/")?;
        assert_eq!((answer.status(), answer.text("/remote_ip")), (200, a.ip4().to_string().as_str()));
        Ok(())
    });
}

#[test]
fn an_application_on_loopback_stays_unreachable_from_outside() {
    World::new("loopback").run(|world| {
        world.service("b").port("http-local", 7000, 7000).port("tcp-local", 7001, 7001).create()?;
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").label("app", "b").node(1).env("LOOPBACK_PORTS", "7000,7001").spawn()?;
        let far = world.pod("b").node(2).env("LOOPBACK_PORTS", "7000,7001").spawn()?;
        world.settle()?;
        for b in [&near, &far] {
            for authority in [b.at(7000), b.at6(7000), b.at(7001), "b.shop:7001".to_owned()] {
                let talk = a.talk(&authority, &["send:GET / HTTP/1.0\\r\\n\\r\\n", "until:200"])?;
                assert!(
                    !talk.received.contains("200 OK"),
                    "{authority} reached a loopback listener: {talk:?}"
                );
            }
            // The pod itself does reach it, uncaptured.
            assert_eq!(b.get("http://127.0.0.1:7000/")?.text("/remote_ip"), "127.0.0.1");
            assert_eq!(b.get("http://[::1]:7000/")?.text("/remote_ip"), "::1");
        }
        Ok(())
    });
}

#[test]
fn a_pod_calls_itself_and_its_own_service() {
    World::new("itself").nodes(1).run(|world| {
        let service = world.service("a").create()?;
        let a = world.pod("a").spawn()?;
        world.settle()?;
        for url in [format!("http://{}/", a.at(80)), format!("http://{}/", a.at6(80))] {
            assert_eq!(a.get(&url)?.text("/pod"), "a");
        }
        for family in ["v4", "v6"] {
            assert_eq!(a.call("http://a.shop/").family(family).send()?.text("/pod"), "a");
            a.talk_with(&["--family", family], "a.shop:9000", &["send:me", "until:me"])?.done()?;
        }
        assert!(service.ip4().is_some());
        Ok(())
    });
}

#[test]
fn a_port_nobody_listens_on_is_reset_within_a_second() {
    with_near_and_far("no-listener", |_, a, callees| {
        for callee in callees {
            for authority in [callee.at(5555), callee.at6(5555)] {
                // A captured connect() succeeds at once; the first use shows it.
                let talk = a.talk(&authority, &["send:x", "read:1"])?;
                assert!(matches!(talk.failed(), "reset" | "refused" | "closed"), "{authority}: {talk:?}");
                assert!(talk.millis < 1000.0, "{authority}: {talk:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn two_agents_on_one_kernel_do_not_see_each_others_pods() {
    World::new("twin-one").nodes(1).run(|one| {
        World::new("twin-two").nodes(1).run(|two| {
            // The same names, addresses and ports in both worlds: only the kernel's network namespaces differ.
            for (world, version) in [(one, "one"), (two, "two")] {
                world.service("b").create()?;
                world.pod("a").spawn()?;
                world.pod("b").version(version).spawn()?;
                world.settle()?;
            }
            for (world, version) in [(one, "one"), (two, "two"), (one, "one")] {
                let caller = world.pod("c").spawn();
                if let Ok(caller) = caller {
                    world.settle()?;
                    assert_eq!(caller.get("http://b.shop/")?.text("/version"), version);
                }
                let local = world.metrics(1)?;
                let foreign = if version == "one" { "two" } else { "one" };
                let seen = local.sum("istio_requests_total", &[("destination_version", foreign)]);
                assert_eq!(seen, 0.0, "the agent of world {version} saw requests of the other");
            }
            Ok(())
        });
        Ok(())
    });
}
