//! Where a port is: an address of the network, or a socket in the file system.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::settings::Expected;

/// What the name of a socket in the file system starts with.
const UNIX: &str = "unix:";

/// Where a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address of the network.
    Tcp(SocketAddr),
    /// A socket in the file system: who may open it may connect.
    Unix(PathBuf),
}

impl Address {
    /// What a setting with an address has to be.
    pub const EXPECTED: Expected = Expected::Text("an address such as 127.0.0.1:7600 or unix:/run/cairn.sock");

    /// The address of the network, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The socket in the file system, if it is one.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Address::Tcp(_) => None,
            Address::Unix(path) => Some(path),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().is_loopback())
    }

    /// Whether it can be had beside `other`.
    pub fn is_free_beside(&self, other: &Address) -> bool {
        self != other || self.tcp().is_some_and(|address| address.port() == 0)
    }
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Address, ()> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(()),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp).map_err(|_| ()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
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

/// One address or several, written as one text or as a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

impl FromStr for Addresses {
    type Err = ();

    /// Several are written with commas between them.
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
enum Written {
    One(String),
    Several(Vec<String>),
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Addresses, D::Error> {
        let read = match Written::deserialize(deserializer)? {
            Written::One(text) => text.parse(),
            Written::Several(texts) => texts.iter().map(|one| one.parse()).collect::<Result<_, _>>().map(Addresses),
        };
        read.map_err(|()| serde::de::Error::custom("expected addresses"))
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}
