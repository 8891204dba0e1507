// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/hosts` of a program, made when it starts: hosts(5).
//!
//! It has the program's own machine and the names that the program may connect to, and otherwise what a mount has
//! there. A mount's other addresses of these names are left out: the program reaches none of them.

use std::fmt::Write;

use crate::fs::mounts::Mounts;
use crate::net::allow_list::{Network, OWN_NAMES};

/// Where it is.
pub(crate) const PATH: &[u8] = b"/etc/hosts";
/// Longest file of a mount that is read; the rest is left out.
const BYTES_MAX: usize = 256 << 10;

/// The file's content.
pub(crate) fn text(mounts: &Mounts, network: &Network) -> Vec<u8> {
    let Some(given) = of_mount(mounts) else { return network.hosts().into_bytes() };
    merge(&String::from_utf8_lossy(&given), network).into_bytes()
}

/// What a mount has there.
fn of_mount(mounts: &Mounts) -> Option<Vec<u8>> {
    let (mount, rest) = mounts.find(PATH).filter(|(mount, _)| mount.root.is_some())?;
    let file = mounts.open_file(mount, rest, true).ok()?;
    let mut bytes = vec![0; BYTES_MAX];
    let len = file.read_at(0, &mut bytes, true).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

fn merge(given: &str, network: &Network) -> String {
    let mut text = String::new();
    for (name, ip) in network.listed().filter(|(name, _)| !OWN_NAMES.contains(name)) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{ip} {name}");
    }
    let is_listed = |name: &str| network.listed().any(|(listed, _)| listed.eq_ignore_ascii_case(name));
    let mut own = OWN_NAMES.to_vec();
    for line in given.lines() {
        let mut fields = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = fields.next() else { continue };
        let names: Vec<&str> = fields.filter(|name| OWN_NAMES.contains(name) || !is_listed(name)).collect();
        own.retain(|own| !names.contains(own));
        if !names.is_empty() {
            let _ = writeln!(text, "{address} {}", names.join(" "));
        }
    }
    for name in own {
        let _ = writeln!(text, "127.0.0.1 {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::allow_list::{Outbound, OutboundHost};

    #[test]
    fn a_mounts_names_stay_but_for_those_that_the_program_reaches_by_another_address() {
        let name = |name: &str| Outbound { host: OutboundHost::Name(name.to_owned()), port: 1 };
        let network = Network::new(&[name("db.invalid"), name("cache.invalid")]);
        let given =
            "127.0.0.1\tlocalhost\n\n10.0.0.1 DB.invalid db2.invalid # the database\n10.0.0.2 cache.invalid\n#\n";
        assert_eq!(
            merge(given, &network),
            "198.18.0.2 db.invalid\n198.18.0.3 cache.invalid\n127.0.0.1 localhost\n10.0.0.1 db2.invalid\n\
             127.0.0.1 mayfly\n"
        );
        assert_eq!(merge("::1 mayfly localhost", &Network::default()), "::1 mayfly localhost\n");
    }
}
