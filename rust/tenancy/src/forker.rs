// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that forks workers ahead and closes those that are done with, both of which take too long for a loop thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;

use crate::meter::Meter;
use crate::route::TenantIndex;
use crate::tenant::{Forked, Tenant};

/// Where one pool's next worker of one tenant is put down. The pool looks here only when it has none.
#[derive(Debug, Default)]
pub(crate) struct Berth {
    worker: Mutex<Option<Forked>>,
    ordered: AtomicBool,
}

impl Berth {
    /// Takes the worker if one lies here; never waits.
    pub(crate) fn take(&self) -> Option<Forked> {
        match self.worker.try_lock() {
            Ok(mut worker) => worker.take(),
            Err(TryLockError::Poisoned(worker)) => worker.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Puts a worker down, or gives it back if one of its generation or a later one lies here.
    pub(crate) fn put(&self, new: Forked) -> Option<Forked> {
        let mut place = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Some(old) if old.generation >= new.generation => Some(new),
            _ => place.replace(new),
        }
    }

    fn is_empty(&self) -> bool {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

enum Order {
    Fork { tenant: TenantIndex, berth: Arc<Berth> },
    Close(Forked),
}

/// Takes orders from any thread without waiting. The thread ends when the last `Forker` is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Forker {
    orders: Sender<Order>,
}

impl Forker {
    pub(crate) fn start(tenants: Arc<[Tenant]>, meter: Arc<Meter>) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        thread::Builder::new().name("mayfly-forker".to_owned()).spawn(move || work(&tenants, &meter, &receiver))?;
        Ok(Self { orders })
    }

    /// Has a worker put down at `berth`. A berth waits for at most one, so orders do not pile up.
    pub(crate) fn order(&self, tenant: TenantIndex, berth: &Arc<Berth>) {
        if !berth.ordered.swap(true, Ordering::AcqRel) {
            self.send(Order::Fork { tenant, berth: Arc::clone(berth) });
        }
    }

    /// Closes a worker that is poisoned or of an old generation.
    pub(crate) fn close(&self, worker: Forked) {
        self.send(Order::Close(worker));
    }

    fn send(&self, order: Order) {
        // It fails only if the thread panicked; requests are then served by the deferred pool's own forks.
        let _ = self.orders.send(order);
    }
}

fn work(tenants: &[Tenant], meter: &Meter, orders: &Receiver<Order>) {
    for order in orders {
        let (tenant, berth) = match order {
            Order::Fork { tenant, berth } => (tenant, berth),
            Order::Close(worker) => {
                drop(worker);
                continue;
            }
        };
        // Whoever holds the berth besides this order is the pool that asked.
        if Arc::strong_count(&berth) > 1
            && berth.is_empty()
            && let Ok(worker) = tenants[tenant].fork()
        {
            meter.tenant(tenant).forks.increase();
            let _unwanted = berth.put(worker);
        }
        berth.ordered.store(false, Ordering::Release);
    }
}
