// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that listen in several places: which of them is the application.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::plain::Plain;
use common::{Kept, call, patient, program, text};
use mayfly_sandbox::{
    BootError, BufferedResponse, CallError, Client, Host, Limits, LogSink, NoLog, Program, Request, Service, Snapshot,
    SnapshotFileError, Worker,
};

/// `tenants/doors` with arguments separated by blanks; it is asked for these paths before the freeze.
fn doors(how: &str, port: Option<u16>, warm_up: &[&str]) -> Program {
    let args: Vec<&str> = how.split(' ').collect();
    let warm_up = warm_up.iter().map(|target| common::warm_up(target, 1)).collect();
    Program { service: Some(Service { port, warm_up, ..Service::new(Arc::new(Plain)) }), ..program("doors", &args) }
}

fn limits() -> Limits {
    Limits { threads: 8, descriptors: 256, ..patient() }
}

fn boot_with(program: &Program, limits: &Limits, log: Arc<dyn LogSink>) -> Result<Snapshot, BootError> {
    Snapshot::boot(&Host::open().expect("these tests need an engine"), program, limits, log)
}

fn boot(how: &str, port: Option<u16>, warm_up: &[&str]) -> Result<Snapshot, BootError> {
    boot_with(&doors(how, port, warm_up), &limits(), Arc::new(NoLog))
}

fn worker(how: &str, port: Option<u16>) -> Worker {
    let snapshot = boot(how, port, &[]).unwrap_or_else(|error| panic!("{how}, {port:?}: {error}"));
    Worker::fork(&snapshot).unwrap()
}

/// One that keeps its state.
fn kept(how: &str, port: Option<u16>) -> Worker {
    Worker::fork_keeping_state(&boot(how, port, &[]).unwrap()).unwrap()
}

/// The error of a program that does not boot.
fn refusal(how: &str, port: Option<u16>, warm_up: &[&str]) -> String {
    match boot(how, port, warm_up) {
        Ok(_) => panic!("{how}, {port:?}: it boots"),
        Err(error) => error.to_string(),
    }
}

const ADMIN: &str = "listen=127.0.0.1:2019";

#[test]
fn the_named_port_is_the_application_in_whatever_order_and_at_whatever_address() {
    let reaches = |how: &str, address: &str| {
        let mut worker = worker(how, Some(8080));
        for _ in 0..2 {
            let who = text(&mut worker, "/who");
            assert_eq!(who.split(' ').nth(1), Some(address), "{how}: {who}");
            assert_eq!(worker.differences(), 0, "{how}");
        }
    };
    for address in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "192.0.2.1:8080"] {
        reaches(&format!("{ADMIN} listen={address}"), address);
    }
    for address in ["0.0.0.0:8080", "[::1]:8080"] {
        for how in [
            format!("{ADMIN} listen={address} listen=[::]:9229"),
            format!("listen={address} {ADMIN} listen=[::]:9229"),
            format!("listen=/run/it listen=[::]:9229 {ADMIN} listen={address}"),
            format!("{ADMIN} listen=@it sleep=30 listen={address}"),
            format!("{ADMIN} later=30,{address}"),
            format!("idle=127.0.0.1:1 {ADMIN} thread={address}"),
            format!("once {ADMIN} later=30,{address} tick=20"),
            // By itself.
            format!("listen={address}"),
        ] {
            reaches(&how, address);
        }
    }
}

/// The peer's address, as the program finds it in a request of this client.
fn peer(worker: &mut Worker, client: Option<&str>) -> String {
    let client = client.map(|client| Client { address: client.parse().unwrap(), is_encrypted: false });
    let request = Request { method: b"GET", path: b"/who", query: b"", headers: &[], body: b"", client };
    let mut response = BufferedResponse::default();
    worker.call(7, &request, &mut response).unwrap();
    let text = String::from_utf8(response.body).unwrap();
    text.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn the_peer_is_the_client_of_each_request_and_is_taken_back() {
    let (v4, v6) = (Some("192.0.2.7:1234"), Some("[2001:db8::7]:1234"));
    for (listener, of_none, of_v4, of_v6) in [
        ("listen=0.0.0.0:80", "127.0.0.1", "192.0.2.7", "192.0.0.8"),
        ("listen=[::]:80", "[::ffff:127.0.0.1]", "[::ffff:192.0.2.7]", "[2001:db8::7]"),
        ("only6=[::]:80", "[::1]", "[::ffff:192.0.2.7]", "[2001:db8::7]"),
        ("listen=[::1]:80", "[::1]", "[::ffff:192.0.2.7]", "[2001:db8::7]"),
    ] {
        // Frozen before it has accepted, and with a connection that it keeps.
        for warm_up in [&[][..], &["/who"]] {
            let snapshot = boot(listener, None, warm_up).unwrap();
            let (mut reset, mut kept) =
                (Worker::fork(&snapshot).unwrap(), Worker::fork_keeping_state(&snapshot).unwrap());
            for worker in [&mut reset, &mut kept] {
                for (client, expected) in [(v4, of_v4), (v6, of_v6), (None, of_none), (v4, of_v4), (None, of_none)] {
                    assert_eq!(peer(worker, client), expected, "{listener}, {warm_up:?}, {client:?}");
                }
            }
            assert_eq!(reset.differences(), 0, "{listener}");
        }
    }
}

#[test]
fn a_program_with_several_listeners_and_no_port_does_not_boot_and_says_which_they_are() {
    let says = |how: &str, listed: &str| {
        let message = refusal(how, None, &[]);
        let expected = format!("the program listens on {listed}: ");
        assert!(message.starts_with(&expected) && message.contains("\"port\""), "{how}: {message}");
        assert!(message.contains("mayfly run --program-port"), "{message}");
    };
    says("listen=127.0.0.1:2019 listen=0.0.0.0:8080", "127.0.0.1:2019, then 0.0.0.0:8080");
    says("listen=0.0.0.0:8080 listen=[::1]:2019", "0.0.0.0:8080, then [::1]:2019");
    says("listen=[::]:80 only6=[::]:443 thread=127.0.0.1:1", "[::]:80, then [::]:443, then 127.0.0.1:1");
    says("listen=0.0.0.0:0 listen=0.0.0.0:0", "0.0.0.0:32768, then 0.0.0.0:32769");
    // The program need not accept there.
    says("listen=0.0.0.0:8080 idle=0.0.0.0:1", "0.0.0.0:8080, then 0.0.0.0:1");
    says("idle=0.0.0.0:2 idle=0.0.0.0:1", "0.0.0.0:2, then 0.0.0.0:1");
    // The listener on a path may be the application, and the one on the port an administrator's.
    says("listen=/run/it listen=0.0.0.0:80", "unix:/run/it, then 0.0.0.0:80");
    says("listen=0.0.0.0:80 listen=@it\n\x1b", "0.0.0.0:80, then unix:@it\\n\\x1b");
    // It has timers, and begins to listen by one of them.
    says("listen=127.0.0.1:9229 later=200,0.0.0.0:80", "127.0.0.1:9229, then 0.0.0.0:80");
    says("listen=127.0.0.1:9229 later=200,0.0.0.0:80 tick=20", "127.0.0.1:9229, then 0.0.0.0:80");
    // As many listeners as there may be.
    let many: Vec<String> = (1..=40).map(|port| format!("listen=0.0.0.0:{port}")).collect();
    let message = refusal(&many.join(" "), None, &[]);
    assert!(message.contains("then 0.0.0.0:16, and 24 more: "), "{message}");
}

#[test]
fn a_listener_that_comes_with_a_warm_up_request_counts() {
    for once in ["", "once "] {
        let how = format!("{once}listen=0.0.0.0:8080");
        let message = refusal(&how, None, &["/open?0.0.0.0:9000", "/who"]);
        assert!(message.starts_with("the program listens on 0.0.0.0:8080, then 0.0.0.0:9000: "), "{message}");
        assert!(boot(&how, Some(8080), &["/open?0.0.0.0:9000", "/who"]).is_ok(), "{once}");
        let message = refusal(&how, Some(8080), &["/close?0", "/who"]);
        assert!(
            once.is_empty() || message.starts_with("the program listens on nothing, and not on port 8080"),
            "{message}"
        );
    }
}

#[test]
fn one_port_may_have_several_listeners() {
    let both = ["listen=0.0.0.0:80 only6=[::]:80", "only6=[::]:80 listen=0.0.0.0:80"];
    for how in both {
        for port in [None, Some(80)] {
            let who = text(&mut worker(how, port), "/who");
            // Clients arrive at the one for IPv4, as one from this machine.
            assert!(who.ends_with(" 0.0.0.0:80 127.0.0.1:80 127.0.0.1"), "{how}: {who}");
        }
    }
    assert_eq!(
        text(&mut worker("listen=[::1]:80 listen=127.0.0.1:80", None), "/who"),
        "1 127.0.0.1:80 127.0.0.1:80 127.0.0.1"
    );
    // A listener for both families has a client by IPv4; one for IPv6 only has none.
    let ends = |how: &str, end: &str| {
        let who = text(&mut worker(how, None), "/who");
        assert!(who.ends_with(end), "{how}: {who}");
    };
    ends("listen=[::]:80", " [::ffff:127.0.0.1]:80 [::ffff:127.0.0.1]");
    ends("only6=[::]:80", " [::1]:80 [::1]");
    ends("listen=[::1]:80", " [::1]:80 [::1]");
    // The program's own connections know the difference, too.
    let mut own = worker("listen=127.0.0.1:1 only6=[::]:80 listen=0.0.0.0:80", Some(1));
    assert_eq!(text(&mut own, "/ask?2"), "2 0.0.0.0:80 127.0.0.1:80 127.0.0.1");
    // Threads that share it.
    for how in ["thread=0.0.0.0:80 thread=0.0.0.0:80 thread=0.0.0.0:80", "share=[::]:80 thread=[::]:80"] {
        for port in [None, Some(80)] {
            let mut worker = worker(how, port);
            for _ in 0..3 {
                assert!(text(&mut worker, "/who").starts_with("0 "), "{how}");
            }
        }
    }
    // Which address is it? The port does not say.
    for port in [None, Some(80)] {
        let message = refusal("listen=127.0.0.1:80 listen=127.0.0.2:80", port, &[]);
        assert!(message.starts_with("the program listens on 127.0.0.1:80, then 127.0.0.2:80: "), "{message}");
    }
    let message = refusal("listen=127.0.0.1:80 listen=127.0.0.2:80", Some(80), &[]);
    assert!(message.contains("have it listen on port 80 at one address"), "{message}");
}

#[test]
fn a_port_that_never_listens_is_reported_with_those_that_do() {
    let message = refusal("listen=127.0.0.1:2019 listen=[::]:8000 listen=/run/it", Some(8080), &[]);
    let expected = "the program listens on 127.0.0.1:2019, then [::]:8000, then unix:/run/it, and not on port 8080, which \"port\" of its tenant names";
    assert!(message.starts_with(expected), "{message}");
    let message = refusal("once tick=-1", Some(8080), &[]);
    let never = "the program never listened for connections before all its threads waited forever; thread ";
    assert!(message.starts_with(never) && message.contains(" (doors) waits in "), "{message}");
    // A path is no port.
    for name in ["/run/it", "@it"] {
        let message = refusal(&format!("listen={name}"), None, &[]);
        assert_eq!(
            message,
            format!("the program listens on unix:{name}, and not on a port of TCP, by which requests reach it")
        );
    }
}

const SAID: &str = "mayfly: the program listens on 127.0.0.1:2019, and not yet on its \"port\" 8080\n";

fn said(log: &Kept) -> String {
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_port_is_waited_for_as_long_as_a_boot_may_take_if_the_program_has_timers() {
    let short = Limits { boot_time: Duration::from_secs(2), ..limits() };
    let log = Arc::new(Kept::default());
    let program = doors("listen=127.0.0.1:2019 tick=20", Some(8080), &[]);
    let error = boot_with(&program, &short, Arc::clone(&log) as Arc<dyn LogSink>).unwrap_err();
    assert!(matches!(error, BootError::NotListening { port: Some(8080), .. }), "{error}");
    let said = said(&log);
    let (first, progress) = said.split_at(SAID.len());
    assert_eq!(first, SAID);
    // The boot takes eight seconds.
    let expected =
        "mayfly: booting for 5 s: the program listens on 127.0.0.1:2019, and not yet on its \"port\" 8080; thread ";
    assert!(progress.starts_with(expected) && progress.lines().count() == 1, "{progress}");
}

#[test]
fn that_a_port_does_not_listen_is_said_soon_however_long_the_program_sleeps() {
    let log = Arc::new(Kept::default());
    let program = doors("listen=127.0.0.1:2019 later=6000,0.0.0.0:8080", Some(8080), &[]);
    boot_with(&program, &limits(), Arc::clone(&log) as Arc<dyn LogSink>).unwrap();
    assert!(said(&log).starts_with(SAID), "{}", said(&log));
}

#[test]
fn a_program_that_never_listens_is_reported_with_what_its_threads_wait_for() {
    let short = Limits { boot_time: Duration::from_millis(500), ..limits() };
    for port in [None, Some(8080)] {
        // It has a timer, and sleeps when the time is over.
        let error = boot_with(&doors("tick=60000", port, &[]), &short, Arc::new(NoLog)).unwrap_err();
        assert!(matches!(error, BootError::NeverListened { .. }), "{error}");
        let message = error.to_string();
        let never = "the program never listened for connections within 2s (4 times the limit boot_ms); thread ";
        assert!(message.starts_with(never) && message.ends_with(" (doors) waits in poll"), "{message}");
    }
}

#[test]
fn the_only_listener_is_the_application_and_stays_it() {
    // A listener that a request opens is not the application, and the next request does not have it.
    let mut reset = worker("once listen=0.0.0.0:8080", None);
    for _ in 0..3 {
        assert_eq!(text(&mut reset, "/open?0.0.0.0:80"), "1");
        assert_eq!(reset.differences(), 0);
        assert_eq!(text(&mut reset, "/who"), "0 0.0.0.0:8080 127.0.0.1:8080 127.0.0.1");
    }
    assert_eq!(boot("listen=0.0.0.0:8080", None, &[]).unwrap().port(), Some(8080));
    assert_eq!(boot(&format!("{ADMIN} listen=[::]:80"), Some(80), &[]).unwrap().port(), Some(80));
    for port in [None, Some(8080)] {
        let mut kept = kept("once listen=0.0.0.0:8080", port);
        assert_eq!(text(&mut kept, "/open?0.0.0.0:80"), "1");
        assert_eq!(text(&mut kept, "/who"), "0 0.0.0.0:8080 127.0.0.1:8080 127.0.0.1");
        // It is there for the program itself.
        assert_eq!(text(&mut kept, "/ask?1"), "1 0.0.0.0:80 127.0.0.1:80 127.0.0.1");
        // After it is closed, only a listener on the same port succeeds it.
        text(&mut kept, "/close?0");
        assert!(matches!(call(&mut kept, "/who", b""), Err(CallError::NotListening)));
    }
}

#[test]
fn a_listener_that_is_closed_and_opened_again_is_the_application_if_its_port_is() {
    for (how, port) in [
        ("once listen=0.0.0.0:8080", None),
        ("once listen=0.0.0.0:8080", Some(8080)),
        ("once listen=[::]:8080 listen=127.0.0.1:2019 listen=0.0.0.0:1", Some(8080)),
    ] {
        let mut kept = kept(how, port);
        let who = text(&mut kept, "/who");
        for _ in 0..2 {
            text(&mut kept, "/reopen?0");
            assert_eq!(text(&mut kept, "/who"), who, "{how}");
        }
        // Called twice, listen is about the same listener.
        text(&mut kept, "/again?0");
        assert_eq!(text(&mut kept, "/who"), who, "{how}");
        text(&mut kept, "/shut?0");
        assert!(matches!(call(&mut kept, "/who", b""), Err(CallError::NotListening)), "{how}");
    }
    // Another takes its port.
    let mut kept = kept("once listen=127.0.0.1:2019 listen=[::]:8080", Some(8080));
    text(&mut kept, "/close?1");
    assert!(matches!(call(&mut kept, "/who", b""), Err(CallError::NotListening)));
    let mut successor = self::kept("once listen=127.0.0.1:2019 listen=[::]:8080", Some(8080));
    text(&mut successor, "/reopen?1");
    assert!(text(&mut successor, "/who").starts_with("1 "));
    // Before the freeze.
    assert_eq!(
        text(&mut worker("listen=0.0.0.0:1 close=0 listen=0.0.0.0:2 again=1", None), "/who"),
        "1 0.0.0.0:2 127.0.0.1:2 127.0.0.1"
    );
}

#[test]
fn a_port_that_mayfly_picks_cannot_be_named() {
    // By itself it is the application, under the number that the program sees.
    let mut only = worker("listen=127.0.0.1:0", None);
    assert_eq!(text(&mut only, "/names"), "127.0.0.1:32768");
    assert_eq!(text(&mut only, "/who"), "0 127.0.0.1:0 127.0.0.1:32768 127.0.0.1");
    // A named one is never picked, and so the program can bind it.
    for (how, names) in [
        ("listen=127.0.0.1:0 listen=127.0.0.1:32768", "127.0.0.1:32769 127.0.0.1:32768"),
        ("listen=127.0.0.1:32768 listen=127.0.0.1:0", "127.0.0.1:32768 127.0.0.1:32769"),
    ] {
        let mut worker = worker(how, Some(32_768));
        assert_eq!(text(&mut worker, "/names"), names);
        assert!(text(&mut worker, "/who").contains(" 127.0.0.1:32768 "), "{how}");
    }
    let message = refusal("listen=127.0.0.1:0", Some(32_768), &[]);
    assert!(message.starts_with("the program listens on 127.0.0.1:32769, and not on port 32768"), "{message}");
    // Opened again it has another number: that is another port.
    let mut kept = kept("once listen=127.0.0.1:0", None);
    text(&mut kept, "/reopen?0");
    assert!(matches!(call(&mut kept, "/who", b""), Err(CallError::NotListening)));
}

#[test]
fn other_listeners_get_no_connection_but_the_programs_own() {
    let how = "listen=127.0.0.1:2019 listen=[::]:8080 idle=127.0.0.1:9229 listen=/run/it";
    let mut worker = worker(how, Some(8080));
    for _ in 0..3 {
        assert_eq!(text(&mut worker, "/ask?0"), "0 127.0.0.1:2019 127.0.0.1:2019 127.0.0.1");
        assert_eq!(text(&mut worker, "/ask?2"), "2 127.0.0.1:9229 127.0.0.1:9229 127.0.0.1");
        assert_eq!(text(&mut worker, "/ask?3"), "3 /run/it unix unix");
        assert_eq!(text(&mut worker, "/who"), "1 [::]:8080 [::ffff:127.0.0.1]:8080 [::ffff:127.0.0.1]");
        assert_eq!(worker.differences(), 0);
    }
    // A program that accepts from another listener than the application waits for what does not come.
    for other in [0, 2, 3] {
        let mut worker = self::worker(how, Some(8080));
        let result = call(&mut worker, &format!("/accept?{other}"), b"");
        assert!(matches!(result, Err(CallError::Stuck { call: "accept" })), "{other}: {result:?}");
    }
}

#[test]
fn a_snapshot_is_of_the_port_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it");
    let how = "listen=127.0.0.1:2019 listen=[::]:8080";
    let program = |port| doors(how, port, &[]);
    let host = Host::open().unwrap();
    let digest = |port| Snapshot::inputs_digest(&host, &program(port), &limits());
    boot(how, Some(8080), &[]).unwrap().save(&path).unwrap();
    let load = |program: &Program| Snapshot::load(&host, program, &limits(), Arc::new(NoLog), &path);
    let who = |snapshot: &Snapshot| text(&mut Worker::fork(snapshot).unwrap(), "/who");
    assert_eq!(who(&load(&program(Some(8080))).unwrap()), "1 [::]:8080 [::ffff:127.0.0.1]:8080 [::ffff:127.0.0.1]");
    for other in [None, Some(2019), Some(8081)] {
        let error = load(&program(other)).unwrap_err();
        assert!(
            matches!(error, SnapshotFileError::BootInputs(what) if what.contains("another port")),
            "{other:?}: {error}"
        );
        assert_ne!(digest(other), digest(Some(8080)), "the files have other names");
    }
    assert_eq!(who(&boot(how, Some(2019), &[]).unwrap()), "0 127.0.0.1:2019 127.0.0.1:2019 127.0.0.1");
    // The only one stays the application of a snapshot from a file.
    let alone = doors("once listen=0.0.0.0:8080", None, &[]);
    boot_with(&alone, &limits(), Arc::new(NoLog)).unwrap().save(&path).unwrap();
    let mut kept = Worker::fork_keeping_state(&load(&alone).unwrap()).unwrap();
    text(&mut kept, "/open?0.0.0.0:80");
    assert_eq!(load(&alone).unwrap().port(), Some(8080));
    assert!(text(&mut kept, "/who").starts_with("0 "));
    text(&mut kept, "/close?0");
    assert!(matches!(call(&mut kept, "/who", b""), Err(CallError::NotListening)));
}

#[test]
fn a_server_that_should_ring_the_doorbell_is_refused_with_its_listeners() {
    for (how, listed) in [
        ("listen=127.0.0.1:2019 listen=[::]:8080", "127.0.0.1:2019, then [::]:8080"),
        ("idle=127.0.0.1:2019 listen=/run/it", "127.0.0.1:2019, then unix:/run/it"),
    ] {
        let program = Program { service: None, ..doors(how, None, &[]) };
        let error = boot_with(&program, &limits(), Arc::new(NoLog)).unwrap_err();
        assert!(matches!(error, BootError::Listens { .. }) && error.to_string().contains(listed), "{error}");
    }
}
