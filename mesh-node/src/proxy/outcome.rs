//! What is said of a connection at its end: one record per reporting side, exactly once.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_model::{decide::Candidate, name::SubsetName, service::Service, workload::Workload};
use tokio::time::timeout;

use super::relay::{Ended, Traffic};
use crate::{
    conns::Cut,
    telemetry::{
        ConnectionRecord, Reporter, RequestProtocol, ResponseFlags, Security, TcpOutcome, Telemetry,
    },
    upstream::{Caller, Connected, DialError, Transport},
};

/// Between two reports on a connection that is still open.
const PROGRESS: Duration = Duration::from_secs(10);

/// A worker that has made more names of clusters than this forgets them and begins again.
const MOST_CLUSTERS: usize = 4096;

/// What the source side says of a connection before it knows where it goes.
pub fn outbound_record(
    caller: &Caller,
    local: SocketAddr,
    service: Option<&Arc<Service>>,
    cluster: Option<Arc<str>>,
    protocol: RequestProtocol,
    started: SystemTime,
) -> ConnectionRecord {
    ConnectionRecord {
        reporter: Reporter::Source,
        source: Some(caller.workload.clone()),
        source_identity: Some(caller.workload.identity.clone()),
        destination: None,
        destination_identity: None,
        service: service.cloned(),
        protocol,
        security: Security::Unknown,
        client: caller.client,
        local,
        upstream: None,
        upstream_local: None,
        cluster,
        server_name: None,
        route: None,
        started,
    }
}

/// Fills in where the connection went.
pub fn went_to(record: &mut ConnectionRecord, candidate: Option<&Candidate>, connected: Option<&Connected>) {
    if let Some(candidate) = candidate {
        record.destination = Some(candidate.workload.clone());
        record.upstream = Some(candidate.addr.get());
    }
    if let Some(connected) = connected {
        record.upstream = Some(connected.upstream);
        record.upstream_local = connected.local;
        record.destination_identity.clone_from(&connected.peer);
    }
}

/// The record of the other side, where one pass of this process was both.
pub fn mirrored(
    record: &ConnectionRecord,
    destination: &Arc<Workload>,
    upstream: SocketAddr,
) -> ConnectionRecord {
    ConnectionRecord {
        reporter: Reporter::Destination,
        destination: Some(destination.clone()),
        destination_identity: Some(destination.identity.clone()),
        security: Security::None,
        local: upstream,
        upstream: Some(upstream),
        cluster: Some(inbound_cluster(upstream.port())),
        ..record.clone()
    }
}

/// Names of clusters that a worker has made before: they are in every record, and few.
#[derive(Default)]
struct Clusters {
    outbound: HashMap<OutboundKey, (Arc<Service>, Arc<str>)>,
    inbound: HashMap<u16, Arc<str>>,
}

/// A service by its place in memory, a port of it, and a subset.
type OutboundKey = (usize, u16, Option<SubsetName>);

thread_local! {
    static CLUSTERS: RefCell<Clusters> = RefCell::default();
}

/// `outbound|9080|v1|reviews.shop.svc.cluster.local`.
pub fn outbound_cluster(service: &Arc<Service>, port: u16, subset: Option<&SubsetName>) -> Arc<str> {
    CLUSTERS.with_borrow_mut(|known| {
        if known.outbound.len() >= MOST_CLUSTERS {
            known.outbound.clear();
        }
        // The entry keeps the service, so its address is not used for another while the entry lives.
        let key = (Arc::as_ptr(service) as usize, port, subset.cloned());
        let entry = known.outbound.entry(key).or_insert_with(|| {
            let subset = subset.map_or("", SubsetName::as_str);
            (service.clone(), format!("outbound|{port}|{subset}|{}", service.key.host).into())
        });
        entry.1.clone()
    })
}

/// `inbound|9080||`.
pub fn inbound_cluster(port: u16) -> Arc<str> {
    CLUSTERS.with_borrow_mut(|known| {
        if known.inbound.len() >= MOST_CLUSTERS {
            known.inbound.clear();
        }
        known.inbound.entry(port).or_insert_with(|| format!("inbound|{port}||").into()).clone()
    })
}

/// The open records of one opaque connection, one per reporting side.
pub struct Outcomes {
    sides: RefCell<Vec<TcpOutcome>>,
}

impl Outcomes {
    /// Opens the source's record, and the destination's where both sides were decided here.
    pub fn open(telemetry: &Telemetry, record: ConnectionRecord, transport: Transport) -> Self {
        let mut sides = Vec::with_capacity(2);
        if transport == Transport::Vouched
            && let (Some(destination), Some(upstream)) = (&record.destination, record.upstream)
        {
            sides.push(telemetry.tcp_opened(mirrored(&record, destination, upstream)));
        }
        sides.push(telemetry.tcp_opened(record));
        Self { sides: RefCell::new(sides) }
    }

    /// Waits for the relay, and says now and then how far it has come: a connection may stay open for days.
    pub async fn follow(&self, relay: impl Future<Output = Ended>, traffic: &Traffic) -> Ended {
        let mut relay = pin!(relay);
        loop {
            match timeout(PROGRESS, relay.as_mut()).await {
                Ok(ended) => return ended,
                Err(_elapsed) => self.progress(traffic),
            }
        }
    }

    fn progress(&self, traffic: &Traffic) {
        for side in self.sides.borrow_mut().iter_mut() {
            side.progress(traffic.sent.get(), traffic.received.get());
        }
    }

    /// Closes the records.
    pub fn finish(self, traffic: &Traffic, flags: ResponseFlags, error: Option<&str>) {
        for side in self.sides.into_inner() {
            side.finish(traffic.sent.get(), traffic.received.get(), flags, error);
        }
    }
}

/// A connection that reached nobody: counted and logged once.
pub fn failed(telemetry: &Telemetry, record: ConnectionRecord, error: &DialError) {
    let text = error.to_string();
    telemetry.tcp_opened(record).finish(0, 0, error.flags(), Some(&text));
}

/// How the end of a relay shows in metrics and logs.
pub fn flags_of(ended: Ended) -> ResponseFlags {
    match ended {
        // A reset after data is how many applications say goodbye: not an error.
        Ended::Closed | Ended::CallerReset | Ended::UpstreamReset => ResponseFlags::NONE,
        Ended::Idle | Ended::HalfClosedIdle => ResponseFlags::STREAM_IDLE_TIMEOUT,
    }
}

/// How a cut shows in metrics and logs.
pub fn flags_of_cut(cut: &Cut) -> ResponseFlags {
    match cut {
        Cut::Denied(_) => ResponseFlags::DENIED,
        Cut::PodGone | Cut::Drained => ResponseFlags::LOCAL_RESET,
    }
}
