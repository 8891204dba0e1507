// SPDX-License-Identifier: MIT OR Apache-2.0

//! Uses each part of the crate once; a test runs it on the fake host (`tenants/test/test_libmayfly.py`).

use std::sync::atomic::{AtomicU64, Ordering};

use mayfly_guest::{Host, Origin, Request, Response, serve};

/// The number of visits, in memory that all workers share.
fn count(host: &Host) -> Option<u64> {
    let (memory, size) = host.shared()?;
    if size < size_of::<AtomicU64>() {
        return None;
    }
    // SAFETY: the memory is that large, aligned to a page, there for ever, and reached by atomics only.
    let counter = unsafe { memory.cast::<AtomicU64>().as_ref() };
    Some(counter.fetch_add(1, Ordering::Relaxed) + 1)
}

/// Has the storage program say what it thinks of a key.
fn ask_storage(request: &Request) -> Response {
    let mut buffer = [0; 16];
    match request.call("get", request.body(), &mut buffer) {
        Ok(value) => Response::new("text/plain", value.to_vec()),
        Err(error) => Response::text(error.0.to_string()),
    }
}

fn client(request: &Request) -> Response {
    match request.path() {
        b"/count" => Response::text(format!("{:?}", count(request.host()))),
        b"/get" => ask_storage(request),
        b"/panic" => panic!("as I was told"),
        b"/many" => (0..65).fold(Response::text(""), |response, n| response.header(format!("x-{n}"), "")),
        b"/limits" => {
            let host = request.host();
            Response::text(format!("{} {} {}", host.request_max(), host.response_max(), host.response_headers_max()))
        }
        b"/header" => Response::new("text/plain", request.header("x-a").unwrap_or(b"none").to_vec()),
        b"/when" => Response::text(format!("{} {} {}", request.id(), request.unix_ns(), request.monotonic_ns())),
        b"/taken" => Response::text(Host::open().map_or_else(|error| error.to_string(), |_| String::new())),
        _ => Response::status(404).header("x-debug", format!("{request:?} {:?}", request.headers())),
    }
}

fn main() {
    serve(|request| match request.origin() {
        Origin::Call => Response::new("text/plain", request.body().to_vec()),
        Origin::Save => Response::text("state"),
        Origin::Restore => Response::status(if request.body() == b"state" { 200 } else { 500 }),
        _ => client(request),
    })
}
