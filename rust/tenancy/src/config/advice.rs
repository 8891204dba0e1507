// SPDX-License-Identifier: MIT OR Apache-2.0
//! Advice about configurations that are valid, but probably not what the operator wants.
//!
//! It has no effect: it is logged when a program has booted, and printed by `mayfly check`.

use crate::config::TenantConfig;
use crate::config::runtime::Runtime;

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

    /// Which random numbers are the same in every request, if the program is a runtime that is started without a hook.
    fn repeats(&self) -> Option<&'static str> {
        let repeats = Runtime::of(&self.program)?.repeats()?;
        let mut texts = self.args.iter().chain(self.env.iter().map(|(_, value)| value));
        let has_hook = texts.any(|text| HOOKS.iter().any(|hook| text.contains(hook)));
        (!has_hook).then_some(repeats)
    }
}

#[cfg(test)]
mod tests {
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
    fn a_runtime_without_its_hook_gets_advice() {
        let server = |program: &str, more: &str| {
            advice(&format!(r#""program": "{program}", "serve": "connections", "warm_up": [{{"path": "/"}}]{more}"#))
        };
        for program in ["/usr/bin/node", "deno", "/usr/bin/python3.11"] {
            let given = server(program, r#", "args": ["app"], "env": {"TZ": "UTC"}"#);
            assert!(matches!(&given[..], [one] if one.contains("freshness.md")), "{program}: {given:?}");
        }
        for hook in
            [r#""args": ["--import", "/sdk/node/fresh.mjs", "app"]"#, r#""env": {"PYTHONPATH": "/sdk/python/preload"}"#]
        {
            assert_eq!(server("node", &format!(", {hook}")), [""; 0]);
        }
        assert_eq!(server("nginx", ""), [""; 0]);
        assert_eq!(advice(r#""program": "node""#), [""; 0], "a program that uses the SDK needs no hook");
    }
}
