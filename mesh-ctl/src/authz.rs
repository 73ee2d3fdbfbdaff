//! `meshctl authz check`: may this caller call that workload, by the code that lets it in.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use mesh_model::{
    authz::Peer,
    explain::{AuthzExplanation, explain_authz},
    path,
    request::RequestHead,
};
use serde::Serialize;

use crate::{
    cli::{AuthzArgs, AuthzCheck, AuthzVerb, Globals},
    exit::Failure,
    names,
    print::{Answer, verdict},
    route::{StepRow, steps, why},
    source::{self, Source},
};

#[derive(Serialize)]
struct Checked {
    allowed: bool,
    verdict: String,
    /// The policy that decided, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    /// Envoy's response detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    steps: Vec<StepRow>,
    findings: Vec<String>,
}

/// Runs a verb of `authz`.
pub async fn run(globals: &Globals, args: &AuthzArgs) -> Result<ExitCode, Failure> {
    let AuthzVerb::Check(check) = &args.verb;
    let source = source::load(globals, &check.files.files).await?;
    let explanation = explain(&source, check)?;
    let checked = checked(explanation, check, source.findings);
    let allowed = checked.allowed;
    let mut summary = vec![checked.verdict.clone()];
    summary.extend(checked.findings.iter().map(|finding| format!("finding: {finding}")));
    let tables = vec![why(&checked.steps)];
    let names = checked.policy.iter().cloned().collect();
    Answer { kind: "AuthzCheck", data: checked, summary, tables, names }.print(globals.output)?;
    Ok(verdict(allowed))
}

fn explain(source: &Source, check: &AuthzCheck) -> Result<AuthzExplanation, Failure> {
    let snapshot = &source.snapshot;
    let workload = names::pod(snapshot, &check.to)?;
    let caller = names::caller(snapshot, &check.from)?;
    let peer = Peer {
        identity: caller.identity,
        // An address nobody has: an ipBlocks rule must not match by accident.
        ip: check.ip.or(caller.ip).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        port: check.port,
    };
    let is_http =
        check.method.is_some() || check.path.is_some() || check.host.is_some() || !check.headers.is_empty();
    if !is_http {
        return Ok(explain_authz(snapshot, &workload, &peer, None));
    }
    let headers = names::headers(&check.headers)?;
    let given = check.path.as_deref().unwrap_or("/");
    let (given, query) = given.split_once('?').map_or((given, None), |(path, query)| (path, Some(query)));
    let path = path::normalize(given, snapshot.mesh().path_normalization);
    let authority = check.host.as_deref().unwrap_or_default().to_ascii_lowercase();
    let head = RequestHead {
        method: check.method.as_deref().unwrap_or("GET"),
        scheme: "http",
        authority: &authority,
        path: &path,
        query,
        headers: &headers,
    };
    Ok(explain_authz(snapshot, &workload, &peer, Some(&head)))
}

fn checked(explanation: AuthzExplanation, check: &AuthzCheck, findings: Vec<String>) -> Checked {
    let steps = steps(explanation.steps);
    match explanation.verdict {
        Ok(permit) => {
            let policy = permit.by().map(ToString::to_string);
            let verdict = match &policy {
                Some(policy) => format!("allowed by AuthorizationPolicy {policy}"),
                None => "allowed: no ALLOW policy selects the workload and no DENY matches".to_owned(),
            };
            Checked { allowed: true, verdict, policy, detail: None, steps, findings }
        }
        Err(denied) => {
            let what = if check.method.is_some() || check.path.is_some() {
                "403 RBAC: access denied"
            } else {
                "closed"
            };
            let policy = match &denied {
                mesh_model::authz::Denied::Policy { policy, .. }
                | mesh_model::authz::Denied::MissingPolicy { policy } => Some(policy.to_string()),
                _ => None,
            };
            let detail = Some(denied.detail());
            Checked {
                allowed: false,
                verdict: format!("denied ({what}): {denied}"),
                policy,
                detail,
                steps,
                findings,
            }
        }
    }
}
