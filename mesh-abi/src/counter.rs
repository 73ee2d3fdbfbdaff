//! What the kernel programs count. A refusal nobody can see is a hang report a month later.
//!
//! Invariant: a counter's index is part of the ABI; new ones go before `COUNT`.

/// Index into the per-CPU array `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Outbound connections rewritten to a node proxy's listener.
    Captured = 0,
    /// Inbound connections given to a node proxy's listener.
    InboundCaptured = 1,
    /// Calls of an application to one of the proxy's own listeners, refused.
    OwnPortRefused = 2,
    /// Captured connects refused because the pod has no listener for that family.
    NoListenerRefused = 3,
    /// Captured connects refused because the kernel had no memory to remember the destination.
    StorageRefused = 4,
    /// Captured connections whose destination did not fit into `ORIGINS`; the proxy closes them.
    OriginsFull = 5,
    /// Last steps whose client did not fit into `CLIENTS`; the application sees the proxy's address.
    ClientsFull = 6,
    /// Vouches that did not fit; the dial is counted as missed and goes by HBONE.
    VouchesFull = 7,
    /// Vouches published.
    VouchPublished = 8,
    /// Vouches that a destination's hook honoured.
    VouchHonoured = 9,
    /// Vouches found, but for another pod or too old.
    VouchRefused = 10,
    /// Vouched dials that connected without any hook of ours seeing the tuple.
    VouchMissed = 11,
    /// Vouched dials not made from the source pod's own address, hence never published.
    VouchForeignSource = 12,
    /// Inbound connections dropped because the pod's listener slot was empty.
    InboundDropped = 13,
    /// Captured sockets that were bound to a device other than the pod's and had to be released from it.
    DeviceReleased = 14,
    /// Captured sockets whose source could not be set to the pod's address.
    SourceNotBound = 15,
    /// Captured connects of a socket bound to another device, from which it could not be released (the kernel asks for
    /// CAP_NET_RAW of the caller), refused.
    DeviceRefused = 16,
    /// Kubelet probes admitted.
    ProbeAdmitted = 17,
    /// Connections of the kubelet to a port that no probe names: captured like anybody's.
    ProbeUnnamed = 18,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 19;

    /// Every counter with the name under which user space shows it.
    pub const ALL: [(Counter, &'static str); Self::COUNT as usize] = [
        (Counter::Captured, "captured"),
        (Counter::InboundCaptured, "inbound_captured"),
        (Counter::OwnPortRefused, "own_port_refused"),
        (Counter::NoListenerRefused, "no_listener_refused"),
        (Counter::StorageRefused, "storage_refused"),
        (Counter::OriginsFull, "origins_full"),
        (Counter::ClientsFull, "clients_full"),
        (Counter::VouchesFull, "vouches_full"),
        (Counter::VouchPublished, "vouch_published"),
        (Counter::VouchHonoured, "vouch_honoured"),
        (Counter::VouchRefused, "vouch_refused"),
        (Counter::VouchMissed, "vouch_miss"),
        (Counter::VouchForeignSource, "vouch_foreign_source"),
        (Counter::InboundDropped, "inbound_dropped"),
        (Counter::DeviceReleased, "device_released"),
        (Counter::SourceNotBound, "source_not_bound"),
        (Counter::DeviceRefused, "device_refused"),
        (Counter::ProbeAdmitted, "probe_admitted"),
        (Counter::ProbeUnnamed, "probe_unnamed"),
    ];
}
