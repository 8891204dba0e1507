// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON with comments, as Drogon's own configuration files have them.

/// Replaces `// …` and `/* … */` outside of strings by blanks.
///
/// Line breaks stay, so an error's line and column are those of the file that
/// the user wrote. A comment that never ends is left as it is: the JSON parser
/// then complains at the place where it starts.
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
    // Only whole comments became blanks, and a comment starts and ends at ASCII bytes.
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

#[cfg(test)]
mod tests {
    use super::blank_comments;

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
    fn an_endless_comment_is_an_error_where_it_starts() {
        let error = serde_json::from_str::<serde_json::Value>(&blank_comments("{\n  /* \"a\": 1 }")).unwrap_err();
        assert_eq!((error.line(), error.column()), (2, 3));
    }

    #[test]
    fn an_unfinished_string_ends_with_the_text() {
        for text in ["\"abc", "\"abc\\", "/", "\"", ""] {
            assert_eq!(blank_comments(text), text);
        }
    }
}
