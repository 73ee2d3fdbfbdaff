//! The few system calls that neither std nor nix has in the form we need: network namespaces, sockets inside them,
//! socket diagnosis, mounts, processes. Syscalls only; no meaning.
//!
//! Invariant: a thread that entered a pod's netns is back in its own before it returns to its caller, or the process ends:
//! a thread left in a pod would open the node's sockets there.

mod diag;
mod link;
mod mount;
mod netlink;
mod netns;
mod packet;
mod process;
mod socket;

pub use diag::{TcpConnection, can_destroy, connections, count_established, destroy_established};
pub use link::{Routes, VethPeer, bridge_master, device_of, forwards, local_addresses, routes};
pub use mount::{cgroup2_root, is_bpffs, mount_bpffs};
pub use netns::{Netns, NetnsId};
pub use packet::{Packet, connect_packets, listen_packets, receive_packet, send_packet};
pub use process::{monotonic_ns, process_start_time, raise_nofile};
pub use socket::{DialOptions, PodListeners, dial_socket, pod_listeners};
