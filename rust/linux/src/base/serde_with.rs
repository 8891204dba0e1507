// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serialised forms for fields that serde does not support.

/// Arrays longer than serde supports.
pub(crate) mod array {
    use serde::de::{DeserializeOwned, Error};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, T: Serialize, const N: usize>(
        array: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        array.as_slice().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: DeserializeOwned, const N: usize>(
        deserializer: D,
    ) -> Result<[T; N], D::Error> {
        <Vec<T>>::deserialize(deserializer)?.try_into().map_err(|_| D::Error::custom("wrong number of elements"))
    }
}

/// Names of the calls that threads wait in: only messages use them.
pub(crate) mod call_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::base::names;

    pub(crate) fn serialize<S: Serializer>(name: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
        name.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(names::known(&name).unwrap_or("a call"))
    }
}
