//! Targets, hop-by-hop headers and edits, by example.

use http::{Method, Request};

use super::*;

const MOST: usize = 1024;

fn parts(uri: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::builder().method(Method::GET).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let read = |uri: &str, headers: &[(&str, &str)]| {
        Target::read(&parts(uri, headers), PathNormalization::Base, MOST)
    };
    let target = read("/a/../admin?x=/../y", &[("host", "Shop:80")]).unwrap();
    assert_eq!(target.uri, "/admin?x=/../y");
    assert_eq!(&*target.authority, "shop:80");
    let target = read("/a/%2e%2e/b", &[("host", "shop")]).unwrap();
    assert_eq!(target.uri, "/b");
    let target = read("http://Reviews/x", &[("host", "other")]).unwrap();
    assert_eq!((&*target.authority, target.uri.to_string()), ("reviews", "/x".to_owned()));
}

#[test]
fn a_request_with_two_meanings_is_refused() {
    let bad = [
        vec![("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")],
        vec![("host", "a"), ("host", "b")],
        vec![],
    ];
    for headers in bad {
        let refused = Target::read(&parts("/", &headers), PathNormalization::Base, MOST).unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.close);
    }
}

#[test]
fn a_head_over_the_limit_is_refused_wherever_its_bytes_are() {
    let read = |uri: &str, value: &str| {
        Target::read(&parts(uri, &[("host", "a"), ("x", value)]), PathNormalization::Base, MOST)
    };
    let long = "x".repeat(MOST);
    assert!(read("/", &long[..MOST - 20]).is_ok());
    for refused in [read("/", &long), read(&format!("/{long}"), "")] {
        assert_eq!(refused.unwrap_err().status, 431);
    }
}

#[test]
fn that_trailers_are_welcome_is_said_again_at_the_next_hop() {
    let mut headers =
        parts("/", &[("te", "gzip, Trailers"), ("trailer", "x-sum"), ("connection", "te")]).headers;
    assert!(!take_off_hop(&mut headers));
    assert_eq!(
        (&headers[TE], &headers[CONNECTION], &headers["trailer"]),
        (
            &HeaderValue::from_static("trailers"),
            &HeaderValue::from_static("te"),
            &HeaderValue::from_static("x-sum")
        )
    );
    let mut headers = parts("/", &[("te", "gzip")]).headers;
    take_off_hop(&mut headers);
    assert!(!headers.contains_key(TE) && !headers.contains_key(CONNECTION));
}

#[test]
fn the_host_that_was_judged_is_the_host_that_is_forwarded() {
    for (uri, expected) in [("http://Open/x", "open"), ("/x", "Secret")] {
        let mut parts = parts(uri, &[("host", "Secret")]);
        let target = Target::read(&parts, PathNormalization::Base, MOST).unwrap();
        prepare_request(&mut parts.headers, &target);
        assert_eq!(parts.headers[HOST], expected, "{uri}");
        assert!(target.authority.eq_ignore_ascii_case(expected));
    }
}

#[test]
fn a_host_that_is_none_is_refused() {
    let read = |host| Target::read(&parts("/", &[("host", host)]), PathNormalization::Base, MOST);
    for bad in ["a b", "a/b", "open@secret", "a?b", "a#b", "[::1", "a,b c"] {
        assert_eq!(read(bad).err().map(|answer| answer.status.as_u16()), Some(400), "{bad}");
    }
    for good in ["", "a", "a.b:80", "10.0.0.1:80", "[fd00::1]:80", "under_score.shop"] {
        assert!(read(good).is_ok(), "{good}");
    }
}

#[test]
fn an_upgrade_to_requests_that_no_policy_would_see_is_not_passed_on() {
    for hiding in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2", "h2c\u{e9}"] {
        let mut headers = parts("/", &[("connection", "upgrade"), ("upgrade", hiding)]).headers;
        assert!(!take_off_hop(&mut headers), "{hiding}");
        assert!(!headers.contains_key(UPGRADE) && !headers.contains_key(CONNECTION), "{hiding}");
    }
}

#[test]
fn hop_headers_are_taken_off_and_an_upgrade_is_kept() {
    let mut headers = parts(
        "/",
        &[
            ("connection", "close, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "deflate"),
            ("host", "a"),
        ],
    )
    .headers;
    assert!(!take_off_hop(&mut headers));
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["host"]);

    let mut headers = parts("/", &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]).headers;
    assert!(take_off_hop(&mut headers));
    assert_eq!(headers[CONNECTION], "upgrade");
    assert_eq!(headers[UPGRADE], "websocket");

    let mut headers = parts("/", &[("upgrade", "h2c")]).headers;
    assert!(!take_off_hop(&mut headers));
    assert!(headers.is_empty());
}

#[test]
fn a_forged_client_certificate_header_changes_nothing() {
    let identity = |account: &str| Identity::parse(&format!("spiffe://td/ns/shop/sa/{account}")).unwrap();
    let forged = [("x-forwarded-client-cert", "By=x;URI=spiffe://td/ns/root/sa/admin")];
    let mut headers = parts("/", &forged).headers;
    name_caller(&mut headers, &identity("reviews"), Some(&identity("front")));
    assert_eq!(headers[CLIENT_CERT], "By=spiffe://td/ns/shop/sa/reviews;URI=spiffe://td/ns/shop/sa/front");
    assert_eq!(headers.get_all(CLIENT_CERT).iter().count(), 1);
    name_caller(&mut headers, &identity("reviews"), None);
    assert!(!headers.contains_key(CLIENT_CERT));
}

#[test]
fn edits_replace_append_and_remove() {
    let mut headers = parts("/", &[("a", "1"), ("b", "1"), ("c", "1")]).headers;
    let edits = HeaderEdits {
        set: vec![("a".into(), "2".into()), ("bad name".into(), "x".into())],
        add: vec![("b".into(), "2".into())],
        remove: vec!["c".into()],
    };
    edit(&mut headers, &edits);
    assert_eq!(headers["a"], "2");
    assert_eq!(headers.get_all("b").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!headers.contains_key("c"));
}
