//! The harness itself, without a mesh: pods reach each other, and a world leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use mesh_tests::World;

#[test]
fn pods_reach_each_other_on_pod_addresses() {
    World::new("plain").nodes(2).without_mesh().run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").node(1).spawn()?;
        let far = world.pod("far").node(2).spawn()?;
        for callee in [&a, &near, &far] {
            let answer = a.get(&format!("http://{}/x?y=1", callee.at(80)))?;
            assert_eq!((answer.status(), answer.text("/pod")), (200, callee.name()));
            assert_eq!(answer.text("/remote_ip"), a.ip4().to_string());
            let answer = a.call(&format!("http://{}.pod/", callee.name())).family("v6").send()?;
            assert_eq!(answer.text("/remote_ip"), a.ip6().map(|ip| ip.to_string()).unwrap_or_default());
            let talk = a.talk(&callee.at(9001), &["until:first", "shut", "eof"])?.done()?;
            assert!(talk.received.starts_with("220 "));
            a.stream(&callee.at(9003), 10_000_000, false)?;
            a.stream(&callee.at6(9002), 10_000_000, true)?;
        }
        assert_eq!(a.call(&format!("http://{}/", far.at(81))).fail()?.kind, "refused");
        assert_eq!(far.get(&format!("http://{}/", a.at(80)))?.text("/node"), "node-1");
        Ok(())
    });
}

#[test]
fn pods_on_a_bridge_reach_each_other() {
    World::new("bridge").nodes(2).without_mesh().bridge().run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let near = world.pod("near").node(1).v4_only().spawn()?;
        let far = world.pod("far").node(2).spawn()?;
        for callee in [&near, &far] {
            assert_eq!(a.get(&format!("http://{}/", callee.at(80)))?.text("/pod"), callee.name());
        }
        assert_eq!(near.ip6(), None);
        assert_eq!(near.get(&format!("http://{}/", far.at(80)))?.status(), 200);
        Ok(())
    });
}

#[test]
fn a_load_counts_every_request() {
    World::new("load").nodes(1).without_mesh().run(|world| {
        let a = world.pod("a").spawn()?;
        let b = world.pod("b").version("v9").spawn()?;
        let load = a.load(&format!("http://{}/", b.at(80))).rps(500).count_by("/version").start()?;
        load.await_good(100)?;
        b.kill_application();
        b.restart_application()?;
        load.await_good(100)?;
        let report = load.stop()?;
        assert_eq!(report.requests, report.ok + report.failed);
        assert!(report.ok >= 200 && report.values["v9"] == report.ok, "{report:?}");
        let report = a
            .load(&format!("http://{}/status/503", b.at(80)))
            .connections(1)
            .run(Duration::from_millis(200))?;
        assert_eq!(report.failed, report.requests);
        Ok(())
    });
}

#[test]
fn the_wire_between_nodes_is_seen() {
    World::new("wire").nodes(2).without_mesh().run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        let capture = world.capture()?;
        a.call(&format!("http://{}/", b.at(80))).header("x-marker", "plain-as-day").send()?;
        let packets = capture.stop()?;
        assert!(packets.iter().any(|packet| packet.contains(b"plain-as-day") && packet.has_port(80)));
        Ok(())
    });
}

#[test]
fn a_world_leaves_nothing_behind() {
    let world = match World::new("gone").nodes(1).without_mesh().start() {
        Ok(world) => world,
        Err(error) => panic!("{error:?}"),
    };
    let pod = world.pod("a").spawn().unwrap();
    let (folder, netns, pid) = (world.folder(), pod.netns(), world.pid("a").unwrap());
    assert!(folder.exists() && netns.exists());
    drop(world);
    assert!(!folder.exists() && !netns.exists() && !Path::new(&format!("/proc/{pid}")).exists());
}
