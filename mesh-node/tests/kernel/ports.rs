//! Ports are not used up: each leg of a connection is opened more often than there are ports, the client closing first.
//!
//! The pods have few ports (`ip_local_port_range`), so that seconds prove what minutes would with the usual 28 000.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_node::bpf::{Hooks, OwnKind, VouchOutcome};
use socket2::Socket;

use crate::world::{self, FAR4, FAR6, PATIENCE, Pod, World, accept_within, far};

/// Ports of a pod, and connections opened: a port must be free again long before its TIME_WAIT of a minute is over.
const PORTS: usize = 3_000;
const CONNECTIONS: usize = 6_000;

/// Opens connections one after the other; each ends with the client closing first.
fn open_many(connect: impl Fn() -> io::Result<TcpStream>) {
    let started = Instant::now();
    for number in 0..CONNECTIONS {
        // At most 1 250 a second: the kernel gives a port back a second after its connection.
        let mut client = connect().unwrap_or_else(|error| panic!("connection {number}: {error}"));
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        drop(client);
        let due = started + Duration::from_micros(800) * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Serves a byte to everybody until `stop`, then waits for them to close.
fn serve(listener: &TcpListener, stop: &AtomicBool, mut seen: impl FnMut(&TcpStream)) {
    while !stop.load(Ordering::Relaxed) {
        if let Some((mut stream, _)) = accept_within(listener, Duration::from_millis(50)) {
            seen(&stream);
            let _ = stream.write_all(b"x");
            let _ = stream.read(&mut [0]);
        }
    }
}

/// Lets go of the server when the client's side is done or has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn few_ports(pod: &Pod) {
    let range = format!("40000 {}", 40_000 + PORTS);
    let write = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range);
    pod.net.netns.enter(write).unwrap().unwrap();
}

fn blocking(socket: Socket) -> io::Result<TcpStream> {
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

#[test]
fn a_captured_client_does_not_run_out_of_ports() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    few_ports(&pod);
    let (captured, listeners) = pod.enroll(&hooks);
    for (to, listener) in [(FAR4, &listeners.outbound4), (FAR6, listeners.outbound6.as_ref().unwrap())] {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                serve(listener, &stop, |stream| {
                    assert_eq!(world::origin(&hooks, captured.cookie(), stream), Some(far(to)));
                });
            });
            open_many(|| pod.connect(far(to)));
        });
    }
}

#[test]
fn vouched_dials_and_last_steps_do_not_run_out_of_ports() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (source, dest) = (world.pod(), world.pod());
    few_ports(&source);
    few_ports(&dest);
    let (_captured, _listeners) = source.enroll(&hooks);
    let (dest_pod, _dest_listeners) = dest.enroll(&hooks);
    let app = dest.listen((Ipv6Addr::UNSPECIFIED, 8080));
    let vouched = |hooks: &Hooks, to: SocketAddr| {
        let dial = source.dial(hooks, to, None, OwnKind::Vouch { dest_cookie: dest_pod.cookie() })?;
        assert_eq!(hooks.vouch_outcome(&dial), VouchOutcome::Honoured);
        blocking(dial)
    };
    let last_step = |hooks: &Hooks| {
        let lo = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        blocking(dest.dial(hooks, dest.at4(8080), Some(lo), OwnKind::LastStep { client: source.at4(1) })?)
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| serve(&app, &stop, |_| {}));
        open_many(|| vouched(&hooks, dest.at4(8080)));
        open_many(|| vouched(&hooks, dest.at6(8080)));
        open_many(|| last_step(&hooks));
    });
}
