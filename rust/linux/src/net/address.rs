// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket addresses.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::errno::Errno;

/// Longest name of a Unix socket in bytes.
pub(crate) const UNIX_NAME_MAX: usize = 108;

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Address {
    #[default]
    Unnamed,
    V4([u8; 4], u16),
    V6([u8; 16], u16),
    /// A path with its NUL, or an abstract name, which starts with a NUL.
    Unix(Arc<[u8]>),
}

impl Address {
    pub(crate) const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    const LOOPBACK_6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::V4(_, port) | Self::V6(_, port) => Some(*port),
            Self::Unnamed | Self::Unix(_) => None,
        }
    }

    pub(crate) fn with_port(self, port: u16) -> Self {
        match self {
            Self::V4(host, _) => Self::V4(host, port),
            Self::V6(host, _) => Self::V6(host, port),
            other => other,
        }
    }

    /// This family's wildcard address.
    pub(crate) fn any(domain: i32) -> Self {
        match domain {
            libc::AF_INET => Self::V4([0; 4], 0),
            libc::AF_INET6 => Self::V6([0; 16], 0),
            _ => Self::Unnamed,
        }
    }

    /// 127.0.0.1 in this family.
    pub(crate) fn loopback(domain: i32, port: u16) -> Self {
        match domain {
            libc::AF_INET => Self::V4(Self::LOOPBACK, port),
            libc::AF_INET6 => Self::V6(mapped(Self::LOOPBACK), port),
            _ => Self::Unnamed,
        }
    }

    /// ::1.
    pub(crate) fn loopback_6(port: u16) -> Self {
        Self::V6(Self::LOOPBACK_6, port)
    }

    /// The loopback address from which a socket of this family sends to this one: ::1, or 127.0.0.1 in this family.
    pub(crate) fn loopback_beside(&self, domain: i32, port: u16) -> Self {
        match self {
            Self::V6(..) if !self.is_mapped() => Self::loopback_6(port),
            _ => Self::loopback(domain, port),
        }
    }

    pub(crate) fn is_any(&self) -> bool {
        match self {
            Self::V4(host, _) => *host == [0; 4],
            Self::V6(host, _) => *host == [0; 16],
            Self::Unnamed | Self::Unix(_) => false,
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::V4([first, ..], _) => *first == 127,
            Self::V6(host, _) => {
                *host == Self::LOOPBACK_6 || host.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127])
            }
            Self::Unnamed | Self::Unix(_) => false,
        }
    }

    /// Whether it is an IPv4 address in its IPv6 form.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Self::V6(host, _) if is_mapped(host))
    }

    /// The same address in this family.
    pub(crate) fn in_family(self, domain: i32) -> Self {
        let is_mapped = self.is_mapped();
        match (self, domain) {
            (Self::V4(host, port), libc::AF_INET6) => Self::V6(mapped(host), port),
            (Self::V6([.., a, b, c, d], port), libc::AF_INET) if is_mapped => Self::V4([a, b, c, d], port),
            (other, _) => other,
        }
    }

    /// The host part, the same for IPv4 addresses and IPv4-mapped IPv6 ones.
    fn host(&self) -> Option<[u8; 16]> {
        match self {
            Self::V4(host, _) => Some(mapped(*host)),
            Self::V6(host, _) => Some(*host),
            Self::Unnamed | Self::Unix(_) => None,
        }
    }

    /// Whether a socket with this address receives what is sent to `to`.
    pub(crate) fn takes(&self, to: &Self) -> bool {
        match (self, to) {
            (Self::Unix(name), Self::Unix(other)) => name == other,
            _ => {
                // An IPv6 socket reaches IPv4 addresses by their mapped form.
                let fits = match (self, to) {
                    (Self::V4(..), Self::V6(host, _)) => is_mapped(host),
                    (Self::V4(..), Self::V4(..)) | (Self::V6(..), _) => true,
                    _ => false,
                };
                self.port() == to.port() && fits && (self.is_any() || to.is_any() || self.host() == to.host())
            }
        }
    }

    /// Whether two sockets cannot have these addresses at the same time.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(name), Self::Unix(other)) => name == other,
            (Self::Unix(_) | Self::Unnamed, _) | (_, Self::Unix(_) | Self::Unnamed) => false,
            _ => self.port() == other.port() && (self.is_any() || other.is_any() || self.host() == other.host()),
        }
    }

    /// The address as an IP address and port, if it is one.
    pub(crate) fn of_network(&self) -> Option<SocketAddr> {
        let (ip, port) = match self {
            Self::V4(host, port) => ((*host).into(), *port),
            Self::V6(host, port) => (Ipv6Addr::from(*host).to_canonical(), *port),
            Self::Unnamed | Self::Unix(_) => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The address as the sender of a message, in the receiver's family: empty without a name.
    pub(crate) fn as_sender(&self, domain: i32) -> Arc<[u8]> {
        match self {
            Self::Unnamed => Arc::default(),
            _ => self.clone().in_family(domain).encode(domain).into(),
        }
    }

    /// Encodes it as `struct sockaddr_in` and the like.
    pub(crate) fn encode(&self, domain: i32) -> Vec<u8> {
        let family = u16::try_from(domain).unwrap_or(0).to_le_bytes();
        let mut bytes = family.to_vec();
        match self {
            Self::V4(host, port) => {
                bytes.extend(port.to_be_bytes());
                bytes.extend(host);
                bytes.extend([0; 8]);
            }
            Self::V6(host, port) => {
                bytes.extend(port.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(host);
                bytes.extend([0; 4]);
            }
            Self::Unix(name) => bytes.extend(name.iter()),
            Self::Unnamed => {}
        }
        bytes
    }

    /// Decodes the address for a socket of this family.
    pub(crate) fn decode(domain: i32, bytes: &[u8]) -> Result<Self, Errno> {
        let (family, rest) = bytes.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
        let family = i32::from(u16::from_le_bytes(*family));
        let wrong = if domain == libc::AF_UNIX { Errno::EINVAL } else { Errno::EAFNOSUPPORT };
        match domain {
            libc::AF_INET => {
                let (port, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                let (host, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                match family {
                    _ if rest.len() < 8 => Err(Errno::EINVAL),
                    libc::AF_INET => Ok(Self::V4(*host, u16::from_be_bytes(*port))),
                    _ => Err(wrong),
                }
            }
            libc::AF_INET6 => {
                let (port, rest) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                let (_flow, rest) = rest.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let (host, _) = rest.split_first_chunk().ok_or(Errno::EINVAL)?;
                if family == libc::AF_INET6 { Ok(Self::V6(*host, u16::from_be_bytes(*port))) } else { Err(wrong) }
            }
            libc::AF_NETLINK if rest.len() < 10 => Err(Errno::EINVAL),
            libc::AF_NETLINK if family != domain => Err(wrong),
            libc::AF_NETLINK => Ok(Self::Unnamed),
            _ if family != libc::AF_UNIX || rest.len() > UNIX_NAME_MAX => Err(wrong),
            _ if rest.is_empty() => Ok(Self::Unnamed),
            // An abstract name has the given length; a path ends with its first NUL.
            _ if rest.first() == Some(&0) => Ok(Self::Unix(rest.into())),
            _ => {
                let path = rest.split(|&byte| byte == 0).next().unwrap_or_default();
                Ok(Self::Unix([path, &[0]].concat().into()))
            }
        }
    }
}

fn is_mapped(host: &[u8; 16]) -> bool {
    host.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
