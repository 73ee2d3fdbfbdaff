//! Names without DNS: a table from the environment, as a pod of a world has no resolver. Where there is no table, as in a container of
//! Kubernetes, the system's resolver is asked.
//!
//! `TULLE_HOSTS` is `name=ip[,ip…]` entries divided by blanks. An IP literal needs no entry.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};

/// The variable that carries the table.
pub const VARIABLE: &str = "TULLE_HOSTS";

/// Which addresses a caller wants when a name has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// In the order of the table.
    #[default]
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    table: Vec<(String, Vec<IpAddr>)>,
    /// Names that are not in the table are for the system's resolver.
    asks_system: bool,
}

impl Hosts {
    /// The table of the environment, after the entries of the command line, which win.
    pub fn load(more: &[String]) -> Result<Self> {
        let variable = std::env::var(VARIABLE).ok();
        let entries =
            more.iter().map(String::as_str).chain(variable.as_deref().unwrap_or_default().split_whitespace());
        Ok(Self { table: entries.map(parse).collect::<Result<_>>()?, asks_system: variable.is_none() })
    }

    /// The addresses of `host:port`; IP literals (IPv6 in brackets) pass through.
    pub fn resolve(&self, authority: &str, family: Family) -> Result<Vec<SocketAddr>> {
        let (host, port) =
            authority.rsplit_once(':').with_context(|| format!("`{authority}` has no port"))?;
        let port: u16 = port.parse().with_context(|| format!("`{authority}` has no port"))?;
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let addresses = match literal {
            Ok(address) => vec![address],
            Err(_) => self.addresses(host)?,
        };
        let wanted = |address: &IpAddr| match family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        Ok(addresses.into_iter().filter(wanted).map(|address| SocketAddr::new(address, port)).collect())
    }

    /// `host:port` of a service, as Kubernetes tells it to containers; without that, port 9080 of its name.
    pub fn service(&self, name: &str) -> String {
        let prefix = name.to_ascii_uppercase().replace(['-', '.'], "_");
        let told = |what: &str| std::env::var(format!("{prefix}_SERVICE_{what}")).ok();
        let host = told("HOST").filter(|_| self.lookup(name).is_none()).unwrap_or_else(|| name.to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{host}:{}", told("PORT").unwrap_or_else(|| "9080".to_owned()))
    }

    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>> {
        if let Some(addresses) = self.lookup(host) {
            return Ok(addresses.to_vec());
        }
        if !self.asks_system {
            bail!("`{host}` is not in {VARIABLE}");
        }
        // The port is of no interest to the resolver.
        let found = (host, 0).to_socket_addrs().with_context(|| format!("`{host}` cannot be resolved"))?;
        Ok(found.map(|address| address.ip()).collect())
    }

    fn lookup(&self, host: &str) -> Option<&[IpAddr]> {
        self.table
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(host))
            .map(|(_, addresses)| addresses.as_slice())
    }
}

fn parse(entry: &str) -> Result<(String, Vec<IpAddr>)> {
    let (name, addresses) = entry.split_once('=').with_context(|| format!("`{entry}`: expected name=ip"))?;
    let addresses = addresses.split(',').map(str::parse).collect::<Result<_, _>>();
    Ok((name.to_owned(), addresses.with_context(|| format!("`{entry}`: not an IP address"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals() {
        let table = vec![parse("b.shop=10.96.0.1,fd00::1").unwrap()];
        let hosts = Hosts { table, asks_system: false };
        let all = hosts.resolve("B.shop:80", Family::Any).unwrap();
        assert_eq!(all, ["10.96.0.1:80".parse().unwrap(), "[fd00::1]:80".parse().unwrap()]);
        assert_eq!(hosts.resolve("b.shop:80", Family::V6).unwrap(), ["[fd00::1]:80".parse().unwrap()]);
        assert_eq!(hosts.resolve("[::1]:9", Family::Any).unwrap(), ["[::1]:9".parse().unwrap()]);
        assert!(hosts.resolve("c.shop:80", Family::Any).is_err());
        assert!(parse("b.shop=nowhere").is_err());
    }
}
