//! The address of a listener: TCP or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::settings::Expected;

/// The prefix of the path of a Unix socket.
const UNIX: &str = "unix:";
/// What precedes the port of a loopback address of both families.
const LOCALHOST: &str = "localhost:";

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A port of this machine's loopback interface, of IPv4 and, where the machine has it, of IPv6: `localhost:7600`.
    Localhost(u16),
    /// The path of a Unix socket. The permissions of the file decide who may connect.
    Unix(PathBuf),
}

impl Address {
    /// The expected value of a setting with an address.
    pub const EXPECTED: Expected =
        Expected::Text("an address such as 127.0.0.1:7600, localhost:7600 or unix:/run/cairn.sock");

    /// The TCP address, the one of IPv4 for `localhost`; `None` for a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Localhost(port) => Some((Ipv4Addr::LOCALHOST, *port).into()),
            Address::Unix(_) => None,
        }
    }

    /// The path of the Unix socket; `None` for a TCP address.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Address::Tcp(_) | Address::Localhost(_) => None,
            Address::Unix(path) => Some(path),
        }
    }

    /// Whether only this machine can connect: a loopback address or a Unix socket.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().is_loopback())
    }

    /// Whether both addresses can be bound at the same time: they differ, or the system chooses the port.
    pub fn can_coexist_with(&self, other: &Address) -> bool {
        let is_within = |localhost: &Address, other: &Address| match (localhost, other) {
            (Address::Localhost(port), Address::Tcp(other)) => {
                other.port() == *port
                    && [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)].contains(&other.ip())
            }
            _ => false,
        };
        let is_same = self == other || is_within(self, other) || is_within(other, self);
        !is_same || self.tcp().is_some_and(|address| address.port() == 0)
    }
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Address, ()> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(()),
            Some(path) => Ok(Address::Unix(path.into())),
            None => match text.strip_prefix(LOCALHOST) {
                Some(port) => port.parse().map(Address::Localhost).map_err(|_| ()),
                None => text.parse().map(Address::Tcp).map_err(|_| ()),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Localhost(port) => write!(f, "{LOCALHOST}{port}"),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|()| serde::de::Error::custom("expected an address"))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

/// One address or several; in the configuration a string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

impl fmt::Display for Addresses {
    /// Writes the addresses separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, one)| write!(f, "{}{one}", if index > 0 { "," } else { "" }))
    }
}

impl FromStr for Addresses {
    type Err = ();

    /// Parses addresses separated by commas.
    fn from_str(text: &str) -> Result<Addresses, ()> {
        text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map(Addresses)
    }
}

impl From<SocketAddr> for Addresses {
    fn from(address: SocketAddr) -> Addresses {
        Addresses(vec![address.into()])
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Addresses, D::Error> {
        let addresses = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => text.parse(),
            OneOrMany::Many(texts) => texts.iter().map(|one| one.parse()).collect::<Result<_, _>>().map(Addresses),
        };
        addresses.map_err(|()| serde::de::Error::custom("expected addresses"))
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}
