// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs learn about clients.
//!
//! The doc comments are the descriptions in the published schema.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::config::network::Network;

/// A tenant's checked setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// The headers in which the program finds its client.
    pub headers: ClientHeaders,
    /// The addresses of proxies whose own such headers are passed on.
    pub trusted_proxies: Vec<Network>,
}

/// The headers in which a program finds its client's address, and the scheme and the host that it asked for.
#[derive(Debug, Deserialize, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientHeaders {
    /// X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
    #[default]
    XForwarded,
    /// Forwarded, as in RFC 7239.
    Forwarded,
    /// None: the program learns nothing about the client, and its connection's peer is 127.0.0.1.
    None,
}

/// What the program learns about the client.
#[derive(Deserialize, Clone, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Client")]
pub(super) struct ClientPatch {
    /// The headers in which the program finds the client's address, and the scheme and the host that it asked for.
    #[schemars(extend("default" = "x-forwarded"))]
    headers: Option<ClientHeaders>,
    /// Addresses and networks of proxies in front of the server: their own such headers are passed on. Those of all
    /// other clients are removed.
    trusted_proxies: Option<Networks>,
}

/// A list of at most 256 networks: each request compares its client's address with all of them.
#[derive(Clone, Default, JsonSchema)]
#[schemars(inline)]
struct Networks(#[schemars(length(max = 256))] Vec<Network>);

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(from)?;
        if list.len() > 256 {
            return Err(D::Error::invalid_length(list.len(), &"a list of at most 256"));
        }
        Ok(Self(list))
    }
}

impl ClientPatch {
    /// Takes over what is not set from `base`, key by key.
    pub(super) fn or(self, base: &Self) -> Self {
        Self {
            headers: self.headers.or(base.headers),
            trusted_proxies: self.trusted_proxies.or_else(|| base.trusted_proxies.clone()),
        }
    }
}

impl From<ClientPatch> for ClientConfig {
    fn from(client: ClientPatch) -> Self {
        Self {
            headers: client.headers.unwrap_or_default(),
            trusted_proxies: client.trusted_proxies.unwrap_or_default().0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{only, problem, tenant};

    #[test]
    fn each_key_is_the_tenants_or_its_groups_or_the_defaults() {
        let text = r#"{"defaults": {"client": {"headers": "forwarded", "trusted_proxies": ["::1"]}},
            "groups": {"g": {"client": {"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]}}, "h": {"client": {"headers": "none"}}},
            "tenants": [
                {"name": "a", "program": "p", "path": "/a"},
                {"name": "b", "program": "p", "path": "/b", "group": "g"},
                {"name": "c", "program": "p", "path": "/c", "group": "g", "client": {"headers": "x-forwarded"}},
                {"name": "d", "program": "p", "path": "/d", "group": "h", "client": {"trusted_proxies": []}}]}"#;
        let found: Vec<_> = Config::from_json(text).unwrap().tenants.into_iter().map(|tenant| tenant.client).collect();
        let client = |headers, networks: &[&str]| ClientConfig {
            headers,
            trusted_proxies: networks.iter().map(|network| network.parse().unwrap()).collect(),
        };
        assert_eq!(
            found,
            [
                client(ClientHeaders::Forwarded, &["::1"]),
                client(ClientHeaders::Forwarded, &["10.0.0.0/8", "fd00::/8"]),
                client(ClientHeaders::XForwarded, &["10.0.0.0/8", "fd00::/8"]),
                client(ClientHeaders::None, &[]),
            ]
        );
        assert_eq!(only(&tenant("")).client, client(ClientHeaders::XForwarded, &[]));
    }

    #[test]
    fn an_invalid_setting_is_reported_with_its_position() {
        let of = |client: &str| problem(&tenant(&format!(r#", "client": {client}"#)));
        assert_eq!(
            of(r#"{"headers": "all"}"#),
            "tenants[0].client.headers: unknown variant `all`, expected one of `x-forwarded`, `forwarded`, `none`"
        );
        let network = of(r#"{"trusted_proxies": ["::1", "10.0.0.1/8"]}"#);
        assert!(network.starts_with("tenants[0].client.trusted_proxies[1]: \"10.0.0.1/8\" has bits"), "{network}");
        let many = format!(r#"{{"trusted_proxies": [{}]}}"#, vec![r#""::1""#; 257].join(", "));
        assert!(of(&many).contains("invalid length 257, expected a list of at most 256"), "{}", of(&many));
    }
}
