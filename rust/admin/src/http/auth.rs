// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rights of a caller, by its key.
//!
//! The configuration has only SHA-256 digests of keys. Digests are compared in constant time, so that the delay of an
//! answer does not reveal how much of a guess was right. A tenant that does not exist costs as many comparisons as one
//! that does.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use mayfly_tenancy::{Config, KeyDigest};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What a caller has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The operator's key.
    Operator,
    /// The key of the tenant in question.
    Owner,
    /// No key, or one that does not allow the request.
    Unknown,
}

/// The rights of a caller that asks about `tenant`, or about the server.
pub(crate) fn caller(config: &Config, tenant: Option<&str>, headers: &HeaderMap) -> Caller {
    let Some(key) = bearer(headers) else { return Caller::Unknown };
    let shown: [u8; 32] = Sha256::digest(key).into();
    let operator = is_digest_of(&shown, config.admin.as_ref().and_then(|admin| admin.key));
    // The loop goes through all tenants, wherever the one in question is.
    let owned = config
        .tenants
        .iter()
        .fold(None, |found, candidate| if Some(candidate.name.as_str()) == tenant { Some(candidate) } else { found });
    let owner = is_digest_of(&shown, owned.and_then(|tenant| tenant.upload_key));
    match (bool::from(operator), bool::from(owner)) {
        (true, _) => Caller::Operator,
        (false, true) => Caller::Owner,
        (false, false) => Caller::Unknown,
    }
}

/// The key of `Authorization: Bearer KEY` (RFC 6750, 2.1). Two such headers count as none.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, key) = only.as_bytes().split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

/// Whether there is an expected digest, and it is the one shown.
fn is_digest_of(shown: &[u8; 32], expected: Option<KeyDigest>) -> Choice {
    let digest = expected.as_ref().map_or(&[0; 32], KeyDigest::as_bytes);
    shown.ct_eq(digest) & Choice::from(u8::from(expected.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let digest = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Config::from_json(&format!(
            r#"{{"admin": {{"key_sha256": "{}"}}, "tenants": [
                {{"name": "a", "program": "p", "path": "/a", "upload_key_sha256": "{}"}},
                {{"name": "b", "program": "p", "path": "/b", "upload_key_sha256": "{}"}},
                {{"name": "none", "program": "p", "path": "/c"}}]}}"#,
            digest("operator"),
            digest("key of a"),
            digest("key of b"),
        ))
        .unwrap()
    }

    fn called(tenant: Option<&str>, authorization: &[&str]) -> Caller {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        caller(&config(), tenant, &headers)
    }

    #[test]
    fn a_key_allows_its_own_tenant_and_the_operators_key_allows_all() {
        for (tenant, key, expected) in [
            (Some("a"), "Bearer key of a", Caller::Owner),
            (Some("b"), "bearer  key of b ", Caller::Owner),
            (Some("b"), "Bearer key of a", Caller::Unknown),
            (Some("none"), "Bearer key of a", Caller::Unknown),
            (Some("absent"), "Bearer key of a", Caller::Unknown),
            (None, "Bearer key of a", Caller::Unknown),
            (None, "Bearer operator", Caller::Operator),
            (Some("a"), "Bearer operator", Caller::Operator),
            (Some("absent"), "Bearer operator", Caller::Operator),
            (None, "Bearer operator2", Caller::Unknown),
            (None, "Bearer ", Caller::Unknown),
            (None, "Bearer", Caller::Unknown),
            (None, "operator", Caller::Unknown),
            (None, "Basic operator", Caller::Unknown),
        ] {
            assert_eq!(called(tenant, &[key]), expected, "{tenant:?} {key}");
        }
        assert_eq!(called(None, &[]), Caller::Unknown);
        assert_eq!(called(None, &["Bearer operator", "Bearer operator"]), Caller::Unknown);
    }

    #[test]
    fn without_an_expected_key_no_key_is_accepted() {
        let zeros = KeyDigest::from([0; 32]);
        assert!(!bool::from(is_digest_of(&[0; 32], None)));
        assert!(bool::from(is_digest_of(&[0; 32], Some(zeros))));
    }
}
