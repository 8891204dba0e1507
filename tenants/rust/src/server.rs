// SPDX-License-Identifier: MIT OR Apache-2.0

//! A server on axum and tokio's multi-threaded runtime, as anyone would write it: it knows nothing of Mayfly. The port
//! is its argument.
//!
//! ```text
//! .../random  what must differ from request to request
//! .../echo    the request as JSON
//! .../count   how many times this was asked for
//! .../exit    ends the program
//! .../stream  a response whose length is not known when it begins
//! else        Hello World!
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// The most bytes of a request's body.
const BODY_MAX: usize = 16 << 20;

static COUNT: AtomicU64 = AtomicU64::new(0);

async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path.ends_with("/random") {
        random()
    } else if path.ends_with("/echo") {
        echo(request).await
    } else if path.ends_with("/stream") {
        stream()
    } else if path.ends_with("/count") {
        Json(json!({"count": COUNT.fetch_add(1, Ordering::Relaxed) + 1})).into_response()
    } else if path.ends_with("/exit") {
        process::exit(3)
    } else {
        ([(header::CONTENT_TYPE, "text/plain")], "Hello World!").into_response()
    }
}

/// Both come from the operating system each time: `rand::rng()` would keep a generator, and each request the same one.
fn random() -> Response {
    let (Ok(bits), Ok(now)) = (getrandom::u64(), SystemTime::now().duration_since(UNIX_EPOCH)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which a double has")]
    let number = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Json(json!({"random": number, "uuid": uuid::Uuid::new_v4().to_string(), "now": now})).into_response()
}

async fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(before)) => {
                before.push_str(", ");
                before.push_str(&value);
            }
            _ => {
                headers.insert(name.to_string(), Value::String(value.into_owned()));
            }
        }
    }
    Json(json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
    .into_response()
}

fn stream() -> Response {
    let lines = ["one\n", "two\n", "three\n"].map(|line| Ok::<_, Infallible>(Bytes::from_static(line.as_bytes())));
    let body = Body::from_stream(futures_util::stream::iter(lines));
    ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, Router::new().fallback(serve)).await?;
    Ok(())
}
