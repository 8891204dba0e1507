// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that wait for the network occupy no thread, and continue when data arrives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use mayfly_tenancy::{LoopPool, Outcome};
use serde_json::{Value, json};
use support::*;

const TIME: Duration = Duration::from_secs(20);

/// A server for the necessary part of Redis's protocol. It leaves the answer to BLPOP to the test, and answers other
/// commands with the number of the connection.
struct Server {
    port: u16,
    /// The connection of each BLPOP, for the test to answer.
    pops: Receiver<TcpStream>,
}

fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, pops) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, connection) in (1..).zip(listener.incoming()) {
            let sender = sender.clone();
            std::thread::spawn(move || drop(serve_commands(connection.unwrap(), number, &sender)));
        }
    });
    Server { port, pops }
}

fn serve_commands(mut stream: TcpStream, number: u32, pops: &Sender<TcpStream>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(count) = lines.next() {
        let count: usize = count?.trim_start_matches('*').parse().unwrap();
        // Each part is preceded by a line with its size.
        let parts: Vec<String> = lines.by_ref().take(2 * count).collect::<Result<_, _>>()?;
        match parts[1].as_str() {
            "BLPOP" => drop(pops.send(stream.try_clone()?)),
            _ => stream.write_all(format!(":{number}\r\n").as_bytes())?,
        }
    }
    Ok(())
}

fn tenant(name: &str, port: u16, more: Value) -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/redis/redis");
    assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
    let address = format!("127.0.0.1:{port}");
    let mut tenant = json!({
        "name": name, "path": format!("/{name}"), "program": program, "env": {"REDIS": address}, "outbound": [address],
        "limits": {"cpu_ms": 20_000, "wall_ms": 60_000},
    });
    tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    tenant
}

/// Serves a request; the answer arrives on the channel.
fn begin(pool: &mut LoopPool, method: &'static [u8], target: &'static str) -> Receiver<Response> {
    let (sender, receiver) = mpsc::channel();
    let request = mayfly_tenancy::Request { method, ..request(target) };
    let mut response = Response::default();
    match pool.call(&request, &mut response) {
        Outcome::Done => sender.send(response).unwrap(),
        Outcome::Later => pool.call_later(&request, Box::new(Later { response, sender })),
    }
    receiver
}

fn post(pool: &mut LoopPool, target: &'static str) -> Response {
    begin(pool, b"POST", target).recv_timeout(TIME).unwrap()
}

#[test]
fn requests_that_wait_for_the_network_occupy_no_thread() {
    let outside = server();
    let tenants = [tenant("r", outside.port, json!({})), support::tenant("b", json!({}))];
    let server = start_with(json!({"overflow_threads": 1, "tenants": tenants}));
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/b/ok");
    // As many as may run at a time: on a busy machine any of them may be paused on its way to where it waits.
    let waiting: Vec<_> = (0..8).map(|_| begin(&mut pool, b"GET", "/r/pop?list")).collect();
    let connections: Vec<_> = waiting.iter().map(|_| outside.pops.recv_timeout(TIME).unwrap()).collect();
    wait_until("all requests wait", || server.report().overflow == waiting.len());
    // There is one thread for all of them, and it is free: a request that needs it is served.
    let start = Instant::now();
    assert_eq!(get(&mut pool, "/b/spin?30").status, 200);
    assert_eq!(get(&mut pool, "/b/ok").status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(waiting.iter().all(|answer| answer.try_recv().is_err()), "no request is answered yet");
    let start = Instant::now();
    for (at, mut connection) in connections.into_iter().enumerate() {
        // In two pieces, each of which wakes the request.
        connection.write_all(b"*2\r\n$4\r\nlist\r\n").unwrap();
        connection.write_all(format!("$2\r\n{:02}\r\n", at).as_bytes()).unwrap();
    }
    let mut bodies: Vec<_> = waiting
        .iter()
        .map(|answer| {
            let response = answer.recv_timeout(TIME).unwrap();
            assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
            response.body
        })
        .collect();
    bodies.sort();
    assert_eq!(bodies, (0..8).map(|at| format!("{at:02}").into_bytes()).collect::<Vec<_>>());
    assert!(start.elapsed() < Duration::from_secs(10), "woken by the data, not by a timeout");
    let report = report(&server, "r");
    assert_eq!((report.connects, report.refused_connects, report.in_flight), (8, 0, 0));
}

#[test]
fn a_wait_for_the_network_ends_at_the_wall_limit() {
    let outside = server();
    let limits = json!({"limits": {"wall_ms": 300}});
    let server = start(&[tenant("r", outside.port, limits)]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/r/none");
    let mut lost = None;
    // A busy machine may let the limit pass before the program gets to where it waits.
    wait_until("a request waits for the network until its limit", || {
        let start = Instant::now();
        let answer = begin(&mut pool, b"GET", "/r/pop?list").recv_timeout(TIME).unwrap();
        assert_eq!(answer.error(), (504, "wall-limit".to_owned()));
        assert!(start.elapsed() >= Duration::from_millis(290));
        lost = outside.pops.recv_timeout(Duration::from_secs(1)).ok();
        lost.is_some()
    });
    // The connection is closed with the request.
    let mut lost = lost.unwrap();
    wait_until("it is closed", || lost.write_all(b"x").is_err());
}

#[test]
fn a_connection_lives_as_long_as_the_programs_state() {
    let outside = server();
    let kept = json!({"ephemeral": false});
    let server = start(&[tenant("r", outside.port, json!({})), tenant("k", outside.port, kept)]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/r/none");
    wait_for_worker(&mut pool, "/k/none");
    // The answers are the connections' numbers.
    let numbers = |pool: &mut LoopPool, target| -> Vec<Vec<u8>> { (0..3).map(|_| post(pool, target).body).collect() };
    assert_eq!(numbers(&mut pool, "/r/incr?a"), [b"1", b"2", b"3"], "one connection per request");
    assert_eq!(numbers(&mut pool, "/k/incr?a"), [b"4", b"4", b"4"], "one connection for all requests");
}

#[test]
fn unlisted_destinations_are_refused_and_counted() {
    let outside = server();
    let elsewhere = json!({"env": {"REDIS": "10.9.8.7:6379"}});
    let server = start(&[tenant("r", outside.port, elsewhere)]);
    let mut pool = server.loop_pool();
    wait_for_worker(&mut pool, "/r/none");
    let response = begin(&mut pool, b"GET", "/r/get?a").recv_timeout(TIME).unwrap();
    assert_eq!((response.status, response.body.as_slice()), (502, b"Permission denied".as_slice()));
    let report = report(&server, "r");
    assert_eq!((report.connects, report.refused_connects), (0, 1));
}

#[test]
fn shutdown_answers_requests_that_wait_for_the_network() {
    let outside = server();
    let server = start(&[tenant("r", outside.port, json!({}))]);
    let mut pool = server.loop_pool();
    let answer = begin(&mut pool, b"GET", "/r/pop?list");
    let _connection = outside.pops.recv_timeout(TIME).unwrap();
    wait_until("the request waits", || server.report().overflow == 1);
    server.shutdown();
    assert_eq!(answer.recv_timeout(TIME).unwrap().status, 503);
}
