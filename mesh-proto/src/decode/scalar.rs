//! Small values that many messages share.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use mesh_model::{
    name::{Hostname, Namespace, ObjectKey, ServiceKey},
    route::Visibility,
    text::{Glob, Pattern, StringMatch},
};

use super::error::{DecodeError, Located, Problem, list, required};
use crate::v1;

/// A text that is not empty.
pub(super) fn text(wire: String) -> Result<String, Problem> {
    if wire.is_empty() { Err(Problem::Empty) } else { Ok(wire) }
}

pub(super) fn namespace(wire: String) -> Result<Namespace, Problem> {
    text(wire).map(Namespace::new)
}

pub(super) fn host(wire: String) -> Result<Hostname, Problem> {
    text(wire).map(|text| Hostname::new(&text))
}

pub(super) fn object_key(wire: v1::ObjectKey) -> Result<ObjectKey, DecodeError> {
    Ok(ObjectKey {
        namespace: namespace(wire.namespace).at("namespace")?,
        name: text(wire.name).at("name")?.into(),
    })
}

pub(super) fn service_key(wire: v1::ServiceKey) -> Result<ServiceKey, DecodeError> {
    Ok(ServiceKey {
        namespace: namespace(wire.namespace).at("namespace")?,
        host: host(wire.host).at("host")?,
    })
}

pub(super) fn destination_key(wire: v1::DestinationKey) -> Result<(ObjectKey, Hostname), DecodeError> {
    let object = object_key(required("object", wire.object)?).at("object")?;
    Ok((object, host(wire.host).at("host")?))
}

/// An address in canonical form.
pub(super) fn address(wire: String) -> Result<IpAddr, Problem> {
    wire.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| Problem::NotAnAddress { text: wire })
}

pub(super) fn network(wire: String) -> Result<IpNet, Problem> {
    wire.parse().map_err(|_| Problem::NotANetwork { text: wire })
}

/// A number of 16 bits within bounds.
pub(super) fn number(value: u32, least: u16, most: u16) -> Result<u16, Problem> {
    let fits = u16::try_from(value).ok().filter(|value| (least..=most).contains(value));
    fits.ok_or(Problem::OutOfRange { value, least, most })
}

pub(super) fn port(wire: u32) -> Result<u16, Problem> {
    number(wire, 1, u16::MAX)
}

/// A map by port.
pub(super) fn by_port<W, T, E: Into<DecodeError>>(
    field: &str,
    wire: BTreeMap<u32, W>,
    decode: impl Fn(W) -> Result<T, E>,
) -> Result<BTreeMap<u16, T>, DecodeError> {
    wire.into_iter()
        .map(|(key, value)| Ok((port(key).at_item(field, key)?, decode(value).at_item(field, key)?)))
        .collect()
}

/// An enum; a number it does not have is refused.
pub(super) fn known<E: TryFrom<i32>>(name: &'static str, value: i32) -> Result<E, Problem> {
    E::try_from(value).map_err(|_| Problem::UnknownEnum { name, value })
}

pub(super) fn duration(wire: v1::Nanos) -> Duration {
    Duration::from_nanos(wire.nanos)
}

pub(super) fn labels(wire: BTreeMap<String, String>) -> BTreeMap<Arc<str>, Arc<str>> {
    wire.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

pub(super) fn glob(wire: String) -> Result<Glob, Problem> {
    text(wire).map(|text| Glob::parse(&text))
}

pub(super) fn string_match(wire: v1::StringMatch) -> Result<StringMatch, DecodeError> {
    use v1::string_match::Kind;
    match required("kind", wire.kind)? {
        Kind::Exact(text) => Ok(StringMatch::Exact(text)),
        Kind::Prefix(text) => Ok(StringMatch::Prefix(text)),
        Kind::Regex(source) => {
            Pattern::new(&source).map(StringMatch::Regex).map_err(Problem::from).at("regex")
        }
        Kind::Present(v1::Unit {}) => Ok(StringMatch::Present),
    }
}

/// A header name; `lower`: it is compared as it is, so it must be in lower case.
pub(super) fn header_name(wire: String, lower: bool) -> Result<String, Problem> {
    let legal =
        HeaderName::from_bytes(wire.as_bytes()).is_ok() && (!lower || wire == wire.to_ascii_lowercase());
    if legal { Ok(wire) } else { Err(Problem::HeaderName { text: wire }) }
}

pub(super) fn header_value(wire: String) -> Result<String, Problem> {
    if HeaderValue::from_str(&wire).is_ok() { Ok(wire) } else { Err(Problem::HeaderValue) }
}

/// Without a word it is visible to nobody: closed.
pub(super) fn visibility(wire: Option<v1::Visibility>) -> Result<Visibility, DecodeError> {
    let wire = required("export_to", wire)?;
    if wire.all {
        return Ok(Visibility::All);
    }
    list("export_to.namespaces", wire.namespaces, namespace).map(Visibility::Namespaces)
}
