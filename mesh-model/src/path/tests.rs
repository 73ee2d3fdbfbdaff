//! The table of normal forms, and what holds for every path.

use proptest::prelude::*;

use super::*;
use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes};

#[test]
fn table() {
    // Path, then its normal form by BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES.
    let table = [
        ("/", "/", "/", "/"),
        ("", "/", "/", "/"),
        ("*", "*", "*", "*"),
        ("/a/b", "/a/b", "/a/b", "/a/b"),
        ("/a/./b", "/a/b", "/a/b", "/a/b"),
        ("/a/../b", "/b", "/b", "/b"),
        ("/a/b/..", "/a/", "/a/", "/a/"),
        ("/a/.", "/a/", "/a/", "/a/"),
        ("/..", "/", "/", "/"),
        ("/../../admin", "/admin", "/admin", "/admin"),
        ("/a/../../../admin", "/admin", "/admin", "/admin"),
        ("/public/%2e%2e/admin", "/admin", "/admin", "/admin"),
        ("/public/%2E./admin", "/admin", "/admin", "/admin"),
        ("/public/.%2e/admin", "/admin", "/admin", "/admin"),
        ("/public/%%32e%2e/admin", "/admin", "/admin", "/admin"),
        (
            "/public/%252e%252e/admin",
            "/public/%252e%252e/admin",
            "/public/%252e%252e/admin",
            "/public/%252e%252e/admin",
        ),
        ("/%61dmin", "/admin", "/admin", "/admin"),
        ("/a%7Eb%5f", "/a~b_", "/a~b_", "/a~b_"),
        ("\\admin", "/admin", "/admin", "/admin"),
        ("/a\\..\\b", "/b", "/b", "/b"),
        ("//admin", "//admin", "/admin", "/admin"),
        ("/a//b///c", "/a//b///c", "/a/b/c", "/a/b/c"),
        ("/a//../b", "/a/b", "/a/b", "/a/b"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%2f%2fb", "/a%2f%2fb", "/a%2f%2fb", "/a/b"),
        ("/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b"),
        ("/a%2F..%2Fadmin", "/a%2F..%2Fadmin", "/a%2F..%2Fadmin", "/admin"),
        ("/100%", "/100%", "/100%", "/100%"),
        ("/%zz/%4", "/%zz/%4", "/%zz/%4", "/%zz/%4"),
        ("/sp%20ace/%C3%A9", "/sp%20ace/%C3%A9", "/sp%20ace/%C3%A9", "/sp%20ace/%C3%A9"),
        ("/.hidden/...", "/.hidden/...", "/.hidden/...", "/.hidden/..."),
        ("relative", "/relative", "/relative", "/relative"),
    ];
    for (path, base, merged, decoded) in table {
        assert_eq!(normalize(path, PathNormalization::None), path);
        assert_eq!(normalize(path, Base), base, "BASE of {path}");
        assert_eq!(normalize(path, MergeSlashes), merged, "MERGE_SLASHES of {path}");
        assert_eq!(normalize(path, DecodeAndMergeSlashes), decoded, "DECODE_AND_MERGE_SLASHES of {path}");
    }
}

#[test]
fn a_plain_path_is_not_copied() {
    assert!(matches!(normalize("/api/v1/reviews.json", Base), Cow::Borrowed(_)));
}

/// Paths made of what normalising looks at.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("\\"),
        Just("."),
        Just(".."),
        Just("%"),
        Just("2"),
        Just("e"),
        Just("E"),
        Just("F"),
        Just("5C"),
        Just("%2e"),
        Just("%2F"),
        Just("%32"),
        Just("a"),
        Just("%25"),
        Just("é"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn normal_forms_are_stable_and_clean(path in hostile()) {
        for how in [Base, MergeSlashes, DecodeAndMergeSlashes] {
            let normal = normalize(&path, how).into_owned();
            prop_assert_eq!(normalize(&normal, how), normal.as_str(), "not stable: {}", &path);
            prop_assert!(normal.starts_with('/') && !normal.contains('\\'));
            prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{} -> {}", path, normal);
            prop_assert!(!normal.to_ascii_lowercase().contains("%2e"), "{} -> {}", path, normal);
            if how != Base {
                prop_assert!(!normal.contains("//"));
            }
        }
    }

    #[test]
    fn any_text_is_survived(path in ".{0,64}") {
        for how in [PathNormalization::None, Base, MergeSlashes, DecodeAndMergeSlashes] {
            prop_assert!(normalize(&path, how).len() <= path.len() + 1);
        }
    }
}
