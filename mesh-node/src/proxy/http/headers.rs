//! Headers on their way through a proxy (RFC 9110 §7.6.1), and those that Istio's proxies set.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{self, CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery},
};
use mesh_model::{
    identity::Identity, mesh::PathNormalization, path::normalize, request::RequestHead, route::HeaderEdits,
};

use super::answer::Answer;

/// Who called, as the destination's side proved it. A caller's own copy is never passed on.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// One request through all its hops.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The number of the try, from 1.
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// Milliseconds until the upstream's headers.
pub const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// A response that was limited at its origin.
pub const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// Set by the destination's side of a tunnel on an answer of its own: `connect` or `reset`, why the application gave none. The
/// source's side knows by it that this try failed. Taken off whatever an application sends.
pub const FAILED: HeaderName = HeaderName::from_static("x-tulle-failed");
/// The application could not be connected to.
pub const FAILED_CONNECT: HeaderValue = HeaderValue::from_static("connect");
/// The application's connection broke before its answer.
pub const FAILED_RESET: HeaderValue = HeaderValue::from_static("reset");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// By these a client would steer Envoy; who may set our routes is decided elsewhere, so they are taken off.
static STEERING: [HeaderName; 6] = [
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-internal"),
];

/// The parts of a request that decisions look at, made unambiguous.
#[derive(Clone, Debug)]
pub struct Target {
    /// Lower-cased, with its port if it had one.
    pub authority: Box<str>,
    /// Normalised, origin-form: what is matched is what is forwarded.
    pub uri: Uri,
    /// The authority came with the target, and Host may say something else.
    replaces_host: bool,
}

impl Target {
    /// Reads and normalises; a request that could be read in two ways is refused (RFC 9112 §3.2, §6.1), and one whose target and headers
    /// are larger than `most` bytes.
    pub fn read(parts: &http::request::Parts, how: PathNormalization, most: usize) -> Result<Self, Answer> {
        let headers = &parts.headers;
        if size_of_head(parts) > most {
            return Err(Answer::head_too_large());
        }
        if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Answer::bad_request("http1.content_length_and_chunked_not_allowed"));
        }
        if parts.method == Method::CONNECT {
            // No route of ours leads through a tunnel of the caller's own.
            return Err(Answer::bad_request("connect_not_allowed"));
        }
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Answer::bad_request("http1.multiple_hosts"));
        }
        // In absolute-form the target counts, whatever Host says (RFC 9112 §3.2.2).
        let authority = match (parts.uri.authority(), host) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().map_err(|_| Answer::bad_request("http1.invalid_host"))?,
            (None, None) if parts.version == Version::HTTP_10 => "",
            (None, None) => return Err(Answer::bad_request("missing_host_header")),
        };
        if !is_host(authority) {
            return Err(Answer::bad_request("http1.invalid_host"));
        }
        let authority = authority.to_ascii_lowercase().into_boxed_str();
        let replaces_host = parts.uri.authority().is_some();
        Ok(Self { authority, uri: normalized(&parts.uri, how)?, replaces_host })
    }

    /// What policies and routes look at.
    pub fn head<'a>(&'a self, method: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
        RequestHead {
            method,
            scheme: "http",
            authority: &self.authority,
            path: self.uri.path(),
            query: self.uri.query(),
            headers,
        }
    }
}

/// Bytes of the target and of every header line. The parser bounds what it buffers, which may be more than one head.
fn size_of_head(parts: &http::request::Parts) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let lines = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS);
    target + lines.sum::<usize>()
}

/// Whether this is a host with or without a port, or nothing at all (RFC 9112 §3.2). A user before an `@` is read as host by some.
fn is_host(text: &str) -> bool {
    text.is_empty() || (!text.contains('@') && text.parse::<Authority>().is_ok())
}

/// The origin-form of a target with a normalised path.
fn normalized(uri: &Uri, how: PathNormalization) -> Result<Uri, Answer> {
    let path = normalize(uri.path(), how);
    if path == uri.path() && uri.authority().is_none() {
        return Ok(uri.clone());
    }
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let target =
        PathAndQuery::try_from(text).map_err(|_| Answer::bad_request("path_normalization_failed"))?;
    Ok(Uri::from(target))
}

/// Takes off what concerns one hop only; says whether the message asks for an upgrade (which is then kept).
pub fn take_off_hop(headers: &mut HeaderMap) -> bool {
    let mut upgrade = false;
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| {
            let token = token.trim();
            upgrade |= token.eq_ignore_ascii_case("upgrade");
            HeaderName::try_from(token).ok()
        })
        .collect();
    let trailers = headers.get_all(TE).iter().any(takes_trailers);
    upgrade &= headers.contains_key(UPGRADE) && !headers.get_all(UPGRADE).iter().any(hides_requests);
    for name in named {
        // A message cannot name its own framing or its host as something to be dropped.
        let kept = [UPGRADE, HOST, header::CONTENT_LENGTH, CONNECTION].contains(&name);
        if !kept {
            headers.remove(name);
        }
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRANSFER_ENCODING] {
        headers.remove(name);
    }
    // We pass trailers on, so whoever is behind us may be told that they are welcome.
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
    upgrade
}

/// Whether this value of TE (RFC 9110 §10.1.4) says that trailers are welcome.
fn takes_trailers(te: &HeaderValue) -> bool {
    let named =
        |codings: &str| codings.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    te.to_str().is_ok_and(named)
}

/// Whether requests would go on after the upgrade in a form that nobody here reads: no policy would see them. Such an offer may be
/// ignored (RFC 9110 §7.8).
fn hides_requests(upgrade: &HeaderValue) -> bool {
    let hides = |protocol: &str| {
        let name = protocol.split('/').next().unwrap_or_default().trim();
        ["h2c", "h2", "h3", "http", "tls"].iter().any(|hiding| name.eq_ignore_ascii_case(hiding))
    };
    upgrade.to_str().map_or(true, |protocols| protocols.split(',').any(hides))
}

/// What the source's side adds to a request on its way out.
pub fn prepare_request(headers: &mut HeaderMap, target: &Target) {
    for name in &STEERING {
        headers.remove(name);
    }
    // The body is read as soon as the upstream wants it: the server that runs towards the caller has said 100 by then.
    headers.remove(header::EXPECT);
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(random_id().to_string())
    {
        headers.insert(REQUEST_ID, id);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    // What was judged is what the application hears (RFC 9112 §3.2.2).
    if (target.replaces_host || !headers.contains_key(HOST))
        && let Ok(host) = HeaderValue::try_from(&*target.authority)
    {
        headers.insert(HOST, host);
    }
}

/// A version 4 UUID from this thread's generator: no system call per request.
fn random_id() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// What the destination's side tells the application about the caller; whatever the caller said of itself is taken off.
pub fn name_caller(headers: &mut HeaderMap, by: &Identity, caller: Option<&Identity>) {
    headers.remove(CLIENT_CERT);
    if let Some(caller) = caller
        && let Ok(value) = HeaderValue::try_from(format!("By={by};URI={caller}"))
    {
        headers.insert(CLIENT_CERT, value);
    }
}

/// `headers.request` or `headers.response` of a route. Names and values that no message may carry are left out.
pub fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    if edits.is_empty() {
        return;
    }
    let parsed = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
    };
    for name in &edits.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in edits.set.iter().filter_map(parsed) {
        headers.insert(name, value);
    }
    for (name, value) in edits.add.iter().filter_map(parsed) {
        headers.append(name, value);
    }
}

/// A route may set the host, under either of its names; HTTP/1 knows only one.
pub fn authority_edit(edits: &HeaderEdits) -> Option<&str> {
    let named = |(name, _): &&(String, String)| {
        name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
    };
    edits.set.iter().find(named).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
