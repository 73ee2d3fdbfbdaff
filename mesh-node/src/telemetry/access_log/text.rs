//! Istio's default text format, then ` reporter=… source=ns/pod destination=ns/pod`.

use std::fmt::{self, Display, Write};

use super::fields::Fields;

/// A user's text longer than this, in characters, is cut: a line stays a line.
const LONGEST: usize = 2048;

pub(super) fn line(fields: &Fields<'_>) -> String {
    let mut line = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write_line(&mut line, fields);
    line
}

fn write_line(line: &mut String, fields: &Fields<'_>) -> fmt::Result {
    let f = fields;
    write!(line, "[{}] \"{} {} {}\"", f.start_time, Inside(f.method), Inside(f.path), Inside(f.protocol))?;
    write!(line, " {} {}", f.response_code, f.response_flags)?;
    write!(line, " {} {}", Bare(f.response_code_details), Bare(f.connection_termination_details))?;
    write!(line, " \"{}\"", Inside(f.upstream_transport_failure_reason))?;
    write!(
        line,
        " {} {} {} {}",
        f.bytes_received,
        f.bytes_sent,
        f.duration,
        or_dash(f.upstream_service_time)
    )?;
    write!(line, " \"{}\" \"{}\"", Inside(f.x_forwarded_for), Inside(f.user_agent))?;
    write!(line, " \"{}\" \"{}\"", Inside(f.request_id), Inside(f.authority))?;
    write!(line, " \"{}\" {}", or_dash(f.upstream_host), Bare(f.upstream_cluster))?;
    write!(line, " {} {}", or_dash(f.upstream_local_address), f.downstream_local_address)?;
    write!(line, " {} {}", f.downstream_remote_address, Bare(f.requested_server_name))?;
    write!(line, " {}", Bare(f.route_name))?;
    let (source, destination) = (or_dash(f.source.as_ref()), or_dash(f.destination.as_ref()));
    writeln!(line, " reporter={} source={source} destination={destination}", f.reporter)
}

fn or_dash<T: Display>(value: Option<T>) -> impl Display {
    OrDash(value)
}

struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

/// A text inside of quotes.
struct Inside<'a>(Option<&'a str>);

impl Display for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, |character| character)
    }
}

/// A text without quotes: a space would make two fields of it. Envoy writes an underscore there.
struct Bare<'a>(Option<&'a str>);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, |character| if character == ' ' { '_' } else { character })
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: Option<&str>, replace: fn(char) -> char) -> fmt::Result {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return f.write_char('-');
    };
    let mut characters = text.chars();
    for character in characters.by_ref().take(LONGEST).map(replace) {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            // Line and paragraph separators end a line for some readers.
            '\u{2028}' | '\u{2029}' => write!(f, "{}", character.escape_unicode())?,
            control if control.is_control() => write!(f, "\\x{:02x}", u32::from(control))?,
            other => f.write_char(other)?,
        }
    }
    if characters.next().is_some() { f.write_str("...") } else { Ok(()) }
}
