//! Path normalisation before matching (`meshConfig.pathNormalization`).
//!
//! Invariant: what is matched is what is forwarded. A caller that routes or authorises by the result must send the result on:
//! a policy that looked at `/admin` while the application gets `/x/../admin` would guard nothing. Normalising is idempotent.

use std::borrow::Cow;

use crate::mesh::PathNormalization;

#[cfg(test)]
mod tests;

/// Normalises the path of a request; the query is split off before. Invalid percent encodings stay as they are, a path that climbs
/// above the root ends at the root, and `*` (of `OPTIONS *`) stays.
///
/// `Base`: unreserved characters are decoded (so `%2e` is a dot), `\` becomes `/`, dot segments are removed (RFC 3986 §5.2.4);
/// `//` and `%2F` stay. `MergeSlashes`: then `//` collapses. `DecodeAndMergeSlashes`: `%2F` and `%5C` are decoded first.
pub fn normalize(path: &str, how: PathNormalization) -> Cow<'_, str> {
    if path == "*" || how == PathNormalization::None || is_plain(path) {
        return Cow::Borrowed(path);
    }
    let decode_slashes = how == PathNormalization::DecodeAndMergeSlashes;
    let merge = decode_slashes || how == PathNormalization::MergeSlashes;
    let decoded = decode(path, decode_slashes);
    let cleaned = remove_dot_segments(&decoded);
    let result = if merge { merge_slashes(&cleaned) } else { cleaned };
    Cow::Owned(result)
}

/// Nothing in it that any mode would touch.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['%', '\\'])
        && !path.as_bytes().windows(2).any(|pair| matches!(pair, b"/." | b"//"))
}

/// Decodes unreserved characters and turns `\` into `/`.
///
/// The end of the output is looked at after every character, the decoded ones too: `%%32e` decodes to `%2e`, and an application
/// that decodes again would see a dot that no policy saw.
fn decode(path: &str, decode_slashes: bool) -> String {
    let mut output = String::with_capacity(path.len() + 1);
    if !path.starts_with(['/', '\\']) {
        output.push('/');
    }
    for character in path.chars() {
        output.push(if character == '\\' { '/' } else { character });
        while let Some(decoded) = encoded_at_end(&output, decode_slashes) {
            output.truncate(output.len() - 3);
            output.push(decoded);
        }
    }
    output
}

/// The character that the last three bytes encode, if it is one that is to be decoded.
fn encoded_at_end(text: &str, decode_slashes: bool) -> Option<char> {
    let [.., b'%', high, low] = text.as_bytes() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = char::from_u32(digit(*high)? * 16 + digit(*low)?)?;
    match value {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' => Some(value),
        '/' | '\\' if decode_slashes => Some('/'),
        _ => None,
    }
}

/// RFC 3986 §5.2.4 for a path that starts with `/`. Empty segments count as segments.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // `/a/.` and `/a/b/..` name a directory: the slash stays.
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut output = String::with_capacity(path.len());
    for segment in kept {
        output.push('/');
        output.push_str(segment);
    }
    output
}

fn merge_slashes(path: &str) -> String {
    let mut output = String::with_capacity(path.len());
    for character in path.chars() {
        if !(character == '/' && output.ends_with('/')) {
            output.push(character);
        }
    }
    output
}
