//! The wildcard strings of policies, and patterns that match the whole value or not at all.

use proptest::prelude::*;

use super::*;

#[test]
fn globs() {
    // Text, value, matches, matches without case.
    let table = [
        ("abc", "abc", true, true),
        ("abc", "ABC", false, true),
        ("abc", "abcd", false, false),
        ("abc*", "abc", true, true),
        ("abc*", "ABCd", false, true),
        ("abc*", "ab", false, false),
        ("*abc", "xabc", true, true),
        ("*abc", "XABC", false, true),
        ("*abc", "bc", false, false),
        ("*", "x", true, true),
        ("*", "", false, false),
        ("a*c", "abc", false, false),
        ("a*c", "a*c", true, true),
        ("*a*", "*ab", true, true),
    ];
    for (text, value, exact, ignoring_case) in table {
        let glob = Glob::parse(text);
        assert_eq!(glob.matches(value), exact, "{text} of {value}");
        assert_eq!(glob.matches_ignoring_case(value), ignoring_case, "{text} of {value} without case");
        assert_eq!(glob.to_string(), text);
    }
}

#[test]
fn a_pattern_cannot_leave_its_anchors() {
    for source in ["a)|(?:b", "a)|(b", ")", "(", "(?:"] {
        assert!(Pattern::new(source).is_err(), "{source}");
    }
    let either = Pattern::new("a|b").expect("a pattern");
    assert!(either.matches(b"a") && either.matches(b"b"));
    assert!(!either.matches(b"ax") && !either.matches(b"xb") && !either.matches(b"a\n"));
}

#[test]
fn a_pattern_too_big_is_refused() {
    let error = Pattern::new("((a{100}){100}){100}").expect_err("too big");
    assert_eq!(error.source_text, "((a{100}){100}){100}");
}

#[test]
fn patterns_look_at_bytes() {
    assert!(Pattern::new("..").expect("a pattern").matches("é".as_bytes()));
}

proptest! {
    #[test]
    fn a_glob_reads_what_it_wrote(text in "[*a-c]{1,5}") {
        let glob = Glob::parse(&text);
        prop_assert_eq!(Glob::parse(&glob.to_string()), glob);
    }

    #[test]
    fn what_matches_with_case_matches_without(text in "[*a-cA-C]{1,4}", value in "[a-cA-C]{0,4}") {
        let glob = Glob::parse(&text);
        prop_assert!(!glob.matches(&value) || glob.matches_ignoring_case(&value));
    }
}
