// SPDX-License-Identifier: MIT OR Apache-2.0
//! For tests: a validator for the part of JSON Schema that the published schema uses.
//!
//! An unknown keyword is an error, so that none is ignored.

use regex_automata::meta::Regex;
use serde_json::Value;

/// Checks `value` against `schema`. An error says where and why it is not valid.
pub(super) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    check(schema, schema, value).map_err(|problem| format!("the document{problem}"))
}

fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(keywords) = schema else {
        return if schema == &Value::Bool(false) { Err(" is not allowed".to_owned()) } else { Ok(()) };
    };
    for (keyword, rule) in keywords {
        let number = |rule: &Value| rule.as_f64().unwrap();
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" => true,
            "$ref" => {
                let definition = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(definition).unwrap(), value)?;
                true
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "minimum" => value.as_f64().is_none_or(|value| value >= number(rule)),
            "maximum" => value.as_f64().is_none_or(|value| value <= number(rule)),
            "multipleOf" => value.as_f64().is_none_or(|value| value % number(rule) == 0.0),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 >= number(rule)),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 <= number(rule)),
            "minItems" => value.as_array().is_none_or(|list| list.len() as f64 >= number(rule)),
            "maxItems" => value.as_array().is_none_or(|list| list.len() as f64 <= number(rule)),
            "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array().unwrap().iter().all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "anyOf" => rule.as_array().unwrap().iter().any(|rule| check(root, rule, value).is_ok()),
            "oneOf" => rule.as_array().unwrap().iter().filter(|rule| check(root, rule, value).is_ok()).count() == 1,
            "not" => check(root, rule, value).is_err(),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item).map_err(|problem| format!("[{index}]{problem}"))?;
                }
                true
            }
            // These three belong together.
            "properties" | "patternProperties" | "additionalProperties" => {
                if keyword == "additionalProperties" || !keywords.contains_key("additionalProperties") {
                    members(root, schema, value)?;
                }
                true
            }
            other => panic!("the validator does not know \"{other}\""),
        };
        if !holds {
            return Err(format!(" breaks {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn members(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let patterns = schema["patternProperties"].as_object();
    for (key, member) in value.as_object().into_iter().flatten() {
        let by_name = schema["properties"].get(key);
        let by_pattern =
            patterns.into_iter().flatten().find(|(pattern, _)| matches(pattern, key)).map(|(_, rule)| rule);
        let otherwise = schema.get("additionalProperties");
        if let Some(rule) = by_name.or(by_pattern).or(otherwise) {
            check(root, rule, member).map_err(|problem| format!(".{key}{problem}"))?;
        }
    }
    Ok(())
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap().is_match(text)
}
