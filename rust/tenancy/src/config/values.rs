// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of a configuration. Each is checked where it is parsed, so that an error has its line and its key.

use std::fmt;
use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::schema::inline_schema;

/// Defines a `String` that satisfies `$is_valid`.
macro_rules! checked_string {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $is_valid:path, $expected:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        $visibility struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            #[allow(dead_code, reason = "not every kind of text is read in place")]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, &'static str> {
                if $is_valid(&text) { Ok(Self(text)) } else { Err(concat!("expected ", $expected)) }
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                if $is_valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(D::Error::invalid_value(Unexpected::Str(&text), &$expected))
                }
            }
        }

        inline_schema!($name: $schema);
    };
}

checked_string!(
    /// A tenant's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or a digit.
    pub TenantName, is_name, "1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit",
    { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" }
);

checked_string!(
    /// The prefix of the paths that a tenant answers: `/`, or `/` and segments, none of which is empty, `.` or `..`.
    ///
    /// Paths are compared byte by byte, so only characters are allowed that a client can send unescaped. Characters
    /// that have a meaning for routers of HTTP servers are excluded, so that a configuration works with all of them.
    pub RoutePath, is_route, "a path such as \"/\" or \"/shop/eu\": no final '/', no empty, '.' or '..' segment, no blanks, none of ?#*+$^|()[]{}",
    { "type": "string", "maxLength": 1024, "pattern": r"^(/|(/([!%&',\-0-9:;=@A-Z_a-z~][!%&',\-0-9:;=@A-Z_a-z~.]*|\.[!%&',\-0-9:;=@A-Z_a-z~][!%&',\-0-9:;=@A-Z_a-z~.]*|\.\.[!%&',\-0-9:;=@A-Z_a-z~.]+))+)$" }
);

checked_string!(
    /// A string that `execve` can pass on.
    pub(crate) Argument, is_argument, "a string of at most 131071 bytes without NUL",
    { "type": "string", "maxLength": 131_071, "pattern": r"^[^\u0000]*$" }
);

checked_string!(
    /// The name of an environment variable.
    pub(crate) EnvironmentName, is_environment_name, "a name of an environment variable: not empty, without '=' and NUL",
    { "type": "string", "maxLength": 131_071, "pattern": r"^[^=\u0000]+$" }
);

checked_string!(
    /// The path of a file or directory.
    pub(crate) FilePath, is_file_path, "a path: not empty, without NUL",
    { "type": "string", "minLength": 1, "pattern": r"^[^\u0000]+$" }
);

checked_string!(
    /// The target in a request line: path and query.
    pub(crate) RequestTarget, is_target, "a path, with a query or without, such as \"/health?full\": it starts with '/', no blanks, no '#'",
    { "type": "string", "maxLength": 1024, "pattern": r#"^/[!-"$-~]*$"# }
);

checked_string!(
    /// The body of a warm-up request.
    pub(crate) WarmUpBody, is_warm_up_body, "a string of at most 65536 bytes",
    { "type": "string", "maxLength": 65_536 }
);

checked_string!(
    /// The path at which a program sees a directory of the host. The same rules as those of the mounts, which check it
    /// again.
    pub(crate) MountPath, is_mount_path, "an absolute path of at most 1024 bytes without empty, '.' and '..' components and without '/' at the end, not in /proc, /dev or /sys, which Mayfly provides",
    { "type": "string", "maxLength": 1024, "pattern": r"^(/|(/([^/.\u0000][^/\u0000]*|\.[^/.\u0000][^/\u0000]*|\.\.[^/\u0000]+))+)$",
      "not": { "pattern": r"^/(proc|dev|sys)(/|$)" } }
);

checked_string!(
    /// An HTTP method.
    pub(crate) Method, is_method, "an HTTP method such as \"GET\"",
    { "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$" }
);

checked_string!(
    /// The name of an HTTP header.
    pub(crate) FieldName, is_field_name, "a header's name",
    { "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$" }
);

checked_string!(
    /// The value of an HTTP header.
    pub(crate) FieldValue, is_field_value, "a header's value: at most 8192 printable ASCII characters, no blank at either end",
    { "type": "string", "maxLength": 8192, "pattern": "^([!-~]([ -~]*[!-~])?)?$" }
);

fn is_mount_path(text: &str) -> bool {
    let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    let is_provided = |path: &str| matches!(path.split('/').next(), Some("proc" | "dev" | "sys"));
    let path = text.strip_prefix('/').filter(|path| text.len() <= 1024 && !is_provided(path));
    path.is_some_and(|path| path.is_empty() || path.split('/').all(is_plain))
}

fn is_method(text: &str) -> bool {
    is_token(text) && text.len() <= 32
}

fn is_field_name(text: &str) -> bool {
    is_token(text) && text.len() <= 256
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(crate::http1::is_token_byte)
}

fn is_warm_up_body(text: &str) -> bool {
    text.len() <= 65_536
}

fn is_field_value(text: &str) -> bool {
    text.len() <= 8192 && text.trim_matches(' ') == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_route(text: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}*+$()[]".contains(&byte))
    };
    text == "/" || text.strip_prefix('/').is_some_and(|rest| text.len() <= 1024 && rest.split('/').all(is_segment))
}

/// Linux limits one string to 32 pages including the NUL (`MAX_ARG_STRLEN`, execve(2)).
fn is_argument(text: &str) -> bool {
    text.len() < 128 << 10 && !text.contains('\0')
}

fn is_environment_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('=') && is_argument(text)
}

fn is_file_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn is_target(text: &str) -> bool {
    text.len() <= 1024 && text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

impl RoutePath {
    /// `/`, the prefix of every path.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }
}

/// The hosts of a route: one name, all names below one, or every host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host, and requests without one.
    Any,
    /// This host: a name in lower case, or an address; IPv6 addresses in brackets.
    Exact(String),
    /// All names that end with a dot and this suffix: `a.b.example` for `b.example`, but not `b.example` itself.
    Suffix(String),
}

const HOST: &str = "a host such as \"shop.example\", \"*.example\" or \"[::1]\": no port, no final dot, names of other scripts in their ASCII form (xn--)";

impl TryFrom<&str> for HostPattern {
    type Error = &'static str;

    fn try_from(text: &str) -> Result<Self, &'static str> {
        let (is_suffix, host) = text.strip_prefix("*.").map_or((false, text), |host| (true, host));
        match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // An address has many notations; clients send the one that the standard prefers (RFC 5952).
            Some(address) if !is_suffix => {
                address.parse::<Ipv6Addr>().map(|address| Self::Exact(format!("[{address}]"))).map_err(|_| HOST)
            }
            None if is_host_name(host) && is_suffix => Ok(Self::Suffix(host.to_ascii_lowercase())),
            None if is_host_name(host) => Ok(Self::Exact(host.to_ascii_lowercase())),
            Some(_) | None => Err(HOST),
        }
    }
}

impl fmt::Display for HostPattern {
    /// The configuration's notation; empty for every host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

inline_schema!(HostPattern: {
    "type": "string",
    "maxLength": 255,
    "pattern": r"^((\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f:.]+\])$"
});

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::try_from(text.as_str()).map_err(|expected| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

/// Labels of letters, digits, `-` and `_`, as names in practice have them (RFC 1123, and `_` as in RFC 8552). IPv4
/// addresses match as well.
pub(crate) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The SHA-256 digest of a key. The key itself is not in the configuration.
///
/// `==` is only for comparing configurations. A client's key is checked in constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for KeyDigest {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for KeyDigest {
    /// Hides the digest: a weak key could be guessed from its digest in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

inline_schema!(KeyDigest: { "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" });

impl<'de> Deserialize<'de> for KeyDigest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        match digits.as_deref().map(|digits| digits.as_chunks::<2>()) {
            Some((pairs, [])) if pairs.len() == 32 => {
                let mut digest = [0; 32];
                for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
                    *byte = high << 4 | low;
                }
                Ok(Self(digest))
            }
            // The value is not repeated in the message, because it may be the key itself.
            _ => Err(D::Error::custom(
                "expected a SHA-256 digest, which is 64 hexadecimal digits; `sha256sum` prints it",
            )),
        }
    }
}

/// A list with 1 to 256 elements.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline)]
pub(crate) struct SomeOf<T>(#[schemars(length(min = 1, max = 256))] Vec<T>);

impl<T> SomeOf<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for SomeOf<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(from)?;
        if (1..=256).contains(&list.len()) {
            Ok(Self(list))
        } else {
            Err(D::Error::invalid_length(list.len(), &"a list of 1 to 256"))
        }
    }
}

/// A whole number from `MIN` to `MAX`, a multiple of `STEP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u64, const MAX: u64, const STEP: u64 = 1>(u64);

impl<const MIN: u64, const MAX: u64, const STEP: u64> Bounded<MIN, MAX, STEP> {
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The number as this type, which `MAX` must fit.
    pub(crate) fn u32(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }

    /// The number as this type, which `MAX` must fit.
    pub(crate) fn u16(self) -> u16 {
        const { assert!(MAX <= u16::MAX as u64) };
        self.0 as u16
    }
}

impl<const MIN: u64, const MAX: u64, const STEP: u64> JsonSchema for Bounded<MIN, MAX, STEP> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Number_{MIN}_{MAX}_{STEP}").into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = schemars::json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX });
        if STEP != 1 {
            schema.insert("multipleOf".to_owned(), STEP.into());
        }
        schema
    }
}

impl<'de, const MIN: u64, const MAX: u64, const STEP: u64> Deserialize<'de> for Bounded<MIN, MAX, STEP> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number<const MIN: u64, const MAX: u64, const STEP: u64>;

        impl<const MIN: u64, const MAX: u64, const STEP: u64> Visitor<'_> for Number<MIN, MAX, STEP> {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")?;
                if STEP == 1 { Ok(()) } else { write!(f, ", a multiple of {STEP}") }
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&number) && number.is_multiple_of(STEP) {
                    Ok(number)
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(number), &self))
                }
            }
        }

        from.deserialize_u64(Number::<MIN, MAX, STEP>).map(Self)
    }
}
