// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::host::requested_host;
use super::{Framework, Gate};

/// What the framework gets of `input` when it arrives in pieces that end at `cuts`, and the number of bytes left with
/// the caller.
fn through(input: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
    let mut gate = Gate::default();
    let (mut buffer, mut passed) = (Vec::new(), Vec::new());
    let mut start = 0;
    for end in cuts.iter().copied().chain([input.len()]) {
        let end = end.clamp(start, input.len());
        buffer.extend_from_slice(&input[start..end]);
        start = end;
        let result = gate.take(&buffer);
        assert!(result.consumed <= buffer.len());
        passed.extend_from_slice(if result.is_unchanged { &buffer[..result.consumed] } else { gate.output() });
        buffer.drain(..result.consumed);
    }
    (passed, buffer.len())
}

fn passed(input: &[u8]) -> String {
    let (passed, _) = through(input, &[]);
    for step in [1, 2, 3, 7] {
        let cuts: Vec<usize> = (0..input.len()).step_by(step).collect();
        assert_eq!(through(input, &cuts).0, passed, "split every {step} bytes: {}", input.escape_ascii());
    }
    String::from_utf8(passed).unwrap()
}

/// The status with which `input` is refused.
fn refused(input: &[u8]) -> Option<u16> {
    let passed = passed(input);
    let (_, status) = passed.split_once("GET /_mayfly/#refused HTTP/1.1\r\nconnection: close\r\nmayfly-refused: ")?;
    status[..3].parse().ok()
}

fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

#[test]
fn valid_requests_are_passed_unchanged() {
    for input in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS /* HTTP/1.1\r\nhost:\r\n\r\n",
        "HEAD /a?b=c&%20 HTTP/1.1\r\nHost: [::1]:80\r\nX-Empty:\r\nx-tab: a\tb\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0005\r\n\r\nhelloGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n00A ;q=\"1\"\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, TE\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\ncookie: session=a=b \r\n\r\n",
        "GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(passed(input.as_bytes()), input);
        let mut gate = Gate::default();
        assert!(gate.take(input.as_bytes()).is_unchanged, "{input}");
    }
}

#[test]
fn an_ambiguous_or_invalid_head_is_refused() {
    for (status, line, fields) in [
        (400, "GET /", "host: x\r\n"),
        (400, "GET  / HTTP/1.1", "host: x\r\n"),
        (400, "GET / HTTP/1.1 ", "host: x\r\n"),
        (400, "GET / http/1.1", "host: x\r\n"),
        (400, "GET / HTP", "host: x\r\n"),
        (400, "GET /#x HTTP/1.1", "host: x\r\n"),
        (400, "GET * HTTP/1.1", "host: x\r\n"),
        (400, "GET x HTTP/1.1", "host: x\r\n"),
        (400, "GET ftp://x/ HTTP/1.1", "host: x\r\n"),
        (400, "GET http:///x HTTP/1.1", "host: x\r\n"),
        (400, "GET http://:80/x HTTP/1.1", "host: x\r\n"),
        (400, "GET http://u@x/ HTTP/1.1", "host: x\r\n"),
        (400, "GET http://x/ HTTP/1.1", ""),
        (400, "GET http://x/ HTTP/1.1", "host: x\r\nhost: x\r\n"),
        (501, "get / HTTP/1.1", "host: x\r\n"),
        (501, "BREW / HTTP/1.1", "host: x\r\n"),
        (501, "CONNECT x:1 HTTP/1.1", "host: x:1\r\n"),
        (400, "\x01 / HTTP/1.1", "host: x\r\n"),
        (505, "GET / HTTP/2.0", "host: x\r\n"),
        (400, "GET / HTTP/1.1", ""),
        (400, "GET / HTTP/1.1", "host: x\r\nHost: x\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nHost: y\r\n"),
        (400, "GET / HTTP/1.1", "host: a b\r\n"),
        (400, "GET / HTTP/1.1", "host: a/b\r\n"),
        (400, "GET / HTTP/1.1", "host: x:port\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname : v\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\n: v\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nna(me: v\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname: v\r\n folded\r\n"),
        (400, "GET / HTTP/1.1", " host: x\r\nhost: x\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname: a\0b\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname: a\rb\r\n"),
        (400, "GET / HTTP/1.1", "host: x\r\nname: a\nb: c\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 5abc\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: +5\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: -5\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 0x5\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 5 5\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length:\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 10, 11\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 10, 10\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 10\r\nContent-Length: 10\r\n"),
        (413, "POST / HTTP/1.1", "host: x\r\ncontent-length: 99999999999999999999999\r\n"),
        (413, "POST / HTTP/1.1", "host: x\r\ncontent-length: 18446744073709551615\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n"),
        (400, "POST / HTTP/1.0", "host: x\r\ntransfer-encoding: chunked\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: chunked, chunked\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: chunked, gzip\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: identity\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: xchunked\r\n"),
        (400, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding:\r\n"),
        (501, "POST / HTTP/1.1", "host: x\r\ntransfer-encoding: gzip, chunked\r\n"),
        (417, "POST / HTTP/1.1", "host: x\r\nexpect: wonders\r\n"),
        (417, "POST / HTTP/1.1", "host: x\r\nexpect: 100-continue, wonders\r\n"),
    ] {
        assert_eq!(refused(&request(line, fields)), Some(status), "{line:?} {fields:?}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\nhost: x\n\n"), Some(400));
    assert_eq!(refused(b"GET / HTTP/1.1\r\nhost: x\r\n\n"), Some(400));
    assert_eq!(refused(b"\x16\x03\x01\x02\0\x01"), Some(400), "a TLS handshake is refused at once");
}

#[test]
fn a_framework_may_support_all_methods() {
    let mut gate = Gate::new(Framework { knows_all_methods: true, ..Framework::default() });
    assert!(gate.take(b"BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n").is_unchanged);
    assert!(!gate.take(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n").is_unchanged);
}

#[test]
fn heads_have_bounds() {
    let many = |count: usize| request("GET / HTTP/1.1", &("host: x\r\n".to_owned() + &"x: y\r\n".repeat(count - 1)));
    assert_eq!(refused(&many(100)), None);
    assert_eq!(refused(&many(101)), Some(431));
    let long = |bytes| request("GET / HTTP/1.1", &format!("host: x\r\nx: {}\r\n", "y".repeat(bytes)));
    let status = |input: &[u8]| {
        let (passed, _) = through(input, &[1000, 65_536]);
        String::from_utf8_lossy(&passed).split("mayfly-refused: ").nth(1).map(|status| status[..3].to_owned())
    };
    assert_eq!(status(&long(60_000)), None);
    assert_eq!(status(&long(65_536)).as_deref(), Some("431"));
    assert_eq!(status(&vec![b'A'; 65_536]).as_deref(), Some("414"));
    assert_eq!(status(format!("GET /{} HTTP/1.1\r\n", "a".repeat(70_000)).as_bytes()).as_deref(), Some("414"));
}

#[test]
fn a_refused_request_is_answered_after_the_earlier_ones_and_ends_the_connection() {
    let good = "GET /good HTTP/1.1\r\nhost: x\r\n\r\n";
    let passed = passed(format!("{good}GET /bad HTTP/1.1\r\n\r\n{good}").as_bytes());
    assert!(passed.starts_with(&format!("{good}GET /_mayfly/#refused HTTP/1.1\r\n")), "{passed}");
    assert!(!passed.contains("/bad") && passed.matches("/good").count() == 1, "{passed}");
}

#[test]
fn nothing_follows_a_request_that_closes() {
    for closing in [
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ] {
        assert_eq!(passed(format!("{closing}GET /next HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()), closing);
    }
}

#[test]
fn what_the_framework_would_lose_is_rewritten() {
    for (line, fields, line_then, fields_then) in [
        ("GET http://y:1/a?b HTTP/1.1", "Host: x\r\n", "GET /a?b HTTP/1.1", "host: y:1\r\n"),
        ("GET HTTPS://y?b HTTP/1.1", "Host: x\r\n", "GET /?b HTTP/1.1", "host: y\r\n"),
        ("GET http://y HTTP/1.0", "", "GET / HTTP/1.0", "host: y\r\n"),
        ("OPTIONS http://y HTTP/1.1", "host: x\r\n", "OPTIONS /* HTTP/1.1", "host: y\r\n"),
        ("OPTIONS * HTTP/1.1", "host: y\r\n", "OPTIONS /* HTTP/1.1", "host: y\r\n"),
        ("GET / HTTP/1.7", "host: x\r\n", "GET / HTTP/1.1", "host: x\r\n"),
        (
            "GET / HTTP/1.1",
            "host: x\r\nVia: a\r\nz: 1\r\nvia:  b, c \r\n",
            "GET / HTTP/1.1",
            "host: x\r\nVia: a, b, c\r\nz: 1\r\n",
        ),
        ("GET / HTTP/1.1", "host: x\r\nconnection: Close\r\n", "GET / HTTP/1.1", "host: x\r\nconnection: close\r\n"),
        (
            "GET / HTTP/1.1",
            "host: x\r\nConnection: keep-alive, close\r\n",
            "GET / HTTP/1.1",
            "host: x\r\nConnection: close\r\n",
        ),
        (
            "GET / HTTP/1.1",
            "host: x\r\nConnection: a\r\nconnection: b\r\n",
            "GET / HTTP/1.1",
            "host: x\r\nConnection: a, b\r\n",
        ),
        ("GET / HTTP/1.0", "connection: a, KEEP-ALIVE\r\n", "GET / HTTP/1.0", "connection: keep-alive\r\n"),
        ("GET / HTTP/1.1", "host: x\r\nexpect: 100-continue\r\n", "GET / HTTP/1.1", "host: x\r\n"),
        ("GET / HTTP/1.0", "expect: wonders\r\n", "GET / HTTP/1.0", ""),
        ("GET / HTTP/1.1", "host: x\r\nmayfly-cookie: a\r\nMayfly-Refused: 200 x\r\n", "GET / HTTP/1.1", "host: x\r\n"),
        (
            "GET / HTTP/1.1",
            "host: x\r\nCookie: b=2; a=1; a=0; bare\r\ncookie: c=3\r\n",
            "GET / HTTP/1.1",
            "host: x\r\nCookie: b=2; a=1; a=0; bare; c=3\r\nmayfly-cookie: b=2; a=1; a=0; bare; c=3\r\n",
        ),
    ] {
        let then = String::from_utf8(request(line_then, fields_then)).unwrap();
        assert_eq!(passed(&request(line, fields)), then);
    }
    for cookie in ["a", "a;", "a=1;", "a= 1", "a=1; b=2", "a=1;a=1"] {
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n");
        assert_eq!(passed(format!("{head}\r\n").as_bytes()), format!("{head}mayfly-cookie: {cookie}\r\n\r\n"));
    }
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    assert_eq!(passed(format!("{chunked}a: b\r\nc: d\r\n\r\n").as_bytes()), format!("{chunked}\r\n"));
    assert_eq!(passed(&chunked.replace("chunked", ", CHUNKED ,").into_bytes()), chunked);
    assert_eq!(passed(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n"), "GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn a_client_that_waits_to_send_chunks_gets_a_continue() {
    let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut gate = Gate::default();
    assert!(gate.take(head).says_continue);
    assert_eq!(gate.output(), b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut gate = Gate::new(Framework { continues_chunks: true, ..Framework::default() });
    assert!(!gate.take(head).says_continue);
    assert!(gate.output().ends_with(b"expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"));
    // A client that has begun to send does not wait.
    assert!(!Gate::default().take(&[&head[..], b"0\r\n"].concat()).says_continue);
}

#[test]
fn a_malformed_body_is_never_completed() {
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\n",
        "0xa\r\n0123456789\r\n0\r\n\r\n",
        "+a\r\n",
        " a\r\n",
        "-1\r\n",
        "\r\n",
        "a \r\n",
        "a;\x01\r\n",
        "a;x\ny\r\n",
        "5\nhello\r\n",
        "5\r\nhello!\r\n",
        "5\r\nhello0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "0\r\nname\r\n\r\n",
        "0\r\nname : x\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0;\r\n\n",
    ] {
        let after = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";
        let passed = passed(format!("{head}{body}{after}").as_bytes());
        assert!(passed.trim_end().ends_with("--") && !passed.contains("/next"), "{body:?}: {passed:?}");
    }
    let (long, _) = through(format!("{head}1;{}", "x".repeat(5000)).as_bytes(), &[]);
    assert!(long.ends_with(b"--"));
}

#[test]
fn incomplete_elements_stay_with_the_caller() {
    let whole = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\na: b\r\n\r\n";
    for len in 0..whole.len() {
        let (passed, left) = through(&whole.as_bytes()[..len], &[]);
        assert_eq!(passed, whole.as_bytes()[..len - left], "{len}");
    }
}

#[test]
fn another_protocol_is_passed_after_an_upgrade_request() {
    let upgrade = "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let (passed, left) = through(&[upgrade.as_bytes(), b"\x81\x80abcd\r\n\r\n\0"].concat(), &[]);
    assert_eq!((&passed[upgrade.len()..], left), (&b"\x81\x80abcd\r\n\r\n\0"[..], 0));
    // Not without an upgrade request; and HTTP after one is still checked.
    assert_eq!(refused(b"\x81\x80abcd"), Some(400));
    assert_eq!(refused(&[upgrade.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat()), Some(400));
}

#[test]
fn the_targets_authority_takes_precedence() {
    let host = |authority: Option<&'static str>, hosts: &[&'static str], is_required| {
        let hosts: Vec<&[u8]> = hosts.iter().map(|host| host.as_bytes()).collect();
        let found = requested_host(authority.map(str::as_bytes), hosts, is_required);
        found.map(|host| host.map(|host| std::str::from_utf8(host).unwrap()))
    };
    assert_eq!(host(Some("a"), &["b"], true), Ok(Some("a")));
    assert_eq!(host(None, &["b:"], true), Ok(Some("b:")));
    assert_eq!(host(None, &[], false), Ok(None));
    assert_eq!(host(None, &[""], true), Ok(Some("")));
    for valid in ["a_b-c.~!$&'()*+,;=%4a:80", "[::1]", "[v1.a:b]:8", "127.0.0.1"] {
        assert_eq!(host(Some(valid), &[valid], true), Ok(Some(valid)));
    }
    for invalid in ["[]", "[::1", "[::1]x", "a:b:1", "a@b", "%4", "%zz", "\u{e4}", "a b", "a:1x", "http://a"] {
        assert!(host(None, &[invalid], true).is_err(), "{invalid}");
        assert!(host(Some(invalid), &["a"], true).is_err(), "{invalid}");
    }
}

proptest! {
    /// For any input, however it is split, the same bytes are passed, and they are all valid.
    #[test]
    fn noise_is_passed_the_same_however_it_is_split(
        parts in prop::collection::vec(prop_oneof![
            Just("GET / HTTP/1.1\r\n"), Just("host: x\r\n"), Just("\r\n"), Just("POST http://a/ HTTP/1.0\r\n"),
            Just("content-length: 3\r\n"), Just("transfer-encoding: chunked\r\n"), Just("3\r\n"), Just("abc"),
            Just("0\r\n"), Just("cookie: a\r\n"), Just("connection: close\r\n"), Just("\n"), Just("\r"), Just(" "), Just("\0"),
            Just("upgrade: x\r\n"), Just("expect: 100-continue\r\n"), Just("x: y\r\n"), Just("\u{81}"),
        ], 0..24),
        cuts in prop::collection::vec(0..200_usize, 0..8),
    ) {
        let input = parts.concat().into_bytes();
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (whole, _) = through(&input, &[]);
        let (cut, _) = through(&input, &cuts);
        prop_assert_eq!(&whole, &cut, "{}", input.escape_ascii());
        // The passed bytes pass again, unless they contain Mayfly's own replacements.
        let text = String::from_utf8_lossy(&whole);
        if !text.contains("#refused") && !text.trim_end().ends_with("--") && !text.contains("mayfly-") {
            prop_assert_eq!(through(&whole, &[]).0, whole);
        }
    }

    #[test]
    fn any_bytes_are_processed(input in prop::collection::vec(any::<u8>(), 0..300)) {
        through(&input, &[3, 50]);
    }
}
