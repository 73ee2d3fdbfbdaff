//! What a decision may look at in an HTTP request.
//!
//! Invariant: `path` is already normalised (see [`crate::path`]) and carries no query; policy and route see the same one.

use http::HeaderMap;

/// The head of a request, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `GET`, upper case as sent. gRPC is `POST`.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `Host` or `:authority`, lower-cased, with its port if it had one.
    pub authority: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
}
