// SPDX-License-Identifier: MIT OR Apache-2.0
//! What decides which of a tenant's workers gets a request.

use std::fmt;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::config::schema::inline_schema;

/// Longest name of a cookie or a header.
const NAME_MAX: usize = 128;

/// What the requests of one client have in common, for tenants with several workers that keep their state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affinity {
    /// The connection: the client's address and port.
    Connection,
    /// The value of the cookie of this name.
    Cookie(String),
    /// The value of the header of this name, which is in lower case.
    Header(String),
}

impl Affinity {
    /// The notation in configurations.
    fn parse(text: &str) -> Option<Self> {
        if text == "connection" {
            return Some(Self::Connection);
        }
        let (kind, name) = text.split_once(':')?;
        if name.len() > NAME_MAX || !mayfly_sandbox::fields::is_token(name.as_bytes()) {
            return None;
        }
        match kind {
            "cookie" => Some(Self::Cookie(name.to_owned())),
            "header" => Some(Self::Header(name.to_ascii_lowercase())),
            _ => None,
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str("connection"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for Affinity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = "\"connection\", \"cookie:NAME\" or \"header:NAME\", with a name of at most 128 bytes";
        Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

inline_schema!(Affinity: {
    "type": "string",
    "pattern": r"^(connection|(cookie|header):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128})$"
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_cookies_and_headers_are_named() {
        for (text, shown) in
            [("connection", "connection"), ("cookie:sessionid", "cookie:sessionid"), ("header:X-User", "header:x-user")]
        {
            assert_eq!(Affinity::parse(text).map(|affinity| affinity.to_string()).as_deref(), Some(shown));
        }
        let long = format!("cookie:{}", "n".repeat(NAME_MAX + 1));
        for text in ["", "cookie", "cookie:", "cookie:a b", "cookie:a=b", "header:a:b", "query:a", "connection:", &long]
        {
            assert_eq!(Affinity::parse(text), None, "{text}");
        }
    }
}
