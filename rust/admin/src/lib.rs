// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operators' interface to a running server, and the watch over its files.
//!
//! ```text
//!   HTTP (admin.listen) ──> listener ── api ──┐
//!   inotify, SIGHUP ──────> watch ────────────┴── blocking threads ──> mayfly_tenancy::Server
//! ```
//!
//! All of it runs on one thread of its own, with an event loop, and on a few threads for calls that block. No thread
//! that serves tenants' requests takes part.
//!
//! # Invariants
//!
//! - No caller changes anything without a key; keys are compared in constant time.
//! - The cost of callers is bounded: connections, time, uploads at a time and their size, calls that block.
//! - A bad configuration or a bad program changes nothing: what runs keeps running.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they open"))]

mod changes;
mod http;
mod tenants;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mayfly_tenancy::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as flag;

use crate::changes::reload::Reloads;
use crate::changes::watch;
use crate::http::api::Api;
use crate::http::listener;
use crate::http::patience::{FAREWELL, Patience};
use crate::tenants::Tenants;

/// All calls that may block at a time.
const BLOCKING_THREADS: usize = 8;
/// Their threads do not end before the server does: the system may refuse new ones later.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The admin listener and the watch over files, until it is dropped.
#[derive(Debug)]
pub struct Admin {
    address: Option<SocketAddr>,
    stop: flag::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Why the admin thread cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The listener cannot have the address.
    #[error("admin.listen: cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The system refuses a thread or a descriptor.
    #[error("cannot start the admin thread: {}", mayfly_tenancy::with_advice(.0))]
    Thread(#[from] io::Error),
}

impl Admin {
    /// Starts what the server's configuration asks for: the listener if there is `admin`, the watch if there is
    /// `watch`. From here on, SIGHUP starts a look for changes in any case.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub fn start(server: &Server) -> Result<Self, AdminError> {
        Self::start_for(server.clone(), Patience::default())
    }

    fn start_for(tenants: impl Tenants, patience: Patience) -> Result<Self, AdminError> {
        let config = tenants.config();
        let listener = config.admin.as_ref().map(|admin| bind(admin.listen)).transpose()?;
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (stop, stopped) = flag::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("mayfly-admin-job")
            .thread_keep_alive(FOR_EVER)
            .build()?;
        // Tokio panics if it has no thread at all for such a call; with one, calls wait for it.
        mayfly_tenancy::room_for_a_thread()?;
        runtime.spawn_blocking(|| {});
        // Both belong to the runtime and must exist before the caller goes on: a file may change, or the signal arrive,
        // at once.
        let (listener, hangup, watched) = {
            let _inside = runtime.enter();
            let listener = listener.map(tokio::net::TcpListener::from_std).transpose()?;
            (listener, signal(SignalKind::hangup())?, watch::Watched::new(&config))
        };
        let reloads = Reloads::new(tenants);
        let work = async move {
            let listen = async {
                if let Some(listener) = listener {
                    let is_local = address.is_some_and(|address| address.ip().is_loopback());
                    let api = Api::new(reloads.clone(), patience, is_local);
                    listener::serve(listener, api, patience, stopped.clone()).await;
                }
            };
            let watch = async {
                let mut stopped = stopped.clone();
                tokio::select! {
                    () = watch::run(watched, reloads.clone(), hangup) => {}
                    _ = stopped.wait_for(|&stopped| stopped) => {}
                }
            };
            tokio::join!(listen, watch);
        };
        let thread = thread::Builder::new().name("mayfly-admin".to_owned()).spawn(move || {
            runtime.block_on(work);
            // A boot in progress does not delay the end of the server.
            runtime.shutdown_timeout(FAREWELL);
        })?;
        if let Some(address) = address {
            tracing::info!(target: "mayfly::admin", %address, "operators are served");
        }
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address of the listener, if there is one. For port 0 in the configuration it has the port that the system
    /// chose.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // The receiver is gone only if the thread has panicked, which the panic hook has logged.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|cause| AdminError::Listen { address, cause })
}
