// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sample server for Rust, by the SDK: one exit of the machine for a request.
//!
//! ```text
//! .../random  what must differ from request to request
//! .../echo    the request as JSON
//! .../count   how many times this was asked for
//! .../exit    ends the program
//! else        Hello World!
//! ```

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_guest::{Request, Response, serve};
use serde_json::{Map, Value, json};

static COUNT: AtomicU64 = AtomicU64::new(0);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(value: &Value) -> Response {
    Response::new("application/json", value.to_string().into_bytes())
}

/// From the request's entropy, and so without a system call but the clock's.
fn random(request: &Request) -> Response {
    let entropy = request.entropy();
    let (Some(bits), Some(id), Ok(now)) =
        (entropy.first_chunk::<8>(), entropy.last_chunk::<16>(), SystemTime::now().duration_since(UNIX_EPOCH))
    else {
        return Response::status(500);
    };
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which a double has")]
    let number = (u64::from_le_bytes(*bits) >> 11) as f64 / (1_u64 << 53) as f64;
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let id = uuid::Builder::from_random_bytes(*id).into_uuid();
    json(&json!({"random": number, "uuid": id.to_string(), "now": now}))
}

fn echo(request: &Request) -> Response {
    let headers: Map<_, _> = request.headers().map(|(name, value)| (text(name), Value::String(text(value)))).collect();
    json(&json!({
        "method": text(request.method()),
        "path": text(request.path()),
        "query": text(request.query()),
        "headers": headers,
        "body": text(request.body()),
    }))
}

fn main() {
    serve(|request| {
        let path = request.path();
        if path.ends_with(b"/random") {
            random(request)
        } else if path.ends_with(b"/echo") {
            echo(request)
        } else if path.ends_with(b"/count") {
            json(&json!({"count": COUNT.fetch_add(1, Ordering::Relaxed) + 1}))
        } else if path.ends_with(b"/exit") {
            process::exit(3)
        } else {
            Response::text("Hello World!")
        }
    })
}
