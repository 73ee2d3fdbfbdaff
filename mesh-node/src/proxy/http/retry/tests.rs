//! Which failures are tried again, and how long is waited.

use super::*;

fn response(status: u16) -> (StatusCode, HeaderMap) {
    (StatusCode::from_u16(status).unwrap(), HeaderMap::new())
}

#[test]
fn tokens_mean_what_envoy_means() {
    let server_error = RetryOn { server_error: true, ..RetryOn::default() };
    let gateway = RetryOn { gateway_error: true, ..RetryOn::default() };
    let connect = RetryOn { connect_failure: true, ..RetryOn::default() };
    let reset = RetryOn { reset: true, ..RetryOn::default() };
    let asked = |on: &RetryOn, status: u16| {
        let (status, headers) = response(status);
        is_retriable(on, Came::Response(status, &headers))
    };
    assert!(asked(&server_error, 500) && asked(&server_error, 501) && asked(&server_error, 599));
    assert!(!asked(&server_error, 499));
    assert!(asked(&gateway, 502) && asked(&gateway, 503) && asked(&gateway, 504));
    assert!(!asked(&gateway, 500) && !asked(&gateway, 501));
    assert!(!asked(&connect, 503) && !asked(&reset, 503));

    for on in [&server_error, &gateway, &reset] {
        assert!(is_retriable(on, Came::Reset));
        assert!(is_retriable(on, Came::TryTimeout));
        assert!(is_retriable(on, Came::ConnectFailure));
    }
    assert!(is_retriable(&connect, Came::ConnectFailure));
    assert!(!is_retriable(&connect, Came::Reset));
    assert!(!is_retriable(&connect, Came::TryTimeout));
}

#[test]
fn a_rate_limited_answer_is_retried_only_by_its_own_token() {
    let mut headers = HeaderMap::new();
    headers.insert(RATE_LIMITED, "true".parse().unwrap());
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let on = RetryOn { server_error: true, ..RetryOn::default() };
    assert!(!is_retriable(&on, Came::Response(status, &headers)));
    let on = RetryOn { rate_limited: true, ..RetryOn::default() };
    assert!(is_retriable(&on, Came::Response(status, &headers)));
}

#[test]
fn the_pause_grows_to_its_cap_and_is_jittered() {
    let policy = RetryPolicy::mesh_default();
    assert_eq!(pause(&policy, 1, 0.0), Duration::ZERO);
    assert_eq!(pause(&policy, 1, 1.0), Duration::from_millis(25));
    assert_eq!(pause(&policy, 2, 1.0), Duration::from_millis(75));
    assert_eq!(pause(&policy, 3, 1.0), Duration::from_millis(175));
    assert_eq!(pause(&policy, 4, 1.0), Duration::from_millis(250));
    assert_eq!(pause(&policy, 30, 1.0), Duration::from_millis(250));
}
