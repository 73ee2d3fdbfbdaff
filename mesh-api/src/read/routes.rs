//! VirtualService -> HTTP rules, hosts still as written.

use std::collections::BTreeMap;

use mesh_model::{
    name::{Hostname, Namespace, SubsetName},
    route::{Destination, HeaderEdits, HttpMatch, HttpRule, RetryPolicy, WeightedDestination},
    text::StringMatch,
};

use super::{retry, value};
use crate::{
    diagnostic::{Code, Findings},
    object::{
        istio,
        virtual_service::{
            HeaderOperations, Headers, HttpMatchRequest, HttpRoute, HttpRouteDestination, VirtualServiceSpec,
        },
    },
};

/// The gateway that stands for every workload of the mesh.
const MESH: &str = "mesh";

/// Whether gateways named here include the mesh.
pub(crate) fn is_for_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// Reads the rules, each with its place in `http`. `default_retry` is for rules without `retries`. Rules that are only for gateways
/// are left out.
pub(crate) fn read(
    spec: &VirtualServiceSpec,
    default_retry: &RetryPolicy,
    findings: &mut Findings<'_>,
) -> Vec<(usize, HttpRule)> {
    if spec.hosts.is_empty() {
        findings.add(Code::Invalid, "spec.hosts", "at least one host is needed");
    }
    for (number, host) in spec.hosts.iter().enumerate() {
        if let Err(problem) = value::host(host) {
            findings.add(Code::Invalid, format!("spec.hosts[{number}]"), problem);
        }
    }
    if !is_for_mesh(&spec.gateways) {
        let message =
            "gateways are not implemented yet and `mesh` is not among them: the object has no effect";
        findings.add(Code::NotImplemented, "spec.gateways", message);
    }
    for (name, part) in [("tls", &spec.tls), ("tcp", &spec.tcp)] {
        if part.is_some() {
            let message =
                format!("{name} routes are not implemented yet: such ports go to the service as a whole");
            findings.add(Code::NotImplemented, format!("spec.{name}"), message);
        }
    }
    if spec.http.is_empty() && spec.tls.is_none() && spec.tcp.is_none() {
        findings.add(Code::Invalid, "spec", "at least one of http, tls, tcp is needed");
    }
    let rules = spec.http.iter().enumerate();
    rules
        .filter_map(|(number, route)| Some((number, rule(number, route, default_retry, findings)?)))
        .collect()
}

fn rule(
    number: usize,
    route: &HttpRoute,
    default_retry: &RetryPolicy,
    findings: &mut Findings<'_>,
) -> Option<HttpRule> {
    let at = format!("spec.http[{number}]");
    name_unimplemented(route, &at, findings);
    let matches: Vec<HttpMatch> = route
        .matches
        .iter()
        .enumerate()
        .filter(|(_, one)| is_for_mesh(&one.gateways))
        .map(|(index, one)| http_match(one, &format!("{at}.match[{index}]"), findings))
        .collect();
    let only_for_gateways = matches.is_empty() && !route.matches.is_empty();
    let destinations = destinations(&route.route, &at, findings);
    let (request_headers, response_headers) = header_edits(route.headers.as_ref(), &at, findings);
    let retry = match &route.retries {
        Some(retries) => retry::read(retries, &format!("{at}.retries"), findings),
        None => default_retry.clone(),
    };
    let timeout = value::duration_at(route.timeout.as_ref(), &format!("{at}.timeout"), findings)
        .filter(|timeout| !timeout.is_zero());
    let name = match route.name.is_empty() {
        true => format!("http[{number}]"),
        false => route.name.clone(),
    };
    (!only_for_gateways && !destinations.is_empty()).then_some(HttpRule {
        name,
        matches,
        destinations,
        timeout,
        retry,
        request_headers,
        response_headers,
    })
}

fn name_unimplemented(route: &HttpRoute, at: &str, findings: &mut Findings<'_>) {
    let essential = [
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
        ("rewrite", route.rewrite.is_some()),
    ];
    for (name, _) in essential.into_iter().filter(|(_, is_set)| *is_set) {
        let message =
            format!("{name} is not implemented yet, and without it the rule would mean something else");
        findings.add(Code::Unsupported, format!("{at}.{name}"), message);
    }
    let extras = [
        ("fault", route.fault.is_some(), "no fault is injected"),
        ("mirror", route.mirror.is_some(), "no request is copied"),
        ("mirrors", route.mirrors.is_some(), "no request is copied"),
        ("mirrorPercent", route.mirror_percent.is_some(), "no request is copied"),
        ("mirrorPercentage", route.mirror_percentage.is_some(), "no request is copied"),
        ("corsPolicy", route.cors_policy.is_some(), "no header of CORS is added"),
    ];
    for (name, _, effect) in extras.into_iter().filter(|(_, is_set, _)| *is_set) {
        findings.add(
            Code::NotImplemented,
            format!("{at}.{name}"),
            format!("{name} is not implemented yet: {effect}"),
        );
    }
}

fn http_match(from: &HttpMatchRequest, at: &str, findings: &mut Findings<'_>) -> HttpMatch {
    let mut text = |name: &str, one: &Option<istio::StringMatch>| {
        one.as_ref().and_then(|one| value::string_match(one, false, &format!("{at}.{name}"), findings))
    };
    let (uri, scheme) = (text("uri", &from.uri), text("scheme", &from.scheme));
    let (method, authority) = (text("method", &from.method), text("authority", &from.authority));
    let port = from.port.and_then(|number| match value::port(number) {
        Ok(port) => Some(port),
        Err(problem) => {
            findings.add(Code::Invalid, format!("{at}.port"), problem);
            None
        }
    });
    HttpMatch {
        name: from.name.clone(),
        uri,
        path_segments: None,
        ignore_uri_case: from.ignore_uri_case,
        scheme,
        method,
        authority,
        headers: header_matches(&from.headers, &format!("{at}.headers"), findings),
        without_headers: header_matches(&from.without_headers, &format!("{at}.withoutHeaders"), findings),
        query: text_matches(&from.query_params, &format!("{at}.queryParams"), findings),
        port,
        source_labels: from.source_labels.clone(),
        source_namespace: (!from.source_namespace.is_empty())
            .then(|| Namespace::new(from.source_namespace.as_str())),
    }
}

fn text_matches(
    from: &BTreeMap<String, istio::StringMatch>,
    at: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, StringMatch> {
    let read = from.iter().filter_map(|(name, one)| {
        Some((name.clone(), value::string_match(one, true, &format!("{at}.{name}"), findings)?))
    });
    read.collect()
}

fn header_matches(
    from: &BTreeMap<String, istio::StringMatch>,
    at: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, StringMatch> {
    for name in from.keys() {
        check_header_name(name, at, findings);
    }
    let matches = text_matches(from, at, findings);
    matches.into_iter().map(|(name, one)| (name.to_ascii_lowercase(), one)).collect()
}

/// Says so if the text is no header's name.
pub(super) fn check_header_name(name: &str, at: &str, findings: &mut Findings<'_>) {
    if http::HeaderName::try_from(name).is_err() {
        let message =
            format!("{name:?} is not a header's name (for path, method and host use uri, method, authority)");
        findings.add(Code::Invalid, format!("{at}.{name}"), message);
    }
}

fn destinations(
    routes: &[HttpRouteDestination],
    at: &str,
    findings: &mut Findings<'_>,
) -> Vec<WeightedDestination> {
    if routes.is_empty() {
        findings.add(Code::Invalid, format!("{at}.route"), "at least one destination is needed");
    }
    let total: i64 = routes.iter().filter_map(|route| route.weight).filter(|weight| *weight > 0).sum();
    if routes.len() > 1 && total == 0 {
        findings.add(Code::Invalid, format!("{at}.route"), "total destination weight = 0");
    }
    let read = routes.iter().enumerate();
    read.map(|(index, route)| destination(route, &format!("{at}.route[{index}]"), findings)).collect()
}

fn destination(route: &HttpRouteDestination, at: &str, findings: &mut Findings<'_>) -> WeightedDestination {
    let to = &route.destination;
    if let Err(problem) = value::host(&to.host) {
        findings.add(Code::Invalid, format!("{at}.destination.host"), problem);
    } else if to.host.contains('*') {
        findings.add(Code::Invalid, format!("{at}.destination.host"), "a destination cannot be a wildcard");
    }
    let port = to.port.as_ref().and_then(|port| match port.number.map(value::port) {
        Some(Ok(port)) => Some(port),
        Some(Err(problem)) => {
            findings.add(Code::Invalid, format!("{at}.destination.port.number"), problem);
            None
        }
        None => {
            findings.add(Code::Invalid, format!("{at}.destination.port"), "the port needs a number");
            None
        }
    });
    // Weights add up in u32: a thousand destinations of the greatest weight still fit.
    let weight = route.weight.unwrap_or(0);
    let weight = u32::try_from(weight).ok().filter(|weight| *weight <= 4_000_000).unwrap_or_else(|| {
        findings.add(
            Code::Invalid,
            format!("{at}.weight"),
            format!("{weight} is not a weight (0 to 4000000)"),
        );
        0
    });
    let (request_headers, response_headers) = header_edits(route.headers.as_ref(), at, findings);
    WeightedDestination {
        destination: Destination {
            host: Hostname::new(&to.host),
            subset: (!to.subset.is_empty()).then(|| SubsetName::new(to.subset.as_str())),
            port,
        },
        invalid: None,
        weight,
        request_headers,
        response_headers,
    }
}

fn header_edits(
    headers: Option<&Headers>,
    at: &str,
    findings: &mut Findings<'_>,
) -> (HeaderEdits, HeaderEdits) {
    let Some(headers) = headers else { return Default::default() };
    let mut edits = |name: &str, operations: &Option<HeaderOperations>| match operations {
        Some(operations) => operations_of(operations, &format!("{at}.headers.{name}"), findings),
        None => HeaderEdits::default(),
    };
    (edits("request", &headers.request), edits("response", &headers.response))
}

fn operations_of(from: &HeaderOperations, at: &str, findings: &mut Findings<'_>) -> HeaderEdits {
    let mut pairs = |name: &str, map: &BTreeMap<String, String>| {
        let at = format!("{at}.{name}");
        for (name, value) in map {
            check_header_name(name, &at, findings);
            if http::HeaderValue::try_from(value.as_str()).is_err() {
                findings.add(
                    Code::Invalid,
                    format!("{at}.{name}"),
                    "the value has characters no header may have",
                );
            }
        }
        map.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    };
    let (set, add) = (pairs("set", &from.set), pairs("add", &from.add));
    for name in &from.remove {
        check_header_name(name, &format!("{at}.remove"), findings);
    }
    HeaderEdits { set, add, remove: from.remove.iter().map(|name| name.to_ascii_lowercase()).collect() }
}
