// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema of a tenants file, generated from the types that parse one.
//!
//! The types' doc comments are its descriptions. Their ranges and patterns are next to the checks that they repeat, in
//! `values.rs`. Only the parser checks what a schema cannot express (names are unique, groups exist).

use schemars::Schema;
#[cfg(test)]
#[path = "schema_validator.rs"]
mod validator;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use crate::config::File;

/// The schema as text that ends with a newline: the content of `docs/tenants.schema.json`.
#[must_use]
pub fn tenants_schema() -> String {
    let settings = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(without_line_breaks));
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "Mayfly tenants".into());
    // Serialising a map of strings and values cannot fail.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// An optional key is an `Option` here; the schema must not allow `null` for it.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let is_null = |schema: &Value| schema["type"] == "null";
    if let Some(Value::Array(choices)) = object.get("anyOf")
        && let [choice, null] = &choices[..]
        && is_null(null)
        && let Value::Object(choice) = choice.clone()
    {
        object.remove("anyOf");
        object.extend(choice);
    }
}

/// Removes the line breaks of doc comments: an editor wraps descriptions at its own width.
fn without_line_breaks(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// Defines the schema of a type that is parsed from a string or a number.
macro_rules! inline_schema {
    ($type:ty: $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(crate) use inline_schema;

/// The notation of an address with a port.
pub(crate) struct SocketAddress;

inline_schema!(SocketAddress: { "type": "string", "pattern": r"^(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:.]+\]):\d+$" });

#[cfg(test)]
mod tests {
    use super::validator::validate;
    use super::*;
    use crate::config::json::blank_comments;
    use crate::{Config, Limits, PLUGIN_NAME};
    use std::fs;
    use std::path::{Path, PathBuf};

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    fn schema() -> Value {
        serde_json::from_str(&tenants_schema()).unwrap()
    }

    fn parse(text: &str) -> Value {
        serde_json::from_str(&blank_comments(text)).unwrap()
    }

    /// The verdict of the schema and of the parser, which must agree.
    fn verdict(text: &str) -> Result<(), String> {
        let by_schema = validate(&schema(), &parse(text));
        let by_parser = Config::from_json(text);
        assert_eq!(by_schema.is_ok(), by_parser.is_ok(), "{text}\nschema: {by_schema:?}\nparser: {by_parser:?}");
        by_schema
    }

    #[test]
    fn the_published_schema_is_this_one() {
        let path = repository("docs/tenants.schema.json");
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == tenants_schema(),
            "{} is out of date: regenerate it with `mayfly check --schema`",
            path.display()
        );
    }

    #[test]
    fn examples_are_valid() {
        let drogon = parse(&fs::read_to_string(repository("drogon-plugin/server/mayfly.json")).unwrap());
        let plugins = drogon["plugins"].as_array().unwrap();
        let plugin = plugins.iter().find(|plugin| plugin["name"] == PLUGIN_NAME).unwrap();
        let config = match plugin["config"]["tenants_file"].as_str() {
            None => plugin["config"].to_string(),
            Some(file) => fs::read_to_string(repository(file)).unwrap(),
        };
        verdict(&config).unwrap();

        let guide = fs::read_to_string(repository("docs/configuration.md")).unwrap();
        let examples: Vec<_> = guide.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!examples.is_empty());
        for example in examples {
            verdict(example).unwrap();
        }
    }

    #[test]
    fn schema_and_parser_agree_on_valid_files() {
        let digest = "aB".repeat(32);
        for tenant in [
            r#""path": "/""#,
            r#""path": "/a.b/..c/.d/...", "env": {"A": "=", "-": ""}, "args": ["", "\n"]"#,
            r#""hosts": ["a", "*.b-c.d_e", "[::1]", "127.0.0.1"], "paths": ["/a", "/b"]"#,
            r#""default": true, "ephemeral": false, "boot": "first_call""#,
            r#""path": "/", "reset_every": 4294967295, "shared_memory": {"kib": 4, "file": "x"}"#,
            r#""path": "/", "health": {"path": "/?a=%20", "status": 204}, "storage": {"program": "s", "call_ms": 1}"#,
            &format!(r#""path": "/", "upload_key_sha256": "{digest}""#),
            r#""path": "/", "mounts": [{"host": "a", "at": "/"}, {"host": "/b.c/..d/.e"}, {"host": "x", "at": "/a b", "writable": true}]"#,
            r#""path": "/", "serve": "connections", "warm_up": [{"path": "/", "method": "GET", "headers": {"A": "b c"}, "times": 1}]"#,
            r#""path": "/", "serve": "doorbell", "monotonic_clock": "suspends""#,
            r#""path": "/", "serve": "connections", "port": 1"#,
            r#""path": "/", "serve": "connections", "ready": {"path": "/r", "status": 204, "within_ms": 600000}, "settle_ms": 0"#,
            r#""path": "/", "serve": "connections", "before_freeze": "/f?a", "after_restore": "/r""#,
            r#""path": "/", "serve": "connections", "port": 65535, "warm_up": []"#,
            r#""path": "/", "engine": "process""#,
            r#""path": "/", "ephemeral": false, "workers": 1"#,
            r#""path": "/", "ephemeral": false, "workers": 256, "affinity": "connection""#,
            r#""path": "/", "reset_every": 9, "workers": 2, "affinity": "cookie:a|b""#,
            r#""path": "/", "ephemeral": false, "workers": 2, "affinity": "header:X-User""#,
            r#""path": "/", "outbound": ["a.b-c:1", "1.2.3.4:65535", "[::1]:80"]"#,
            r#""path": "/", "client": {}"#,
            r#""path": "/", "client": {"headers": "x-forwarded", "trusted_proxies": []}"#,
            r#""path": "/", "client": {"headers": "forwarded", "trusted_proxies": ["10.0.0.0/8", "127.0.0.1"]}"#,
            r#""path": "/", "client": {"headers": "none", "trusted_proxies": ["::/0", "::1", "fd00::/8", "::ffff:1.2.3.4"]}"#,
        ] {
            verdict(&format!(r#"{{"tenants": [{{"name": "a", "program": "p", {tenant}}}]}}"#)).unwrap();
        }
        for file in [
            "{}",
            r#"{"$schema": "x", "root": "", "max_workers": 1, "boot_at_start": 0, "groups": {"a": {"env": {}, "limits": {}}}}"#,
            r#"{"admin": {}}"#,
            r#"{"admin": {"listen": "[::1]:80", "uploads": "u", "upload_mib": 1}}"#,
            r#"{"snapshots": "frozen"}"#,
            r#"{"engine": "auto", "groups": {"a": {"engine": "kvm"}}}"#,
            r#"{"defaults": {"client": {"headers": "none"}}, "groups": {"a": {"client": {"trusted_proxies": ["0.0.0.0/0"]}}}}"#,
        ] {
            verdict(file).unwrap();
        }
    }

    #[test]
    fn schema_and_parser_agree_on_invalid_files() {
        for tenant in [
            r#""name": "a", "path": "/""#,
            r#""name": "a", "program": "p""#,
            r#""name": "a", "program": "p", "default": false"#,
            r#""name": "", "program": "p", "path": "/""#,
            r#""name": "a", "program": "", "path": "/""#,
            r#""name": "a", "program": "p", "paht": "/""#,
            r#""name": "a", "program": "p", "path": "/a/""#,
            r#""name": "a", "program": "p", "path": "/a/..""#,
            r#""name": "a", "program": "p", "path": "/a*""#,
            r#""name": "a", "program": "p", "path": "/./b""#,
            r#""name": "a", "program": "p", "path": "/", "paths": ["/a"]"#,
            r#""name": "a", "program": "p", "paths": []"#,
            r#""name": "a", "program": "p", "hosts": ["a:80"]"#,
            r#""name": "a", "program": "p", "hosts": ["*"]"#,
            r#""name": "a", "program": "p", "hosts": ["-a"]"#,
            r#""name": "a", "program": "p", "path": "/", "ephemeral": true, "reset_every": 1"#,
            r#""name": "a", "program": "p", "path": "/", "reset_every": 0"#,
            r#""name": "a", "program": "p", "path": "/", "workers": 1"#,
            r#""name": "a", "program": "p", "path": "/", "workers": 2, "ephemeral": true"#,
            r#""name": "a", "program": "p", "path": "/", "workers": 0, "ephemeral": false"#,
            r#""name": "a", "program": "p", "path": "/", "workers": 257, "ephemeral": false"#,
            r#""name": "a", "program": "p", "path": "/", "workers": 1, "ephemeral": false, "affinity": "connection""#,
            r#""name": "a", "program": "p", "path": "/", "ephemeral": false, "affinity": "connection""#,
            r#""name": "a", "program": "p", "path": "/", "workers": 2, "ephemeral": false, "affinity": "cookie""#,
            r#""name": "a", "program": "p", "path": "/", "workers": 2, "ephemeral": false, "affinity": "header:a b""#,
            r#""name": "a", "program": "p", "path": "/", "boot": "never""#,
            r#""name": "a", "program": "p", "path": "/", "engine": "xen""#,
            r#""name": "a", "program": "p", "path": "/", "env": {"A=": ""}"#,
            r#""name": "a", "program": "p", "path": "/", "env": {"A": 1}"#,
            r#""name": "a", "program": "p", "path": "/", "args": ["\u0000"]"#,
            r#""name": "a", "program": "p", "path": "/", "limits": {"cpu_ms": 0}"#,
            r#""name": "a", "program": "p", "path": "/", "limits": {"cpu_ms": 1.5}"#,
            r#""name": "a", "program": "p", "path": "/", "limits": {"background_cpu": 1.5}"#,
            r#""name": "a", "program": "p", "path": "/", "limits": {"background_cpu": "5 %"}"#,
            r#""name": "a", "program": "p", "path": "/", "limits": {"cpu": 1}"#,
            r#""name": "a", "program": "p", "path": "/", "shared_memory": {"kib": 6}"#,
            r#""name": "a", "program": "p", "path": "/", "shared_memory": {}"#,
            r#""name": "a", "program": "p", "path": "/", "storage": {}"#,
            r#""name": "a", "program": "p", "path": "/", "health": {"path": "x"}"#,
            r#""name": "a", "program": "p", "path": "/", "upload_key_sha256": "secret""#,
            r#""name": "a", "program": "p", "path": "/", "mounts": [{"at": "/"}]"#,
            r#""name": "a", "program": "p", "path": "/", "mounts": [{"host": "x", "at": "/a/"}]"#,
            r#""name": "a", "program": "p", "path": "/", "mounts": [{"host": "x", "at": "/.."}]"#,
            r#""name": "a", "program": "p", "path": "/", "mounts": [{"host": "x", "at": "/dev"}]"#,
            r#""name": "a", "program": "p", "path": "/", "mounts": [{"host": "x", "at": "/a", "readonly": true}]"#,
            r#""name": "a", "program": "p", "path": "/", "warm_up": [{"path": "/"}]"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "doorbell", "warm_up": []"#,
            r#""name": "a", "program": "p", "path": "/", "ready": {"path": "/"}"#,
            r#""name": "a", "program": "p", "path": "/", "settle_ms": 0"#,
            r#""name": "a", "program": "p", "path": "/", "before_freeze": "/""#,
            r#""name": "a", "program": "p", "path": "/", "after_restore": "/""#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "ready": {"status": 200}"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "ready": {"path": "/", "within_ms": 0}"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "settle_ms": 600001"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "before_freeze": "x""#,
            r#""name": "a", "program": "p", "path": "/", "serve": "http""#,
            r#""name": "a", "program": "p", "path": "/", "port": 80"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "doorbell", "port": 80"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "port": 0"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "port": 65536"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "port": "80""#,
            r#""name": "a", "program": "p", "path": "/", "monotonic_clock": "stands""#,
            r#""name": "a", "program": "p", "path": "/", "client": "none""#,
            r#""name": "a", "program": "p", "path": "/", "client": {"headers": "x-forwarded-for"}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"header": "none"}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"trusted_proxies": "10.0.0.0/8"}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"trusted_proxies": ["10.0.0.0/33"]}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"trusted_proxies": ["10.0.0.0/08"]}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"trusted_proxies": ["::1/129"]}"#,
            r#""name": "a", "program": "p", "path": "/", "client": {"trusted_proxies": ["localhost"]}"#,
            r#""name": "a", "program": "p", "path": "/", "outbound": ["a:*"]"#,
            r#""name": "a", "program": "p", "path": "/", "outbound": ["a:65536"]"#,
            r#""name": "a", "program": "p", "path": "/", "outbound": ["*.a:1"]"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "warm_up": [{"path": "/", "headers": {"a": " b"}}]"#,
            r#""name": "a", "program": "p", "path": "/", "serve": "connections", "warm_up": [{"path": "/", "headers": {"a b": ""}}]"#,
        ] {
            verdict(&format!(r#"{{"tenants": [{{{tenant}}}]}}"#)).unwrap_err();
        }
        for file in [
            "[]",
            r#"{"tenant": []}"#,
            r#"{"tenants": {}}"#,
            r#"{"overflow_threads": 0}"#,
            r#"{"engine": 1}"#,
            r#"{"groups": {" ": {}}}"#,
            r#"{"admin": {"listen": "localhost"}}"#,
        ] {
            verdict(file).unwrap_err();
        }
    }

    #[test]
    fn the_defaults_in_the_schema_are_those_in_force() {
        let schema = schema();
        let limits = schema["$defs"]["Limits"]["properties"].as_object().unwrap();
        let defaults: serde_json::Map<_, _> =
            limits.iter().map(|(name, limit)| (name.clone(), limit["default"].clone())).collect();
        // One that may have all of them.
        let tenant = serde_json::json!({
            "name": "a", "program": "p", "path": "/", "serve": "connections", "ephemeral": false, "limits": defaults
        });
        let config = Config::from_value(&serde_json::json!({ "tenants": [tenant] })).unwrap();
        assert_eq!(config.tenants[0].limits, Limits::default());
    }

    #[test]
    fn every_key_is_described() {
        let schema = schema();
        let definitions = schema["$defs"].as_object().unwrap();
        for object in definitions.values().chain([&schema]) {
            for (key, value) in object["properties"].as_object().into_iter().flatten() {
                assert!(value["description"].as_str().is_some_and(|text| !text.contains('\n')), "{key}");
            }
        }
    }
}
