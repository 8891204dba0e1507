// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resolves host names with the host's own resolver: the only place where the personality calls it.
//!
//! A look-up may take seconds, so only dedicated threads make them. Answers are cached for a while, and for longer
//! while the resolver fails. Names come from the operator's lists only: a program cannot make the host resolve another
//! one.
//!
//! Addresses that a name must not have are dropped: see [`is_allowed`] and [`is_own`].

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long an answer is used before the resolver is asked again.
const FRESH: Duration = Duration::from_secs(30);
/// How long an answer is used while the resolver fails.
const STALE: Duration = Duration::from_secs(600);
/// Pause after a failure. It doubles with each one, up to the longest.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Most addresses of a name.
const ADDRESSES_MAX: usize = 8;
/// Most names that are resolved at the same time.
const THREADS: usize = 4;

/// A host's name.
#[derive(Debug)]
pub(crate) struct Name {
    text: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    /// When the resolver answered.
    since: Option<Instant>,
    /// When the resolver failed.
    failed: Option<Instant>,
    pause: Duration,
    is_asked: bool,
}

/// The present knowledge of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its addresses; there is at least one.
    Addresses(Vec<IpAddr>),
    /// None yet: ask again later.
    Pending,
    /// The name has no address that may be connected to.
    Nothing,
}

impl Name {
    pub(crate) fn new(text: &str) -> Arc<Self> {
        Arc::new(Self { text: text.to_owned(), known: Mutex::default() })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Starts to resolve the name ahead of its first use.
    pub(crate) fn prepare(self: &Arc<Self>) {
        self.resolve();
    }

    /// The present answer. Never waits.
    pub(crate) fn resolve(self: &Arc<Self>) -> Answer {
        let now = Instant::now();
        let within = |when: Option<Instant>, time| when.is_some_and(|when| now.duration_since(when) < time);
        let mut known = self.known();
        let paused = within(known.failed, known.pause);
        let ask = !known.is_asked && !within(known.since, FRESH) && !paused;
        known.is_asked |= ask;
        let answer = if !known.addresses.is_empty() && within(known.since, STALE) {
            Answer::Addresses(known.addresses.clone())
        } else if paused && !known.is_asked {
            Answer::Nothing
        } else {
            Answer::Pending
        };
        drop(known);
        if ask {
            enqueue(self);
        }
        answer
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment, so the value is consistent even if a thread panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the resolver and waits for its answer.
    fn look_up(&self) {
        let found = (self.text.as_str(), 0).to_socket_addrs();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in found.into_iter().flatten().map(|found| found.ip().to_canonical()) {
            if is_allowed(ip) && !addresses.contains(&ip) && addresses.len() < ADDRESSES_MAX && !is_own(ip) {
                addresses.push(ip);
            }
        }
        self.set_addresses(addresses);
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        let now = Instant::now();
        let mut known = self.known();
        known.is_asked = false;
        if addresses.is_empty() {
            known.failed = Some(now);
            known.pause = known.pause.saturating_mul(2).clamp(PAUSE, PAUSE_MAX);
        } else {
            known.addresses = addresses;
            known.since = Some(now);
            known.failed = None;
            known.pause = Duration::ZERO;
        }
    }
}

/// Names that wait to be resolved. Each is in the queue once, so the operator's lists bound it.
#[derive(Debug)]
struct RequestQueue {
    waiting: VecDeque<Weak<Name>>,
    threads: usize,
}

static QUEUE: Mutex<RequestQueue> = Mutex::new(RequestQueue { waiting: VecDeque::new(), threads: 0 });

fn queue() -> MutexGuard<'static, RequestQueue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enqueue(name: &Arc<Name>) {
    let mut queue = queue();
    queue.waiting.push_back(Arc::downgrade(name));
    if queue.threads < THREADS {
        match std::thread::Builder::new().name("mayfly-resolver".to_owned()).spawn(look_up_all) {
            Ok(_) => queue.threads = queue.threads.saturating_add(1),
            // Another thread will take the name. If there is none, this counts as a failure of the resolver.
            Err(_) if queue.threads > 0 => {}
            Err(_) => {
                queue.waiting.clear();
                name.set_addresses(Vec::new());
            }
        }
    }
}

/// Resolves names until the queue is empty.
fn look_up_all() {
    loop {
        let mut queue = queue();
        let Some(name) = queue.waiting.pop_front() else {
            queue.threads = queue.threads.saturating_sub(1);
            return;
        };
        drop(queue);
        if let Some(name) = name.upgrade() {
            name.look_up();
        }
    }
}

/// Addresses of cloud metadata services, which give keys to every machine that asks, besides the link-local ones.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether a name may have this address. The owner of a name's zone could otherwise direct it to the host's own
/// services, or to its cloud's: those have to be listed by address.
fn is_allowed(ip: IpAddr) -> bool {
    let common = !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !METADATA.contains(&ip);
    common
        && match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast() && ip.octets().first() != Some(&0),
            IpAddr::V6(ip) => {
                // An IPv6 address with an embedded IPv4 address, in any of these forms, must be allowed as IPv4.
                let embedded = match ip.segments() {
                    [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, ..] => {
                        let [.., a, b, c, d] = ip.octets();
                        is_allowed(Ipv4Addr::new(a, b, c, d).into())
                    }
                    _ => true,
                };
                embedded && !ip.is_unicast_link_local()
            }
        }
}

/// Whether an address is this host's own. A connected datagram socket sends nothing, and its local address is that from
/// which it would send: for a destination on the host, the destination itself.
fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Any port will do: nothing is sent.
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    // For destinations in the loopback network, the source is a loopback address.
    source.is_ok_and(|source| source.ip() == ip || source.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_resolve_to_the_host_itself() {
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "64:ff9b::7f00:1",
            "::7f00:1",
        ] {
            assert!(!is_allowed(bad.parse().unwrap()), "{bad}");
        }
        for good in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800:220:1::1", "fd12::1", "64:ff9b::a00:1"] {
            assert!(is_allowed(good.parse().unwrap()), "{good}");
        }
    }

    /// The host has other addresses than loopback, and its services listen on them too; a firewall does not see local
    /// connections.
    #[test]
    fn the_hosts_own_addresses_are_known() {
        for own in ["127.0.0.1", "127.1.2.3"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.7", "198.51.100.1", "2001:db8::7"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
        // Whatever addresses this machine has.
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        if any.connect("192.0.2.7:9").is_ok() {
            let own = any.local_addr().unwrap().ip();
            assert_eq!(resolved(&Name::new(&own.to_string())), Answer::Nothing, "{own}");
        }
    }

    fn resolved(name: &Arc<Name>) -> Answer {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match name.resolve() {
                Answer::Pending if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                answer => return answer,
            }
        }
    }

    #[test]
    fn the_resolver_is_asked_in_the_background() {
        // Numeric names need no name server; a list has them as addresses.
        assert_eq!(resolved(&Name::new("192.0.2.7")), Answer::Addresses(vec![[192, 0, 2, 7].into()]));
        assert_eq!(resolved(&Name::new("127.0.0.1")), Answer::Nothing, "the host's own address");
        assert_eq!(resolved(&Name::new("localhost")), Answer::Nothing);
    }

    #[test]
    fn an_answer_outlives_a_resolver_that_fails() {
        let name = Name::new("192.0.2.8");
        assert!(matches!(resolved(&name), Answer::Addresses(_)));
        name.set_addresses(Vec::new());
        assert!(matches!(name.resolve(), Answer::Addresses(_)));
        name.known().since = Instant::now().checked_sub(STALE);
        assert_eq!(name.resolve(), Answer::Nothing);
        name.known().failed = None;
        assert_eq!(name.resolve(), Answer::Pending, "the resolver is asked again");
        assert!(matches!(resolved(&name), Answer::Addresses(_)));
    }
}
