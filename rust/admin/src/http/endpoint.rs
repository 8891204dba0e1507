// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths of the interface.

const PREFIX: &str = "/_mayfly/";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    Health,
    Ready,
    Status,
    Metrics,
    ReloadAll,
    Upload(&'a str),
    Rollback(&'a str),
    Reload(&'a str),
}

impl<'a> Endpoint<'a> {
    pub(crate) fn find(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix(PREFIX)?;
        Some(match path {
            "health" => Self::Health,
            "ready" => Self::Ready,
            "status" => Self::Status,
            "metrics" => Self::Metrics,
            "reload" => Self::ReloadAll,
            _ => match path.strip_prefix("tenants/")?.split_once('/')? {
                ("", _) => return None,
                (tenant, "program") => Self::Upload(tenant),
                (tenant, "rollback") => Self::Rollback(tenant),
                (tenant, "reload") => Self::Reload(tenant),
                _ => return None,
            },
        })
    }

    /// The methods, as the value of an `Allow` header.
    pub(crate) fn allow(self) -> &'static str {
        match self {
            Self::Health | Self::Ready | Self::Status | Self::Metrics => "GET, HEAD",
            Self::Upload(_) => "PUT",
            Self::ReloadAll | Self::Rollback(_) | Self::Reload(_) => "POST",
        }
    }

    pub(crate) fn tenant(self) -> Option<&'a str> {
        match self {
            Self::Upload(tenant) | Self::Rollback(tenant) | Self::Reload(tenant) => Some(tenant),
            Self::Health | Self::Ready | Self::Status | Self::Metrics | Self::ReloadAll => None,
        }
    }

    /// Its name in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Ready => "ready",
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::ReloadAll | Self::Reload(_) => "reload",
            Self::Upload(_) => "upload",
            Self::Rollback(_) => "rollback",
        }
    }
}
