//! The few system calls that neither std nor nix has in the form we need: network namespaces, sockets inside them,
//! socket diagnosis, mounts, processes. Syscalls only; no meaning.
//!
//! Invariant: a thread that entered a pod's netns is back in its own before it returns to its caller, or the process ends:
//! a thread left in a pod would open the node's sockets there.

mod diag;
mod exit;
mod link;
mod mount;
mod netlink;
mod netns;
mod packet;
mod process;
mod procfs;
mod socket;

pub use diag::{TcpConnection, can_destroy, connections, count_established, destroy_established, listeners};
pub use exit::Exit;
pub use link::{Routes, VethPeer, bridge_master, device_of, forwards, local_addresses, routes};
pub use mount::{Cgroup2, cgroup2, is_bpffs, mount_bpffs, open_sysctls};
pub use netns::{Netns, NetnsId};
pub use packet::{Packet, connect_packets, listen_packets, receive_packet, send_packet};
pub use process::{Capability, missing_capabilities, monotonic_ns, raise_nofile};
pub use procfs::{Process, pids, processes_of, sees_every_process};
pub use socket::{DialOptions, PodListeners, dial_socket, pod_listeners};
