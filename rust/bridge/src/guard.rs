// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guard that turns a panic at the bridge into a value.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mayfly panicked, with this message. The panic hook has logged where.
#[derive(Debug, thiserror::Error)]
#[error("internal error in Mayfly: {0}")]
pub(crate) struct Panicked(String);

/// Runs `work` and returns its result, or the message of its panic.
///
/// Asserting unwind safety is right here: the caller of a failed entry gets an error, and what the entry worked on is
/// either dropped (a server that did not start, a reply) or owned by the tenancy, which discards the worker of a call
/// that did not return.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::guard;

    #[test]
    fn a_result_passes_through() {
        assert!(matches!(guard(|| 7), Ok(7)));
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let panicked: Result<(), _> = guard(|| panic!("worker {} is gone", 3));
        assert_eq!(panicked.map_err(|e| e.to_string()), Err("internal error in Mayfly: worker 3 is gone".to_owned()));
    }
}
