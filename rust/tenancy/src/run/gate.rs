// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps an abandoned thread from answering after the server has ended.
//!
//! A thread that is blocked on a file may hold a request, and with it a reply whose loop is gone by the time that the
//! file responds. Such a reply is neither sent nor dropped, since dropping sends it too. It is leaked, and the process
//! ends.

use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, ThreadId};

use mayfly_sandbox::ResponseSink;

use crate::run::reply::DeferredReply;

/// Open until the server has ended.
#[derive(Debug, Default)]
pub(crate) struct ReplyGate {
    is_closed: RwLock<bool>,
}

impl ReplyGate {
    /// When this returns, no reply is being sent, and none will be sent later.
    pub(crate) fn close(&self) {
        *self.is_closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// A reply that is sent or dropped only while the gate is open. On its own loop's thread it is always sent or dropped,
/// because the loop still exists then.
pub(crate) struct Gated {
    /// `None` once it has been sent.
    reply: Option<Box<dyn DeferredReply>>,
    gate: Arc<ReplyGate>,
    /// The loop's thread.
    home: ThreadId,
}

impl Gated {
    /// Guards a reply to a request of this thread's loop.
    pub(crate) fn new(reply: Box<dyn DeferredReply>, gate: &Arc<ReplyGate>) -> Self {
        Self { reply: Some(reply), gate: Arc::clone(gate), home: thread::current().id() }
    }

    fn pass(&mut self, end: impl FnOnce(Box<dyn DeferredReply>)) {
        let Some(reply) = self.reply.take() else { return };
        let is_closed = self.gate.is_closed.read().unwrap_or_else(PoisonError::into_inner);
        if *is_closed && thread::current().id() != self.home { std::mem::forget(reply) } else { end(reply) }
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.pass(drop);
    }
}

impl ResponseSink for Gated {
    fn no_body(&mut self, length: Option<u64>) {
        if let Some(reply) = &mut self.reply {
            reply.no_body(length);
        }
    }

    fn status(&mut self, status: u16) {
        if let Some(reply) = &mut self.reply {
            reply.status(status);
        }
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        if let Some(reply) = &mut self.reply {
            reply.header(name, value);
        }
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        match &mut self.reply {
            Some(reply) => reply.body(len),
            // Sending consumes the sink, so nothing writes to it afterwards.
            None => &mut [],
        }
    }
}

impl DeferredReply for Gated {
    fn send(mut self: Box<Self>) {
        self.pass(|reply| reply.send());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mayfly_sandbox::BufferedResponse;

    use super::*;

    struct Reply {
        response: BufferedResponse,
        events: Arc<Mutex<Vec<&'static str>>>,
    }

    impl ResponseSink for Reply {
        fn no_body(&mut self, length: Option<u64>) {
            self.response.no_body(length);
        }
        fn status(&mut self, status: u16) {
            self.response.status(status);
        }
        fn header(&mut self, name: &[u8], value: &[u8]) {
            self.response.header(name, value);
        }
        fn body(&mut self, len: usize) -> &mut [u8] {
            self.response.body(len)
        }
    }

    impl DeferredReply for Reply {
        fn send(self: Box<Self>) {
            self.events.lock().unwrap().push("sent");
        }
    }

    impl Drop for Reply {
        fn drop(&mut self) {
            self.events.lock().unwrap().push("dropped");
        }
    }

    #[test]
    fn no_reply_is_sent_from_another_thread_when_the_gate_is_closed() {
        let events = Arc::<Mutex<Vec<_>>>::default();
        let gate = Arc::<ReplyGate>::default();
        let reply = || {
            let reply = Reply { response: BufferedResponse::default(), events: Arc::clone(&events) };
            Box::new(Gated::new(Box::new(reply), &gate))
        };
        let mut open = reply();
        open.body(4).copy_from_slice(b"body");
        open.status(200);
        open.header(b"a", b"b");
        open.send();
        drop(reply());
        assert_eq!(*events.lock().unwrap(), ["sent", "dropped", "dropped"]);
        let (sent, dropped, at_home) = (reply(), reply(), reply());
        gate.close();
        thread::spawn(|| {
            sent.send();
            drop(dropped);
        })
        .join()
        .unwrap();
        assert_eq!(events.lock().unwrap().len(), 3, "neither sent nor dropped");
        at_home.send();
        assert_eq!(events.lock().unwrap().len(), 5, "its loop still exists");
    }
}
