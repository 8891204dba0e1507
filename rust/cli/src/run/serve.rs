// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly run`: one program, or all tenants of a configuration, over HTTP/1.1.
//!
//! Every thread has its own event loop and its own workers; all accept from one listening socket. That is the shape of
//! Drogon's loops, so what holds for a program here holds for it there.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use mayfly_admin::Admin;
use mayfly_tenancy::inbound::{COOKIE_FIELD, REFUSED_FIELD, Refusal};
use mayfly_tenancy::{
    Config, DeferredReply, Failure as Answer, Header, HostState, LoopPool, Outcome, Request, ResponseSink, Server,
    TenantState, logging,
};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::Failure;
use crate::options::RunOptions;
use crate::run::end::{self, End, FAREWELL, SETTLE};
use crate::run::gated::Gated;

/// How long a client may take to send a request's head, and then its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the answers to what has taken longer may take: programs that run have two seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long a connection may be still before it counts as idle.
const IDLE: Duration = Duration::from_millis(100);
/// Bound for a request's head as hyper gets it: the gate refuses more than 64 KiB, and may write some bytes more than
/// came.
const HEAD_BYTES: usize = 192 << 10;

/// Descriptors of the command's own: the listener, and the event loop that waits for signals.
const DESCRIPTORS: u64 = 8;
/// Descriptors of a loop: its event queue, twice, what wakes it, signals, and its copy of the listener.
const DESCRIPTORS_PER_LOOP: u64 = 6;

pub fn run(options: &RunOptions) -> Result<(), Failure> {
    let (mut config, name) = match (&options.config, &options.program) {
        (Some(file), _) => {
            let config = Config::from_file(file).map_err(|error| Failure::Usage(error.to_string()))?;
            (config, file)
        }
        (None, Some(program)) => (options.settings.config(program)?, program),
        (None, None) => return Err(Failure::Usage("there is nothing to run".to_owned())),
    };
    if let Some(mib) = options.max_memory_mib {
        config.max_memory_bytes = Some(mib << 20);
    }
    let _log = logging::init("info");
    let threads = options.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, Into::into);
    mayfly_tenancy::require_descriptors(DESCRIPTORS + threads as u64 * DESCRIPTORS_PER_LOOP)
        .map_err(|error| Failure::Host(error.to_string()))?;
    let listener = TcpListener::bind(options.listen)
        .map_err(|error| Failure::Usage(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = listener.local_addr().map_err(host_failure)?;
    listener.set_nonblocking(true).map_err(host_failure)?;
    let server = Server::start(config).map_err(|error| Failure::Host(error.to_string()))?;
    if let HostState::Unusable { reason } = server.report().host {
        return Err(Failure::Host(reason));
    }
    if options.config.is_none() {
        wait_until_ready(&server)?;
    }
    let admin = Admin::start(&server).map_err(|error| Failure::Usage(error.to_string()))?;

    let (stop, stopped) = watch::channel(false);
    let listener_for = |_| listener.try_clone().map_err(host_failure);
    let listeners: Vec<_> = (0..threads).map(listener_for).collect::<Result<_, _>>()?;
    let mut loops = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let (tenants, stopped) = (Tenants::new(&server), stopped.clone());
        let work = move || block_on(serve(listener, tenants, stopped));
        loops.push(thread::Builder::new().name(format!("loop-{number}")).spawn(work).map_err(host_failure)?);
    }
    drop(stopped);
    println!("mayfly: {} answers on http://{address}/ (Ctrl-C ends it)", name.display());

    let waited = block_on(end::on_signals(listener, stop, &server));
    drop(admin);
    if matches!(waited, Ok(Ok(End::InOrder))) {
        for thread in loops {
            // A panic has been told by the panic hook; the others still end in order.
            let _ = thread.join();
        }
    }
    server.shutdown();
    waited.and_then(|outcome| outcome).map(|_| ()).map_err(host_failure)
}

/// What one loop serves.
struct Tenants {
    pool: LoopPool,
    server: Server,
    config: Arc<Config>,
    /// The largest request that any tenant takes.
    body_bytes: usize,
}

impl Tenants {
    fn new(server: &Server) -> Self {
        let config = server.config();
        Self { pool: server.loop_pool(), server: server.clone(), body_bytes: body_bytes(&config), config }
    }

    /// Bound for a request's body before it is known whose the request is. What is above its tenant's own limit, the
    /// tenancy refuses.
    fn body_bytes(&mut self) -> usize {
        let config = self.server.config();
        if !Arc::ptr_eq(&config, &self.config) {
            self.body_bytes = body_bytes(&config);
            self.config = config;
        }
        self.body_bytes
    }
}

fn body_bytes(config: &Config) -> usize {
    let most = config.tenants.iter().map(|tenant| tenant.limits.machine.request_bytes).max();
    most.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

fn host_failure(error: std::io::Error) -> Failure {
    Failure::Host(error.to_string())
}

/// With one program there is no point in serving 503: what keeps it from running ends the command.
fn wait_until_ready(server: &Server) -> Result<(), Failure> {
    loop {
        match server.report().tenants.into_iter().next().map(|tenant| tenant.state) {
            Some(TenantState::Ready { .. }) => return Ok(()),
            Some(TenantState::Failed { reason }) => return Err(Failure::Program(reason)),
            // The boot limit ends this wait.
            Some(TenantState::Unbooted | TenantState::Booting) => thread::sleep(Duration::from_millis(20)),
            None => return Err(Failure::Program("the program is not served".to_owned())),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

/// One thread's loop: accepts until told to stop, then lets requests in flight finish.
async fn serve(listener: TcpListener, tenants: Tenants, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(target: "mayfly::server", %error, "this thread cannot accept connections"),
    };
    let tenants = Rc::new(RefCell::new(tenants));
    // It may have no request when there is something to be done.
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
            Ok((socket, _)) => converse(socket, &tenants, &connections),
            Err(error) => {
                // Out of descriptors, most likely: it passes when connections close.
                tracing::warn!(target: "mayfly::server", %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // What the kernel has accepted is served; what comes later is refused.
    let stopped_at = Instant::now();
    while let Ok(Ok((socket, _))) = tokio::time::timeout_at(stopped_at + SETTLE, listener.accept()).await {
        converse(socket, &tenants, &connections);
    }
    drop(listener);
    // A connection that is not idle asks its client to close meanwhile. Hyper closes the others at once.
    tokio::time::sleep_until(stopped_at + IDLE).await;
    let _ = tokio::time::timeout_at(stopped_at + FAREWELL + LAST_ANSWERS, connections.shutdown()).await;
}

/// Has a connection's requests answered.
fn converse(socket: TcpStream, tenants: &Rc<RefCell<Tenants>>, connections: &GracefulShutdown) {
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
                    let mut response = answer(request, &tenants).await;
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

async fn answer(request: hyper::Request<Incoming>, tenants: &RefCell<Tenants>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if let Some(refusal) = head.headers.get(REFUSED_FIELD) {
        return refused(refusal.as_bytes());
    }
    let body_bytes = if body.is_end_stream() { 0 } else { tenants.borrow_mut().body_bytes() };
    // A body that says itself that it is too large is not asked for: a client that waits for "100 Continue" learns why
    // before it sends it.
    let is_too_large = body.size_hint().lower() > u64::try_from(body_bytes).unwrap_or(u64::MAX);
    let body = match is_too_large {
        true => None,
        false => Some(tokio::time::timeout(PATIENCE, Limited::new(body, body_bytes).collect()).await),
    };
    let headers: Vec<Header<'_>> = head
        .headers
        .iter()
        // Hyper keeps the cookies as they came by itself.
        .filter(|(name, _)| *name != COOKIE_FIELD)
        .map(|(name, value)| Header { name: name.as_str().as_bytes(), value: value.as_bytes() })
        .collect();
    let mut request = Request {
        method: head.method.as_str().as_bytes(),
        path: head.uri.path().as_bytes(),
        query: head.uri.query().unwrap_or_default().as_bytes(),
        body: &[],
        headers: &headers,
    };
    let mut reply = Reply::default();
    let body = match body {
        Some(Ok(Ok(body))) => body.to_bytes(),
        Some(Ok(Err(error))) if !error.is::<LengthLimitError>() => {
            return refused(format!("400 {}", Refusal::MALFORMED_BODY.json()).as_bytes());
        }
        None | Some(Ok(Err(_))) => {
            let reason = format!("the request's body is above the limit request_kib, {} KiB", body_bytes >> 10);
            tenants.borrow_mut().pool.refuse(&request, Answer::RequestTooLarge, &reason, &mut reply);
            return reply.into_response();
        }
        // The client went away or was too slow: nobody reads an answer, and hyper closes the connection.
        Some(Err(_)) => return status(StatusCode::REQUEST_TIMEOUT),
    };
    request.body = &body;
    let outcome = tenants.borrow_mut().pool.call(&request, &mut reply);
    match outcome {
        Outcome::Done => reply.into_response(),
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

/// Answers for what the gate has refused, which is said as "STATUS BODY", and closes the connection: where the next
/// request begins is not known.
fn refused(refusal: &[u8]) -> Response<Full<Bytes>> {
    let (status, body) = refusal.split_at(refusal.len().min(3));
    let mut response = Response::new(Full::from(Bytes::copy_from_slice(body.trim_ascii_start())));
    *response.status_mut() = StatusCode::from_bytes(status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A response while it is being written.
#[derive(Default)]
struct Reply {
    response: Response<()>,
    body: Vec<u8>,
    /// The length of a body that does not come. Hyper names none of its own then.
    announced: Option<u64>,
}

impl Reply {
    fn into_response(mut self) -> Response<Full<Bytes>> {
        if let Some(length) = self.announced {
            self.response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        self.response.map(|()| Full::new(Bytes::from(self.body)))
    }
}

impl ResponseSink for Reply {
    fn no_body(&mut self, length: Option<u64>) {
        self.body.clear();
        self.announced = length;
    }

    fn status(&mut self, status: u16) {
        // The sandbox has checked the range; what it passed on nevertheless is a gateway's error.
        *self.response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.response.headers_mut().clear();
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        // The sandbox has checked both; hyper's own check stands between a mistake there and a split response.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.response.headers_mut().append(name, value);
        }
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        self.announced = None;
        self.body.clear();
        self.body.resize(len, 0);
        &mut self.body
    }
}

/// A reply that a background thread sends to the connection's task.
struct Later {
    reply: Reply,
    sender: oneshot::Sender<Reply>,
}

impl ResponseSink for Later {
    fn no_body(&mut self, length: Option<u64>) {
        self.reply.no_body(length);
    }

    fn status(&mut self, status: u16) {
        self.reply.status(status);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.reply.header(name, value);
    }

    fn body(&mut self, len: usize) -> &mut [u8] {
        self.reply.body(len)
    }
}

impl DeferredReply for Later {
    fn send(self: Box<Self>) {
        // The connection may have closed meanwhile.
        let _ = self.sender.send(self.reply);
    }
}
