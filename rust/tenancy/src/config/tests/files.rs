// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configurations in files: Drogon's own, and the tenants file that it names.

use std::fs;

use super::tenant;
use crate::config::{Config, PLUGIN_NAME};

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
            "{{\"listeners\": [],\n \"plugins\": [{{\"name\": \"x\"}},\n {{\"name\": \"{PLUGIN_NAME}\", \"config\": {config}}}]}}"
        )
    };
    let shown = file.display();
    for text in [plugin(&tenant("")), tenant("")] {
        let config = check(&text).unwrap();
        assert_eq!((config.tenants.len(), config.source.as_deref()), (1, Some(file.as_path())));
    }
    let message = check(r#"{"plugins": []}"#).unwrap_err().to_string();
    assert_eq!(message, format!("{shown}:1:2: plugins: none is named \"{PLUGIN_NAME}\""));
    let message = check(&plugin("{\"tenants\":\n[{}]}")).unwrap_err().to_string();
    assert_eq!(message, format!("{shown}:4:2: plugins[1].config.tenants[0]: missing field `name`"));
    let message = check(&plugin(r#"{"watch": true, "watch": false}"#)).unwrap_err().to_string();
    assert!(message.contains(":3:36: plugins[1].config: duplicate field `watch`"), "{message}");
    assert!(check("{").unwrap_err().to_string().contains(":1:1: not valid JSON: EOF"));
    let missing = Config::from_file(&folder.path().join("none.json")).unwrap_err().to_string();
    assert!(missing.contains("none.json: cannot be read: No such file"), "{missing}");
}

#[test]
fn a_tenants_file_is_followed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (drogon, tenants) = (folder.path().join("drogon.json"), folder.path().join("tenants.json"));
    let plugin = |config: &serde_json::Value| {
        let text = serde_json::json!({"plugins": [{"name": PLUGIN_NAME, "config": config}]}).to_string();
        fs::write(&drogon, text).unwrap();
        (Config::from_file(&drogon), Config::from_value(config))
    };
    let named = serde_json::json!({ "tenants_file": tenants });
    fs::write(&tenants, format!("// Comment\n{}", tenant(""))).unwrap();
    for config in <[_; 2]>::from(plugin(&named)) {
        let config = config.unwrap();
        assert_eq!((config.tenants.len(), config.source.as_deref()), (1, Some(tenants.as_path())));
    }
    let shown = tenants.display();
    for (text, problem) in [
        ("\n {\"watch\": 1}", ":2:3: watch: invalid type: integer `1`, expected a boolean"),
        ("{]", ":1:2: not valid JSON: key must be a string"),
        (r#"{"tenants_file": "x"}"#, ":1:2: tenants_file: unknown field `tenants_file`"),
    ] {
        fs::write(&tenants, text).unwrap();
        for config in <[_; 2]>::from(plugin(&named)) {
            let message = config.unwrap_err().to_string();
            assert!(message.starts_with(&format!("{shown}{problem}")), "{message}");
        }
    }
    for (config, problem) in [
        (serde_json::json!({"tenants_file": 1}), "tenants_file: expected the path of a file"),
        (serde_json::json!({"tenants_file": "x", "watch": true}), "watch: cannot be combined with `tenants_file`"),
    ] {
        let (from_file, from_value) = plugin(&config);
        assert!(from_value.unwrap_err().to_string().starts_with(problem));
        let message = from_file.unwrap_err().to_string();
        assert!(message.contains(&format!("plugins[0].config.{problem}")), "{message}");
    }
    let none = Config::from_value(&serde_json::json!({"tenants_file": "/nonexistent/x"})).unwrap_err().to_string();
    assert!(none.starts_with("/nonexistent/x: cannot be read: No such file"), "{none}");
}
