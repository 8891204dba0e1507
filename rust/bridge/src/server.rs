// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server, as C++ sees it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mayfly_admin::Admin;
use mayfly_tenancy as tenancy;
use tenancy::logging::{self, LogGuard};

use crate::error::BridgeError;
use crate::guard::guard;
use crate::pool::LoopPool;

/// The tenants of this process, and its log.
pub(crate) struct Server {
    tenancy: tenancy::Server,
    /// The listener for operators and the watch over files, until shutdown.
    admin: Mutex<Option<Admin>>,
    /// Writes pending lines when it is dropped.
    _log: LogGuard,
}

/// Starts the tenants that `config_json` describes, the listener for operators and the watch over files. It starts
/// without a usable engine, too; then the tenants that need it answer 503.
pub(crate) fn start_server(config_json: &str) -> Result<Box<Server>, BridgeError> {
    guard(|| {
        let log = logging::init("info");
        let tenancy = tenancy::Server::start(parse(config_json)?)?;
        let admin = Mutex::new(Some(Admin::start(&tenancy)?));
        Ok(Box::new(Server { tenancy, admin, _log: log }))
    })?
}

/// Checks that the process may have enough descriptors, if the caller opens `later` more before it starts Mayfly.
pub(crate) fn require_descriptors(later: u64) -> Result<(), BridgeError> {
    guard(|| Ok(tenancy::require_descriptors(later)?))?
}

/// Whether there are enough descriptors to keep a connection that was just accepted.
pub(crate) fn has_room_for_connection() -> bool {
    guard(tenancy::for_connection).unwrap_or(true)
}

fn parse(config_json: &str) -> Result<tenancy::Config, BridgeError> {
    // C++ wrote this text from a parsed file, so lines and columns in it mean nothing to the user.
    let config = serde_json::from_str(config_json).map_err(tenancy::ConfigError::syntax)?;
    Ok(tenancy::Config::from_value(&config)?)
}

impl Server {
    /// The report, as JSON.
    pub(crate) fn report_json(&self) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.tenancy.report())?))?
    }

    /// The report, in the format of Prometheus.
    pub(crate) fn metrics(&self) -> Result<String, BridgeError> {
        Ok(guard(|| self.tenancy.metrics())?)
    }

    /// Whether there is a default tenant.
    pub(crate) fn has_default(&self) -> Result<bool, BridgeError> {
        Ok(guard(|| self.tenancy.config().tenants.iter().any(|tenant| tenant.is_default))?)
    }

    /// Puts another configuration in force. Returns the result as JSON.
    pub(crate) fn apply(&self, config_json: &str) -> Result<String, BridgeError> {
        guard(|| Ok(serde_json::to_string(&self.tenancy.apply(parse(config_json)?))?))?
    }

    /// Boots a tenant's program again. Returns the number of the generation that answers now.
    pub(crate) fn reload(&self, tenant: &str) -> Result<u64, BridgeError> {
        guard(|| Ok(self.tenancy.reload(tenant)?.generation))?
    }

    /// Goes back to a tenant's former generation. Returns its number.
    pub(crate) fn rollback(&self, tenant: &str) -> Result<u64, BridgeError> {
        guard(|| Ok(self.tenancy.rollback(tenant)?.generation))?
    }

    /// Reports to operators that the server is ending.
    pub(crate) fn begin_end(&self, at_most_ms: u64) {
        // After a panic, which the panic hook has logged, the shutdown goes on without a report to operators.
        let _ = guard(|| self.tenancy.begin_end(Duration::from_millis(at_most_ms)));
    }

    /// Counts the requests that have left their loops and are not answered yet.
    pub(crate) fn in_work(&self) -> u32 {
        guard(|| self.tenancy.in_work()).unwrap_or(0)
    }

    /// Ends the listener for operators and the watch, and answers waiting requests. No deferred reply is sent after it
    /// has returned.
    pub(crate) fn shutdown(&self) {
        // A panic here needs no handling: the process is about to end.
        let _ = guard(|| {
            drop(self.admin.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.tenancy.shutdown();
        });
    }

    /// Makes a pool of workers for the calling thread.
    pub(crate) fn loop_pool(&self) -> Result<Box<LoopPool>, BridgeError> {
        Ok(guard(|| Box::new(LoopPool::new(self.tenancy.loop_pool())))?)
    }
}
