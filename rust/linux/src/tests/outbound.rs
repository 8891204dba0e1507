// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls on connections with remote hosts, with random arguments.

use std::io::{Read, Write};
use std::net::TcpListener;

use mayfly_machine::PAGE_SIZE;
use proptest::prelude::*;

use super::{PRIVATE_ANON_FIXED, Puppet, RW, WINDOW, cases};
use crate::base::step::Step;
use crate::fs::mounts::Mounts;
use crate::net::allow_list::{Network, Outbound, OutboundHost};

/// Layout of the window: addresses, an array of `pollfd` or an `epoll_event`, a `msghdr`, and bytes.
const ADDRESSES: [u64; 3] = [WINDOW, WINDOW + 0x20, WINDOW + 0x40];
const POLL: u64 = WINDOW + 0x100;
const MESSAGE: u64 = WINDOW + 0x200;
const BYTES: u64 = WINDOW + PAGE_SIZE;

/// A port whose server sends a few words and closes the connection.
fn greeting_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.write_all(b"hello");
            let mut word = [0; 64];
            std::thread::spawn(move || connection.read(&mut word));
        }
    });
    port
}

fn any_call() -> impl Strategy<Value = (libc::c_long, [u64; 6])> {
    let numbers = prop::sample::select(vec![
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_connect,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_sendmmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendfile,
        libc::SYS_shutdown,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_setsockopt,
        libc::SYS_getsockopt,
        libc::SYS_ioctl,
        libc::SYS_fcntl,
        libc::SYS_dup,
        libc::SYS_close,
        libc::SYS_poll,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_wait,
    ]);
    let places = [&ADDRESSES[..], &[POLL, MESSAGE, BYTES, WINDOW + 2 * PAGE_SIZE - 3, 0]].concat();
    let argument = prop_oneof![
        4 => 0..9_u64,
        4 => prop::sample::select(places),
        2 => prop::sample::select(vec![
            16, 28, 64, 1000, u64::MAX, 0x5421, 0x541b, libc::MSG_DONTWAIT as u64, libc::O_NONBLOCK as u64,
        ]),
        1 => any::<u64>(),
    ];
    (numbers, prop::array::uniform6(argument))
}

proptest! {
    #![proptest_config(cases(60))]

    /// Whatever a program does with its connections, nothing harms the host, and a reset undoes it.
    #[test]
    fn no_call_on_connections_harms_the_host(calls in prop::collection::vec(any_call(), 1..80)) {
        let port = greeting_server();
        let there = |port| Outbound { host: OutboundHost::Address([127, 0, 0, 1].into()), port };
        let nowhere = Outbound { host: OutboundHost::Name("localhost".to_owned()), port: 1 };
        let network = Network::new(&[there(port), nowhere]);
        let mut puppet = Puppet::boot_with_all(None, &Mounts::default(), &network);
        let map = [WINDOW, 2 * PAGE_SIZE, RW, PRIVATE_ANON_FIXED, u64::MAX, 0];
        prop_assert_eq!(puppet.call(libc::SYS_mmap, map, 0), Ok(WINDOW.cast_signed()));
        let address = |[a, b]: [u8; 2], host: [u8; 4]| [&[2, 0, a, b][..], &host, &[0; 8]].concat();
        for (place, bytes) in [
            (ADDRESSES[0], address(port.to_be_bytes(), [127, 0, 0, 1])),
            (ADDRESSES[1], address([0, 1], [198, 18, 0, 2])),
            (ADDRESSES[2], address([0, 80], [10, 0, 0, 1])),
            (POLL, [3_u64 | 5 << 32, 4 | 5 << 32, 5 | 5 << 32].map(u64::to_le_bytes).concat()),
            (MESSAGE, [0, 0, POLL, 1, 0, 0, 0, 0].map(u64::to_le_bytes).concat()),
        ] {
            puppet.process.copy_out(&mut puppet.machine, place, &bytes).unwrap();
        }
        // A connection that forks lose, and further sockets.
        for kind in [libc::SOCK_STREAM, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, libc::SOCK_STREAM] {
            prop_assert!(puppet.call(libc::SYS_socket, [2, kind as u64, 0, 0, 0, 0], 0).is_ok_and(|fd| fd >= 3));
        }
        prop_assert_eq!(puppet.call(libc::SYS_connect, [3, ADDRESSES[0], 16, 0, 0, 0], 0), Ok(0));
        prop_assert!(puppet.process.remote_events().is_some());
        prop_assert_eq!(puppet.process.take_connects().made, 1);
        let (image, frozen) = puppet.freeze();
        prop_assert!(frozen.remote_events().is_none());
        let mut worker = Puppet::fork(&image, &frozen);
        for (number, args) in calls {
            match worker.call(number, args, 0) {
                Ok(_) => continue,
                Err(Step::Exited { .. } | Step::Faulted(_) | Step::MemoryLimit | Step::Waits { .. }) => {}
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            worker = Puppet::fork(&image, &frozen);
        }
        let _ = worker.reset(&frozen);
        prop_assert!(worker.process.remote_events().is_none() || worker.process.is_dirty());
    }
}
