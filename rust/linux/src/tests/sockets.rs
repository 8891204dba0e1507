// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets over resets.

use mayfly_machine::PAGE_SIZE;

use super::{Puppet, WINDOW};
use crate::net::inbound::OutputState;
use crate::pollables::table::Pollables;

const LINGER: [u64; 2] = [libc::SOL_SOCKET as u64, libc::SO_LINGER as u64];

impl Puppet {
    /// The two words of SO_LINGER.
    fn linger(&mut self, socket: u64) -> [u8; 8] {
        let [level, name] = LINGER;
        let (value, len) = (WINDOW + 64, WINDOW + 96);
        self.process.copy_out(&mut self.machine, len, &8_u64.to_le_bytes()).unwrap();
        assert_eq!(self.call(libc::SYS_getsockopt, [socket, level, name, value, len, 0], 0), Ok(0));
        let mut words = [0; 8];
        self.machine.read(value, &mut words).unwrap();
        words
    }

    /// The program's end of a new connection from outside.
    fn accept(&mut self, listener: u64) -> (crate::ConnectionId, u64) {
        let connection = self.process.connect().unwrap();
        (connection, self.call(libc::SYS_accept4, [listener, 0, 0, 0, 0, 0], 0).unwrap() as u64)
    }
}

#[test]
fn a_client_gets_all_output_of_a_socket_that_resets_and_the_next_request_finds_none() {
    let mut puppet = Puppet::boot();
    let map = [WINDOW, PAGE_SIZE, super::RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, map, 0), Ok(WINDOW as i64));
    let kind = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0];
    let listener = puppet.call(libc::SYS_socket, kind, 0).unwrap() as u64;
    assert_eq!(puppet.call(libc::SYS_listen, [listener, 5, 0, 0, 0, 0], 0), Ok(0));
    let (image, frozen) = puppet.freeze();
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..2 {
        assert_eq!(worker.linger(listener), [0; 8]);
        let (connection, accepted) = worker.accept(listener);
        assert_eq!(worker.linger(accepted), [0; 8]);
        let [level, name] = LINGER;
        worker.process.copy_out(&mut worker.machine, WINDOW, &1_u64.to_le_bytes()).unwrap();
        for socket in [listener, accepted] {
            assert_eq!(worker.call(libc::SYS_setsockopt, [socket, level, name, WINDOW, 8, 0], 0), Ok(0));
            assert_eq!(worker.linger(socket), 1_u64.to_le_bytes());
        }
        let text = worker.text(0, "answer");
        assert_eq!(worker.call(libc::SYS_write, [accepted, text, 6, 0, 0, 0], 0), Ok(6));
        assert_eq!(worker.call(libc::SYS_close, [accepted, 0, 0, 0, 0, 0], 0), Ok(0));
        let mut out = Vec::new();
        let state = worker.process.take_output(connection, &mut out);
        assert_eq!((out.as_slice(), state), (b"answer".as_slice(), OutputState::Gone));
        worker.reset(&frozen).unwrap();
    }
}

#[test]
fn datagrams_and_fifos_end_with_the_request_that_made_them() {
    let mut puppet = Puppet::boot();
    let map = [WINDOW, PAGE_SIZE, super::RW, super::PRIVATE_ANON_FIXED, u64::MAX, 0];
    assert_eq!(puppet.call(libc::SYS_mmap, map, 0), Ok(WINDOW as i64));
    let kind = [libc::AF_INET as u64, (libc::SOCK_DGRAM | libc::SOCK_NONBLOCK) as u64, 0, 0, 0, 0];
    let receiver = puppet.call(libc::SYS_socket, kind, 0).unwrap() as u64;
    let port = 5300_u16.to_be_bytes();
    let address = [&[2, 0], &port[..], &[127, 0, 0, 1], &[0; 8]].concat();
    let resolver = [&[2, 0, 0, 53, 127, 0, 0, 53][..], &[0; 8]].concat();
    let (to, of_resolver) = (WINDOW + 0x800, WINDOW + 0x820);
    puppet.process.copy_out(&mut puppet.machine, to, &address).unwrap();
    puppet.process.copy_out(&mut puppet.machine, of_resolver, &resolver).unwrap();
    assert_eq!(puppet.call(libc::SYS_bind, [receiver, to, 16, 0, 0, 0], 0), Ok(0));
    // One that every request finds.
    let text = puppet.text(0, "kept");
    assert_eq!(puppet.call(libc::SYS_sendto, [receiver, text, 4, 0, to, 16], 0), Ok(4));
    let (image, frozen) = puppet.freeze();
    assert!(frozen.kept_bytes() >= 4, "what waits in a socket counts");
    let saved = postcard::to_stdvec(&*frozen.pollables).unwrap();
    let loaded: Pollables = postcard::from_bytes(&saved).unwrap();
    assert!(loaded.is_sound());
    assert_eq!(format!("{:?}", loaded.queues), format!("{:?}", frozen.pollables.queues));
    let mut worker = Puppet::fork(&image, &frozen);
    for _ in 0..2 {
        let receive = [receiver, WINDOW + 0x100, 100, 0, 0, 0];
        assert_eq!(worker.call(libc::SYS_recvfrom, receive, 0), Ok(4));
        assert_eq!(worker.call(libc::SYS_recvfrom, receive, 0), Ok(-i64::from(libc::EAGAIN)));
        let sender = worker.call(libc::SYS_socket, kind, 0).unwrap() as u64;
        let text = worker.text(0, "of one request");
        assert_eq!(worker.call(libc::SYS_sendto, [sender, text, 14, 0, to, 16], 0), Ok(14));
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
        worker.process.copy_out(&mut worker.machine, WINDOW + 0x200, question).unwrap();
        let ask = [sender, WINDOW + 0x200, question.len() as u64, 0, of_resolver, 16];
        assert_eq!(worker.call(libc::SYS_sendto, ask, 0), Ok(question.len() as i64));
        let answer = [sender, WINDOW + 0x200, 100, 0, 0, 0];
        assert_eq!(worker.call(libc::SYS_recvfrom, answer, 0), Ok(question.len() as i64 + 16));
        let path = worker.text(0x300, "/tmp/fifo");
        let node = [path, u64::from(libc::S_IFIFO | 0o600), 0, 0, 0, 0];
        assert_eq!(worker.call(libc::SYS_mknod, node, 0), Ok(0));
        let fifo = worker.call(libc::SYS_open, [path, libc::O_RDWR as u64, 0, 0, 0, 0], 0).unwrap() as u64;
        assert_eq!(worker.call(libc::SYS_write, [fifo, text, 14, 0, 0, 0], 0), Ok(14));
        worker.process.pollables.check();
        worker.reset(&frozen).unwrap();
    }
}
