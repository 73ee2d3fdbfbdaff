//! When a failed try is worth another, and after how long (Envoy's meaning of the `retryOn` tokens, as Istio documents it).

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mesh_model::route::{RetryOn, RetryPolicy};

use super::headers::RATE_LIMITED;

/// How a try failed, or what it came back with.
#[derive(Clone, Copy, Debug)]
pub enum Came<'a> {
    /// The connection could not be made.
    ConnectFailure,
    /// The connection broke before the response's headers; the request may have been seen.
    Reset,
    /// `perTryTimeout` was over.
    TryTimeout,
    /// An answer.
    Response(StatusCode, &'a HeaderMap),
}

/// Whether the policy names this failure. Whether tries are left, and the body can be sent again, is not asked here.
pub fn is_retriable(on: &RetryOn, came: Came<'_>) -> bool {
    // A reset would have been a 5xx, so both families include every kind of it.
    let any_reset = on.server_error || on.gateway_error || on.reset;
    match came {
        Came::ConnectFailure => any_reset || on.connect_failure || on.reset_before_request,
        Came::Reset | Came::TryTimeout => any_reset,
        Came::Response(_, headers) if headers.contains_key(RATE_LIMITED) => on.rate_limited,
        Came::Response(status, headers) => {
            let code = status.as_u16();
            (on.server_error && status.is_server_error())
                || (on.gateway_error && matches!(code, 502..=504))
                || (on.retriable_4xx && code == 409)
                || on.statuses.contains(&code)
                || grpc_status(headers).is_some_and(|status| on.grpc.contains(&status))
        }
    }
}

/// `grpc-status` among the headers: a response without a body.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The pause before retry number `retry` (from 1): fully jittered, `rand[0, (2^N - 1) · base)`, at most ten times the base.
pub fn pause(policy: &RetryPolicy, retry: u32, draw: f64) -> Duration {
    let steps = (1_u32 << retry.min(10)) - 1;
    let longest = (policy.backoff * steps).min(policy.backoff * 10);
    longest.mul_f64(draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
