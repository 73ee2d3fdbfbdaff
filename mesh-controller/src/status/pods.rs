//! The condition `tulle.dev/Mesh` of pods.
//!
//! Invariant: a condition is written to the pod of that UID and to no other of its name; the kubelet's conditions stay as they are (the
//! API server merges conditions by type).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use mesh_model::name::WorkloadUid;
use serde_json::{Value, json};

use super::{StatusError, Written, call, now, write_call};
use crate::publish::{PodStatus, Verdict};

/// The condition's type.
const TYPE: &str = "tulle.dev/Mesh";
/// Pods in one answer of the API server.
const PAGE: u32 = 500;

/// What pods say.
pub(super) struct Pods {
    client: Client,
    present: HashMap<WorkloadUid, Present>,
}

/// What one pod says, as far as we know.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Present {
    namespace: String,
    name: String,
    status: String,
    reason: String,
    message: String,
    since: String,
}

impl Present {
    fn says(&self, verdict: &Verdict) -> bool {
        self.status == verdict.status && self.reason == verdict.reason && self.message == verdict.message
    }
}

impl Pods {
    /// Reads what an earlier controller wrote.
    pub(super) async fn read(client: &Client) -> Result<Self, StatusError> {
        let api: Api<Pod> = Api::all(client.clone());
        let mut present = HashMap::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = call(api.list(&parameters)).await?;
            present.extend(page.items.iter().filter_map(condition_of));
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(Self { client: client.clone(), present });
            }
        }
    }

    /// The pods that say something else than they are to say.
    pub(super) fn due(&self, statuses: &BTreeMap<WorkloadUid, PodStatus>) -> Vec<WorkloadUid> {
        let differs = |uid: &WorkloadUid, status: &PodStatus| {
            self.present.get(uid).is_none_or(|present| !present.says(&status.verdict))
        };
        let wrong = statuses.iter().filter(|(uid, status)| differs(uid, status)).map(|(uid, _)| uid);
        let idle = self.present.keys().filter(|uid| !statuses.contains_key(*uid));
        wrong.chain(idle).cloned().collect()
    }

    /// Makes the pod say this, or nothing.
    pub(super) async fn write(
        &mut self,
        uid: &WorkloadUid,
        status: Option<&PodStatus>,
    ) -> Result<Written, StatusError> {
        let before = self.present.get(uid);
        let next = status.map(|status| next(status, before, now()));
        let Some(place) = next.as_ref().or(before) else { return Ok(Written::Same) };
        let (namespace, name) = (place.namespace.clone(), place.name.clone());
        let patch = Patch::Strategic(patch(uid, next.as_ref()));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let written = match write_call(api.patch_status(&name, &PatchParams::default(), &patch)).await {
            Err(StatusError::Call(error)) if is_another_pod(&error) => Written::Gone,
            written => written?,
        };
        match next {
            // Also if the pod is gone: nobody asks a second time until there is something else to say.
            Some(next) => drop(self.present.insert(uid.clone(), next)),
            None => drop(self.present.remove(uid)),
        }
        Ok(written)
    }
}

/// The UID in the patch is a precondition: another pod of the name answers 409.
fn is_another_pod(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.code == 422)
}

/// The time only changes with the status.
fn next(status: &PodStatus, before: Option<&Present>, now: String) -> Present {
    let verdict = &status.verdict;
    let since = before.filter(|before| before.status == verdict.status).map(|before| before.since.clone());
    Present {
        namespace: status.namespace.clone(),
        name: status.name.clone(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        since: since.unwrap_or(now),
    }
}

fn patch(uid: &WorkloadUid, next: Option<&Present>) -> Value {
    let condition = match next {
        Some(next) => json!({
            "type": TYPE,
            "status": next.status,
            "reason": next.reason,
            "message": next.message,
            "lastTransitionTime": next.since,
        }),
        None => json!({ "type": TYPE, "$patch": "delete" }),
    };
    json!({ "metadata": { "uid": uid.as_str() }, "status": { "conditions": [condition] } })
}

fn condition_of(pod: &Pod) -> Option<(WorkloadUid, Present)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition: &PodCondition = conditions.iter().find(|condition| condition.type_ == TYPE)?;
    let since = serde_json::to_value(condition.last_transition_time.as_ref()?).ok()?;
    let present = Present {
        namespace: pod.metadata.namespace.clone()?,
        name: pod.metadata.name.clone()?,
        status: condition.status.clone(),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
        since: since.as_str()?.to_owned(),
    };
    Some((WorkloadUid::new(pod.metadata.uid.as_deref()?), present))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(conditions: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "reviews", "namespace": "shop", "uid": "u-1" },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn status(verdict: (&'static str, &'static str, &str)) -> PodStatus {
        let verdict = Verdict { status: verdict.0, reason: verdict.1, message: verdict.2.to_owned() };
        PodStatus { namespace: "shop".to_owned(), name: "reviews".to_owned(), verdict }
    }

    fn ours() -> Value {
        json!([
            { "type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-21T10:00:03Z" },
            {
                "type": TYPE, "status": "True", "reason": "Captured", "message": "",
                "lastTransitionTime": "2026-11-21T10:00:04Z",
            },
        ])
    }

    #[tokio::test]
    async fn only_what_differs_is_written_and_what_nobody_says_any_more_is_taken_back() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let present = condition_of(&pod(ours())).into_iter().collect();
        let pods = Pods { client, present };
        let uid = WorkloadUid::new("u-1");
        let due = |verdict| pods.due(&BTreeMap::from([(uid.clone(), status(verdict))]));
        assert!(due(("True", "Captured", "")).is_empty());
        assert_eq!(due(("False", "Capturing", "waiting")), std::slice::from_ref(&uid));
        assert_eq!(pods.due(&BTreeMap::new()), std::slice::from_ref(&uid));
        assert_eq!(condition_of(&pod(json!([]))), None);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_does_not_change() {
        let (_, before) = condition_of(&pod(ours())).unwrap();
        let now = || "2026-11-21T11:00:00Z".to_owned();
        let other_words = next(&status(("True", "Captured", "a finding")), Some(&before), now());
        assert_eq!(other_words.since, before.since);
        assert_eq!(next(&status(("False", "Capturing", "")), Some(&before), now()).since, now());
        assert_eq!(next(&status(("True", "Captured", "")), None, now()).since, now());
    }

    #[test]
    fn a_patch_is_for_one_uid_and_one_condition() {
        let uid = WorkloadUid::new("u-1");
        let (_, present) = condition_of(&pod(ours())).unwrap();
        let written = patch(&uid, Some(&present));
        assert_eq!(written["metadata"], json!({ "uid": "u-1" }));
        assert_eq!(written["status"]["conditions"], json!([ours()[1]]));
        let removed = patch(&uid, None);
        assert_eq!(removed["status"]["conditions"], json!([{ "type": TYPE, "$patch": "delete" }]));
    }
}
