//! Values that are texts or plain numbers in YAML: durations, ports, networks, names, string matches.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use mesh_model::{
    name::Namespace,
    route::Visibility,
    text::{Pattern, StringMatch},
};

use crate::{
    diagnostic::{Code, Findings},
    object::istio,
};

/// A duration as Go writes it: `1h30m`, `2s`, `1.5s`, `100ms`. At least 1 ms, or zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 2s, 1.5s, 100ms or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0_f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest.get(..digits).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
        rest = rest.get(digits..).ok_or_else(wrong)?;
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match rest.get(..unit) {
            Some("h") => 3_600e9,
            Some("m") => 60e9,
            Some("s") => 1e9,
            Some("ms") => 1e6,
            Some("us" | "µs") => 1e3,
            Some("ns") => 1.0,
            _ => return Err(wrong()),
        };
        nanos += number * scale;
        rest = rest.get(unit..).ok_or_else(wrong)?;
    }
    // A century: far beyond any meaning, well within u64 nanoseconds.
    if nanos > 3.2e18 {
        return Err(format!("{text:?} is too long for a duration"));
    }
    if nanos > 0.0 && nanos < 1e6 {
        return Err(format!("{text:?} is shorter than 1ms"));
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// [`duration`] of an optional field; says what is wrong and gives None then.
pub(crate) fn duration_at(
    text: Option<&String>,
    field: &str,
    findings: &mut Findings<'_>,
) -> Option<Duration> {
    match duration(text?) {
        Ok(duration) => Some(duration),
        Err(problem) => {
            findings.add(Code::Invalid, field, problem);
            None
        }
    }
}

/// A port number, 1 to 65535.
pub(crate) fn port(number: i64) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{number} is not a port (1 to 65535)"))
}

/// [`port`] of a text.
pub(crate) fn port_text(text: &str) -> Result<u16, String> {
    let number = text.trim().parse::<i64>().map_err(|_| format!("{text:?} is not a port (1 to 65535)"))?;
    port(number)
}

/// `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .map(|net| net.trunc())
        .or_else(|_| text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical())))
        .map_err(|_| format!("{text:?} is neither an IP address nor a CIDR block"))
}

/// Lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit: what Kubernetes lets a name be.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let ends = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.iter().all(|c| fits(*c))
        && ends(bytes.first())
        && ends(bytes.last())
        && !text.contains("..")
}

/// [`is_dns_name`] without dots, at most 63 long: a namespace.
pub(crate) fn is_dns_label(text: &str) -> bool {
    is_dns_name(text) && !text.contains('.') && text.len() <= 63
}

/// A host of a route or rule: a DNS name, `*`, or `*.` before one.
pub(crate) fn host(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the host is empty".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    if text == "*" || is_dns_name(name) {
        return Ok(());
    }
    Err(format!("{text:?} is not a host: a DNS name, `*`, or `*.` before a DNS name"))
}

/// A StringMatch. None of the three set: the value must be there (only where `presence` allows it).
pub(crate) fn string_match(
    from: &istio::StringMatch,
    presence: bool,
    field: &str,
    findings: &mut Findings<'_>,
) -> Option<StringMatch> {
    match (&from.exact, &from.prefix, &from.regex) {
        (Some(text), None, None) => Some(StringMatch::Exact(text.clone())),
        (None, Some(text), None) => Some(StringMatch::Prefix(text.clone())),
        // Envoy refuses the pattern `*`; Istio reads it as presence.
        (None, None, Some(text)) if text == "*" && presence => Some(StringMatch::Present),
        (None, None, Some(text)) => match Pattern::new(text) {
            Ok(pattern) => Some(StringMatch::Regex(pattern)),
            Err(problem) => {
                findings.add(Code::BadPattern, format!("{field}.regex"), problem.to_string());
                None
            }
        },
        (None, None, None) if presence => Some(StringMatch::Present),
        (None, None, None) => {
            findings.add(Code::Invalid, field, "one of exact, prefix, regex must be set");
            None
        }
        _ => {
            findings.add(Code::Invalid, field, "only one of exact, prefix, regex may be set");
            None
        }
    }
}

/// `exportTo`: empty or `*` is all; `.` is the own namespace; `~` is none.
pub(crate) fn export_to(list: &[String], own: &Namespace, findings: &mut Findings<'_>) -> Visibility {
    let mut namespaces = Vec::new();
    for (number, text) in list.iter().enumerate() {
        match text.as_str() {
            "*" => return Visibility::All,
            "." => namespaces.push(own.clone()),
            "~" => (),
            name if is_dns_label(name) => namespaces.push(Namespace::new(name)),
            other => findings.add(
                Code::Invalid,
                format!("spec.exportTo[{number}]"),
                format!("{other:?} is not `.`, `*`, `~` or a namespace"),
            ),
        }
    }
    match list.is_empty() {
        true => Visibility::All,
        false => Visibility::Namespaces(namespaces),
    }
}
