//! Ends connections that a new snapshot no longer allows.
//!
//! The same pure check that admitted a connection is asked again, for those whose workload or policies changed; all others are left
//! alone. It runs on the connection's own worker, so a connection cannot be missed between its registration and its check.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use mesh_model::{name::WorkloadUid, snapshot::Snapshot};

use crate::{conns::Conns, state::State};

/// Follows the snapshots for as long as the worker lives.
pub async fn run(state: State, conns: Rc<Conns>) {
    let mut changed = state.changed();
    let mut previous = state.snapshot();
    while changed.changed().await.is_ok() {
        let next = state.snapshot();
        let ended = recheck(&conns, &previous, &next);
        if ended > 0 {
            tracing::info!(ended, generation = next.generation(), "connections ended: no longer allowed");
        }
        previous = next;
    }
}

/// One pass; says how many connections it ended.
fn recheck(conns: &Conns, previous: &Snapshot, next: &Snapshot) -> usize {
    let mut concerned: HashMap<WorkloadUid, bool> = HashMap::new();
    conns.cut_denied(|asked| {
        let Some(workload) = asked.workload() else { return Ok(()) };
        let concerned = match concerned.get(&workload.uid) {
            Some(known) => *known,
            None => {
                let answer = is_concerned(previous, next, &workload.uid);
                concerned.insert(workload.uid.clone(), answer);
                answer
            }
        };
        if concerned { asked.still_allowed(next) } else { Ok(()) }
    })
}

/// Whether anything that decides about this workload is another object than before. Unchanged resources are shared between
/// snapshots, so pointers tell.
fn is_concerned(previous: &Snapshot, next: &Snapshot, uid: &WorkloadUid) -> bool {
    let (Some(before), Some(after)) = (previous.workload(uid), next.workload(uid)) else { return true };
    if !Arc::ptr_eq(before, after) {
        return true;
    }
    after.policies.iter().any(|key| match (previous.policy(key), next.policy(key)) {
        (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
        (None, None) => false,
        _ => true,
    })
}
