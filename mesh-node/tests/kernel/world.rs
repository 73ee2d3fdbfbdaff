//! A small world for the kernel tests: a router netns, pods behind it (routed, not bridged), one agent's hooks.
//!
//! Invariant: names carry the process id, everything is removed on drop, and traffic stays inside the namespaces made here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_node::bpf::{CapturedPod, Exclusions, Hooks, HooksConfig, OwnKind, PodNet, detach_all};
use mesh_node::sys::{self, DialOptions, Netns, PodListeners};
use socket2::{Domain, Socket, Type};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(3);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One world at a time: a command that one test spawns holds copies of another's sockets until it execs, and a closed
/// socket then is not closed.
static TURN: Mutex<()> = Mutex::new(());

/// A router, its pods, and the configuration of an agent.
pub struct World {
    name: String,
    number: u32,
    router: Netns,
    pods: u8,
    pub config: HooksConfig,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// A pod of a world; enrolled or not.
pub struct Pod {
    pub net: PodNet,
    pub ip4: Ipv4Addr,
    pub ip6: Ipv6Addr,
}

impl World {
    /// `None` only where a person said that these tests be skipped.
    pub fn new() -> Option<World> {
        if std::env::var("MESH_WORLD").is_ok_and(|value| value == "skip") {
            println!("SKIPPED by MESH_WORLD=skip: this proves nothing");
            return None;
        }
        assert!(nix::unistd::geteuid().is_root(), "the kernel tests need root (or MESH_WORLD=skip)");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(World::make(Some(turn)))
    }

    /// A second world beside this one.
    pub fn another(&self) -> World {
        World::make(None)
    }

    fn make(turn: Option<MutexGuard<'static, ()>>) -> World {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tl-exp-{}-{number}", std::process::id());
        let router = add_netns(&format!("{name}-r"));
        run_in(&router, "ip link set lo up");
        run_in(&router, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let config = HooksConfig::new(name.clone());
        World { name, number, router, pods: 0, config, _turn: turn }
    }

    /// Loads or adopts the hooks.
    pub fn hooks(&self) -> Hooks {
        Hooks::open(&self.config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A pod with both families.
    pub fn pod(&mut self) -> Pod {
        self.pod_with(true)
    }

    /// A pod; `v6` = with an IPv6 address and route.
    pub fn pod_with(&mut self, v6: bool) -> Pod {
        self.pods += 1;
        let (n, world) = (self.pods, (self.number % 200) as u8);
        let ip4 = Ipv4Addr::new(10, 77, world, n);
        let ip6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, world.into(), n.into());
        let netns = add_netns(&format!("{}-{n}", self.name));
        run_in(&netns, "ip link set lo up");
        let veth = format!("v{n}");
        run_in(&self.router, &format!("ip link add {veth} type veth peer name eth0 netns {}-{n}", self.name));
        run_in(&self.router, &format!("ip addr add 169.254.1.1/32 dev {veth}"));
        run_in(&self.router, &format!("ip -6 addr add fe80::1/64 dev {veth} nodad"));
        run_in(&self.router, &format!("ip link set {veth} up"));
        run_in(&netns, &format!("ip addr add {ip4}/32 dev eth0"));
        run_in(&netns, "ip link set eth0 up");
        run_in(&netns, "ip route add 169.254.1.1 dev eth0 scope link");
        run_in(&netns, "ip route add default via 169.254.1.1 dev eth0");
        run_in(&self.router, &format!("ip route add {ip4}/32 dev {veth}"));
        if v6 {
            run_in(&netns, &format!("ip -6 addr add {ip6}/128 dev eth0 nodad"));
            run_in(&netns, "ip -6 route add default via fe80::1 dev eth0");
            run_in(&self.router, &format!("ip -6 route add {ip6}/128 dev {veth}"));
        }
        let net = PodNet {
            uid: format!("{}-{n}", self.name),
            netns,
            ip4: Some(ip4),
            ip6: v6.then_some(ip6),
            exclusions: Exclusions::default(),
            probed_ports: Vec::new(),
            fail_open: false,
        };
        Pod { net, ip4, ip6 }
    }

    /// Acts as the node: in the router's netns.
    pub fn in_router<T>(&self, act: impl FnOnce() -> T) -> T {
        self.router.enter(act).unwrap()
    }

    /// Runs a command in the router's netns.
    pub fn run_in_router(&self, command: &str) {
        run_in(&self.router, command);
    }

    /// The pin of a map.
    pub fn map_pin(&self, name: &str) -> PathBuf {
        let instance = self.config.bpffs.join("tulle").join(&self.name);
        let folder = std::fs::read_dir(instance).unwrap().next().unwrap().unwrap().path();
        folder.join("maps").join(name)
    }

    /// Is anything pinned for this agent?
    pub fn pods_pinned(&self) -> usize {
        let instance = self.config.bpffs.join("tulle").join(&self.name);
        let folders = std::fs::read_dir(instance).into_iter().flatten().flatten();
        folders
            .map(|folder| std::fs::read_dir(folder.path().join("pods")).into_iter().flatten().count())
            .sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = detach_all(&self.config.bpffs, Some(&self.name));
        for n in 1..=self.pods {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{n}", self.name)]).output();
        }
        let _ = Command::new("ip").args(["netns", "del", &format!("{}-r", self.name)]).status();
    }
}

impl Pod {
    pub fn at4(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip4, port))
    }

    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip6, port))
    }

    /// Enrols with fresh listeners.
    pub fn enroll(&self, hooks: &Hooks) -> (CapturedPod, PodListeners) {
        let listeners = sys::pod_listeners(&self.net.netns).unwrap();
        let captured = hooks.enroll(&self.net, &listeners).unwrap_or_else(|error| panic!("{error}"));
        (captured, listeners)
    }

    /// An application of the pod connects.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let to = to.into();
        self.net.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?
    }

    /// An application of the pod listens.
    pub fn listen(&self, at: impl Into<SocketAddr>) -> TcpListener {
        let at = at.into();
        self.net.netns.enter(|| TcpListener::bind(at)).unwrap().unwrap()
    }

    /// An application's bare socket.
    pub fn socket(&self, domain: Domain) -> Socket {
        self.net.netns.enter(|| Socket::new(domain, Type::STREAM, None)).unwrap().unwrap()
    }

    /// A dial of the proxy from this pod's netns, connected.
    pub fn dial(
        &self,
        hooks: &Hooks,
        to: SocketAddr,
        from: Option<SocketAddr>,
        kind: OwnKind,
    ) -> io::Result<Socket> {
        let socket = sys::dial_socket(&self.net.netns, to, from, &DialOptions::default())?;
        hooks.mark_own(&socket, kind)?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket)
    }
}

/// Accepts, or fails after a while.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    accept_within(listener, PATIENCE).expect("nobody connected")
}

/// Accepts if somebody comes.
pub fn accept_within(listener: &TcpListener, patience: Duration) -> Option<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + patience;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return Some((stream, peer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > until {
                    return None;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The mapped form of an IPv4 address, as an IPv6 socket shows it.
pub fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Runs a command in a netns.
pub fn run_in(netns: &Netns, command: &str) {
    let mut words = command.split_whitespace();
    let status = netns.enter(|| Command::new(words.next().unwrap()).args(words).status()).unwrap();
    assert!(status.unwrap().success(), "{command}");
}

fn add_netns(name: &str) -> Netns {
    assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
    Netns::open(format!("/run/netns/{name}")).unwrap()
}

/// Somewhere that no pod is.
pub const FAR4: &str = "192.0.2.7:80";
/// The same in IPv6.
pub const FAR6: &str = "[2001:db8::7]:80";

/// An address in words.
pub fn far(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What the proxy does with a captured connection; gives where it wanted to go.
pub fn origin(hooks: &Hooks, cookie: u64, stream: &TcpStream) -> Option<SocketAddr> {
    let origin = hooks.take_origin(cookie, stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    origin.map(|origin| origin.dst)
}

/// The vouches that are published now.
pub fn vouches(world: &World) -> aya::maps::HashMap<aya::maps::MapData, mesh_abi::Tuple, mesh_abi::Vouch> {
    let data = aya::maps::MapData::from_pin(world.map_pin("VOUCHES")).unwrap();
    aya::maps::Map::HashMap(data).try_into().unwrap()
}
