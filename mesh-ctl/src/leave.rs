//! Leaving a cluster gracefully: the controller is told, every node takes its hooks off the pods it captured, and only then may anything
//! be deleted. `meshctl uninstall` and the chart's pre-delete hook do the same.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use mesh_api::object::ENROLMENT_LABEL;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{cluster::Cluster, exit::Failure, install::MANAGER, progress::Progress};

/// The controller's state, which carries the conversation as annotations.
const STATE: &str = "tulle-state";
/// We: the mesh shall leave.
const LEAVING: &str = "tulle.dev/leaving";
/// The controller: no node captures anything any more.
const LEFT: &str = "tulle.dev/left";
/// How often the answer is looked for.
const EVERY: Duration = Duration::from_millis(500);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every pod has its plain network back.
    Gracefully,
    /// There was nothing to leave: the controller never ran here.
    NeverRan,
}

/// Asks the mesh to leave and waits for it. Fails, with nothing deleted, if it does not within `patience`.
pub async fn leave(cluster: &Cluster, patience: Duration, progress: &mut Progress) -> Result<Left, Failure> {
    let states: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let deadline = Instant::now() + patience;
    let mark = json!({ "metadata": { "annotations": { LEAVING: "true" } } });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match states.patch(STATE, &parameters, &Patch::Merge(&mark)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            progress.warn("the mesh never ran here: there is nothing to leave");
            return Ok(Left::NeverRan);
        }
        Err(error) => return Err(Failure::from_kube("cannot tell the controller to leave", &error)),
    }
    progress.now("every node gives its pods their plain network back");
    loop {
        match states.get_opt(STATE).await {
            Ok(None) => return Ok(Left::NeverRan),
            Ok(Some(state)) if said(&state, LEFT) => break,
            Ok(Some(_)) => {}
            // The API server may be away for a moment; the deadline bounds it.
            Err(error) => progress.warn(&format!("cannot read the controller's answer: {error}")),
        }
        if Instant::now() + EVERY > deadline {
            return Err(Failure::too_late("the mesh did not leave in time; nothing was deleted").hint(
                "see `meshctl status` for nodes that do not answer; --force deletes all the same (then run `mesh-node detach --all` there)",
            ));
        }
        sleep(EVERY).await;
    }
    progress.done("every pod has its plain network back");
    Ok(Left::Gracefully)
}

fn said(state: &ConfigMap, what: &str) -> bool {
    let annotations = state.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(what)).is_some_and(|value| value == "true")
}

/// Takes the enrolment label off every namespace, so that a later installation captures nothing by surprise.
pub async fn remove_labels(cluster: &Cluster, progress: &mut Progress) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let labelled = namespaces
        .list(&ListParams::default().labels(ENROLMENT_LABEL))
        .await
        .map_err(|error| Failure::from_kube("cannot list enrolled namespaces", &error))?;
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let remove = json!({ "metadata": { "labels": { ENROLMENT_LABEL: null } } });
    for name in labelled.items.into_iter().filter_map(|namespace| namespace.metadata.name) {
        match namespaces.patch(&name, &parameters, &Patch::Merge(&remove)).await {
            Ok(_) => progress.done(&format!("namespace {name} is no longer labelled")),
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(Failure::from_kube(
                    &format!("cannot take the label off namespace {name}"),
                    &error,
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_true_is_an_answer() {
        let state = |value: &str| -> ConfigMap {
            serde_json::from_value(json!({ "metadata": { "annotations": { LEFT: value } } })).unwrap()
        };
        assert!(said(&state("true"), LEFT));
        assert!(!said(&state("false"), LEFT));
        assert!(!said(&state("true"), LEAVING));
        assert!(!said(&ConfigMap::default(), LEFT));
    }
}
