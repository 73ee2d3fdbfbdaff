//! AuthorizationPolicies, and which workloads each selects.
//!
//! Bias: closed. A policy that selects a workload and has no meaning (refused and never good) is named on the workload and not
//! published: what is named and missing denies.

use std::collections::BTreeMap;

use mesh_model::{
    authz::{Action, AuthzPolicy, Operation},
    mesh::{MeshSettings, PathNormalization},
    name::{Namespace, ObjectKey, WorkloadUid},
    text::Glob,
};

use super::{
    pods::{Live, Pods},
    services::Services,
};
use crate::{
    diagnostic::{Code, Diagnostic, Findings},
    index::{Fact, Index},
    object::{AuthorizationPolicy, Object, istio::TargetReference},
    read::{
        policy::{self, Verdict},
        selector,
    },
};

/// Makes a policy of no effect but for its findings.
const DRY_RUN_ANNOTATION: &str = "istio.io/dry-run";

/// All policies.
#[derive(Default)]
pub(super) struct Authz {
    pub(super) policies: Vec<AuthzPolicy>,
    pub(super) selected: BTreeMap<WorkloadUid, Vec<ObjectKey>>,
}

/// Compiles all policies.
pub(super) fn compile(
    index: &Index,
    mesh: &MeshSettings,
    pods: &Pods<'_>,
    services: &Services,
    list: &mut Vec<Diagnostic>,
) -> Authz {
    let mut all = Authz::default();
    let written = index.facts(|object| match object {
        Object::AuthorizationPolicy(policy) => Some(&**policy),
        _ => None,
    });
    for fact in written {
        let namespace = Namespace::new(fact.reference.namespace.clone());
        let key = ObjectKey::new(namespace.clone(), fact.reference.name.clone());
        if !fact.is_closed {
            let verdict = policy::read(
                &fact.object.spec,
                &namespace,
                &mesh.trust_domain,
                &mut fact.findings(&mut Vec::new()),
            );
            let Verdict::Decides(action, rules) = verdict else { continue };
            if is_dry_run(fact.object) {
                let message = "a dry run never decides, and nothing is logged for it yet";
                fact.findings(list).add(Code::NeverDecides, "metadata.annotations", message);
                continue;
            }
            let compiled = AuthzPolicy { key: key.clone(), action, rules };
            name_dodgeable(&compiled, mesh.path_normalization, &mut fact.findings(list));
            all.policies.push(compiled);
        }
        let scope = Scope { fact: &fact, namespace: &namespace, services };
        let selected: Vec<&Live<'_>> = match namespace == mesh.root_namespace {
            true => pods.iter().filter(|pod| scope.includes(pod)).collect(),
            false => pods.of(namespace.as_str()).iter().filter(|pod| scope.includes(pod)).collect(),
        };
        if selected.is_empty() {
            fact.findings(list).add(Code::SelectsNothing, "spec.selector", "the policy selects no pod");
        }
        for pod in selected {
            all.selected.entry(pod.uid.clone()).or_default().push(key.clone());
        }
    }
    all
}

/// What a policy says of the pods that its namespace lets it select.
struct Scope<'a> {
    fact: &'a Fact<'a, AuthorizationPolicy>,
    namespace: &'a Namespace,
    services: &'a Services,
}

impl Scope<'_> {
    fn includes(&self, pod: &Live<'_>) -> bool {
        let spec = &self.fact.object.spec;
        let mut targets = spec.target_ref.iter().chain(&spec.target_refs).peekable();
        let targeted = targets.peek().is_none() || targets.any(|target| self.is_target(target, pod));
        let selector = selector::of(spec.selector.as_ref(), self.fact.is_closed);
        targeted
            && selector.is_none_or(|selector| {
                pod.has_labels(
                    selector.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str())),
                )
            })
    }

    /// The pods behind a Service. Other targets stand for traffic that is not told apart here: everything in scope.
    fn is_target(&self, target: &TargetReference, pod: &Live<'_>) -> bool {
        if target.kind != "Service" {
            return true;
        }
        let service = self.services.named(self.namespace, &target.name);
        service.is_none_or(|service| self.services.is_endpoint(&pod.uid, &service.key))
    }
}

fn is_dry_run(policy: &AuthorizationPolicy) -> bool {
    let annotations = policy.metadata.annotations.iter().flatten();
    annotations.into_iter().any(|(name, value)| name == DRY_RUN_ANNOTATION && value == "true")
}

/// A path that a DENY names, or that an ALLOW leaves out, can be written in another way that the policy does not see and many
/// applications take for the same: `//admin`, `/%2Fadmin`.
fn name_dodgeable(policy: &AuthzPolicy, normalization: PathNormalization, findings: &mut Findings<'_>) {
    let ways = match normalization {
        PathNormalization::None => "`//`, `/./`, `%2F` and `%2e`",
        PathNormalization::Base => "`//` and `%2F`",
        PathNormalization::MergeSlashes => "`%2F`",
        PathNormalization::DecodeAndMergeSlashes => return,
    };
    let name = match policy.action {
        Action::Deny => "paths",
        Action::Allow => "notPaths",
    };
    for (rule_number, rule) in policy.rules.iter().enumerate() {
        for (number, operation) in rule.to.iter().enumerate() {
            if let Some(path) =
                negative_paths(operation, policy.action).iter().find(|path| **path != Glob::Any)
            {
                let message = format!(
                    "{path} can be dodged by writing it with {ways}, which pathNormalization {normalization:?} leaves as they are: \
                     set DECODE_AND_MERGE_SLASHES, or allow paths instead of denying them"
                );
                findings.add(
                    Code::DodgeablePath,
                    format!("spec.rules[{rule_number}].to[{number}].operation.{name}"),
                    message,
                );
            }
        }
    }
}

fn negative_paths(operation: &Operation, action: Action) -> &[Glob] {
    match action {
        Action::Deny => &operation.paths,
        Action::Allow => &operation.not_paths,
    }
}
