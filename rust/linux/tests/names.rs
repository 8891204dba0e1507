// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs find names by the name server of `/etc/resolv.conf`, and send datagrams to themselves.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod support;

use std::path::Path;

use mayfly_linux::{Limits, MountAccess, MountPoint, Mounts, Network, Outbound, OutboundHost, Program, Step};
use support::{Guest, Linking, MEMORY, compile, has_whole_system, libraries, run_natively};

fn name(name: &str) -> Outbound {
    Outbound { host: OutboundHost::Name(name.to_owned()), port: 80 }
}

fn read_only(points: &[(&str, &Path)]) -> Mounts {
    let point = |(guest, host): &(&str, &Path)| MountPoint {
        guest: (*guest).to_owned(),
        host: host.to_path_buf(),
        access: MountAccess::ReadOnly,
    };
    Mounts::open(&points.iter().map(point).collect::<Vec<_>>()).unwrap()
}

fn guest(linking: Linking, args: &[&str], mounts: &Mounts, list: &[Outbound]) -> Guest {
    let path = compile("resolve", linking);
    let elf = std::fs::read(&path).unwrap();
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let network = Network::new(list);
    let name = path.to_str().unwrap();
    let program = Program { elf: (&elf).into(), name, args: &args, env: &[], mounts, network: &network };
    Guest::load_program(&program, &Limits::default(), MEMORY)
}

const EXPECTED: &str = "\
res_query: number N, code 0, 1 records 198.18.0.2
getaddrinfo(db.Example.invalid): 0 198.18.0.2
res_query: number N, code 0, 1 records 127.0.0.1
getaddrinfo(mayfly): 0 127.0.0.1
res_query(other.invalid): error 1
getaddrinfo(other.invalid): -2 
sendto(fd, buffer, size, 0, (struct sockaddr *)&server, sizeof server) == (ssize_t)size: 1
poll(&entry, 1, 1000): 1
a datagram: number 7, code 0, 1 records 198.18.0.2
from 127.0.0.53:53
connect(fd, (struct sockaddr *)&server, sizeof server): 0
send(fd, buffer, size, 0) == (ssize_t)size: 1
a connected one: number 8, code 0, 0 records 
send(fd, \"what?\", 5, 0): 5
recv(fd, buffer, sizeof buffer, 0): error 11
sendto(six, buffer, size, 0, (struct sockaddr *)&mapped, sizeof mapped) == (ssize_t)size: 1
of IPv6: number 9, code 0, 1 records 198.18.0.2
bind(other, (struct sockaddr *)&own, sizeof own): 0
recv(other, buffer, sizeof buffer, 0) > 0: 0
recv(fd, buffer, sizeof buffer, 0) > 0: 1
bind(other, (struct sockaddr *)&own, sizeof own): 0
recv(other, buffer, sizeof buffer, 0) > 0: 1
recv(fd, buffer, sizeof buffer, 0) > 0: 0
connect(fd, (struct sockaddr *)&server, sizeof server): 0
write(fd, message, 20): 20
recv(fd, buffer, 1, MSG_DONTWAIT): error 11
write(fd, message + 20, size - 18) > 0: 1
a stream: number 1, code 0, 1 records 198.18.0.2
write(fd, message, 2 * size + 4) > 0: 1
a stream: number 2, code 0, 1 records 198.18.0.2
a stream: number 3, code 0, 1 records 198.18.0.2
shutdown(fd, SHUT_WR): 0
read(fd, buffer, 1): 0
connect(fd, (struct sockaddr *)&server, sizeof server): 0
shutdown(fd, SHUT_WR): 0
many: 1, 0
connect(fd, (struct sockaddr *)&server, sizeof server): 0
write(fd, \"\\0\\2??\", 4): 4
read(fd, buffer, 1): 0
connect(fd, (struct sockaddr *)&server, sizeof server): 0
write(fd, message, 5): 5
shutdown(fd, SHUT_WR): 0
read(fd, buffer, 1): 0
sendto(fd, \"x\", 1, 0, (struct sockaddr *)&to, sizeof to): error 13
connect(fd, (struct sockaddr *)&to, sizeof to): 0
send(fd, \"x\", 1, 0): error 13
198.18.0.1
sendto(fd, \"x\", 1, 0, (struct sockaddr *)&to, sizeof to): error 13
connect(fd, (struct sockaddr *)&to, sizeof to): error 101
send(fd, \"x\", 1, 0): error 89
0.0.0.0
";

/// C libraries choose the numbers of their questions.
fn without_number(line: &str) -> String {
    match line.strip_prefix("res_query: number ").and_then(|rest| rest.split_once(',')) {
        Some((_, rest)) => format!("res_query: number N,{rest}"),
        None => line.to_owned(),
    }
}

#[test]
fn the_name_server_knows_the_listed_names_alone() {
    // A mount may have the host's own files, whose name servers the program does not reach.
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    let libraries: Vec<_> = libraries().into_iter().map(|path| (path.to_str().unwrap(), path)).collect();
    let mounts = read_only(&[&libraries[..], &[("/etc", etc.path())]].concat());
    let dynamic: &[_] = if has_whole_system() { &[Linking::GlibcDynamic] } else { &[] };
    for linking in [Linking::Musl].iter().chain(dynamic) {
        let list = [name("db.example.invalid"), name("cache")];
        let mut guest = guest(*linking, &["db.Example.invalid", "mayfly", "other.invalid"], &mounts, &list);
        assert_eq!(guest.run(), Some(Step::Exited { status: 0 }), "{linking:?}: {:?}", guest.log);
        let out: Vec<_> = String::from_utf8_lossy(&guest.log.stdout).lines().map(without_number).collect();
        assert_eq!(out, EXPECTED.lines().collect::<Vec<_>>(), "{linking:?}");
        // Each socket that was refused says so once.
        let log = String::from_utf8_lossy(&guest.log.stderr);
        let refused = |to| format!("mayfly: the program may not send datagrams to {to}: `outbound` is for TCP alone\n");
        assert_eq!(log, refused("db.example.invalid:8125") + &refused("10.1.2.3:8125"), "{linking:?}");
        assert_eq!(guest.process.take_connects().refused, 3);
    }
}

/// Servers and clients of datagrams in Python: sockets, an event loop, a log that goes to a Unix socket; and a FIFO.
const PYTHON: &str = "import asyncio, logging.handlers, os, socket, socketserver, threading
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data.upper(), self.client_address)
with socketserver.UDPServer(('127.0.0.1', 0), Echo) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b'hello', server.server_address)
        data, sender = client.recvfrom(100)
        print(data, sender == server.server_address)
    server.shutdown()
class Server(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        self.transport.sendto(b'got ' + data, address)
class Client(asyncio.DatagramProtocol):
    def __init__(self, done):
        self.done, self.answers = done, []
    def connection_made(self, transport):
        for number in range(20):
            transport.sendto(b'%d' % number)
    def datagram_received(self, data, address):
        self.answers.append(data)
        if len(self.answers) == 20:
            self.done.set_result(self.answers)
    def error_received(self, error):
        self.done.done() or self.done.set_exception(error)
async def main():
    loop = asyncio.get_running_loop()
    for host in ['127.0.0.1', '::1']:
        server, _ = await loop.create_datagram_endpoint(Server, local_addr=(host, 0))
        to = server.get_extra_info('sockname')
        done = loop.create_future()
        client, _ = await loop.create_datagram_endpoint(lambda: Client(done), remote_addr=to[:2])
        print(await done)
        server.close()
        client.close()
    await asyncio.sleep(0)
    done = loop.create_future()
    client, _ = await loop.create_datagram_endpoint(lambda: Client(done), remote_addr=to[:2])
    try:
        await done
    except OSError as error:
        print(type(error))
    client.close()
asyncio.run(main())
place = f'/tmp/mayfly-log-{os.getpid()}'
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
    receiver.bind(place)
    log = logging.getLogger('test')
    log.addHandler(logging.handlers.SysLogHandler(place))
    log.error('out of paper')
    print(receiver.recv(100))
    os.unlink(place)
os.mkfifo(place)
threading.Thread(target=lambda: open(place, 'w').write('by a FIFO')).start()
print(open(place).read())
os.unlink(place)
print(socket.gethostbyname('localhost'), socket.getservbyname('domain', 'udp'))
";

#[test]
fn python_sends_datagrams() {
    if !has_whole_system() {
        return;
    }
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let mut mounts = libraries();
    mounts.push(Path::new("/usr/bin"));
    let args = ["-I", "-S", "-c", PYTHON];
    let native = run_natively(&python, &args);
    assert!(native.status.success(), "{native:?}");
    let limits = Limits { threads: 8, ..Limits::default() };
    let inside = Guest::load_with(&python, &args, &limits, 4 * MEMORY, &mounts).outcome();
    assert_eq!(inside.stdout.as_bytes(), native.stdout, "{inside:?}");
    assert_eq!(inside.end, Step::Exited { status: 0 }, "{inside:?}");
}
