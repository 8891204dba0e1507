// SPDX-License-Identifier: MIT OR Apache-2.0
//! Advice about configurations that are valid, but probably not what the operator wants.
//!
//! It has no effect: it is logged when a program has booted, and printed by `mayfly check`.

use mayfly_sandbox::{Elf, MonotonicClock};

use crate::config::runtime::Runtime;
use crate::config::{Mode, TenantConfig};

/// What Go's programs measure time by that stands still while they are frozen.
const GO_CLOCK: &str = "time.Since() and comparisons of what time.Now() returns";
/// Texts in the arguments or the environment of a tenant that starts its runtime with a hook of the SDK.
const HOOKS: [&str; 3] = ["fresh", "preload", "mayfly"];

impl TenantConfig {
    /// One sentence for each recommendation.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let Some(service) = &self.service else { return Vec::new() };
        let mut advice = Vec::new();
        if service.warm_up.is_empty() {
            advice.push("it has no \"warm_up\": every request does the work of a server's first one".to_owned());
        }
        if let Some(repeats) = self.repeats() {
            advice.push(format!(
                "requests start from the same random numbers ({repeats}) unless the program is started with a hook: see docs/freshness.md"
            ));
        }
        advice
    }

    /// What the tenant's program, whose content is `elf`, measures time by that never moves on from the freeze, if it
    /// is known: a sentence.
    pub(crate) fn clock_note(&self, elf: &Elf) -> Option<String> {
        if self.monotonic != MonotonicClock::Suspends || self.mode == Mode::Stateful {
            return None;
        }
        let known = Runtime::of(&self.program).and_then(Runtime::clock);
        let clock = known.or_else(|| elf.is_made_by_go().then_some(GO_CLOCK))?;
        Some(format!(
            "what the program kept at boot with a time of its monotonic clock does not age ({clock}): see \"monotonic_clock\" in docs/freshness.md"
        ))
    }

    /// Which random numbers are the same in every request, if the program is a runtime that is started without a hook.
    fn repeats(&self) -> Option<&'static str> {
        let random = Runtime::of(&self.program)?.random()?;
        let service = self.service.as_ref()?;
        let mut texts = self.args.iter().chain(self.env.iter().map(|(_, value)| value));
        let has_hook = texts.any(|text| HOOKS.iter().any(|hook| text.contains(hook)));
        // A program may make them fresh after each restore.
        (!has_hook && service.after_restore.is_none()).then_some(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn advice(tenant: &str) -> Vec<String> {
        let json = format!(r#"{{"tenants": [{{"name": "a", "path": "/", {tenant}}}]}}"#);
        Config::from_json(&json).unwrap().tenants[0].advice()
    }

    #[test]
    fn a_server_without_warm_up_gets_advice() {
        let cold = advice(r#""program": "server", "serve": "connections""#);
        assert!(matches!(&cold[..], [one] if one.contains("warm_up")), "{cold:?}");
        assert_eq!(advice(r#""program": "server", "serve": "connections", "warm_up": [{"path": "/"}]"#), [""; 0]);
        assert_eq!(advice(r#""program": "server""#), [""; 0]);
    }

    #[test]
    fn what_stands_still_in_a_known_runtime_is_noted() {
        let note = |tenant: &str, elf: &[u8]| {
            let json = format!(r#"{{"tenants": [{{"name": "a", "path": "/", {tenant}}}]}}"#);
            Config::from_json(&json).unwrap().tenants[0].clock_note(&Elf::Bytes(elf.to_vec()))
        };
        let go = b"\x04\0\0\0\x04\0\0\0\x04\0\0\0Go\0\0";
        let server = |program: &str, more: &str| format!(r#""program": "{program}", "serve": "connections"{more}"#);
        assert!(note(&server("/usr/bin/node", ""), b"").unwrap().contains("performance.now()"));
        assert!(note(&server("shop", ""), go).unwrap().contains("time.Since()"));
        assert_eq!(note(&server("shop", ""), b""), None);
        assert_eq!(note(&server("node", r#", "monotonic_clock": "runs""#), b""), None);
        assert_eq!(note(&server("node", r#", "ephemeral": false"#), b""), None, "it moves on from the first request");
        assert_eq!(note(r#""program": "shop""#, go), None, "its clock runs");
        assert!(note(r#""program": "deno", "monotonic_clock": "suspends""#, b"").is_some());
    }

    #[test]
    fn a_runtime_without_its_hook_gets_advice() {
        let server = |program: &str, more: &str| {
            advice(&format!(r#""program": "{program}", "serve": "connections", "warm_up": [{{"path": "/"}}]{more}"#))
        };
        for program in ["/usr/bin/node", "deno", "/usr/bin/python3.11", "bun", "perl", "/usr/lib/jvm/bin/java"] {
            let given = server(program, r#", "args": ["app"], "env": {"TZ": "UTC"}"#);
            assert!(matches!(&given[..], [one] if one.contains("freshness.md")), "{program}: {given:?}");
        }
        for hook in
            [r#""args": ["--import", "/sdk/node/fresh.mjs", "app"]"#, r#""env": {"PYTHONPATH": "/sdk/python/preload"}"#]
        {
            assert_eq!(server("node", &format!(", {hook}")), [""; 0]);
        }
        assert_eq!(server("perl", r#", "after_restore": "/seed""#), [""; 0], "the program seeds them");
        assert_eq!(server("nginx", ""), [""; 0]);
        assert_eq!(advice(r#""program": "node""#), [""; 0], "a program that uses the SDK needs no hook");
    }
}
