// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin listener: connections, bounded in number and time.
//!
//! A connection carries one request. Operators and scrapers call seldom, and a connection that does not stay open needs
//! no idle time-out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::api::Api;
use crate::http::patience::{FAREWELL, Patience};
use crate::tenants::Tenants;

/// Connections at a time; further ones wait in the system's queue.
const CONNECTIONS: usize = 64;
/// Bound for a request's head; hyper answers 431 above it.
const HEAD_BYTES: usize = 16 << 10;

/// Serves operators until `stopped` says so; then requests in progress have [`FAREWELL`].
pub(crate) async fn serve<T: Tenants>(
    listener: TcpListener,
    api: Api<T>,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    let api = Arc::new(api);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            // Removes connections from the set as they end.
            Some(_) = connections.join_next() => continue,
            _ = stopped.wait_for(|&stopped| stopped) => break,
        };
        match accepted {
            Ok((socket, place)) => {
                let api = Arc::clone(&api);
                connections.spawn(async move {
                    let _place = place;
                    let _ = timeout(patience.connection, converse(socket, &api, patience)).await;
                });
            }
            Err(error) => {
                // Most likely the process is out of descriptors, until connections close.
                tracing::warn!(target: "mayfly::admin", %error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, Option<tokio::sync::OwnedSemaphorePermit>)> {
    // The semaphore is never closed; if it were, connections would not be counted.
    let place = Arc::clone(room).acquire_owned().await.ok();
    let (socket, _) = listener.accept().await?;
    Ok((socket, place))
}

async fn converse<T: Tenants>(socket: TcpStream, api: &Arc<Api<T>>, patience: Patience) {
    let from = socket.peer_addr().ok();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let api = Arc::clone(api);
        async move { Ok::<Response<Full<Bytes>>, Infallible>(api.answer(request, from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = connection.await {
        tracing::debug!(target: "mayfly::admin", %error, "a connection ended early");
    }
}
