// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON with comments, as in Drogon's own configuration files, and the positions of values in it.

use std::ops::Range;

/// Replaces `// …` and `/* … */` outside of strings by blanks.
///
/// Line breaks stay, so that an error's line and column are those of the user's file. An unterminated comment is left
/// unchanged: the JSON parser then reports an error where it starts.
pub(crate) fn blank_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        at = match &bytes[at..] {
            [b'"', ..] => end_of_string(bytes, at),
            [b'/', b'/', rest @ ..] => {
                let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                blank(&mut out, at, at + 2 + length)
            }
            [b'/', b'*', rest @ ..] => match rest.windows(2).position(|pair| pair == b"*/") {
                Some(length) => blank(&mut out, at, at + 2 + length + 2),
                None => break,
            },
            _ => at + 1,
        };
    }
    // Only whole comments are replaced, and a comment starts and ends at ASCII bytes, so the text stays UTF-8.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn blank(out: &mut [u8], from: usize, to: usize) -> usize {
    for byte in &mut out[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
    to
}

/// One step of the path to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// A key of an object.
    Name(String),
    /// An index of an array.
    Index(usize),
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Key {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The position of a value in a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// The start of its key in an object; otherwise of the value itself.
    pub(crate) start: usize,
    /// The value.
    pub(crate) value: Range<usize>,
}

/// Finds the value at `path` in `text`, which is JSON that the parser has accepted as far as that value, without
/// comments.
pub(crate) fn locate(text: &str, path: &[Key]) -> Option<Located> {
    let bytes = text.as_bytes();
    let start = skip_blanks(bytes, 0);
    let mut found = Located { start, value: start..start };
    for key in path {
        found = match key {
            Key::Name(name) => member(text, found.value.start, name)?,
            Key::Index(index) => element(bytes, found.value.start, *index)?,
        };
    }
    found.value.end = end_of_value(bytes, found.value.start);
    Some(found)
}

/// The last member of this name, which is the one that the parser reports.
fn member(text: &str, object: usize, name: &str) -> Option<Located> {
    let bytes = text.as_bytes();
    let mut at = skip_blanks(bytes, object + usize::from(bytes.get(object) == Some(&b'{')));
    let mut found = None;
    while bytes.get(at) == Some(&b'"') && at > object {
        let end = end_of_string(bytes, at);
        let start = skip_blanks(bytes, skip_blanks(bytes, end) + 1);
        // A key may be written with escapes.
        if serde_json::from_str::<String>(&text[at..end]).is_ok_and(|key| key == name) {
            found = Some(Located { start: at, value: start..start });
        }
        at = skip_comma(bytes, end_of_value(bytes, start));
    }
    found
}

fn element(bytes: &[u8], array: usize, index: usize) -> Option<Located> {
    if bytes.get(array) != Some(&b'[') {
        return None;
    }
    let mut at = skip_blanks(bytes, array + 1);
    for _ in 0..index {
        at = skip_comma(bytes, end_of_value(bytes, at));
    }
    let is_value = bytes.get(at).is_some_and(|byte| !b"]},".contains(byte));
    is_value.then_some(Located { start: at, value: at..at })
}

fn skip_blanks(bytes: &[u8], from: usize) -> usize {
    let from = from.min(bytes.len());
    from + bytes[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

fn skip_comma(bytes: &[u8], from: usize) -> usize {
    let at = skip_blanks(bytes, from);
    skip_blanks(bytes, at + usize::from(bytes.get(at) == Some(&b',')))
}

/// Considers only brackets and quotes. A loop without recursion, however deep the value is.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            b',' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{Key, blank_comments, locate};
    use proptest::prelude::*;

    #[test]
    fn comments_become_blanks_and_positions_stay() {
        let text = "{ // één\n \"a\": /* x\n y */ 1 }";
        let blanked = blank_comments(text);
        assert_eq!(blanked.len(), text.len());
        assert_eq!(blanked.lines().count(), text.lines().count());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&blanked).unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn strings_are_left_alone() {
        for text in [r#"{"a":"http://x/*y*/"}"#, r#"{"a":"\"// no"}"#, r#""\\" // yes"#] {
            assert_eq!(blank_comments(text).trim_end(), text.trim_end_matches(" // yes"));
        }
    }

    #[test]
    fn an_unterminated_comment_is_an_error_where_it_starts() {
        let error = serde_json::from_str::<serde_json::Value>(&blank_comments("{\n  /* \"a\": 1 }")).unwrap_err();
        assert_eq!((error.line(), error.column()), (2, 3));
    }

    #[test]
    fn an_unfinished_string_ends_with_the_text() {
        for text in ["\"abc", "\"abc\\", "/", "\"", ""] {
            assert_eq!(blank_comments(text), text);
        }
    }

    #[test]
    fn a_value_is_found_by_its_path() {
        let text = r#" {"a": [1, {"b\u0041": "x,]}"} , [], true], "c": {}, "a2": -1.5e3, "c": null }"#;
        let find = |path: &[Key]| locate(text, path).map(|found| (found.start, &text[found.value]));
        assert_eq!(find(&[]).unwrap(), (1, text.trim()));
        assert_eq!(find(&["a".into(), 0.into()]).unwrap().1, "1");
        assert_eq!(find(&["a".into(), 1.into(), "bA".into()]).unwrap(), (12, r#""x,]}""#));
        assert_eq!(find(&["a".into(), 2.into()]).unwrap().1, "[]");
        assert_eq!(find(&["a".into(), 3.into()]).unwrap().1, "true");
        assert_eq!(find(&["a2".into()]).unwrap().1, "-1.5e3");
        assert_eq!(find(&["c".into()]).unwrap().1, "null");
        for path in [&["b".into()][..], &["a".into(), 4.into()], &["a".into(), "b".into()], &["c".into(), 0.into()]] {
            assert_eq!(find(path), None, "{path:?}");
        }
    }

    /// Visits every value of a document with its path.
    fn walk(value: &serde_json::Value, path: &mut Vec<Key>, visit: &mut impl FnMut(&serde_json::Value, &[Key])) {
        visit(value, path);
        let children: Vec<(Key, &serde_json::Value)> = match value {
            serde_json::Value::Array(values) => {
                values.iter().enumerate().map(|(index, value)| (index.into(), value)).collect()
            }
            serde_json::Value::Object(values) => {
                values.iter().map(|(name, value)| (name.as_str().into(), value)).collect()
            }
            _ => Vec::new(),
        };
        for (key, value) in children {
            path.push(key);
            walk(value, path, visit);
            path.pop();
        }
    }

    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a-z\\\\\"\\[\\]{},: \n/*é]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::hash_map("[a-z\\\\\"{,: é]{0,4}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_found_however_it_is_written(document in document(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            walk(&document, &mut Vec::new(), &mut |value, path| {
                let found = locate(&text, path).unwrap();
                assert_eq!(&serde_json::from_str::<serde_json::Value>(&text[found.value]).unwrap(), value, "{path:?}");
            });
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\\\\\",: a1é]{0,40}", index in 0..3_usize) {
            locate(&text, &["a".into(), index.into()]);
            locate(&text, &[index.into(), "a".into()]);
        }
    }
}
