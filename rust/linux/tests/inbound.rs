// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections from outside to programs that listen, however they wait.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use mayfly_linux::{ConnectionId, Limits, OutputState, Step};
use support::{Guest, Linking, MEMORY, compile};

const WAYS: [&str; 5] = ["epoll", "edge", "poll", "select", "threads"];

/// A server that listens and waits.
fn server(way: &str) -> Guest {
    let program = compile("server", Linking::Glibc);
    let mut guest = Guest::load(&program, &[way], &Limits { threads: 8, ..Limits::default() }, MEMORY);
    assert!(!guest.process.is_listening());
    assert!(matches!(guest.run(), Some(Step::Waits { until_ns: None, .. })), "{way}");
    assert!(guest.process.is_listening());
    guest
}

/// Runs until the server waits again for input: on a slow machine that takes more than one turn.
fn resume(guest: &mut Guest) {
    let mut end = guest.wake();
    while matches!(end, Some(Step::Waits { until_ns: Some(_), .. })) {
        end = guest.wake();
    }
    assert!(
        matches!(end, Some(Step::Waits { until_ns: None, .. })),
        "{end:?}, {}",
        String::from_utf8_lossy(&guest.log.stderr)
    );
}

fn take(guest: &mut Guest, connection: ConnectionId) -> (String, OutputState) {
    let mut out = Vec::new();
    let state = guest.process.take_output(connection, &mut out);
    (String::from_utf8(out).unwrap(), state)
}

#[test]
fn requests_are_answered_however_a_server_waits() {
    for way in WAYS {
        let mut guest = server(way);
        let (process, machine) = (&mut guest.process, &mut guest.machine);
        assert_eq!(process.input_waiter(machine, None), Some(0), "{way}");
        let first = process.connect().unwrap();
        let second = process.connect().unwrap();
        process.send(first, b"hello").unwrap();
        resume(&mut guest);
        assert!(guest.process.has_output(), "{way}");
        assert_eq!(take(&mut guest, first), ("5\n".into(), OutputState::Open), "{way}");
        assert!(!guest.process.has_output(), "{way}");
        assert_eq!(take(&mut guest, second), (String::new(), OutputState::Open), "{way}");
        let waiter = guest.process.input_waiter(&mut guest.machine, Some(second));
        assert_eq!(waiter, Some(if way == "threads" { 2 } else { 0 }), "{way}");
        // The first connection again, and then the other one.
        guest.process.send(first, &[b'a'; 1000]).unwrap();
        guest.process.send(second, b"b").unwrap();
        resume(&mut guest);
        assert_eq!(take(&mut guest, first), ("1000\n".into(), OutputState::Open), "{way}");
        assert_eq!(take(&mut guest, second), ("2\n".replace('2', "1"), OutputState::Open), "{way}");
        // The program closes one, and the test the other.
        guest.process.send(first, b"close").unwrap();
        guest.process.finish(second);
        resume(&mut guest);
        assert!(guest.process.has_output(), "{way}");
        assert_eq!(take(&mut guest, first), (String::new(), OutputState::Gone), "{way}");
        assert!(guest.process.send(first, b"x").is_err(), "{way}");
        assert_eq!(take(&mut guest, second), (String::new(), OutputState::Gone), "{way}");
        assert!(!guest.process.has_output(), "{way}");
        let third = guest.process.connect().unwrap();
        guest.process.send(third, b"quit").unwrap();
        assert_eq!(guest.wake(), Some(Step::Exited { status: 7 }), "{way}");
    }
}

#[test]
fn a_client_is_the_peer_for_as_long_as_it_is_set() {
    let mut guest = server("name");
    let connection = guest.process.connect().unwrap();
    let mut named = |client: Option<&str>| {
        guest.process.set_client(connection, client.map(|client| client.parse().unwrap()));
        guest.process.send(connection, b"x").unwrap();
        resume(&mut guest);
        take(&mut guest, connection).0
    };
    // What accept has said, and what getpeername says now.
    assert_eq!(named(Some("192.0.2.7:1234")), "192.0.2.7:1234 192.0.2.7:1234\n");
    assert_eq!(named(Some("198.51.100.1:65535")), "192.0.2.7:1234 198.51.100.1:65535\n");
    assert_eq!(named(Some("[2001:db8::1]:5")), "192.0.2.7:1234 192.0.0.8:5\n");
    assert_eq!(named(None), "192.0.2.7:1234 127.0.0.1:40001\n");
    guest.process.freeze();
    let frozen = guest.process.clone();
    guest.process.set_client(connection, Some("192.0.2.9:9".parse().unwrap()));
    assert!(guest.process.is_dirty());
    guest.process.reset_from(&frozen);
    assert_eq!(format!("{:?}", guest.process), format!("{frozen:?}"));
}

#[test]
fn a_program_waits_until_its_output_is_taken() {
    let mut guest = server("threads");
    let connection = guest.process.connect().unwrap();
    guest.process.send(connection, b"large").unwrap();
    let mut total = 0;
    for round in 0..3 {
        resume(&mut guest);
        let (text, state) = take(&mut guest, connection);
        assert!(text.len() <= 1 << 20);
        assert_eq!(state, OutputState::Open, "round {round}");
        total += text.len();
    }
    assert_eq!(total, 2 << 20, "all of its output");
    guest.process.close(connection);
    resume(&mut guest);
}

#[test]
fn a_connection_that_is_closed_from_outside_has_no_output() {
    let mut guest = server("epoll");
    for request in ["hello", "close"] {
        let connection = guest.process.connect().unwrap();
        guest.process.send(connection, request.as_bytes()).unwrap();
        resume(&mut guest);
        assert!(guest.process.has_output(), "{request}");
        guest.process.close(connection);
        assert!(!guest.process.has_output(), "{request}");
        resume(&mut guest);
        assert!(!guest.process.has_output(), "{request}");
    }
}

#[test]
fn a_large_request_arrives_whole() {
    let mut guest = server("epoll");
    let connection = guest.process.connect().unwrap();
    guest.process.send(connection, &vec![b'a'; 1_000_000]).unwrap();
    resume(&mut guest);
    let (text, _) = take(&mut guest, connection);
    assert_eq!(text.lines().map(|line| line.parse::<usize>().unwrap()).sum::<usize>(), 1_000_000);
}

#[test]
fn the_backlog_is_bounded() {
    let mut guest = server("epoll");
    let connections: Vec<_> = (0..5).map(|_| guest.process.connect().unwrap()).collect();
    assert!(guest.process.connect().is_err());
    for &connection in &connections {
        guest.process.close(connection);
    }
    resume(&mut guest);
    assert!(guest.process.connect().is_ok());
}

#[test]
fn connections_are_undone_by_a_reset() {
    let mut guest = server("epoll");
    let early = guest.process.connect().unwrap();
    guest.process.send(early, b"kept").unwrap();
    guest.process.freeze();
    let frozen = guest.process.clone();
    for _ in 0..3 {
        let mut process = guest.process.clone();
        let late = process.connect().unwrap();
        process.send(late, &[0; 100_000]).unwrap();
        process.close(early);
        assert!(process.is_dirty());
        process.reset_from(&frozen);
        assert!(!process.is_dirty());
        assert_eq!(format!("{process:?}"), format!("{frozen:?}"));
    }
}

/// A program that connects to its own listener without ever accepting costs the host a bounded number of sockets.
#[test]
fn connections_that_are_not_accepted_are_bounded() {
    let program = compile("sockets", Linking::Glibc);
    let mut guest = Guest::load(&program, &["crowd"], &Limits::default(), MEMORY);
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }));
    assert_eq!(String::from_utf8_lossy(&guest.log.stdout), "crowded\n");
}
