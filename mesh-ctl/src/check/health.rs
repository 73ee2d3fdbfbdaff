//! The installed mesh: its pods, its versions, its certificate authority, its nodes' acknowledgements, its findings.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::v1::{Severity, StatusReply, StatusRequest};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Line, Verdict};
use crate::{
    cluster::{Cluster, events, pods},
    connect,
    exit::Failure,
    install::ready::{self, Rollout},
};

/// A certificate authority that ends sooner is worth a warning.
const CA_SOON: Duration = Duration::days(30);

/// Everything that can be asked of a mesh that is installed. One that does not answer is a bad line, not the end.
pub async fn all(cluster: &Cluster) -> Result<Vec<Line>, Failure> {
    let [controller, agents] = match ready::rollouts(cluster).await {
        Ok(rollouts) => rollouts,
        Err(failure) => {
            let line = Line::new("mesh", "installation", Verdict::Bad, failure.to_string());
            return Ok(vec![line.hint("run `meshctl install`, or name its namespace with --mesh-namespace")]);
        }
    };
    let mut lines = Vec::new();
    let agent_pods = pods::of(cluster, "mesh-node").await?;
    lines.extend(component(cluster, &controller, &pods::of(cluster, "mesh-controller").await?).await?);
    lines.extend(component(cluster, &agents, &agent_pods).await?);
    match status(cluster).await {
        Ok(status) => lines.extend(of_status(&status, &agent_pods, OffsetDateTime::now_utc())),
        Err(failure) => {
            let line = Line::new("mesh", "controller answers", Verdict::Bad, failure.to_string());
            lines.push(line.hint("see the logs of mesh-controller"));
        }
    }
    Ok(lines)
}

async fn status(cluster: &Cluster) -> Result<StatusReply, Failure> {
    let mut controller = connect::controller_of(cluster).await?;
    let status = controller.status(StatusRequest {}).await;
    Ok(status.map_err(|status| Failure::from_status("status", &status))?.into_inner())
}

async fn component(cluster: &Cluster, found: &Rollout, pods: &[Pod]) -> Result<Vec<Line>, Failure> {
    let not_created = match found.is_complete() {
        true => None,
        false => events::not_created(cluster, found.component).await?,
    };
    Ok(rollout(found, pods, not_created))
}

/// One line for the component, one for each of its pods that is not ready, and one for those that could not be created.
pub(super) fn rollout(rollout: &Rollout, pods: &[Pod], not_created: Option<String>) -> Vec<Line> {
    let detail = format!("{} of {} ready", rollout.ready, rollout.wanted);
    let hint = match not_created.is_some() || pods.iter().any(|pod| pods::trouble(pod).is_some()) {
        true => "the lines below say why".to_owned(),
        false => format!("see `kubectl describe` of {}", rollout.component),
    };
    let verdict = Verdict::good_if(rollout.is_complete());
    let mut lines = vec![Line::new("mesh", rollout.component, verdict, detail).hint(hint)];
    if let Some(why) = not_created {
        lines
            .push(Line::new("mesh", format!("pods of {}", rollout.component), Verdict::Bad, why).hint(
                "Kubernetes does not create them: Pod Security of the namespace, a quota or a webhook",
            ));
    }
    for pod in pods {
        if let Some(trouble) = pods::trouble(pod) {
            let place = match pods::node(pod) {
                "" => pods::name(pod).to_owned(),
                node => format!("{} on {node}", pods::name(pod)),
            };
            lines.push(
                Line::new("mesh", place, Verdict::Bad, trouble)
                    .hint("see `kubectl describe pod` and its logs"),
            );
        }
    }
    lines
}

/// What the controller says of itself, its nodes and its source.
pub(super) fn of_status(status: &StatusReply, agents: &[Pod], now: OffsetDateTime) -> Vec<Line> {
    let mut lines = vec![versions(status), authority(&status.ca_not_after, now)];
    for node in &status.nodes {
        let what = format!("node {}", node.node);
        let refused: Vec<&str> = node.refused.iter().map(|refused| refused.error.as_str()).collect();
        let (verdict, detail) = if !node.connected {
            (Verdict::Bad, "not connected to the controller".to_owned())
        } else if !refused.is_empty() {
            (Verdict::Bad, format!("refuses configuration: {}", refused.join("; ")))
        } else if node.acked_generation < node.sent_generation {
            let behind = node.sent_generation - node.acked_generation;
            (Verdict::Warning, format!("{behind} generations behind"))
        } else {
            (Verdict::Good, format!("has generation {}", node.acked_generation))
        };
        let hint = match agents.iter().any(|pod| pods::node(pod) == node.node) {
            true => "see the logs of mesh-node there",
            false => "no pod of mesh-node is there",
        };
        lines.push(Line::new("nodes", what, verdict, detail).hint(hint));
    }
    lines.extend(findings(status));
    lines
}

fn versions(status: &StatusReply) -> Line {
    let own = env!("CARGO_PKG_VERSION");
    let mut others: BTreeSet<&str> = status.nodes.iter().map(|node| node.version.as_str()).collect();
    others.insert(&status.version);
    others.remove("");
    let verdict = if others.iter().all(|version| *version == own) { Verdict::Good } else { Verdict::Warning };
    let others: Vec<&str> = others.into_iter().collect();
    Line::new("mesh", "versions", verdict, format!("meshctl {own}, mesh {}", others.join(", ")))
        .hint("use the meshctl of the mesh's version, or finish the upgrade")
}

fn authority(not_after: &str, now: OffsetDateTime) -> Line {
    let (verdict, detail) = match OffsetDateTime::parse(not_after, &Rfc3339) {
        Err(_) => (Verdict::Warning, format!("ends at {not_after:?}, which is no date")),
        Ok(end) if end <= now => (Verdict::Bad, format!("ended {not_after}")),
        Ok(end) if end - now < CA_SOON => (Verdict::Warning, format!("ends {not_after}")),
        Ok(_) => (Verdict::Good, format!("good until {not_after}")),
    };
    Line::new("mesh", "certificate authority", verdict, detail).hint("renew the root before it ends")
}

fn findings(status: &StatusReply) -> Vec<Line> {
    let worth = status.diagnostics.iter().filter(|finding| finding.severity() != Severity::Info);
    worth
        .map(|finding| {
            let verdict = match finding.severity() {
                Severity::Error => Verdict::Bad,
                _ => Verdict::Warning,
            };
            let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
            let detail = format!("[{}] {field}{}", finding.code, finding.message);
            Line::new("configuration", finding.object.clone(), verdict, detail)
        })
        .collect()
}
