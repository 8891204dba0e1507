// SPDX-License-Identifier: MIT OR Apache-2.0
//! Language runtimes, which need other default limits than programs for the doorbell alone, and advice of their own.
//!
//! A runtime is recognised by its file's name, as distributions and the runtimes' own packages call it: `python3.11`,
//! `php8.2`, `node-20`. A program that only bears such a name gets more by default than it needs; every limit can be set.

use std::path::Path;

/// A runtime that is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runtime {
    name: &'static str,
    /// The random numbers whose state lies in memory, which repeat from request to request without a hook.
    random: Option<&'static str>,
    /// What it measures time by that stands still while the program is frozen.
    clock: Option<&'static str>,
}

const fn runtime(name: &'static str, random: Option<&'static str>, clock: Option<&'static str>) -> Runtime {
    Runtime { name, random, clock }
}

/// All of them. See `docs/freshness.md`, which says what was seen of each.
const RUNTIMES: [Runtime; 13] = [
    runtime("node", Some("Math.random() and crypto"), Some("performance.now(), process.hrtime() and its timers")),
    runtime("deno", Some("Math.random() and crypto"), Some("performance.now() and its timers")),
    runtime("bun", Some("Math.random(), and crypto after a warm-up"), Some("performance.now() and its timers")),
    runtime("python", Some("those of the modules random and numpy"), Some("time.monotonic() and asyncio's timers")),
    runtime("pypy", Some("those of the module random"), Some("time.monotonic() and asyncio's timers")),
    runtime(
        "java",
        Some("java.util.Random, and Math.random() after a warm-up"),
        Some("System.nanoTime() and its timers"),
    ),
    runtime("dotnet", None, None),
    runtime("ruby", None, None),
    runtime("php", None, None),
    runtime(
        "perl",
        Some("rand() after a warm-up, and what is made from it"),
        Some("CLOCK_MONOTONIC and the timers of its event loops"),
    ),
    runtime("beam.smp", None, None),
    runtime("luajit", None, None),
    runtime("guile", None, None),
];

impl Runtime {
    /// The runtime that the program is, by its file's name: a runtime's, and perhaps a version.
    pub(crate) fn of(program: &Path) -> Option<Self> {
        let file = program.file_name()?.to_str()?;
        RUNTIMES.into_iter().find(|runtime| file.strip_prefix(runtime.name).is_some_and(is_version))
    }

    /// Which random numbers are the same in every request without a hook.
    pub(crate) fn random(self) -> Option<&'static str> {
        self.random
    }

    /// What it measures time by that stands still while the program is frozen.
    pub(crate) fn clock(self) -> Option<&'static str> {
        self.clock
    }
}

/// Whether nothing, or a version, follows a runtime's name: `3.11`, `js20`, `-20.1`.
fn is_version(rest: &str) -> bool {
    let rest = rest.strip_prefix("js").unwrap_or(rest);
    rest.chars().all(|char| char.is_ascii_digit() || ".-_".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_recognised_with_its_version() {
        let name = |program: &str| Runtime::of(Path::new(program)).map(|runtime| runtime.name);
        for (program, expected) in [
            ("/usr/bin/node", "node"),
            ("nodejs", "node"),
            ("/opt/node-20.1/bin/node-20", "node"),
            ("/usr/bin/python3.11", "python"),
            ("venv/bin/python", "python"),
            ("/usr/bin/php8.2", "php"),
            ("deno", "deno"),
            ("/usr/lib/jvm/java-17/bin/java", "java"),
        ] {
            assert_eq!(name(program), Some(expected), "{program}");
        }
        for program in ["nodes", "javascript-app", "perl.so", "server", "", "/", "bunny", "/usr/bin/node/app"] {
            assert_eq!(name(program), None, "{program}");
        }
    }
}
