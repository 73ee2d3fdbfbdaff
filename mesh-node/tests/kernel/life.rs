//! Life of hooks and pods: full maps, crashes, adoption, several agents, un-enrolment, damage.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mesh_abi::Counter;
use mesh_node::bpf::MapSizes;
use mesh_node::sys;

use crate::world::{self, FAR4, FAR6, PATIENCE, World, accept, far, mapped, origin};

#[test]
fn full_maps_refuse_and_say_so() {
    let Some(mut world) = World::new() else { return };
    world.config.sizes = MapSizes { pods: 1, origins: 1, clients: 1, vouches: 1, ports: 1, cidrs: 1 };
    let hooks = world.hooks();
    let (mut pod, second) = (world.pod(), world.pod());
    let (captured, listeners) = pod.enroll(&hooks);
    let _kept: Vec<_> = (0..2).map(|_| pod.connect(far(FAR4)).unwrap()).collect();
    let known =
        (0..2).filter(|_| origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0).is_some());
    assert_eq!(known.count(), 1);
    assert_eq!(hooks.counters().of(Counter::OriginsFull), 1);

    let more = sys::pod_listeners(&second.net.netns).unwrap();
    let error = hooks.enroll(&second.net, &more).unwrap_err();
    assert!(error.to_string().contains("PODS is full (1"), "{error}");
    // And nothing of the second pod is captured by halves.
    assert_eq!(world.pods_pinned(), 1);
    pod.net.exclusions.inbound_ports = vec![1, 2];
    let error = hooks.enroll(&pod.net, &listeners).unwrap_err();
    assert!(error.to_string().contains("PORTS is full (1"), "{error}");
}

#[test]
fn a_killed_agent_leaves_refusals_and_the_next_one_adopts() {
    let Some(mut world) = World::new() else { return };
    let (pod, caller) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    let cookie = captured.cookie();
    drop((hooks, captured, listeners));
    for (from, to) in
        [(&pod, far(FAR4)), (&pod, far(FAR6)), (&caller, pod.at4(8080)), (&caller, pod.at6(15008))]
    {
        // A process that a neighbouring test is just spawning may hold copies of the listeners for a moment.
        let until = Instant::now() + PATIENCE;
        let refused = loop {
            match from.connect(to) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => break error,
                _ => assert!(Instant::now() < until, "{to} is served by nobody, and not refused"),
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    let hooks = world.hooks();
    let adopted = hooks.adopted();
    assert_eq!(adopted.iter().map(|pod| pod.cookie).collect::<Vec<_>>(), [cookie]);
    assert_eq!(adopted[0].ips, [pod.at4(0).ip(), pod.at6(0).ip()]);
    let (captured, listeners) = pod.enroll(&hooks);
    assert!(hooks.adopted().is_empty());
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, cookie, &accept(&listeners.outbound4).0), Some(far(FAR4)));
    let _client = caller.connect(pod.at4(8080)).unwrap();
    accept(&listeners.plain4);

    // A successor that no longer wants the pod gives it back.
    drop((hooks, captured, listeners));
    let hooks = world.hooks();
    hooks.forget(cookie, Some(&pod.net.netns)).unwrap();
    let _client = caller.connect(pod.at4(8080)).unwrap();
    accept(&app);
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn a_new_agent_takes_over_from_a_live_one_without_a_refusal() {
    let Some(mut world) = World::new() else { return };
    let pod = world.pod();
    let old = world.hooks();
    let (_old_pod, old_listeners) = pod.enroll(&old);
    let waiting = pod.connect(far(FAR4)).unwrap();
    let new = world.hooks();
    let (captured, new_listeners) = pod.enroll(&new);
    let _client = pod.connect(far(FAR6)).unwrap();
    assert_eq!(
        origin(&new, captured.cookie(), &accept(new_listeners.outbound6.as_ref().unwrap()).0),
        Some(far(FAR6))
    );
    // What had connected before the swap is still the old one's to serve.
    assert_eq!(origin(&old, captured.cookie(), &accept(&old_listeners.outbound4).0), Some(far(FAR4)));
    drop(waiting);
}

#[test]
fn fail_open_is_a_choice_of_the_pod() {
    let Some(mut world) = World::new() else { return };
    let (mut pod, other) = (world.pod(), world.pod());
    let (app, web) = (pod.listen((Ipv6Addr::UNSPECIFIED, 8080)), other.listen((Ipv6Addr::UNSPECIFIED, 80)));
    pod.net.fail_open = true;
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    let _client = pod.connect(other.at4(80)).unwrap();
    accept(&listeners.outbound4);
    let _client = other.connect(pod.at4(8080)).unwrap();
    accept(&listeners.plain4);
    drop((captured, listeners, hooks));
    for (from, to, at) in [
        (&other, pod.at4(8080), &app),
        (&other, pod.at6(8080), &app),
        (&pod, other.at4(80), &web),
        (&pod, other.at6(80), &web),
    ] {
        let client = from.connect(to).unwrap();
        let (_, peer) = accept(at);
        assert_eq!(peer, mapped(client.local_addr().unwrap()), "{to}");
    }
}

#[test]
fn a_pod_that_is_gone_is_forgotten() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let name = pod.net.uid.clone();
    let (captured, listeners) = pod.enroll(&hooks);
    drop((hooks, captured, listeners, pod));
    assert_eq!(world.pods_pinned(), 1);
    std::process::Command::new("ip").args(["netns", "del", &name]).status().unwrap();
    // The kernel tears a netns down in its own time.
    let until = Instant::now() + PATIENCE;
    while world.pods_pinned() > 0 && Instant::now() < until {
        let hooks = world.hooks();
        assert!(hooks.adopted().len() <= 1);
        drop(hooks);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn two_agents_on_one_kernel_do_not_see_each_others_pods() {
    let Some(mut one) = World::new() else { return };
    let mut two = one.another();
    let (hooks1, hooks2) = (one.hooks(), two.hooks());
    let (pod1, pod2) = (one.pod(), two.pod());
    let (captured1, listeners1) = pod1.enroll(&hooks1);
    let (captured2, listeners2) = pod2.enroll(&hooks2);
    let (_c1, _c2) = (pod1.connect(far(FAR4)).unwrap(), pod2.connect(far(FAR4)).unwrap());
    let (stream1, stream2) = (accept(&listeners1.outbound4).0, accept(&listeners2.outbound4).0);
    assert_eq!(origin(&hooks2, captured1.cookie(), &stream1), None);
    assert_eq!(origin(&hooks1, captured1.cookie(), &stream1), Some(far(FAR4)));
    assert_eq!(origin(&hooks2, captured2.cookie(), &stream2), Some(far(FAR4)));
    assert!(hooks1.adopted().is_empty());
    hooks1.unenroll(&captured1).unwrap();
    let _client = pod2.connect(far(FAR4)).unwrap();
    accept(&listeners2.outbound4);
    assert_eq!(hooks1.counters().of(Counter::Captured), 1);
    assert_eq!(hooks2.counters().of(Counter::Captured), 2);
}

#[test]
fn un_enrolment_gives_everything_back() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let web = other.listen((Ipv4Addr::UNSPECIFIED, 80));
    let reuse = || {
        pod.net.netns.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse")).unwrap().unwrap()
    };
    let before = reuse();
    let (captured, listeners) = pod.enroll(&hooks);
    let (again, _) = (hooks.enroll(&pod.net, &listeners).unwrap(), ());
    assert_eq!(reuse().trim(), "1");
    hooks.unenroll(&again).unwrap();
    hooks.unenroll(&captured).unwrap();
    assert_eq!(reuse(), before);
    let _client = other.connect(pod.at4(8080)).unwrap();
    accept(&app);
    let client = pod.connect(other.at4(80)).unwrap();
    assert_eq!(accept(&web).1, client.local_addr().unwrap());
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn break_glass_gives_plaintext_back_while_the_agent_runs() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let web = other.listen((Ipv4Addr::UNSPECIFIED, 80));
    let (_captured, _listeners) = pod.enroll(&hooks);
    let detached = mesh_node::bpf::detach_all(&world.config.bpffs, Some(&world.config.instance)).unwrap();
    assert_eq!((detached.instances.len(), detached.links), (1, 6));
    let _client = pod.connect(other.at4(80)).unwrap();
    accept(&web);
}

#[test]
fn two_that_detach_at_once_and_an_agent_that_lets_go_do_not_stop_each_other() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pods: Vec<_> = (0..8).map(|_| world.pod()).collect();
    let captured: Vec<_> = pods.iter().map(|pod| pod.enroll(&hooks)).collect();
    let config = &world.config;
    let all_begin = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let detach = || {
            all_begin.wait();
            mesh_node::bpf::detach_all(&config.bpffs, Some(&config.instance)).unwrap()
        };
        let (first, second) = (scope.spawn(detach), scope.spawn(detach));
        all_begin.wait();
        captured.iter().for_each(|(captured, _)| hooks.unenroll(captured).unwrap());
        let _ = (first.join().unwrap(), second.join().unwrap());
    });
    assert!(!config.bpffs.join("tulle").join(&config.instance).exists(), "pins are left");
}

#[test]
fn damaged_pins_are_replaced_and_another_size_makes_new_maps() {
    let Some(mut world) = World::new() else { return };
    let pod = world.pod();
    let hooks = world.hooks();
    let (_captured, _listeners) = pod.enroll(&hooks);
    drop(hooks);
    std::fs::remove_file(world.map_pin("VOUCHES")).unwrap();
    let hooks = world.hooks();
    assert!(hooks.adopted().is_empty());
    let (captured, listeners) = pod.enroll(&hooks);
    assert_eq!(hooks.retire_previous().unwrap(), 6, "five hooks and one pod's");
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0), Some(far(FAR4)));

    drop(hooks);
    world.config.sizes.origins = 7;
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    // Both sets of hooks are in force: the new one's pods are captured all the same.
    assert_eq!(hooks.retire_previous().unwrap(), 6);
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0), Some(far(FAR4)));
}

#[test]
fn a_netns_that_is_not_the_pods_or_forwards_is_refused() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let listeners = sys::pod_listeners(&pod.net.netns).unwrap();
    let mut wrong = pod.net.clone();
    (wrong.ip4, wrong.ip6) = (Some(other.ip4), None);
    assert!(hooks.enroll(&wrong, &listeners).unwrap_err().to_string().contains("none of which is the pod's"));
    wrong.netns = sys::Netns::current().unwrap();
    assert!(hooks.enroll(&wrong, &listeners).unwrap_err().to_string().contains("host's own"));
    assert!(sys::Netns::open("/proc/self/ns/mnt").is_err());
    assert!(sys::Netns::open("/dev/null").is_err());
    world::run_in(&pod.net.netns, "sysctl -qw net.ipv4.ip_forward=1");
    hooks.enroll(&pod.net, &listeners).unwrap();
    world::run_in(&pod.net.netns, "ip link add docker0 type bridge");
    assert!(hooks.enroll(&pod.net, &listeners).unwrap_err().to_string().contains("bridge docker0"));
    assert_eq!(world.pods_pinned(), 1, "what was captured before stays captured");
}
