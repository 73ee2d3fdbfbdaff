//! `retries` of a route and `defaultHttpRetryPolicy` of the mesh.

use mesh_model::route::{RetryOn, RetryPolicy};

use super::value;
use crate::{
    diagnostic::{Code, Findings},
    object::virtual_service::HttpRetry,
};

/// Most further tries: Istio sets no bound, but each try costs the server one more request.
const MAX_ATTEMPTS: i64 = 100;

/// Reads the policy; `field` is its path.
pub(crate) fn read(retry: &HttpRetry, field: &str, findings: &mut Findings<'_>) -> RetryPolicy {
    let mut policy = RetryPolicy::mesh_default();
    match u32::try_from(retry.attempts) {
        Ok(attempts) if retry.attempts <= MAX_ATTEMPTS => policy.attempts = attempts,
        _ => findings.add(
            Code::Invalid,
            format!("{field}.attempts"),
            format!("{} is not a number of tries (0 to {MAX_ATTEMPTS})", retry.attempts),
        ),
    }
    let sets_more = retry.per_try_timeout.is_some() || retry.retry_on.is_some() || retry.backoff.is_some();
    if retry.attempts == 0 && sets_more {
        let message = "attempts is 0, which turns retries off: nothing else may be set with it";
        findings.add(Code::Invalid, format!("{field}.attempts"), message);
    }
    let per_try = format!("{field}.perTryTimeout");
    policy.per_try_timeout = value::duration_at(retry.per_try_timeout.as_ref(), &per_try, findings)
        .filter(|duration| !duration.is_zero());
    if let Some(backoff) = value::duration_at(retry.backoff.as_ref(), &format!("{field}.backoff"), findings)
        && !backoff.is_zero()
    {
        policy.backoff = backoff;
    }
    if let Some(text) = retry.retry_on.as_ref().filter(|text| !text.trim().is_empty()) {
        policy.on = conditions(text, &format!("{field}.retryOn"), findings);
    }
    if retry.retry_remote_localities == Some(true) {
        let message = "there are no localities yet: every endpoint is tried alike";
        findings.add(Code::NotImplemented, format!("{field}.retryRemoteLocalities"), message);
    }
    if retry.retry_ignore_previous_hosts == Some(false) {
        let message = "another endpoint is preferred at every retry, whatever is set here";
        findings.add(Code::NotImplemented, format!("{field}.retryIgnorePreviousHosts"), message);
    }
    policy
}

/// Reads the tokens. Envoy's `5xx`, `gateway-error` and `reset` each cover every reset before the response's headers, so the
/// narrower conditions are set with them.
fn conditions(text: &str, field: &str, findings: &mut Findings<'_>) -> RetryOn {
    let mut on = RetryOn::default();
    for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match token {
            "5xx" => {
                on.server_error = true;
                on.gateway_error = true;
                any_reset(&mut on);
            }
            "gateway-error" => {
                on.gateway_error = true;
                any_reset(&mut on);
            }
            "reset" => any_reset(&mut on),
            "reset-before-request" => on.reset_before_request = true,
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "retriable-4xx" => on.retriable_4xx = true,
            "envoy-ratelimited" => on.rate_limited = true,
            "cancelled" => on.grpc.push(1),
            "deadline-exceeded" => on.grpc.push(4),
            "resource-exhausted" => on.grpc.push(8),
            "internal" => on.grpc.push(13),
            "unavailable" => on.grpc.push(14),
            // Asks for the statuses in the list, which are read below.
            "retriable-status-codes" => (),
            "retriable-headers" | "http3-post-connect-failure" => findings.add(
                Code::NotImplemented,
                field,
                format!("{token} is not implemented yet: it never causes a retry"),
            ),
            other => match other.parse::<u16>() {
                Ok(status) if (100..=599).contains(&status) => on.statuses.push(status),
                _ => findings.add(Code::Invalid, field, format!("{other:?} is not a condition for a retry")),
            },
        }
    }
    on.statuses.sort_unstable();
    on.grpc.sort_unstable();
    on
}

fn any_reset(on: &mut RetryOn) {
    on.reset = true;
    on.reset_before_request = true;
    on.connect_failure = true;
    on.refused_stream = true;
}
