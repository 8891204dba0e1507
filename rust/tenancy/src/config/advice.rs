// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not wrong with a tenant's configuration, and will be regretted all the same.
//!
//! Nothing here decides anything: it is said when a program has booted, and by `mayfly check`. What a program is shows
//! from its file's name, which is good enough for advice.

use crate::config::TenantConfig;

/// Runtimes that keep random numbers in memory, and what is the same in every request then. The file's name starts so.
const RUNTIMES: [(&str, &str); 4] = [
    ("node", "Math.random() and crypto"),
    ("deno", "Math.random() and crypto"),
    ("bun", "Math.random() and crypto"),
    ("python", "those of the module random"),
];
/// What a tenant that starts its runtime with a hook of the SDK has somewhere in its arguments or its environment.
const HOOKS: [&str; 3] = ["fresh", "preload", "mayfly"];

impl TenantConfig {
    /// A sentence for each thing that the tenant had better have otherwise.
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

    /// Which random numbers of an unmodified runtime are the same in every request, if it is started without a hook.
    fn repeats(&self) -> Option<&'static str> {
        let file = self.program.file_name()?.to_str()?;
        let (_, repeats) = RUNTIMES.iter().find(|(name, _)| file.starts_with(name))?;
        let mut told = self.args.iter().chain(self.env.iter().map(|(_, value)| value));
        let has_hook = told.any(|text| HOOKS.iter().any(|hook| text.contains(hook)));
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
    fn a_server_without_warm_up_is_told() {
        let cold = advice(r#""program": "server", "serve": "connections""#);
        assert!(matches!(&cold[..], [one] if one.contains("warm_up")), "{cold:?}");
        assert_eq!(advice(r#""program": "server", "serve": "connections", "warm_up": [{"path": "/"}]"#), [""; 0]);
        assert_eq!(advice(r#""program": "server""#), [""; 0]);
    }

    #[test]
    fn a_runtime_without_its_hook_is_told() {
        let server = |program: &str, more: &str| {
            advice(&format!(r#""program": "{program}", "serve": "connections", "warm_up": [{{"path": "/"}}]{more}"#))
        };
        for program in ["/usr/bin/node", "deno", "/usr/bin/python3.11"] {
            let told = server(program, r#", "args": ["app"], "env": {"TZ": "UTC"}"#);
            assert!(matches!(&told[..], [one] if one.contains("freshness.md")), "{program}: {told:?}");
        }
        for hook in
            [r#""args": ["--import", "/sdk/node/fresh.mjs", "app"]"#, r#""env": {"PYTHONPATH": "/sdk/python/preload"}"#]
        {
            assert_eq!(server("node", &format!(", {hook}")), [""; 0]);
        }
        assert_eq!(server("nginx", ""), [""; 0]);
        assert_eq!(advice(r#""program": "node""#), [""; 0], "by the SDK there is nothing to do");
    }
}
