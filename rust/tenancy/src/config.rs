// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration: which tenants there are, what they run, where, and within which limits.
//!
//! A configuration is checked as a whole before any of it takes effect. An error
//! names the key, and the line and column where the text has them. What each key
//! means to a user is in `docs/configuration.md`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::json::blank_comments;
use crate::limits::{Limits, LimitsPatch};
use crate::values::{Argument, EnvironmentName, RoutePath, TenantName};

/// The `name` under which Drogon's configuration lists the plugin.
pub const PLUGIN_NAME: &str = "mayfly::SandboxPlugin";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// In the order of the file; names and paths differ from each other.
    pub tenants: Vec<TenantConfig>,
}

/// One tenant of a checked configuration.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// What logs, reports and errors call it.
    pub name: TenantName,
    /// The ELF file, joined to the configuration's `root`.
    pub program: PathBuf,
    /// The requests whose path starts with this are the tenant's.
    pub path: RoutePath,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment: nothing of the server's own reaches a tenant.
    pub env: Vec<(String, String)>,
    /// Whether every request starts from the frozen state. Otherwise a worker keeps its state from request to request.
    pub ephemeral: bool,
    /// The tenant's own limits, then the defaults of the file, then those of Mayfly.
    pub limits: Limits,
}

/// Why a configuration was refused. Nothing of it has taken effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The text is no JSON.
    #[error("not valid JSON: {0}")]
    Syntax(serde_json::Error),
    /// A key is unknown, missing, or its value is of the wrong type or out of range.
    #[error("{key}: {problem}")]
    Value {
        /// Where, as in `tenants[2].limits.cpu_ms`.
        key: String,
        /// What was expected and, where the text is a file, its line and column.
        problem: String,
    },
    /// Two tenants have the same name.
    #[error("tenants[{second}].name: \"{name}\" is the name of tenants[{first}] already")]
    DuplicateName {
        /// The name.
        name: TenantName,
        /// The earlier tenant's position.
        first: usize,
        /// The later tenant's position.
        second: usize,
    },
    /// Two tenants ask for the same path.
    #[error("tenants[{second}].path: \"{path}\" is the path of tenants[{first}] already")]
    DuplicatePath {
        /// The path.
        path: RoutePath,
        /// The earlier tenant's position.
        first: usize,
        /// The later tenant's position.
        second: usize,
    },
    /// The file is one for Drogon but does not list the plugin.
    #[error("plugins: none is named \"{PLUGIN_NAME}\"")]
    NoPlugin,
}

impl Config {
    /// Parses and checks a configuration. Comments (`//`, `/* */`) are allowed.
    ///
    /// # Errors
    ///
    /// All of [`ConfigError`] but `Read` and `NoPlugin`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let text = blank_comments(text);
        let mut json = serde_json::Deserializer::from_str(&text);
        let file: File = serde_path_to_error::deserialize(&mut json).map_err(|error| refused("", error))?;
        json.end().map_err(ConfigError::Syntax)?;
        file.check()
    }

    /// Checks a configuration that is parsed already.
    ///
    /// # Errors
    ///
    /// As [`Self::from_json`], without lines and columns.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, ConfigError> {
        Self::from_part("", value)
    }

    /// Reads a configuration from a file: either Mayfly's own, or one for Drogon that lists the plugin.
    ///
    /// # Errors
    ///
    /// All of [`ConfigError`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        let outline: serde_json::Value = serde_json::from_str(&blank_comments(&text)).map_err(ConfigError::Syntax)?;
        match outline.get("plugins").and_then(|plugins| plugins.as_array()) {
            None => Self::from_json(&text),
            Some(plugins) => plugins
                .iter()
                .enumerate()
                .find(|(_, plugin)| plugin["name"] == PLUGIN_NAME)
                .map(|(index, plugin)| Self::from_part(&format!("plugins[{index}].config"), &plugin["config"]))
                .unwrap_or(Err(ConfigError::NoPlugin)),
        }
    }

    fn from_part(place: &str, config: &serde_json::Value) -> Result<Self, ConfigError> {
        let file: File = serde_path_to_error::deserialize(config).map_err(|error| refused(place, error))?;
        file.check()
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    root: PathBuf,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    tenants: Vec<Tenant>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Defaults {
    #[serde(default)]
    limits: LimitsPatch,
}

/// A tenant as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    name: TenantName,
    program: PathBuf,
    path: RoutePath,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default)]
    env: BTreeMap<EnvironmentName, Argument>,
    #[serde(default = "yes")]
    ephemeral: bool,
    #[serde(default)]
    limits: LimitsPatch,
}

fn yes() -> bool {
    true
}

impl File {
    fn check(self) -> Result<Config, ConfigError> {
        let defaults = self.defaults.limits.over(&Limits::default());
        let tenants: Vec<TenantConfig> =
            self.tenants.into_iter().map(|tenant| tenant.resolve(&self.root, &defaults)).collect();
        if let Some((first, second)) = first_duplicate(&tenants, |tenant| tenant.name.as_str()) {
            return Err(ConfigError::DuplicateName { name: tenants[second].name.clone(), first, second });
        }
        if let Some((first, second)) = first_duplicate(&tenants, |tenant| tenant.path.as_str()) {
            return Err(ConfigError::DuplicatePath { path: tenants[second].path.clone(), first, second });
        }
        Ok(Config { tenants })
    }
}

impl Tenant {
    fn resolve(self, root: &Path, defaults: &Limits) -> TenantConfig {
        TenantConfig {
            name: self.name,
            program: root.join(self.program),
            path: self.path,
            args: self.args.into_iter().map(String::from).collect(),
            env: self.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ephemeral: self.ephemeral,
            limits: self.limits.over(defaults),
        }
    }
}

fn first_duplicate<'a>(
    tenants: &'a [TenantConfig],
    key: impl Fn(&'a TenantConfig) -> &'a str,
) -> Option<(usize, usize)> {
    let mut seen = HashMap::with_capacity(tenants.len());
    tenants
        .iter()
        .enumerate()
        .find_map(|(second, tenant)| seen.insert(key(tenant), second).map(|first| (first, second)))
}

/// An error of the JSON library, told by its place.
fn refused(prefix: &str, error: serde_path_to_error::Error<serde_json::Error>) -> ConfigError {
    let path = error.path().to_string();
    let inner = error.into_inner();
    if inner.is_syntax() || inner.is_eof() {
        return ConfigError::Syntax(inner);
    }
    // The library writes the path of the whole document as a dot.
    let key = match (prefix, path.as_str()) {
        ("", ".") => "the configuration".to_owned(),
        ("", path) => path.to_owned(),
        (prefix, ".") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    };
    ConfigError::Value { key, problem: inner.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn error(text: &str) -> String {
        Config::from_json(text).unwrap_err().to_string()
    }

    fn tenant(more: &str) -> String {
        format!(r#"{{"tenants": [{{"name": "a", "program": "p", "path": "/a"{more}}}]}}"#)
    }

    #[test]
    fn a_small_file_gets_the_defaults() {
        let config = Config::from_json(&tenant("")).unwrap();
        let tenant = &config.tenants[0];
        assert_eq!(tenant.name.as_str(), "a");
        assert_eq!(tenant.program, Path::new("p"));
        assert_eq!(tenant.path.as_str(), "/a");
        assert!(tenant.ephemeral && tenant.args.is_empty() && tenant.env.is_empty());
        assert_eq!(tenant.limits, Limits::default());
    }

    #[test]
    fn an_empty_file_has_no_tenants() {
        assert!(Config::from_json("{}").unwrap().tenants.is_empty());
    }

    #[test]
    fn limits_merge_tenant_over_file_over_built_in() {
        let config = Config::from_json(
            r#"{
                // Comments are fine, as in Drogon's own files.
                "root": "/srv", "defaults": {"limits": {"cpu_ms": 5, "request_kib": 8}},
                "tenants": [{"name": "a", "program": "p", "path": "/a", "limits": {"cpu_ms": 7},
                             "args": ["-x"], "env": {"B": "2", "A": "1"}},
                            {"name": "b", "program": "/q", "path": "/"}]}"#,
        )
        .unwrap();
        let [a, b] = &config.tenants[..] else { panic!() };
        assert_eq!(
            (a.limits.machine.cpu_time, b.limits.machine.cpu_time),
            (Duration::from_millis(7), Duration::from_millis(5))
        );
        assert_eq!((a.limits.machine.request_bytes, b.limits.machine.request_bytes), (8 << 10, 8 << 10));
        assert_eq!(a.limits.machine.response_bytes, Limits::default().machine.response_bytes);
        assert_eq!((a.program.as_path(), b.program.as_path()), (Path::new("/srv/p"), Path::new("/q")));
        assert_eq!(a.args, ["-x"]);
        assert_eq!(a.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let message = error(&tenant(r#", "limits": {"cpu": 5}"#));
        assert!(message.starts_with("tenants[0].limits.cpu: unknown field `cpu`"), "{message}");
        assert!(message.contains("cpu_ms") && message.contains("line 1"), "{message}");
        assert!(error(r#"{"tenant": []}"#).starts_with("tenant: unknown field"));
        assert!(error(r#"{"defaults": {"ephemeral": true}}"#).starts_with("defaults.ephemeral: unknown"));
    }

    #[test]
    fn a_missing_key_and_a_wrong_type_are_named() {
        assert!(error(r#"{"tenants": [{"name": "a", "path": "/a"}]}"#).contains("tenants[0]: missing field `program`"));
        assert!(error(&tenant(r#", "args": [1]"#)).starts_with("tenants[0].args[0]: invalid type"));
        assert!(error(&tenant(r#", "env": {"A": 1}"#)).starts_with("tenants[0].env.A: invalid type"));
        assert!(error(&tenant(r#", "ephemeral": "yes""#)).starts_with("tenants[0].ephemeral: invalid type"));
        assert!(error("7").starts_with("the configuration: invalid type"));
    }

    #[test]
    fn ranges_are_checked_and_told() {
        for (limits, key) in [
            (r#"{"cpu_ms": 0}"#, "cpu_ms"),
            (r#"{"boot_ms": 9000000}"#, "boot_ms"),
            (r#"{"memory_mib": 0}"#, "memory_mib"),
            (r#"{"request_kib": -1}"#, "request_kib"),
            (r#"{"response_kib": 99999999}"#, "response_kib"),
            (r#"{"boot_memory_mib": 18446744073709551615}"#, "boot_memory_mib"),
            (r#"{"log_bytes_per_second": 1.5}"#, "log_bytes_per_second"),
        ] {
            let message = error(&tenant(&format!(r#", "limits": {limits}"#)));
            assert!(message.starts_with(&format!("tenants[0].limits.{key}: ")), "{message}");
            assert!(message.contains("expected a whole number from "), "{message}");
        }
    }

    #[test]
    fn bad_names_and_paths_are_refused() {
        for name in ["", "a b", "ä", "-a", "a/b", &"x".repeat(65)] {
            let message = error(&format!(r#"{{"tenants": [{{"name": "{name}", "program": "p", "path": "/"}}]}}"#));
            assert!(message.starts_with("tenants[0].name: "), "{message}");
        }
        for path in ["", "a", "/a/", "//", "/a//b", "/a?b", "/a#", "/a/../b", "/.", "/a b", "/ä"] {
            let message = error(&format!(r#"{{"tenants": [{{"name": "a", "program": "p", "path": "{path}"}}]}}"#));
            assert!(message.starts_with("tenants[0].path: "), "{message}");
        }
        assert!(error(&tenant(r#", "args": ["a\u0000b"]"#)).starts_with("tenants[0].args[0]: "));
        assert!(error(&tenant(r#", "env": {"A=B": "1"}"#)).starts_with("tenants[0].env"));
    }

    #[test]
    fn duplicates_are_refused() {
        let two = |second: &str| format!(r#"{{"tenants": [{{"name": "a", "program": "p", "path": "/a"}}, {second}]}}"#);
        assert_eq!(
            error(&two(r#"{"name": "a", "program": "p", "path": "/b"}"#)),
            r#"tenants[1].name: "a" is the name of tenants[0] already"#
        );
        assert_eq!(
            error(&two(r#"{"name": "b", "program": "p", "path": "/a"}"#)),
            r#"tenants[1].path: "/a" is the path of tenants[0] already"#
        );
        assert!(error(&tenant(r#", "path": "/b""#)).contains("duplicate field `path`"));
    }

    #[test]
    fn syntax_errors_have_a_line() {
        assert!(error("{\n \"tenants\": [}").starts_with("not valid JSON: expected value at line 2"));
        assert!(error("{} {}").starts_with("not valid JSON: trailing characters"));
        assert!(error("").starts_with("not valid JSON: EOF"));
    }

    #[test]
    fn a_file_for_drogon_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            Config::from_file(&file)
        };
        let plugin = |config: &str| {
            format!(
                r#"{{"listeners": [], "plugins": [{{"name": "x"}}, {{"name": "{PLUGIN_NAME}", "config": {config}}}]}}"#
            )
        };
        assert_eq!(check(&plugin(&tenant(""))).unwrap().tenants.len(), 1);
        assert_eq!(check(&tenant("")).unwrap().tenants.len(), 1);
        assert!(matches!(check(r#"{"plugins": []}"#), Err(ConfigError::NoPlugin)));
        let message = check(&plugin(r#"{"tenants": [{}]}"#)).unwrap_err().to_string();
        assert!(message.starts_with("plugins[1].config.tenants[0]: missing field `name`"), "{message}");
        assert!(check("{").unwrap_err().to_string().starts_with("not valid JSON"));
        let missing = Config::from_file(&folder.path().join("none.json")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read /") && missing.contains("No such file"), "{missing}");
    }
}
