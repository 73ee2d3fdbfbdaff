//! Route tables.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    name::SubsetName,
    route::{
        Destination, HeaderEdits, HttpMatch, HttpRule, RetryOn, RetryPolicy, RouteSource, RouteTable,
        WeightedDestination,
    },
    text::StringMatch,
};

use super::{
    error::{DecodeError, Located, Problem, list, required},
    scalar::{
        duration, header_name, header_value, host, namespace, number, object_key, port, string_match, text,
        visibility,
    },
};
use crate::v1;

pub(super) fn routes(wire: v1::RouteTable) -> Result<RouteTable, DecodeError> {
    Ok(RouteTable {
        key: object_key(required("key", wire.key)?).at("key")?,
        hosts: list("hosts", wire.hosts, host)?,
        export_to: visibility(wire.export_to)?,
        created: wire.created,
        source: match wire.gateway_port.map(port).transpose().at("gateway_port")? {
            None => RouteSource::VirtualService,
            Some(port) => RouteSource::Gateway { port },
        },
        rules: list("rules", wire.rules, |rule| http_rule(rule).map(Arc::new))?,
    })
}

fn http_rule(wire: v1::HttpRule) -> Result<HttpRule, DecodeError> {
    Ok(HttpRule {
        name: wire.name,
        matches: list("matches", wire.matches, http_match)?,
        destinations: destinations(wire.destinations)?,
        timeout: wire.timeout.map(duration),
        retry: retry(required("retry", wire.retry)?).at("retry")?,
        request_headers: edits(wire.request_headers).at("request_headers")?,
        response_headers: edits(wire.response_headers).at("response_headers")?,
    })
}

/// There is one at least; of several, one at least has a weight.
fn destinations(wire: Vec<v1::WeightedDestination>) -> Result<Vec<WeightedDestination>, DecodeError> {
    let destinations = list("destinations", wire, weighted)?;
    match destinations.as_slice() {
        [] => Err(Problem::Empty).at("destinations"),
        [_, _, ..] if destinations.iter().all(|destination| destination.weight == 0) => {
            Err(Problem::NoWeight).at("destinations")
        }
        _ => Ok(destinations),
    }
}

fn weighted(wire: v1::WeightedDestination) -> Result<WeightedDestination, DecodeError> {
    Ok(WeightedDestination {
        destination: Destination {
            host: host(wire.host).at("host")?,
            subset: wire.subset.map(text).transpose().at("subset")?.map(SubsetName::new),
            port: wire.port.map(port).transpose().at("port")?,
        },
        invalid: wire.invalid,
        weight: wire.weight,
        request_headers: edits(wire.request_headers).at("request_headers")?,
        response_headers: edits(wire.response_headers).at("response_headers")?,
    })
}

fn http_match(wire: v1::HttpMatch) -> Result<HttpMatch, DecodeError> {
    let string = |wire: Option<v1::StringMatch>| wire.map(string_match).transpose();
    Ok(HttpMatch {
        name: wire.name,
        uri: string(wire.uri).at("uri")?,
        path_segments: wire.path_segments.map(text).transpose().at("path_segments")?,
        ignore_uri_case: wire.ignore_uri_case,
        scheme: string(wire.scheme).at("scheme")?,
        method: string(wire.method).at("method")?,
        authority: string(wire.authority).at("authority")?,
        headers: string_matches("headers", wire.headers, |name| header_name(name, true))?,
        without_headers: string_matches("without_headers", wire.without_headers, |name| {
            header_name(name, true)
        })?,
        query: string_matches("query", wire.query, text)?,
        port: wire.port.map(port).transpose().at("port")?,
        source_labels: wire.source_labels,
        source_namespace: wire.source_namespace.map(namespace).transpose().at("source_namespace")?,
    })
}

fn string_matches(
    field: &str,
    wire: BTreeMap<String, v1::StringMatch>,
    name: impl Fn(String) -> Result<String, Problem>,
) -> Result<BTreeMap<String, StringMatch>, DecodeError> {
    wire.into_iter()
        .map(|(key, value)| {
            Ok((name(key.clone()).at_item(field, &key)?, string_match(value).at_item(field, &key)?))
        })
        .collect()
}

fn edits(wire: Option<v1::HeaderEdits>) -> Result<HeaderEdits, DecodeError> {
    let wire = wire.unwrap_or_default();
    Ok(HeaderEdits {
        set: list("set", wire.set, pair)?,
        add: list("add", wire.add, pair)?,
        remove: list("remove", wire.remove, |name| header_name(name, false))?,
    })
}

fn pair(wire: v1::HeaderPair) -> Result<(String, String), DecodeError> {
    Ok((header_name(wire.name, false).at("name")?, header_value(wire.value).at("value")?))
}

pub(super) fn retry(wire: v1::RetryPolicy) -> Result<RetryPolicy, DecodeError> {
    Ok(RetryPolicy {
        attempts: wire.attempts,
        per_try_timeout: wire.per_try_timeout.map(duration),
        on: retry_on(required("on", wire.on)?).at("on")?,
        backoff: duration(required("backoff", wire.backoff)?),
    })
}

fn retry_on(wire: v1::RetryOn) -> Result<RetryOn, DecodeError> {
    Ok(RetryOn {
        server_error: wire.server_error,
        gateway_error: wire.gateway_error,
        reset: wire.reset,
        reset_before_request: wire.reset_before_request,
        connect_failure: wire.connect_failure,
        refused_stream: wire.refused_stream,
        retriable_4xx: wire.retriable_4xx,
        rate_limited: wire.rate_limited,
        statuses: list("statuses", wire.statuses, |status| number(status, 100, 999))?,
        grpc: list("grpc", wire.grpc, |status| number(status, 0, 16))?,
    })
}
