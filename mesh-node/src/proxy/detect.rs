//! Is it HTTP/1? Judged by the first bytes a client sends.
//!
//! Bias: availability. A wrong "opaque" loses routes and request metrics of an undeclared port; a wrong "HTTP" breaks the
//! application. So only a complete known method, a space and a target that can begin one are called HTTP, and HTTP/2's preface is
//! opaque. Where a policy needs HTTP, the destination refuses what it cannot read: that is decided there, not here.

/// What the first bytes look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looks {
    /// The head of an HTTP/1 request.
    Http,
    /// Anything else.
    Opaque,
    /// Too few bytes to say.
    Unclear,
}

const METHODS: [&[u8]; 9] =
    [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];

/// Judges a prefix of a client's bytes.
pub fn looks(prefix: &[u8]) -> Looks {
    let method_length = prefix.iter().position(|byte| *byte == b' ').unwrap_or(prefix.len());
    let method = &prefix[..method_length];
    if method_length == prefix.len() {
        let possible = METHODS.iter().any(|known| known.starts_with(method));
        return if possible { Looks::Unclear } else { Looks::Opaque };
    }
    if !METHODS.contains(&method) {
        return Looks::Opaque;
    }
    match prefix.get(method_length + 1) {
        None => Looks::Unclear,
        // origin-form, asterisk-form, or the first letter of an absolute-form or authority-form (RFC 9112 §3.2).
        Some(b'/' | b'*' | b'[') => Looks::Http,
        Some(byte) if byte.is_ascii_alphanumeric() => Looks::Http,
        Some(_) => Looks::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (prefix, expected) in [
            (&b""[..], Looks::Unclear),
            (b"G", Looks::Unclear),
            (b"GET", Looks::Unclear),
            (b"GET ", Looks::Unclear),
            (b"GET /", Looks::Http),
            (b"OPTIONS * HTTP/1.1", Looks::Http),
            (b"GET http://x/", Looks::Http),
            (b"CONNECT a:1 HTTP/1.1", Looks::Http),
            (b"get / HTTP/1.1", Looks::Opaque),
            (b"PRI * HTTP/2.0\r\n", Looks::Opaque),
            (b"\x16\x03\x01", Looks::Opaque),
            (b"SSH-2.0-x", Looks::Opaque),
            (b"GETX /", Looks::Opaque),
            (b"GET \r\n", Looks::Opaque),
        ] {
            assert_eq!(looks(prefix), expected, "{:?}", String::from_utf8_lossy(prefix));
        }
    }
}
