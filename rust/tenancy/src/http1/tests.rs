// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encoding of requests, and decoding of responses, valid or not, however they are split.

use mayfly_sandbox::{BufferedResponse, Decoded, Header, Protocol, Request, ResponseError};
use proptest::prelude::*;

use super::*;

/// The result of decoding a response. The flag says whether the connection stays open; `None` if its end ends the
/// response.
type Outcome = Result<(BufferedResponse, Option<bool>), ResponseError>;

fn decode(method: &str, pieces: &[&[u8]]) -> Outcome {
    decode_with(&mut *Http1.decoder(), method, pieces)
}

/// Decodes all pieces, and then the connection's end.
fn decode_with(decoder: &mut dyn Decoder, method: &str, pieces: &[&[u8]]) -> Outcome {
    decoder.begin(method.as_bytes());
    let mut state = Decoded::Partial;
    for piece in pieces {
        let next = decoder.take(piece)?;
        assert!(next != Decoded::Partial || state == Decoded::Partial, "a complete response stays complete");
        state = next;
    }
    decoder.end()?;
    let mut response = BufferedResponse::default();
    decoder.deliver(&mut response);
    let keeps_open = match state {
        Decoded::Partial => None,
        Decoded::Complete { keeps_open } => Some(keeps_open),
    };
    Ok((response, keeps_open))
}

fn get(text: &str) -> Outcome {
    decode("GET", &[text.as_bytes()])
}

/// Status, headers, body, and whether the connection stays open.
fn seen(outcome: Outcome) -> (u16, String, String, Option<bool>) {
    let (response, keeps_open) = outcome.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers: Vec<_> =
        response.headers.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    (response.status, headers.join(","), text(&response.body), keeps_open)
}

fn expect(outcome: Outcome, status: u16, headers: &str, body: &str, keeps_open: Option<bool>) {
    assert_eq!(seen(outcome), (status, headers.to_owned(), body.to_owned(), keeps_open));
}

fn malformed(text: &str) -> &'static str {
    match get(text) {
        Err(ResponseError::Malformed(why)) => why,
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn a_length_ends_a_body() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    expect(get(ok), 200, "Content-Type=text/plain", "hello", Some(true));
    expect(get(&format!("{ok}!")), 200, "Content-Type=text/plain", "hello", Some(false));
    expect(get("HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n"), 404, "", "", Some(true));
    expect(get("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"), 200, "", "", Some(true));
    let pieces = [ok.as_bytes(), b"!", b""];
    expect(decode("GET", &pieces), 200, "Content-Type=text/plain", "hello", Some(false));
    assert_eq!(malformed(&ok[..ok.len() - 1]), "its body is shorter than its length");
}

#[test]
fn chunks_end_a_body() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = |body: &str| get(&format!("{head}{body}"));
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n003;a=b;c=\"d\"\r\nllo\r\n0 ;x\r\nTrailer: dropped\r\nother: too\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n000\r\n\r\n",
    ] {
        expect(chunked(body), 200, "", "hello", Some(true));
    }
    expect(chunked("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\nx"), 200, "", &"0123456789".repeat(2), Some(false));
    for bad in [
        "\r\n",
        "x\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "-5\r\n",
        "+5\r\n",
        "0x5\r\n",
        ";\r\n",
        " 5\r\n",
        "5\rx",
        "5;\n",
        "5\r\nhello\rx",
        "0\r\n\n",
        "0\r\n\rx",
        "1000000000000000\r\n",
        "5\r\nhell",
        "5\r\nhello\r\n0\r\n",
    ] {
        assert!(matches!(chunked(bad), Err(ResponseError::Malformed(_))), "{bad:?}");
    }
    for much in [
        format!("1;{}", "x".repeat(20_000)),
        format!("0\r\nA: {}", "x".repeat(20_000)),
        format!("0\r\n{}", "a:b\r\n".repeat(4000)),
    ] {
        assert!(matches!(chunked(&much), Err(ResponseError::TooLarge { .. })));
    }
}

#[test]
fn the_connections_end_ends_a_body_without_framing() {
    expect(get("HTTP/1.1 200 OK\r\n\r\nhello"), 200, "", "hello", None);
    expect(get("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"), 200, "", "", None);
}

#[test]
fn the_connection_header_decides_about_keeping_open() {
    let keeps_open = |version: &str, header: &str| {
        seen(get(&format!("HTTP/{version} 200 OK\r\n{header}Content-Length: 0\r\n\r\n"))).3.unwrap()
    };
    assert!(keeps_open("1.1", ""));
    assert!(keeps_open("1.1", "Connection: keep-alive\r\n"));
    assert!(!keeps_open("1.1", "connection: Close\r\n"));
    assert!(!keeps_open("1.1", "Connection: x, close\r\n"));
    assert!(!keeps_open("1.1", "Connection: x\r\nConnection: close\r\n"));
    assert!(!keeps_open("1.0", ""));
    assert!(keeps_open("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn some_responses_have_no_body_despite_their_framing() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"] {
        let response = |status| format!("HTTP/1.1 {status}\r\n{framing}\r\n\r\n");
        let rest = if framing == "X: y" { "X=y" } else { "" };
        // The server in front passes the declared length on; RFC 9110, 8.6, forbids it with 204.
        let length = framing.starts_with("Content").then_some(5);
        for (method, status, announced) in [
            ("HEAD", 200, length),
            ("GET", 304, length),
            ("HEAD", 304, length),
            ("GET", 204, None),
            ("HEAD", 204, None),
        ] {
            let response = decode(method, &[response(status).as_bytes()]);
            assert_eq!(response.as_ref().unwrap().0.announced, announced, "{method} {status} {framing}");
            expect(response, status, rest, "", Some(true));
        }
    }
    let mut decoder = Http1.decoder();
    let bodies = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".as_slice();
    expect(decode_with(&mut *decoder, "HEAD", &[bodies]), 200, "", "", Some(true));
    let large = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n".as_slice();
    let response = decode_with(&mut *decoder, "HEAD", &[large]);
    assert_eq!(response.as_ref().unwrap().0.announced, Some(10_000_000_000));
    expect(response, 200, "", "", Some(true));
    expect(decode_with(&mut *decoder, "GET", &[bodies, b"ab"]), 200, "", "ab", Some(true));
}

#[test]
fn interim_responses_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    expect(get(&format!("{interim}{last}")), 200, "", "ok", Some(true));
    assert_eq!(malformed(interim), "it is empty");
    assert!(malformed(&interim.repeat(20)).contains("1xx"));
    assert!(malformed("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").contains("protocol"));
}

#[test]
fn hop_by_hop_headers_are_dropped() {
    let text = "HTTP/1.1 200 OK\r\nServer:  x y \t\r\nConnection: keep-alive, X-Own\r\nKeep-Alive: timeout=5\r\nx-own: 1\r\n\
                Proxy-Authenticate: b\r\nUpgrade: h2c\r\nTE: x\r\nTrailer: y\r\nContent-Length: 0\r\nDate: now\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
    expect(get(text), 200, "Server=x y,Date=now,Set-Cookie=a,Set-Cookie=b", "", Some(true));
}

#[test]
fn an_invalid_response_is_refused_with_the_reason() {
    for (head, why) in [
        ("hello\r\n\r\n", "HTTP/1.1"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1"),
        ("HTTP/2 200 OK\r\n\r\n", "HTTP/1.1"),
        ("HTTP/1.1 20x OK\r\n\r\n", "first line"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "name of a header"),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "name of a header"),
        ("HTTP/1.1 200 OK\r\na : c\r\n\r\n", "name of a header"),
        ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", "name of a header"),
        ("HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", "value of a header"),
        ("HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", "value of a header"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "two lengths"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", "not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", "not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked and has a length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer coding"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
        ("", "empty"),
        ("HTTP/1.1 200 OK\r\n", "is incomplete"),
    ] {
        let error = malformed(head);
        assert!(error.contains(why), "{head:?}: {error}");
    }
    for status in ["099", "600", "999"] {
        let error = get(&format!("HTTP/1.1 {status} X\r\n\r\n")).unwrap_err();
        assert!(matches!(error, ResponseError::Status { .. }), "{error}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(matches!(get(&many), Err(ResponseError::HeaderCount { .. })));
    let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(head::HEAD_MAX));
    assert!(matches!(get(&long), Err(ResponseError::TooLarge { .. })));
}

#[test]
fn a_decoder_stays_broken_until_the_next_response() {
    let mut decoder = Http1.decoder();
    decoder.begin(b"GET");
    let error = decoder.take(b"nonsense\r\n\r\n").unwrap_err();
    assert_eq!(decoder.take(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Err(error.clone()));
    assert_eq!(decoder.end(), Err(error));
    expect(
        decode_with(&mut *decoder, "GET", &[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
        200,
        "",
        "",
        Some(true),
    );
}

fn encoded(request: &Request<'_>) -> String {
    let mut out = b"before".to_vec();
    Http1.encode(request, &mut out);
    String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
}

fn request<'a>(method: &'a str, path: &'a str, headers: &'a [Header<'a>], body: &'a str) -> Request<'a> {
    Request {
        method: method.as_bytes(),
        path: path.as_bytes(),
        query: b"",
        headers,
        body: body.as_bytes(),
        client: None,
    }
}

#[test]
fn a_request_has_its_end_to_end_headers_and_a_length() {
    let header = |name: &'static str, value: &'static str| Header { name: name.as_bytes(), value: value.as_bytes() };
    let headers = [
        header("accept", "*/*"),
        header("host", "shop.example:80"),
        header("connection", "keep-alive, X-Hop"),
        header("x-hop", "1"),
        header("keep-alive", "1"),
        header("te", "trailers"),
        header("transfer-encoding", "chunked"),
        header("content-length", "999"),
        header("expect", "100-continue"),
        header("upgrade", "websocket"),
        header("proxy-connection", "x"),
        header("cookie", " a=b "),
        header("cookie", "c=d"),
        header("host", "other"),
    ];
    let expected = "host: shop.example:80\r\naccept: */*\r\ncookie: a=b\r\ncookie: c=d\r\n";
    assert_eq!(encoded(&request("GET", "/a", &headers, "")), format!("GET /a HTTP/1.1\r\n{expected}\r\n"));
    assert_eq!(
        encoded(&request("POST", "/a", &headers, "hello")),
        format!("POST /a HTTP/1.1\r\n{expected}content-length: 5\r\n\r\nhello")
    );
    for method in ["POST", "PUT", "PATCH"] {
        let text = encoded(&request(method, "/", &[], ""));
        assert_eq!(text, format!("{method} / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"));
    }
}

#[test]
fn a_client_cannot_have_its_address_removed_as_hop_by_hop() {
    let header = |name: &'static str, value: &'static str| Header { name: name.as_bytes(), value: value.as_bytes() };
    let headers = [
        header("connection", "close, X-Forwarded-For, forwarded, x-a"),
        header("x-a", "1"),
        header("x-forwarded-for", "192.0.2.7"),
        header("forwarded", "for=192.0.2.7"),
    ];
    let expected = "host: localhost\r\nx-forwarded-for: 192.0.2.7\r\nforwarded: for=192.0.2.7\r\n";
    assert_eq!(encoded(&request("GET", "/", &headers, "")), format!("GET / HTTP/1.1\r\n{expected}\r\n"));
}

#[test]
fn a_target_is_one_word() {
    let target = |path: &str, query: &[u8]| {
        let text = encoded(&Request { query, ..request("GET", path, &[], "") });
        text.split("\r\n").next().unwrap().to_owned()
    };
    assert_eq!(target("/a%20b/ü c", b"x=1&y=?/"), "GET /a%20b/%C3%BC%20c?x=1&y=?/ HTTP/1.1");
    assert_eq!(target("/a?b#c", b"d#e"), "GET /a%3Fb%23c?d%23e HTTP/1.1");
    assert_eq!(target("/ HTTP/1.1\r\nx: y", b"\r\n\0\x7f"), "GET /%20HTTP/1.1%0D%0Ax:%20y?%0D%0A%00%7F HTTP/1.1");
    assert_eq!(target("x", b""), "GET /x HTTP/1.1");
    assert_eq!(target("", b""), "GET / HTTP/1.1");
    assert_eq!(encoded(&request("OPTIONS", "*", &[], "")).split("\r\n").next(), Some("OPTIONS * HTTP/1.1"));
    assert_eq!(encoded(&request("G E\r\nT", "/", &[], "")).split("\r\n").next(), Some("GET / HTTP/1.1"));
    assert_eq!(encoded(&request("\n", "/", &[], "")).split("\r\n").next(), Some("GET / HTTP/1.1"));
}

/// Splits `bytes` at these places, taken modulo their length.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// Bytes that often resemble a response.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.0 404 \r\n".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Connection: close, te\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"ffffffffffffffff\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// A response, framed in one of three ways, and its body.
fn response() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6);
    (chunks, 0..3_u8, 0..3_usize).prop_map(|(chunks, framing, interim)| {
        let body = chunks.concat();
        let mut text = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(interim);
        text.extend(b"HTTP/1.1 200 OK\r\nX-A: b\r\n");
        match framing {
            0 => text.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes().chain(body.iter().copied())),
            1 => text.extend(b"\r\n".iter().chain(&body)),
            _ => {
                text.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in &chunks {
                    text.extend(
                        format!("{:x};e\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"),
                    );
                }
                text.extend(b"0\r\nT: u\r\n\r\n");
            }
        }
        (text, body)
    })
}

proptest! {
    #[test]
    fn a_response_is_the_same_however_it_is_split((text, body) in response(), places in prop::collection::vec(any::<usize>(), 0..20)) {
        let whole = decode("GET", &[&text]).unwrap();
        prop_assert_eq!(&whole.0.body, &body);
        prop_assert_eq!(&whole.0.headers, &[(b"X-A".to_vec(), b"b".to_vec())]);
        prop_assert_eq!(decode("GET", &cut(&text, &places)).unwrap(), whole);
        let single: Vec<&[u8]> = text.chunks(1).collect();
        prop_assert_eq!(decode("GET", &single).unwrap().0.body, body);
    }

    #[test]
    fn noise_is_decoded_the_same_however_it_is_split(text in noise(), places in prop::collection::vec(any::<usize>(), 0..20), head in any::<bool>()) {
        let method = if head { "HEAD" } else { "GET" };
        let whole = decode(method, &[&text]);
        prop_assert_eq!(&decode(method, &cut(&text, &places)), &whole);
        if let Ok((response, _)) = whole {
            prop_assert!((200..600).contains(&response.status));
            let size: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(size + response.body.len() <= text.len(), "nothing grows");
            for (name, value) in &response.headers {
                prop_assert!(is_token(name) && is_value(value) && trimmed(value) == &value[..] && !is_of_the_connection(name));
            }
        }
    }

    #[test]
    fn a_request_is_one_request(
        method in prop::collection::vec(any::<u8>(), 0..8),
        path in prop::collection::vec(any::<u8>(), 0..20),
        query in prop::collection::vec(any::<u8>(), 0..20),
        texts in prop::collection::vec(("[a-z]{1,8}|[\\x00-\\xff]{0,6}", prop::collection::vec(any::<u8>(), 0..12)), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let headers: Vec<_> = texts.iter().map(|(name, value)| Header { name: name.as_bytes(), value }).collect();
        let request = Request { method: &method, path: &path, query: &query, headers: &headers, body: &body, client: None };
        let mut out = Vec::new();
        Http1.encode(&request, &mut out);
        let mut parsed = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut parsed);
        let size = head.parse(&out).unwrap().unwrap();
        prop_assert_eq!(&out[size..], &body[..]);
        prop_assert_eq!(head.version, Some(1));
        prop_assert!(head.path.unwrap().starts_with('/') || path == b"*");
        let values = |name: &str| head.headers.iter().filter(|header| header.name == name).count();
        prop_assert_eq!(values("host"), 1);
        prop_assert!(values("content-length") == usize::from(!body.is_empty() || ["POST", "PUT", "PATCH"].contains(&head.method.unwrap())));
        prop_assert!(values("transfer-encoding") + values("connection") + values("expect") == 0);
        for header in head.headers.iter().filter(|header| !["host", "content-length"].contains(&header.name)) {
            prop_assert!(headers.iter().any(|sent| sent.name == header.name.as_bytes() && trimmed(sent.value) == header.value));
        }
    }
}
