// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints what a switch to a stub and back costs on this host, in microseconds.
//!
//! usage: cargo run --release --package mayfly-process --example floor [ROUNDS]

use std::error::Error;
use std::time::Duration;

use mayfly_process::Host;
use mayfly_process::floor::Floor;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(100_000), |rounds| rounds.parse())?;
    let host = Host::probe()?;
    println!("{}", host.report());
    let Floor { by_value, trapped, ordered, birth, end } = Floor::measure(&host, rounds)?;
    for (what, times) in [
        ("call by value", by_value),
        ("call trapped, all registers", trapped),
        ("order (mprotect) and ring", ordered),
        ("birth of a stub", birth),
        ("end of a stub", end),
    ] {
        print(what, times);
    }
    Ok(())
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
    println!("{what:28} p10 {:7.2}  p50 {:7.2}  p90 {:7.2}  p99 {:7.2} us", at(10), at(50), at(90), at(99));
}
