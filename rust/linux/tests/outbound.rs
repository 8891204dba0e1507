// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that connect to a server of the host's behave as natively, and reach nothing else.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mayfly_linux::{Connects, Limits, MountPoint, Mounts, Network, Outbound, OutboundHost, Program, Step};
use support::{Guest, Linking, MEMORY, compile, has_whole_system, libraries, run_natively};

/// A server: the first byte on a connection selects what it does. It ends with the test's process.
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || drop(serve(connection.unwrap())));
        }
    });
    Server { port, accepted }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    let mut bytes = vec![0; 1 << 16];
    match what[0] {
        b'e' => loop {
            let got = stream.read(&mut bytes)?;
            if got == 0 {
                return Ok(());
            }
            stream.write_all(&bytes[..got])?;
        },
        b's' => {
            std::thread::sleep(Duration::from_millis(200));
            stream.write_all(b"slow")
        }
        b'c' => {
            let (mut total, mut sum) = (0, 0_u32);
            loop {
                let got = stream.read(&mut bytes)?;
                if got == 0 {
                    return stream.write_all(format!("{total} {sum}").as_bytes());
                }
                total += got;
                sum = bytes[..got].iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
            }
        }
        b'd' => {
            std::thread::sleep(Duration::from_millis(300));
            while stream.read(&mut bytes)? > 0 {}
            Ok(())
        }
        b'l' => {
            let all: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 13 + at / 777) as u8).collect();
            stream.write_all(&all)?;
            stream.shutdown(Shutdown::Write)
        }
        _ => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).map_err(Into::into),
    }
}

/// A port without a listener.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> Outbound {
    Outbound { host: OutboundHost::Address([127, 0, 0, 1].into()), port }
}

fn guest(args: &[&str], list: &[Outbound]) -> Guest {
    guest_with(Linking::Glibc, &Mounts::default(), args, list)
}

fn guest_with(linking: Linking, mounts: &Mounts, args: &[&str], list: &[Outbound]) -> Guest {
    let path = compile("remote", linking);
    let elf = std::fs::read(&path).unwrap();
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let network = Network::new(list);
    let name = path.to_str().unwrap();
    let program = Program { elf: (&elf).into(), name, args: &args, env: &[], mounts, network: &network };
    Guest::load_program(&program, &Limits { threads: 8, ..Limits::default() }, MEMORY)
}

#[test]
fn remote_connections_agree_with_native() {
    let server = server();
    let (port, closed) = (server.port.to_string(), closed_port());
    let args = [port.as_str(), &closed.to_string()];
    let native = run_natively(&compile("remote", Linking::Glibc), &args);
    assert!(native.status.success(), "{native:?}");
    let native_connects = server.accepted.load(Ordering::Relaxed);
    let mut guest = guest(&args, &[local(server.port), local(closed)]);
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{}", String::from_utf8_lossy(&guest.log.stdout));
    let (inside, native) = (String::from_utf8_lossy(&guest.log.stdout), String::from_utf8_lossy(&native.stdout));
    let differences: Vec<_> = inside.lines().zip(native.lines()).filter(|(inside, native)| inside != native).collect();
    assert!(differences.is_empty(), "inside, natively: {differences:#?}\n{inside}");
    assert_eq!(inside.lines().count(), native.lines().count());
    assert_eq!(server.accepted.load(Ordering::Relaxed), 2 * native_connects);
    support::compared::check("remote", Linking::Glibc, &guest.calls);
    let connects = guest.process.take_connects();
    assert_eq!((connects.made as usize, connects.refused), (native_connects + 2, 0), "including those that failed");
    assert_eq!(guest.process.take_connects(), Connects::default());
}

#[test]
fn only_listed_destinations_are_reached() {
    let (listed, other) = (server(), server());
    let port = listed.port.to_string();
    let to = [
        format!("127.0.0.1:{}", other.port),
        format!("127.0.0.2:{}", listed.port),
        format!("0.0.0.0:{}", listed.port),
        "10.1.2.3:80".to_owned(),
        "169.254.169.254:80".to_owned(),
        "198.18.0.2:81".to_owned(),
    ];
    let mut args = vec![port.as_str(), "0", "elsewhere"];
    args.extend(to.iter().map(String::as_str));
    let name = Outbound { host: OutboundHost::Name("db.invalid".to_owned()), port: 80 };
    let mut guest = guest(&args, &[local(listed.port), name]);
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }));
    let errors: Vec<i32> = String::from_utf8_lossy(&guest.log.stdout)
        .lines()
        .map(|line| line.rsplit_once("error ").unwrap().1.parse().unwrap())
        .collect();
    // The program's own machine has no listener there.
    let own = [libc::ECONNREFUSED, libc::EINPROGRESS];
    assert_eq!(errors, [own, own, own, [libc::EACCES; 2], [libc::EACCES; 2], [libc::EACCES; 2]].concat());
    let log = String::from_utf8_lossy(&guest.log.stderr);
    for place in ["10.1.2.3:80", "169.254.169.254:80", "db.invalid:81"] {
        assert!(log.contains(&format!("mayfly: the program may not connect to {place}: ")), "{log}");
    }
    assert_eq!(guest.process.take_connects(), Connects { made: 0, refused: 6 });
    assert_eq!(listed.accepted.load(Ordering::Relaxed) + other.accepted.load(Ordering::Relaxed), 0);
}

#[test]
fn without_a_list_there_is_no_network() {
    let mut guest = guest(&["1", "0", "elsewhere", "10.1.2.3:80", "198.18.0.2:80"], &[]);
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }));
    let out = String::from_utf8_lossy(&guest.log.stdout);
    assert_eq!(out.matches(&format!("error {}\n", libc::ENETUNREACH)).count(), 4, "{out}");
}

#[test]
fn a_name_does_not_resolve_to_the_host_itself() {
    let server = server();
    let name = Outbound { host: OutboundHost::Name("localhost".to_owned()), port: server.port };
    let mut guest = guest(&["1", "0", "elsewhere", &format!("198.18.0.2:{}", server.port)], &[name]);
    assert_eq!(guest.run(), Some(Step::Exited { status: 0 }));
    let out = String::from_utf8_lossy(&guest.log.stdout);
    assert!(out.lines().next().unwrap().ends_with(&format!("error {}", libc::EHOSTUNREACH)), "{out}");
    assert_eq!(server.accepted.load(Ordering::Relaxed), 0);
}

#[test]
fn c_libraries_find_listed_names() {
    let name = |name: &str| Outbound { host: OutboundHost::Name(name.to_owned()), port: 80 };
    let args = ["1", "0", "names", "db.example.invalid", "cache", "127.0.0.1", "other.invalid", "localhost"];
    let expected =
        "db.example.invalid: 198.18.0.2\ncache: 198.18.0.3\n127.0.0.1: 127.0.0.1\nother.invalid: 192.0.2.1\n";
    // A mount has its own file there.
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("hosts"), "192.0.2.1 other.invalid\n").unwrap();
    let mut points = vec![("/etc", etc.path())];
    points.extend(libraries().into_iter().map(|path| (path.to_str().unwrap(), path)));
    let points: Vec<_> = points
        .into_iter()
        .map(|(guest, host)| MountPoint {
            guest: guest.to_owned(),
            host: host.to_owned(),
            access: mayfly_linux::MountAccess::ReadOnly,
        })
        .collect();
    let mounts = Mounts::open(&points).unwrap();
    let dynamic: &[_] = if has_whole_system() { &[Linking::GlibcDynamic] } else { &[] };
    for linking in [Linking::Musl].iter().chain(dynamic) {
        let list = [name("db.example.invalid"), name("cache")];
        let mut guest = guest_with(*linking, &mounts, &args, &list);
        assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{linking:?}");
        let out = String::from_utf8_lossy(&guest.log.stdout);
        assert!(out.starts_with(expected) && out.contains("localhost: 127.0.0.1\n"), "{linking:?}: {out}");
        let mut guest = guest_with(*linking, &mounts, &["1", "0", "names", "other.invalid"], &[]);
        assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{linking:?}");
        let out = String::from_utf8_lossy(&guest.log.stdout);
        assert_eq!(out, "other.invalid: 192.0.2.1\n", "{linking:?}: without names the mount's file is used");
    }
}

/// Runs until the program waits for a remote host.
fn waiting(server: &Server, mode: &str) -> Guest {
    let mut guest = guest(&[&server.port.to_string(), "0", mode], &[local(server.port)]);
    guest.waits_outside = false;
    assert!(matches!(guest.run(), Some(Step::Waits { until_ns: None, .. })));
    assert!(guest.process.remote_events().is_some());
    guest
}

#[test]
fn forks_find_the_snapshots_connections_reset() {
    let server = server();
    let reset = format!("error {}", libc::ECONNRESET);
    for (mode, expected) in [("wait", vec![reset.as_str(), "0", "0", "error 32"]), ("wait-edge", vec!["8217", "104"])] {
        let mut guest = waiting(&server, mode);
        guest.process.freeze();
        assert!(guest.process.remote_events().is_none(), "{mode}");
        assert_eq!(guest.wake(), Some(Step::Exited { status: 0 }), "{mode}");
        let out = String::from_utf8_lossy(&guest.log.stdout);
        let results: Vec<_> = out.lines().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(results, expected, "{mode}");
    }
}

#[test]
fn a_reset_closes_what_a_request_has_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = guest(&[&port.to_string(), "0", "wait"], &[local(port)]);
    guest.process.freeze();
    let frozen = guest.process.clone();
    guest.waits_outside = false;
    assert!(matches!(guest.run(), Some(Step::Waits { .. })));
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let copy = guest.process.clone();
    assert!(copy.remote_events().is_none(), "a copy shares nothing");
    guest.process.reset_from(&frozen);
    assert!(guest.process.remote_events().is_none() && !guest.process.is_dirty());
    assert_eq!(guest.process.take_connects().made, 1, "a connection that was reset counts too");
    assert_eq!(format!("{:?}", guest.process), format!("{frozen:?}"));
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"e", "the bytes that were sent arrive, and then the end");
}
