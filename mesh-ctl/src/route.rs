//! `meshctl route check`: where a request would go, by the code that routes it.

use std::{net::IpAddr, process::ExitCode, str::FromStr};

use mesh_model::{
    decide::Target,
    explain::{RouteExplanation, RouteVerdict, Step, To, explain_route},
    name::Hostname,
    path,
    request::RequestHead,
    snapshot::Snapshot,
    workload::Workload,
};
use serde::Serialize;

use crate::{
    cli::{Globals, RouteArgs, RouteCheck, RouteVerb},
    exit::Failure,
    names,
    print::{Answer, Grid, verdict},
    source,
};

/// The stable document.
#[derive(Serialize)]
pub struct Checked {
    reachable: bool,
    verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    retries: u32,
    shares: Vec<ShareRow>,
    steps: Vec<StepRow>,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct ShareRow {
    share: f64,
    to: String,
    endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One thing that was looked at.
#[derive(Serialize)]
pub struct StepRow {
    subject: String,
    outcome: String,
    reason: String,
}

/// Runs a verb of `route`.
pub async fn run(globals: &Globals, args: &RouteArgs) -> Result<ExitCode, Failure> {
    let RouteVerb::Check(check) = &args.verb;
    let source = source::load(globals, &check.files.files).await?;
    let caller = names::pod(&source.snapshot, &check.from)?;
    let uri = http::Uri::from_str(&check.to)
        .map_err(|error| Failure::bad_input(format!("--to {:?} is not a URL: {error}", check.to)))?;
    let explanation = explain(&source.snapshot, &caller, &uri, check)?;
    let reachable = explanation.verdict.is_reachable();
    let checked = checked(explanation, source.findings);
    answer(checked).print(globals.output)?;
    Ok(verdict(reachable))
}

fn explain(
    snapshot: &Snapshot,
    caller: &Workload,
    uri: &http::Uri,
    check: &RouteCheck,
) -> Result<RouteExplanation, Failure> {
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().ok_or_else(|| Failure::bad_input(format!("--to {:?} names no host", check.to)))?;
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let to = destination(snapshot, caller, host, port);
    let headers = names::headers(&check.headers)?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str()).to_ascii_lowercase();
    let path = path::normalize(uri.path(), snapshot.mesh().path_normalization);
    let head = RequestHead {
        method: &check.method,
        scheme,
        authority: &authority,
        path: &path,
        query: uri.query(),
        headers: &headers,
    };
    Ok(explain_route(snapshot, caller, &to, Some(&head)))
}

/// The host as a resolver in the caller's pod would complete it.
fn destination(snapshot: &Snapshot, caller: &Workload, host: &str, port: u16) -> To {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return To::Address((ip, port).into());
    }
    let candidates = [
        host.to_owned(),
        format!("{host}.{}.svc.cluster.local", caller.namespace),
        format!("{host}.svc.cluster.local"),
        format!("{host}.cluster.local"),
    ];
    let known =
        candidates.iter().map(|name| Hostname::new(name)).find(|name| snapshot.service(name).is_some());
    To::Host(known.unwrap_or_else(|| Hostname::new(host)), port)
}

fn checked(explanation: RouteExplanation, findings: Vec<String>) -> Checked {
    let mut checked = Checked {
        reachable: explanation.verdict.is_reachable(),
        verdict: String::new(),
        rule: None,
        timeout: None,
        retries: 0,
        shares: Vec::new(),
        steps: steps(explanation.steps),
        findings,
    };
    match explanation.verdict {
        RouteVerdict::Request { rule, shares, timeout, retry } => {
            checked.rule = rule;
            checked.verdict = match &checked.rule {
                Some(rule) => format!("routed by {rule}"),
                None => "default routing: no HTTPRoute or VirtualService for this host".to_owned(),
            };
            checked.timeout = timeout.map(|timeout| format!("{timeout:?}"));
            checked.retries = retry.attempts;
            checked.shares = shares
                .into_iter()
                .map(|share| {
                    let named = share.destination.map(|to| {
                        let subset = to.subset.map(|subset| format!(" subset {subset}")).unwrap_or_default();
                        format!("{}{subset}", to.host)
                    });
                    match share.target {
                        Ok(target) => row(share.share, named, &target),
                        Err(refusal) => ShareRow {
                            share: share.share,
                            to: named.unwrap_or_default(),
                            endpoints: Vec::new(),
                            error: Some(refusal.to_string()),
                        },
                    }
                })
                .collect();
        }
        RouteVerdict::Connection(target) => {
            checked.verdict = "opaque connection: HTTP routes do not apply to this port".to_owned();
            checked.shares.push(row(1.0, None, &target));
        }
        RouteVerdict::Workload(pod) => {
            checked.verdict = format!("straight to pod {}/{}", pod.workload.namespace, pod.workload.name);
            let to = format!("pod {}/{}", pod.workload.namespace, pod.workload.name);
            checked.shares.push(ShareRow {
                share: 1.0,
                to,
                endpoints: vec![pod.addr.to_string()],
                error: None,
            });
        }
        RouteVerdict::Passthrough(addr) => {
            checked.verdict = format!("passed through to {addr}: it is not of the mesh");
        }
        RouteVerdict::UnknownHost(host) => {
            checked.verdict =
                format!("no service is called {host}; where it goes depends on the address it resolves to");
        }
        RouteVerdict::Refused(refusal) => checked.verdict = format!("refused: {refusal}"),
    }
    checked
}

fn row(share: f64, named: Option<String>, target: &Target) -> ShareRow {
    ShareRow {
        share,
        to: named.unwrap_or_else(|| target.service.key.host.to_string()),
        endpoints: target
            .candidates
            .iter()
            .map(|candidate| format!("{} ({})", candidate.workload.name, candidate.addr))
            .collect(),
        error: None,
    }
}

fn answer(checked: Checked) -> Answer<Checked> {
    let mut summary = vec![checked.verdict.clone()];
    summary.extend(checked.timeout.iter().map(|timeout| format!("timeout {timeout}")));
    if checked.retries > 0 {
        summary.push(format!("up to {} retries", checked.retries));
    }
    summary.extend(checked.findings.iter().map(|finding| format!("finding: {finding}")));
    let shares = Grid {
        title: String::new(),
        head: vec!["SHARE", "TO", "ENDPOINTS"],
        rows: checked
            .shares
            .iter()
            .map(|share| {
                let endpoints = share.error.clone().unwrap_or_else(|| share.endpoints.join(", "));
                vec![format!("{:.1} %", share.share * 100.0), share.to.clone(), endpoints]
            })
            .collect(),
        wide_from: 3,
    };
    let why = why(&checked.steps);
    let names = checked.shares.iter().map(|share| share.to.clone()).collect();
    Answer { kind: "RouteCheck", data: checked, summary, tables: vec![shares, why], names }
}

/// The model's steps, as rows.
pub fn steps(steps: Vec<Step>) -> Vec<StepRow> {
    steps
        .into_iter()
        .map(|step| StepRow { subject: step.subject, outcome: step.outcome.to_string(), reason: step.reason })
        .collect()
}

/// The table of what was looked at.
pub fn why(steps: &[StepRow]) -> Grid {
    Grid {
        title: "Why".to_owned(),
        head: vec!["LOOKED AT", "OUTCOME", "BECAUSE"],
        rows: steps
            .iter()
            .map(|step| vec![step.subject.clone(), step.outcome.clone(), step.reason.clone()])
            .collect(),
        wide_from: 3,
    }
}
