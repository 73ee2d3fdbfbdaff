//! Connections that are older than the enrolment of their pod: they go on uncaptured, and are counted; those that a policy would
//! now refuse are ended.

use std::sync::Arc;

use mesh_model::{
    authz::{Denied, Peer, authorize, authorize_connection},
    service::Protocol,
    snapshot::Snapshot,
    workload::Workload,
};

use crate::sys::{self, Netns, TcpConnection};

/// Forgets those that are over, and ends those that came in to a port where they would be refused now.
pub fn look(netns: &Netns, snapshot: &Snapshot, workload: &Arc<Workload>, older: &mut Vec<u64>) -> usize {
    if older.is_empty() {
        return 0;
    }
    let Ok(mut all) = sys::connections(netns) else { return 0 };
    all.retain(|each| older.contains(&each.cookie));
    let ended = sys::destroy_established(netns, |each| {
        older.contains(&each.cookie) && is_inbound(workload, each) && is_refused(snapshot, workload, each)
    });
    *older = all.iter().map(|each| each.cookie).collect();
    match ended {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(workload = %workload.uid, %error, "uncaptured connections cannot be ended");
            0
        }
    }
}

/// Which end called is not written on a socket: a port that the workload serves is taken to be the called one.
fn is_inbound(workload: &Workload, connection: &TcpConnection) -> bool {
    let port = connection.local.port();
    workload.protocols.contains_key(&port)
        || workload.endpoints.iter().any(|end| end.ports.values().any(|target| *target == port))
}

fn is_refused(snapshot: &Snapshot, workload: &Arc<Workload>, connection: &TcpConnection) -> bool {
    let port = connection.local.port();
    let peer = Peer { identity: None, ip: connection.remote.ip().to_canonical(), port };
    let verdict: Result<(), Denied> = match workload.protocol(port) {
        Protocol::Http => authorize_connection(snapshot, workload, &peer).map(drop),
        _ => authorize(snapshot, workload, &peer, None).map(drop),
    };
    verdict.is_err()
}
