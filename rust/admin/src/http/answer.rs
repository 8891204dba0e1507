// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers: JSON bodies, and refusals with their status.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use mayfly_tenancy::{Readiness, ReloadError};
use serde_json::{Value, json};

use crate::changes::reload::Changes;

pub(crate) type Answer = Response<Full<Bytes>>;

/// The answer for load balancers. It names no tenant, since no key is needed.
pub(crate) fn readiness(readiness: &Readiness) -> Answer {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = answer(status, &json!(readiness));
    if !readiness.ready {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Why a request is not served.
pub(crate) struct Refusal {
    status: StatusCode,
    error: &'static str,
    reason: String,
    /// A header that the status requires.
    header: Option<(HeaderName, &'static str)>,
}

pub(crate) fn refusal(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { status, error, reason: reason.into(), header: None }
}

impl Refusal {
    pub(crate) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

pub(crate) fn changes_answer(changes: &Changes) -> Answer {
    let file = match &changes.applied {
        None => json!({ "changed": false }),
        Some(Ok(applied)) => json!({ "changed": true, "applied": applied }),
        Some(Err(error)) => json!({ "changed": true, "error": "bad-configuration", "reason": error.to_string() }),
    };
    let programs: Vec<Value> = changes
        .programs
        .iter()
        .map(|(tenant, result)| match result {
            Ok(reloaded) => {
                json!({ "tenant": tenant, "generation": reloaded.generation, "boot_ms": rounded(reloaded.boot_ms) })
            }
            Err(error) => {
                json!({ "tenant": tenant, "error": reload_refusal(error).error, "reason": error.to_string() })
            }
        })
        .collect();
    let status = if changes.all_in_force() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    answer(status, &json!({ "file": file, "programs": programs }))
}

/// Rounds to microseconds.
pub(crate) fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

pub(crate) fn reload_refusal(error: &ReloadError) -> Refusal {
    let (status, word) = match error {
        ReloadError::UnknownTenant => (StatusCode::NOT_FOUND, "unknown-tenant"),
        ReloadError::Program(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad-program"),
        ReloadError::Boot(_) | ReloadError::Violation(_) => (StatusCode::UNPROCESSABLE_ENTITY, "boot-failed"),
        ReloadError::Unhealthy(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unhealthy"),
        ReloadError::NoPrevious => (StatusCode::CONFLICT, "no-previous"),
        ReloadError::NoUploads => (StatusCode::FORBIDDEN, "uploads-are-off"),
        ReloadError::Held(_) => (StatusCode::SERVICE_UNAVAILABLE, "files-do-not-answer"),
        ReloadError::Host(_) | ReloadError::Ending => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    refusal(status, word, error.to_string())
}

pub(crate) fn busy() -> Answer {
    let reason = "the limit on concurrent changes is reached; try again";
    refused(refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", reason).with(RETRY_AFTER, "1"))
}

pub(crate) fn internal_error() -> Answer {
    refused(refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; see the server log"))
}

pub(crate) fn refused(Refusal { status, error, reason, header }: Refusal) -> Answer {
    let answer = answer(status, &json!({ "error": error, "reason": reason }));
    match header {
        Some((name, value)) => with(answer, name, value),
        None => answer,
    }
}

pub(crate) fn answer(status: StatusCode, body: &Value) -> Answer {
    response(status, "application/json", body.to_string() + "\n")
}

pub(crate) fn response(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let response = with(response, CONTENT_TYPE, content_type);
    with(response, CACHE_CONTROL, "no-store")
}

fn with(mut response: Answer, name: HeaderName, value: &'static str) -> Answer {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
