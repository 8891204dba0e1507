// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values that a configuration may hold, each checked where it is parsed, so
//! that an error has its line and its key.

use std::fmt;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Defines a `String` that satisfies `$is_valid`.
macro_rules! checked_string {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $is_valid:path, $expected:literal) => {
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
    };
}

checked_string!(
    /// A tenant's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or a digit.
    pub TenantName, is_name, "1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"
);

checked_string!(
    /// The start of the paths that a tenant answers: `/`, or `/` and segments without an empty one, `.` or `..`.
    ///
    /// Requests are compared byte by byte, so the characters are those that a client can send unescaped; without those that HTTP
    /// servers' routers give a meaning, so that a configuration is good for all of them.
    pub RoutePath, is_route, "a path such as \"/\" or \"/shop/eu\": no '/' at the end, no empty, '.' or '..' segment, no blanks, none of ?#*+$^|()[]{}"
);

checked_string!(
    /// Something that `execve` can pass on.
    pub(crate) Argument, is_argument, "a string of at most 131071 bytes without NUL"
);

checked_string!(
    /// The name of an environment variable.
    pub(crate) EnvironmentName, is_environment_name, "a name of an environment variable: not empty, without '=' and NUL"
);

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

/// Linux's own bound for one string is 32 pages with the NUL (`MAX_ARG_STRLEN`, execve(2)).
fn is_argument(text: &str) -> bool {
    text.len() < 128 << 10 && !text.contains('\0')
}

fn is_environment_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('=') && is_argument(text)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number<const MIN: u64, const MAX: u64>;

        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Number<MIN, MAX> {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&number) {
                    Ok(number)
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(number), &self))
                }
            }
        }

        from.deserialize_u64(Number::<MIN, MAX>).map(Self)
    }
}
