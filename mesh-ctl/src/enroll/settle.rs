//! Waits until the nodes report what was asked for, or says of each pod why they do not.

use std::{collections::BTreeMap, time::Duration};

use mesh_api::compile::EnrolmentDecision;
use mesh_proto::v1::{CaptureState, NodeStatus, StatusRequest};
use tokio::time::{Instant, sleep};

use super::{Member, PodReport, preview::Preview};
use crate::{cluster::Cluster, connect, exit::Failure, progress::Progress};

/// How often the controller is asked.
const EVERY: Duration = Duration::from_millis(500);

/// What is awaited of each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its node captures it.
    Captured,
    /// No node does.
    Free,
}

/// Asks the controller until every pod is as wanted, or cannot be, or the time is up.
pub async fn wait(
    cluster: &Cluster,
    preview: &Preview,
    wanted: Wanted,
    patience: Duration,
    progress: &mut Progress,
) -> Result<Vec<PodReport>, Failure> {
    let deadline = Instant::now() + patience;
    let mut controller = connect::controller_of(cluster).await?;
    loop {
        let status = controller
            .status(StatusRequest {})
            .await
            .map_err(|status| Failure::from_status("status", &status))?
            .into_inner();
        let reports = reports(&preview.members, &status.nodes, wanted);
        let open = reports.iter().filter(|report| !report.good && !is_final(report, preview)).count();
        let good = reports.iter().filter(|report| report.good).count();
        let what = if wanted == Wanted::Captured { "captured" } else { "no longer captured" };
        progress.now(&format!("{good} of {} pods are {what}", reports.len()));
        if open == 0 || Instant::now() + EVERY > deadline {
            return Ok(reports);
        }
        sleep(EVERY).await;
    }
}

/// What the controller refuses stays refused; what a node refuses may settle, as pods start and end.
fn is_final(report: &PodReport, preview: &Preview) -> bool {
    preview
        .members
        .iter()
        .any(|member| member.pod == report.pod && matches!(member.decision, EnrolmentDecision::Refused(_)))
}

fn reports(members: &[Member], nodes: &[NodeStatus], wanted: Wanted) -> Vec<PodReport> {
    let reported: BTreeMap<&str, (CaptureState, &str)> = nodes
        .iter()
        .flat_map(|node| &node.workloads)
        .map(|workload| (workload.uid.as_str(), (workload.state(), workload.reason.as_str())))
        .collect();
    members
        .iter()
        .map(|member| report(member, reported.get(member.uid.as_str()).copied(), nodes, wanted))
        .collect()
}

fn report(
    member: &Member,
    reported: Option<(CaptureState, &str)>,
    nodes: &[NodeStatus],
    wanted: Wanted,
) -> PodReport {
    let is_connected = nodes.iter().any(|node| node.node == member.node && node.connected);
    let (state, reason) = match (&member.decision, reported) {
        (EnrolmentDecision::Refused(reason), _) => ("refused", reason.clone()),
        (_, Some((CaptureState::Captured, _))) => ("captured", String::new()),
        (_, Some((CaptureState::Refused, reason))) => ("refused", reason.to_owned()),
        (_, Some((CaptureState::NotCaptured, reason))) => ("not captured", reason.to_owned()),
        (EnrolmentDecision::NotWanted, None) if wanted == Wanted::Captured => {
            ("not wanted", "its own label keeps it out".to_owned())
        }
        (_, None) if !is_connected => ("not captured", format!("node {} is not connected", member.node)),
        (_, None) => ("not captured", String::new()),
    };
    let good = match wanted {
        Wanted::Captured => state == "captured" || member.decision == EnrolmentDecision::NotWanted,
        // A node reports what it shall capture, and nothing of other pods.
        Wanted::Free => reported.is_none() || member.decision == EnrolmentDecision::Wanted,
    };
    PodReport { pod: member.pod.clone(), node: member.node.clone(), state: state.to_owned(), reason, good }
}

#[cfg(test)]
mod tests {
    use mesh_model::name::WorkloadUid;
    use mesh_proto::v1::WorkloadStatus;

    use super::*;

    fn member(decision: EnrolmentDecision) -> Member {
        Member { uid: WorkloadUid::new("u1"), pod: "shop/web".to_owned(), node: "n1".to_owned(), decision }
    }

    fn node(state: Option<CaptureState>, connected: bool) -> NodeStatus {
        let status = |state: CaptureState| WorkloadStatus {
            uid: "u1".to_owned(),
            state: state.into(),
            reason: "nat rules".to_owned(),
            ..WorkloadStatus::default()
        };
        NodeStatus {
            node: "n1".to_owned(),
            connected,
            workloads: state.map(status).into_iter().collect(),
            ..NodeStatus::default()
        }
    }

    fn one(decision: EnrolmentDecision, node: NodeStatus, wanted: Wanted) -> PodReport {
        reports(&[member(decision)], &[node], wanted).remove(0)
    }

    #[test]
    fn a_captured_pod_is_good_and_a_silent_or_refusing_node_is_not() {
        let wanted = EnrolmentDecision::Wanted;
        assert!(one(wanted.clone(), node(Some(CaptureState::Captured), true), Wanted::Captured).good);
        assert!(!one(wanted.clone(), node(None, true), Wanted::Captured).good);
        let refused = one(wanted.clone(), node(Some(CaptureState::Refused), true), Wanted::Captured);
        assert_eq!((refused.good, refused.reason.as_str()), (false, "nat rules"));
        let away = one(wanted, node(None, false), Wanted::Captured);
        assert_eq!(away.reason, "node n1 is not connected");
    }

    #[test]
    fn a_pod_that_its_own_label_keeps_out_is_no_failure() {
        assert!(one(EnrolmentDecision::NotWanted, node(None, true), Wanted::Captured).good);
    }

    #[test]
    fn unenrolling_is_done_when_no_node_captures_the_pod() {
        let gone = EnrolmentDecision::NotWanted;
        assert!(!one(gone.clone(), node(Some(CaptureState::Captured), true), Wanted::Free).good);
        assert!(one(gone, node(None, true), Wanted::Free).good);
    }
}
