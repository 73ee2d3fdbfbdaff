//! HTTPRoute -> rules in the model's words, backends still as written.
//!
//! What is wrong with a route, or not built, is an error here and refuses the route as a whole, which its status tells: half a route would
//! mean something else. It is not refused at admission, because a refused object has no status.

use std::{collections::BTreeMap, time::Duration};

use mesh_model::{
    route::{HeaderEdits, HttpMatch},
    text::{Pattern, StringMatch},
};

use super::{routes::check_header_name, value};
use crate::{
    diagnostic::{Code, Findings},
    object::http_route::{
        HeaderFilter, HttpBackendRef, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, HttpRouteSpec,
        NamedMatch, NamedValue,
    },
};

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule<'a> {
    /// Its name, or its number.
    pub(crate) name: String,
    /// At least one.
    pub(crate) matches: Vec<(Precedence, HttpMatch)>,
    pub(crate) backends: Vec<Backend<'a>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) per_try_timeout: Option<Duration>,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
}

/// A share of a rule's traffic.
#[derive(Clone, Debug)]
pub(crate) struct Backend<'a> {
    pub(crate) written: &'a HttpBackendRef,
    /// Where it is written.
    pub(crate) field: String,
    pub(crate) weight: u32,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
}

/// Of two matches that a request fulfils, the greater is used. The order of the fields is the specification's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Precedence {
    path: PathRank,
    has_method: bool,
    headers: usize,
    query_parameters: usize,
}

/// Where a regular expression stands is for the implementation to say: below `/`, which every route without a path has, it would never
/// be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum PathRank {
    /// With its length in bytes, without the slash at its end.
    Prefix(usize),
    Regex,
    Exact,
}

/// The most weight that the API lets a backend have.
const MAX_WEIGHT: u32 = 1_000_000;

/// Reads the rules. An error among the findings means that the route cannot be used.
pub(crate) fn read<'a>(spec: &'a HttpRouteSpec, findings: &mut Findings<'_>) -> Vec<Rule<'a>> {
    if !spec.hostnames.is_empty() {
        let message = "hostnames have no effect on requests to a Service: they are told by its address";
        findings.add(Code::IneffectiveMatch, "spec.hostnames", message);
    }
    let rules = spec.rules.iter().enumerate();
    rules.map(|(number, written)| rule(number, written, findings)).collect()
}

fn rule<'a>(number: usize, written: &'a HttpRouteRule, findings: &mut Findings<'_>) -> Rule<'a> {
    let at = format!("spec.rules[{number}]");
    for (name, part) in [("retry", &written.retry), ("sessionPersistence", &written.session_persistence)] {
        if part.is_some() {
            unsupported(name, &format!("{at}.{name}"), findings);
        }
    }
    let everything = [HttpRouteMatch::default()];
    let matches: &[HttpRouteMatch] = if written.matches.is_empty() { &everything } else { &written.matches };
    let numbered = matches.iter().enumerate();
    let matches =
        numbered.map(|(index, one)| http_match(one, &format!("matches[{index}]"), &at, findings)).collect();
    let backends = written.backend_refs.iter().enumerate();
    let backends =
        backends.map(|(index, one)| backend(one, format!("{at}.backendRefs[{index}]"), findings)).collect();
    let (request_headers, response_headers) = filters(&written.filters, &at, findings);
    let timeouts = written.timeouts.clone().unwrap_or_default();
    let mut limit = |text: &Option<String>, name: &str| {
        value::duration_at(text.as_ref(), &format!("{at}.timeouts.{name}"), findings)
            .filter(|limit| !limit.is_zero())
    };
    Rule {
        name: written.name.clone().unwrap_or_else(|| number.to_string()),
        matches,
        backends,
        timeout: limit(&timeouts.request, "request"),
        per_try_timeout: limit(&timeouts.backend_request, "backendRequest"),
        request_headers,
        response_headers,
    }
}

fn http_match(
    written: &HttpRouteMatch,
    name: &str,
    rule: &str,
    findings: &mut Findings<'_>,
) -> (Precedence, HttpMatch) {
    let at = format!("{rule}.{name}");
    let mut wanted = HttpMatch { name: name.to_owned(), ..HttpMatch::default() };
    let path = path_match(written, &mut wanted, &at, findings);
    wanted.method = written.method.clone().map(StringMatch::Exact);
    for (number, header) in written.headers.iter().enumerate() {
        let field = format!("{at}.headers[{number}]");
        check_header_name(&header.name, &field, findings);
        add_match(&mut wanted.headers, header.name.to_ascii_lowercase(), header, &field, findings);
    }
    for (number, parameter) in written.query_params.iter().enumerate() {
        let field = format!("{at}.queryParams[{number}]");
        add_match(&mut wanted.query, parameter.name.clone(), parameter, &field, findings);
    }
    let precedence = Precedence {
        path,
        has_method: wanted.method.is_some(),
        headers: wanted.headers.len(),
        query_parameters: wanted.query.len(),
    };
    (precedence, wanted)
}

fn path_match(
    written: &HttpRouteMatch,
    wanted: &mut HttpMatch,
    at: &str,
    findings: &mut Findings<'_>,
) -> PathRank {
    let path = written.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    match path.kind.as_deref().unwrap_or("PathPrefix") {
        "Exact" => {
            wanted.uri = Some(StringMatch::Exact(value));
            PathRank::Exact
        }
        "PathPrefix" => {
            let prefix = value.trim_end_matches('/');
            wanted.path_segments = (!prefix.is_empty()).then(|| prefix.to_owned());
            PathRank::Prefix(prefix.len())
        }
        "RegularExpression" => {
            wanted.uri = regex(&value, &format!("{at}.path.value"), findings);
            PathRank::Regex
        }
        other => {
            unsupported(&format!("the path type {other:?}"), &format!("{at}.path.type"), findings);
            PathRank::Exact
        }
    }
}

/// Of several entries with one name, the first counts.
fn add_match(
    to: &mut BTreeMap<String, StringMatch>,
    name: String,
    written: &NamedMatch,
    at: &str,
    findings: &mut Findings<'_>,
) {
    let wanted = match written.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Some(StringMatch::Exact(written.value.clone())),
        "RegularExpression" => regex(&written.value, &format!("{at}.value"), findings),
        other => {
            unsupported(&format!("the match type {other:?}"), &format!("{at}.type"), findings);
            None
        }
    };
    if let Some(wanted) = wanted {
        to.entry(name).or_insert(wanted);
    }
}

fn regex(text: &str, field: &str, findings: &mut Findings<'_>) -> Option<StringMatch> {
    match Pattern::new(text) {
        Ok(pattern) => Some(StringMatch::Regex(pattern)),
        Err(problem) => {
            findings.add(Code::BadPattern, field, problem.to_string());
            None
        }
    }
}

fn backend<'a>(written: &'a HttpBackendRef, field: String, findings: &mut Findings<'_>) -> Backend<'a> {
    let weight = written.weight.unwrap_or(1);
    let weight = u32::try_from(weight).ok().filter(|weight| *weight <= MAX_WEIGHT).unwrap_or_else(|| {
        let message = format!("{weight} is not a weight (0 to {MAX_WEIGHT})");
        findings.add(Code::Invalid, format!("{field}.weight"), message);
        0
    });
    let (request_headers, response_headers) = filters(&written.filters, &field, findings);
    Backend { written, field, weight, request_headers, response_headers }
}

/// The changes to request and response.
fn filters(written: &[HttpRouteFilter], at: &str, findings: &mut Findings<'_>) -> (HeaderEdits, HeaderEdits) {
    let (mut request, mut response) = (None, None);
    for (number, filter) in written.iter().enumerate() {
        let at = format!("{at}.filters[{number}]");
        let (edits, modifier, name) = match filter.kind.as_str() {
            "RequestHeaderModifier" => {
                (&mut request, &filter.request_header_modifier, "requestHeaderModifier")
            }
            "ResponseHeaderModifier" => {
                (&mut response, &filter.response_header_modifier, "responseHeaderModifier")
            }
            other => {
                unsupported(&format!("the filter {other}"), &format!("{at}.type"), findings);
                continue;
            }
        };
        let at = format!("{at}.{name}");
        match modifier {
            _ if edits.is_some() => findings.add(Code::Invalid, at, "there is one of this type already"),
            None => findings.add(Code::Invalid, at, "the type names it, and it is not there"),
            Some(modifier) => *edits = Some(header_edits(modifier, &at, findings)),
        }
    }
    (request.unwrap_or_default(), response.unwrap_or_default())
}

fn header_edits(from: &HeaderFilter, at: &str, findings: &mut Findings<'_>) -> HeaderEdits {
    let mut pairs = |name: &str, list: &[NamedValue]| {
        let mut pairs = Vec::new();
        for (number, header) in list.iter().enumerate() {
            let at = format!("{at}.{name}[{number}]");
            check_header_name(&header.name, &at, findings);
            if http::HeaderValue::try_from(header.value.as_str()).is_err() {
                findings.add(Code::Invalid, at, "the value has characters no header may have");
            }
            pairs.push((header.name.to_ascii_lowercase(), header.value.clone()));
        }
        pairs
    };
    let (set, add) = (pairs("set", &from.set), pairs("add", &from.add));
    for name in &from.remove {
        check_header_name(name, &format!("{at}.remove"), findings);
    }
    HeaderEdits { set, add, remove: from.remove.iter().map(|name| name.to_ascii_lowercase()).collect() }
}

fn unsupported(what: &str, field: &str, findings: &mut Findings<'_>) {
    let message = format!("{what} is not implemented, and without it the route would mean something else");
    findings.add(Code::Unsupported, field, message);
}
