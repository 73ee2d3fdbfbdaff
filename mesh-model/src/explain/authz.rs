//! Why somebody may or may not call a workload.

use std::sync::Arc;

use super::{Outcome, Step};
use crate::{
    authz::{Action, AuthzPolicy, Denied, Peer, Permit, decide_observed, evaluate},
    mtls::MtlsMode,
    name::ObjectKey,
    request::RequestHead,
    snapshot::Snapshot,
    workload::Workload,
};

/// The answer to "may this peer call that workload".
#[derive(Clone, Debug)]
pub struct AuthzExplanation {
    /// In the order of evaluation.
    pub steps: Vec<Step>,
    /// What [`crate::authz::authorize`] says.
    pub verdict: Result<Permit, Denied>,
}

/// Why `peer` may or may not call `workload`: one request, or (`head` None) an opaque connection.
pub fn explain_authz(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    peer: &Peer,
    head: Option<&RequestHead<'_>>,
) -> AuthzExplanation {
    let seen = head.map_or(evaluate::Seen::Opaque, |head| evaluate::Seen::Request(head.into()));
    let mut steps = vec![caller(peer), mode(workload, peer)];
    let missing = workload.policies.iter().filter(|key| snapshot.policy(key).is_none());
    steps.extend(
        missing.map(|key| Step::fact(format!("AuthorizationPolicy {key}"), "not received yet: denies")),
    );
    let mut tried: Vec<(ObjectKey, usize)> = Vec::new();
    let verdict = decide_observed(snapshot, workload, peer, seen, &mut |policy, rule, outcome| {
        tried.push((policy.key.clone(), rule));
        steps.push(rule_step(policy, rule, outcome, peer, seen));
    });
    let known = || workload.policies.iter().filter_map(|key| snapshot.policy(key));
    for policy in known().filter(|policy| policy.rules.is_empty()) {
        steps.push(Step {
            subject: subject(policy),
            outcome: Outcome::NoMatch,
            reason: "it has no rules, so it never matches".to_owned(),
        });
    }
    for policy in known() {
        for (number, _) in
            (0..).zip(&policy.rules).filter(|(number, _)| !tried.contains(&(policy.key.clone(), *number)))
        {
            let subject = format!("{} rules[{number}]", subject(policy));
            steps.push(Step { subject, outcome: Outcome::NotReached, reason: String::new() });
        }
    }
    AuthzExplanation { steps, verdict }
}

fn caller(peer: &Peer) -> Step {
    let who = match &peer.identity {
        Some(identity) => format!("principal {}", identity.principal()),
        None => "no identity (plaintext)".to_owned(),
    };
    Step {
        subject: "caller".to_owned(),
        outcome: Outcome::Fact,
        reason: format!("{who}, address {}", peer.ip),
    }
}

fn mode(workload: &Workload, peer: &Peer) -> Step {
    let mode = match workload.mtls.of(peer.port) {
        MtlsMode::Permissive => "PERMISSIVE",
        MtlsMode::Strict => "STRICT",
        MtlsMode::Disable => "DISABLE (as PERMISSIVE)",
    };
    let from = if workload.mtls.from.is_empty() { "the default" } else { &workload.mtls.from };
    Step::fact(format!("mTLS of port {}", peer.port), format!("{mode}, from {from}"))
}

fn subject(policy: &AuthzPolicy) -> String {
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
    };
    format!("AuthorizationPolicy {} {action}", policy.key)
}

fn rule_step(
    policy: &AuthzPolicy,
    number: usize,
    outcome: Result<(), evaluate::RuleMiss>,
    peer: &Peer,
    seen: evaluate::Seen<'_>,
) -> Step {
    let facts = evaluate::PeerFacts::from(peer);
    let rule = policy.rules.get(number);
    let reason = match outcome {
        Ok(()) => String::new(),
        Err(evaluate::RuleMiss::Unsupported) => {
            "it uses what this version does not know, so it never allows".to_owned()
        }
        Err(evaluate::RuleMiss::From) => misses(
            "from",
            "source",
            rule.iter().flat_map(|rule| &rule.from).map(|source| source.check(&facts)),
        ),
        Err(evaluate::RuleMiss::To) => misses(
            "to",
            "operation",
            rule.iter()
                .flat_map(|rule| &rule.to)
                .map(|operation| operation.check(policy.action, &facts, seen)),
        ),
    };
    Step {
        subject: format!("{} rules[{number}]", subject(policy)),
        outcome: if outcome.is_ok() { Outcome::Match } else { Outcome::NoMatch },
        reason,
    }
}

/// `from[0].source: principals does not match; from[1].source: …`.
fn misses(list: &str, item: &str, outcomes: impl Iterator<Item = Result<(), evaluate::FieldMiss>>) -> String {
    let texts: Vec<String> = outcomes
        .enumerate()
        .filter_map(|(number, outcome)| Some(format!("{list}[{number}].{item}: {}", outcome.err()?)))
        .collect();
    texts.join("; ")
}
