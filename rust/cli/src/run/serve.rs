// SPDX-License-Identifier: MIT OR Apache-2.0
//! One event loop: connections, and their requests.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use mayfly_tenancy::inbound::{COOKIE_FIELD, REFUSED_FIELD, Refusal};
use mayfly_tenancy::{Client, Failure, Header, Outcome, Request};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::run::end::{FAREWELL, SETTLE};
use crate::run::gated::Gated;
use crate::run::reply::{Later, Reply, refused, status};
use crate::run::tenants::Tenants;

/// How long a client may take to send a request's head, and then its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time for answers to requests that exceeded [`FAREWELL`]: running programs have two seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long a connection may be silent before it counts as idle.
const IDLE: Duration = Duration::from_millis(100);
/// The limit on a request's head as hyper gets it: the gate refuses more than 64 KiB, and may write some bytes more
/// than it has received.
const HEAD_BYTES: usize = 192 << 10;

/// One thread's loop: accepts until `stopped` says so, then lets requests in flight finish.
pub(crate) async fn serve(listener: TcpListener, tenants: Tenants, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(target: "mayfly::server", %error, "this thread cannot accept connections"),
    };
    let tenants = Rc::new(RefCell::new(tenants));
    // The loop may have no request when its pool needs attention.
    let woken = Arc::new(Notify::new());
    let waker = Arc::clone(&woken);
    tenants.borrow_mut().pool.set_waker(move || waker.notify_one());
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = woken.notified() => {
                tenants.borrow_mut().pool.tend();
                continue;
            }
            _ = stopped.wait_for(|&stopped| stopped) => break,
        };
        match accepted {
            Ok((socket, peer)) => converse(socket, peer, &tenants, &connections),
            Err(error) => {
                // Most likely the process is out of descriptors, until connections close.
                tracing::warn!(target: "mayfly::server", %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Connections that the kernel has accepted are served; later ones are refused.
    let stopped_at = Instant::now();
    while let Ok(Ok((socket, peer))) = tokio::time::timeout_at(stopped_at + SETTLE, listener.accept()).await {
        converse(socket, peer, &tenants, &connections);
    }
    drop(listener);
    // In the meantime, responses ask their clients to close. Hyper closes idle connections at once.
    tokio::time::sleep_until(stopped_at + IDLE).await;
    let _ = tokio::time::timeout_at(stopped_at + FAREWELL + LAST_ANSWERS, connections.shutdown()).await;
}

/// Serves the requests of a connection.
fn converse(socket: TcpStream, peer: SocketAddr, tenants: &Rc<RefCell<Tenants>>, connections: &GracefulShutdown) {
    let _ = socket.set_nodelay(true);
    let tenants = Rc::clone(tenants);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(
            TokioIo::new(Gated::new(socket)),
            service_fn(move |request| {
                let tenants = Rc::clone(&tenants);
                async move {
                    let mut response = answer(request, peer, &tenants).await;
                    if tenants.borrow().server.is_ending() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response)
                }
            }),
        );
    let connection = connections.watch(connection);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(target: "mayfly::server", %error, "a connection ended early");
        }
    });
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    tenants: &Rc<RefCell<Tenants>>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if let Some(refusal) = head.headers.get(REFUSED_FIELD) {
        return refused(refusal.as_bytes());
    }
    let body_bytes = if body.is_end_stream() { 0 } else { tenants.borrow_mut().body_bytes() };
    // A body that announces that it is too large is not requested: a client that waits for "100 Continue" gets the
    // reason before it sends the body.
    let is_too_large = body.size_hint().lower() > u64::try_from(body_bytes).unwrap_or(u64::MAX);
    let body = match is_too_large {
        true => None,
        false => Some(tokio::time::timeout(PATIENCE, Limited::new(body, body_bytes).collect()).await),
    };
    let headers: Vec<Header<'_>> = head
        .headers
        .iter()
        // Hyper preserves cookies itself.
        .filter(|(name, _)| *name != COOKIE_FIELD)
        .map(|(name, value)| Header { name: name.as_str().as_bytes(), value: value.as_bytes() })
        .collect();
    let mut request = Request {
        method: head.method.as_str().as_bytes(),
        path: head.uri.path().as_bytes(),
        query: head.uri.query().unwrap_or_default().as_bytes(),
        body: &[],
        headers: &headers,
        client: Some(Client { address: peer, is_encrypted: false }),
    };
    let mut reply = Reply::default();
    let body = match body {
        Some(Ok(Ok(body))) => body.to_bytes(),
        Some(Ok(Err(error))) if !error.is::<LengthLimitError>() => {
            return refused(format!("400 {}", Refusal::MALFORMED_BODY.json()).as_bytes());
        }
        None | Some(Ok(Err(_))) => {
            let reason = format!("the request's body is above the limit request_kib, {} KiB", body_bytes >> 10);
            tenants.borrow_mut().pool.refuse(&request, Failure::RequestTooLarge, &reason, &mut reply);
            return reply.into_response();
        }
        // The client disconnected or was too slow: it reads no answer, and hyper closes the connection.
        Some(Err(_)) => return status(StatusCode::REQUEST_TIMEOUT),
    };
    request.body = &body;
    let outcome = tenants.borrow_mut().pool.call(&request, &mut reply);
    match outcome {
        Outcome::Done => {
            if tenants.borrow().pool.resets_are_due() {
                let tenants = Rc::clone(tenants);
                // It runs when this connection's task has written the response.
                tokio::task::spawn_local(async move { tenants.borrow_mut().pool.reset_answered() });
            }
            reply.into_response()
        }
        Outcome::Later => {
            let (sender, receiver) = oneshot::channel();
            tenants.borrow_mut().pool.call_later(&request, Box::new(Later { reply, sender }));
            match receiver.await {
                Ok(reply) => reply.into_response(),
                Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    }
}
