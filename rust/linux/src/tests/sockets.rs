// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets over resets.

use mayfly_machine::PAGE_SIZE;

use super::{Puppet, WINDOW};
use crate::net::inbound::OutputState;

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
