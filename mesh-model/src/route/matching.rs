//! Matching a request against rules, and the split of a rule's traffic.
//!
//! Invariant: one implementation; it tells an observer each match it tries, so [`crate::explain`] can say why.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{Caller, HttpMatch, HttpRule, RouteTable, WeightedDestination};
use crate::{request::RequestHead, text::StringMatch};

/// The first condition of a match that the request does not fulfil, as people write it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum MatchMiss {
    Field(&'static str),
    Header(String),
    WithoutHeader(String),
    Query(String),
    SourceLabel(String),
}

impl fmt::Display for MatchMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, "{name} does not match"),
            Self::Header(name) => write!(f, "headers.{name} does not match"),
            Self::WithoutHeader(name) => write!(f, "withoutHeaders.{name} matches"),
            Self::Query(name) => write!(f, "queryParams.{name} does not match"),
            Self::SourceLabel(name) => write!(f, "sourceLabels.{name} does not match"),
        }
    }
}

impl RouteTable {
    /// The first rule that matches. `observe` hears of every match that was tried: rule, match (None: the rule has none and
    /// matches all), outcome.
    pub(crate) fn first_match(
        &self,
        head: &RequestHead<'_>,
        caller: &Caller<'_>,
        observe: &mut impl FnMut(&HttpRule, Option<usize>, Result<(), MatchMiss>),
    ) -> Option<&Arc<HttpRule>> {
        self.rules.iter().find(|rule| {
            if rule.matches.is_empty() {
                observe(rule, None, Ok(()));
                return true;
            }
            (0..).zip(&rule.matches).any(|(number, wanted)| {
                let outcome = wanted.check(head, caller);
                let matched = outcome.is_ok();
                observe(rule, Some(number), outcome);
                matched
            })
        })
    }
}

impl HttpMatch {
    fn check(&self, head: &RequestHead<'_>, caller: &Caller<'_>) -> Result<(), MatchMiss> {
        let field = |name, wanted: &Option<StringMatch>, value: &str, ignore_case| match wanted {
            Some(wanted) if !wanted.matches(value.as_bytes(), ignore_case) => Err(MatchMiss::Field(name)),
            _ => Ok(()),
        };
        field("uri", &self.uri, head.path, self.ignore_uri_case)?;
        if self.path_segments.as_deref().is_some_and(|prefix| !starts_with_segments(head.path, prefix)) {
            return Err(MatchMiss::Field("path prefix"));
        }
        field("scheme", &self.scheme, head.scheme, false)?;
        field("method", &self.method, head.method, false)?;
        field("authority", &self.authority, head.authority, false)?;
        for (name, wanted) in &self.headers {
            if !header(head, name).is_some_and(|value| wanted.matches(&value, false)) {
                return Err(MatchMiss::Header(name.clone()));
            }
        }
        for (name, unwanted) in &self.without_headers {
            if has_unwanted(header(head, name), unwanted) {
                return Err(MatchMiss::WithoutHeader(name.clone()));
            }
        }
        for (name, wanted) in &self.query {
            if !parameter(head.query, name).is_some_and(|value| wanted.matches(value.as_bytes(), false)) {
                return Err(MatchMiss::Query(name.clone()));
            }
        }
        if self.port.is_some_and(|port| port != caller.port) {
            return Err(MatchMiss::Field("port"));
        }
        for (name, wanted) in &self.source_labels {
            if caller.labels.get(name.as_str()).is_none_or(|value| **value != **wanted) {
                return Err(MatchMiss::SourceLabel(name.clone()));
            }
        }
        match &self.source_namespace {
            Some(namespace) if namespace != caller.namespace => Err(MatchMiss::Field("sourceNamespace")),
            _ => Ok(()),
        }
    }
}

impl HttpRule {
    /// The destinations that a split may choose, by position, and their shares of 1: weight / total. One destination needs no
    /// weight; of several, those of weight 0 are left out.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (usize, f64)> {
        let only = self.destinations.len() == 1;
        let weight =
            move |destination: &WeightedDestination| if only { 1 } else { u64::from(destination.weight) };
        let total: u64 = self.destinations.iter().map(weight).sum();
        let weighted =
            (0..).zip(&self.destinations).map(move |(number, destination)| (number, weight(destination)));
        weighted
            .filter(|(_, weight)| *weight > 0)
            .map(move |(number, weight)| (number, weight as f64 / total as f64))
    }

    /// The destination that a draw, uniform in [0, 1), falls on. None: several, all of weight 0.
    pub(crate) fn draw(&self, draw: f64) -> Option<(usize, &WeightedDestination)> {
        let mut end = 0.0;
        let mut drawn = None;
        for (number, share) in self.shares() {
            drawn = Some(number);
            end += share;
            if draw < end {
                break;
            }
        }
        drawn.and_then(|number| Some((number, self.destinations.get(number)?)))
    }
}

/// All values of a header, joined by `,`; None if there is none.
fn header<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut values = head.headers.get_all(name).iter();
    let mut joined = Cow::Borrowed(values.next()?.as_bytes());
    for value in values {
        let text = joined.to_mut();
        text.push(b',');
        text.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

/// A missing header is an empty value to every match but `present`.
fn has_unwanted(value: Option<Cow<'_, [u8]>>, unwanted: &StringMatch) -> bool {
    match (value, unwanted) {
        (None, StringMatch::Present) => false,
        (value, unwanted) => unwanted.matches(&value.unwrap_or_default(), false),
    }
}

/// The first value of a query parameter, as sent (not decoded). A parameter without `=` has an empty value.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// `/v2` starts `/v2` and `/v2/x`, not `/v2example`.
fn starts_with_segments(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
