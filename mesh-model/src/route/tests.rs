//! Which rule a request matches, and how a split shares.

use std::collections::BTreeMap;

use super::*;
use crate::{
    testing::{Request, exact, get, header, routes, rule},
    text::Pattern,
};

/// What the match of one rule says to a request of a caller in `shop` with label `app=web` at port 80.
fn matches(wanted: HttpMatch, request: &Request) -> bool {
    let table = routes("only", &[], vec![rule("only", vec![wanted], &[("v1", 1)])]);
    matched(&table, request).is_some()
}

fn matched(table: &RouteTable, request: &Request) -> Option<String> {
    let labels = BTreeMap::from([("app".into(), "web".into())]);
    let caller = Caller { namespace: &Namespace::new("shop"), labels: &labels, port: 80 };
    table.first_match(&request.head(), &caller, &mut |_, _, _| ()).map(|rule| rule.name.clone())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.to_owned())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(Pattern::new(text).expect("a pattern"))
}

fn uri(wanted: StringMatch) -> HttpMatch {
    HttpMatch { uri: Some(wanted), ..HttpMatch::default() }
}

#[test]
fn an_exact_header_value_counts_with_its_case() {
    let jason = || header("end-user", exact("jason"));
    assert!(matches(jason(), &get("/").with("end-user", "jason")));
    assert!(matches(jason(), &get("/").with("End-User", "jason")));
    assert!(!matches(jason(), &get("/").with("end-user", "Jason")));
    assert!(!matches(jason(), &get("/")));
}

#[test]
fn several_values_of_a_header_are_joined() {
    let request = || get("/").with("x-tag", "a").with("x-tag", "b");
    assert!(matches(header("x-tag", exact("a,b")), &request()));
    assert!(!matches(header("x-tag", exact("a")), &request()));
    assert!(matches(header("x-tag", StringMatch::Present), &request()));
}

#[test]
fn header_kinds() {
    assert!(matches(header("x", prefix("ab")), &get("/").with("x", "abc")));
    assert!(matches(header("x", regex("a.c")), &get("/").with("x", "abc")));
    assert!(!matches(header("x", regex("b")), &get("/").with("x", "abc")), "a regex matches the whole value");
    assert!(!matches(header("x", regex("a|ab")), &get("/").with("x", "abc")));
    assert!(!matches(header("x", StringMatch::Present), &get("/")));
}

#[test]
fn without_headers_takes_a_missing_header_as_empty() {
    let without = |wanted| HttpMatch {
        without_headers: BTreeMap::from([("x".to_owned(), wanted)]),
        ..HttpMatch::default()
    };
    assert!(matches(without(exact("a")), &get("/")));
    assert!(matches(without(exact("a")), &get("/").with("x", "b")));
    assert!(!matches(without(exact("a")), &get("/").with("x", "a")));
    assert!(!matches(without(exact("")), &get("/")));
    assert!(!matches(without(regex(".*")), &get("/")));
    assert!(matches(without(StringMatch::Present), &get("/")));
    assert!(!matches(without(StringMatch::Present), &get("/").with("x", "")));
}

#[test]
fn a_uri_prefix_is_of_bytes_and_a_segment_prefix_of_segments() {
    assert!(matches(uri(prefix("/api")), &get("/api")));
    assert!(matches(uri(prefix("/api")), &get("/apix")));
    assert!(!matches(uri(prefix("/api")), &get("/API")));
    assert!(matches(HttpMatch { ignore_uri_case: true, ..uri(prefix("/api")) }, &get("/API/x")));
    assert!(matches(HttpMatch { ignore_uri_case: true, ..uri(exact("/api")) }, &get("/Api")));
    assert!(!matches(HttpMatch { ignore_uri_case: true, ..uri(regex("/api")) }, &get("/Api")));
    let segments = |text: &str| HttpMatch { path_segments: Some(text.to_owned()), ..HttpMatch::default() };
    for (wanted, path, expected) in [
        ("/v2", "/v2", true),
        ("/v2", "/v2/x", true),
        ("/v2", "/v2example", false),
        ("/v2/", "/v2", true),
        ("/", "/x", true),
        ("/v2", "/v1", false),
    ] {
        assert_eq!(matches(segments(wanted), &get(path)), expected, "{wanted} of {path}");
    }
}

#[test]
fn the_query_is_no_part_of_the_uri_and_is_matched_by_name() {
    let request = || Request { query: Some("user=jason&debug&user=second"), ..get("/x") };
    let query = |name: &str, wanted| HttpMatch {
        query: BTreeMap::from([(name.to_owned(), wanted)]),
        ..HttpMatch::default()
    };
    assert!(matches(uri(exact("/x")), &request()));
    assert!(matches(query("user", exact("jason")), &request()));
    assert!(!matches(query("user", exact("second")), &request()));
    assert!(matches(query("debug", exact("")), &request()));
    assert!(matches(query("debug", StringMatch::Present), &request()));
    assert!(!matches(query("other", StringMatch::Present), &request()));
    assert!(!matches(query("user", StringMatch::Present), &get("/x")));
}

#[test]
fn scheme_method_authority_port_and_source() {
    let base = HttpMatch::default;
    let labels = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
    let table = [
        (HttpMatch { scheme: Some(exact("http")), ..base() }, true),
        (HttpMatch { scheme: Some(exact("https")), ..base() }, false),
        (HttpMatch { method: Some(exact("GET")), ..base() }, true),
        (HttpMatch { method: Some(exact("POST")), ..base() }, false),
        (HttpMatch { authority: Some(prefix("rev")), ..base() }, true),
        (HttpMatch { authority: Some(exact("ratings")), ..base() }, false),
        (HttpMatch { port: Some(80), ..base() }, true),
        (HttpMatch { port: Some(81), ..base() }, false),
        (HttpMatch { source_labels: labels("web"), ..base() }, true),
        (HttpMatch { source_labels: labels("db"), ..base() }, false),
        (HttpMatch { source_namespace: Some(Namespace::new("shop")), ..base() }, true),
        (HttpMatch { source_namespace: Some(Namespace::new("other")), ..base() }, false),
        // All fields must match.
        (HttpMatch { port: Some(80), method: Some(exact("POST")), ..base() }, false),
    ];
    for (wanted, expected) in table {
        assert_eq!(matches(wanted.clone(), &get("/")), expected, "{wanted:?}");
    }
}

#[test]
fn the_first_rule_with_any_matching_element_wins() {
    let table = routes(
        "t",
        &[],
        vec![
            rule("two", vec![header("x", exact("1")), header("x", exact("2"))], &[("v1", 1)]),
            rule("prefix", vec![uri(prefix("/a"))], &[("v1", 1)]),
            rule("rest", vec![], &[("v1", 1)]),
            rule("dead", vec![], &[("v1", 1)]),
        ],
    );
    assert_eq!(matched(&table, &get("/a").with("x", "2")).as_deref(), Some("two"));
    assert_eq!(matched(&table, &get("/a").with("x", "3")).as_deref(), Some("prefix"));
    assert_eq!(matched(&table, &get("/")).as_deref(), Some("rest"));
}

#[test]
fn no_rule_may_match() {
    let table = routes("t", &[], vec![rule("api", vec![uri(prefix("/api"))], &[("v1", 1)])]);
    assert_eq!(matched(&table, &get("/other")), None);
}

/// How often each destination is drawn by `n` draws spread evenly over [0, 1): exact up to one draw at each border, so that a false
/// alarm is impossible.
fn counts(split: &[(&str, u32)], n: u32) -> Vec<u32> {
    let rule = rule("r", vec![], split);
    let mut counts = vec![0; split.len()];
    for number in 0..n {
        let (drawn, _) = rule.draw((f64::from(number) + 0.5) / f64::from(n)).expect("a destination");
        counts[drawn] += 1;
    }
    counts
}

#[test]
fn shares_are_weights_over_their_sum() {
    assert_eq!(counts(&[("v1", 90), ("v3", 10)], 10_000), [9_000, 1_000]);
    assert_eq!(counts(&[("v1", 1), ("v2", 2), ("v3", 1)], 10_000), [2_500, 5_000, 2_500]);
    assert_eq!(counts(&[("v1", 80), ("v2", 120)], 10_000), [4_000, 6_000]);
}

#[test]
fn zero_among_several_is_never_drawn_and_one_alone_needs_no_weight() {
    assert_eq!(counts(&[("v1", 0), ("v2", 5), ("v3", 0)], 1_000), [0, 1_000, 0]);
    assert_eq!(counts(&[("v1", 0)], 1_000), [1_000]);
    assert!(rule("r", vec![], &[("v1", 0), ("v2", 0)]).draw(0.5).is_none());
}

#[test]
fn draws_at_and_beyond_the_borders_stay_inside() {
    let rule = rule("r", vec![], &[("v1", 1), ("v2", 1), ("v3", 1), ("v4", 0)]);
    for (draw, expected) in [(0.0, 0), (1.0 - f64::EPSILON / 2.0, 2), (1.0, 2), (f64::NAN, 2), (-1.0, 0)] {
        assert_eq!(rule.draw(draw).map(|(number, _)| number), Some(expected), "{draw}");
    }
}
