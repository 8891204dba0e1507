// SPDX-License-Identifier: MIT OR Apache-2.0
//! A share of one processor.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::schema::inline_schema;

const MILLION: u32 = 1_000_000;

/// A share of one processor, 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuShare(u32);

impl CpuShare {
    /// None of it.
    pub const NONE: Self = Self(0);
    /// The default between requests: a twentieth.
    pub const BETWEEN_REQUESTS: Self = Self(MILLION / 20);

    /// From 0 to 1; anything below a millionth but 0 counts as one. `None`: it is not in that range.
    fn of(share: f64) -> Option<Self> {
        let millionths = (share * f64::from(MILLION)).ceil();
        (0.0..=1.0).contains(&share).then_some(Self((millionths as u32).min(MILLION)))
    }

    /// The wall-clock time for which this much CPU time is the share, in nanoseconds. `None`: the share is 0.
    pub(crate) fn wall_ns(self, cpu_ns: u64) -> Option<u64> {
        let all = u128::from(cpu_ns) * u128::from(MILLION);
        Some(u64::try_from(all.checked_div(self.0.into())?).unwrap_or(u64::MAX))
    }
}

impl<'de> Deserialize<'de> for CpuShare {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Share;

        impl Visitor<'_> for Share {
            type Value = CpuShare;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share of one processor from 0 to 1, such as 0.05")
            }

            fn visit_f64<E: Error>(self, share: f64) -> Result<CpuShare, E> {
                CpuShare::of(share).ok_or_else(|| E::invalid_value(Unexpected::Float(share), &self))
            }

            fn visit_u64<E: Error>(self, share: u64) -> Result<CpuShare, E> {
                CpuShare::of(share as f64).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(share), &self))
            }
        }

        from.deserialize_f64(Share)
    }
}

inline_schema!(CpuShare: { "type": "number", "minimum": 0, "maximum": 1 });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_from_0_to_1_and_none_becomes_0() {
        let parsed = |text: &str| serde_json::from_str::<CpuShare>(text).map_err(|error| error.to_string());
        for (text, millionths) in
            [("0", 0), ("0.0", 0), ("1", MILLION), ("1.0", MILLION), ("0.05", 50_000), ("1e-9", 1)]
        {
            assert_eq!(parsed(text), Ok(CpuShare(millionths)), "{text}");
        }
        for text in ["-0.1", "-1", "1.1", "2", "1e300", "\"0.5\"", "null"] {
            assert!(parsed(text).unwrap_err().contains("share of one processor from 0 to 1"), "{text}");
        }
        assert!(parsed("0.05").is_ok_and(|share| share == CpuShare::BETWEEN_REQUESTS));
    }

    #[test]
    fn a_share_of_a_processor_takes_longer() {
        assert_eq!(CpuShare::BETWEEN_REQUESTS.wall_ns(1_000_000), Some(20_000_000));
        assert_eq!(CpuShare(MILLION).wall_ns(7), Some(7));
        assert_eq!(CpuShare::NONE.wall_ns(7), None);
        assert_eq!(CpuShare(1).wall_ns(u64::MAX), Some(u64::MAX));
    }
}
