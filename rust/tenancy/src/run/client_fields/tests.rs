// SPDX-License-Identifier: MIT OR Apache-2.0
use mayfly_sandbox::Client;
use proptest::prelude::*;

use super::*;

const HOST: (&str, &str) = ("host", "shop.example:8080");

fn config(headers: ClientHeaders, trusted: &[&str]) -> ClientConfig {
    ClientConfig { headers, trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect() }
}

fn plain() -> ClientConfig {
    config(ClientHeaders::XForwarded, &[])
}

/// The headers that the program gets behind `host`, one a line, and its client.
fn told(config: &ClientConfig, client: Option<(&str, bool)>, came: &[(&str, &str)]) -> (Vec<String>, Option<Client>) {
    let headers: Vec<_> = std::iter::once(&HOST)
        .chain(came)
        .map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() })
        .collect();
    let client = client.map(|(address, is_encrypted)| Client { address: address.parse().unwrap(), is_encrypted });
    let request = Request { method: b"GET", path: b"/a", query: b"b", headers: &headers, body: b"c", client };
    with_client(config, &request, |request| {
        assert_eq!(
            (request.method, request.path, request.query, request.body),
            (&b"GET"[..], &b"/a"[..], &b"b"[..], &b"c"[..])
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut lines = request.headers.iter().map(|header| format!("{}: {}", text(header.name), text(header.value)));
        assert_eq!(lines.next().unwrap(), "host: shop.example:8080");
        (lines.collect(), request.client)
    })
}

fn lines(config: &ClientConfig, address: &str, came: &[(&str, &str)]) -> Vec<String> {
    told(config, Some((address, false)), came).0
}

#[test]
fn a_program_learns_address_scheme_and_host() {
    let (lines, client) = told(&plain(), Some(("192.0.2.7:1234", false)), &[("accept", "*/*")]);
    assert_eq!(
        lines,
        ["accept: */*", "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http", "x-forwarded-host: shop.example:8080"]
    );
    assert_eq!(client.unwrap().address, "192.0.2.7:1234".parse().unwrap());
    let (lines, _) = told(&plain(), Some(("[2001:db8::7]:1234", true)), &[]);
    assert_eq!(lines[..2], ["x-forwarded-for: 2001:db8::7", "x-forwarded-proto: https"]);
    let (lines, _) = told(&plain(), Some(("[::ffff:192.0.2.7]:1234", true)), &[]);
    assert_eq!(lines[0], "x-forwarded-for: 192.0.2.7", "a client of a listener for both versions");
}

#[test]
fn the_standard_notation_quotes_what_is_no_token() {
    let config = config(ClientHeaders::Forwarded, &[]);
    assert_eq!(lines(&config, "192.0.2.7:1", &[]), [r#"forwarded: for=192.0.2.7;proto=http;host="shop.example:8080""#]);
    let (lines, _) = told(&config, Some(("[2001:db8::7]:1", true)), &[]);
    assert_eq!(lines, [r#"forwarded: for="[2001:db8::7]";proto=https;host="shop.example:8080""#]);
    for (host, written) in [
        ("shop.example", ";host=shop.example"),
        ("[::1]", r#";host="[::1]""#),
        (r#"a"b\"#, r#";host="a\"b\\""#),
        ("", ""),
    ] {
        let mut out = Text::new();
        push_host(host.as_bytes(), &mut out);
        assert_eq!(out[..], *written.as_bytes(), "{host:?}");
    }
}

#[test]
fn what_a_client_claims_is_removed() {
    let claims = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-for", "10.0.0.2"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("cf-connecting-ip", "10.0.0.1"),
        ("x_forwarded_for", "10.0.0.1"),
        ("x-forwarded.proto", "https"),
        ("cloudfront-forwarded-proto", "https"),
        ("cloudfront-viewer-address", "10.0.0.1:1"),
        ("cf-visitor", r#"{"scheme":"https"}"#),
        ("proxy-client-ip", "10.0.0.1"),
        ("http_client_ip", "10.0.0.1"),
    ];
    let own = ["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http", "x-forwarded-host: shop.example:8080"];
    // Whoever else is trusted.
    for trusted in [&[][..], &["192.0.2.8", "::/0", "10.0.0.0/8"]] {
        assert_eq!(lines(&config(ClientHeaders::XForwarded, trusted), "192.0.2.7:1", &claims), own);
        let forwarded = lines(&config(ClientHeaders::Forwarded, trusted), "192.0.2.7:1", &claims);
        assert_eq!(forwarded, [r#"forwarded: for=192.0.2.7;proto=http;host="shop.example:8080""#]);
        let nothing: [&str; 0] = [];
        assert_eq!(lines(&config(ClientHeaders::None, trusted), "192.0.2.7:1", &claims), nothing);
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to_the_list() {
    let config = config(ClientHeaders::XForwarded, &["10.0.0.0/8", "::1"]);
    let proxy = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "192.0.2.7"),
        ("forwarded", "for=1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
    ];
    let told = |list: &str| {
        [
            "x-forwarded-proto: https",
            "x-forwarded-host: shop.example",
            "x-forwarded-port: 443",
            "x-real-ip: 192.0.2.7",
            list,
        ]
        .map(str::to_owned)
    };
    assert_eq!(lines(&config, "10.1.2.3:1", &proxy), told("x-forwarded-for: 192.0.2.7, 10.1.2.3"));
    assert_eq!(lines(&config, "[::ffff:10.1.2.3]:1", &proxy), told("x-forwarded-for: 192.0.2.7, 10.1.2.3"));
    assert_eq!(lines(&config, "[::1]:1", &proxy), told("x-forwarded-for: 192.0.2.7, ::1"));
    // A chain of proxies, in several fields.
    let lists = [("x-forwarded-for", " a, b "), ("accept", "x"), ("x-forwarded-for", "c")];
    assert_eq!(lines(&config, "10.0.0.1:1", &lists)[1], "x-forwarded-for: a, b, c, 10.0.0.1");
    // A field that the program would not receive.
    let lists = [("x-forwarded-for", "a"), ("x-forwarded-for", "b\0"), ("x-forwarded-for", "")];
    assert_eq!(lines(&config, "10.0.0.1:1", &lists)[0], "x-forwarded-for: a, unknown, 10.0.0.1");
    // What it does not say, this server says.
    assert_eq!(
        lines(&config, "10.0.0.1:1", &[("x-forwarded-proto", " ")]),
        ["x-forwarded-for: 10.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: shop.example:8080"]
    );
}

#[test]
fn a_trusted_proxys_standard_list_is_continued() {
    let config = config(ClientHeaders::Forwarded, &["10.0.0.0/8"]);
    let came = [
        ("forwarded", r#"for="[2001:db8::7]";proto=https"#),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "192.0.2.7"),
    ];
    assert_eq!(
        lines(&config, "10.0.0.1:1", &came),
        ["x-real-ip: 192.0.2.7", r#"forwarded: for="[2001:db8::7]";proto=https, for=10.0.0.1"#]
    );
    let own = r#"forwarded: for=10.0.0.1;proto=http;host="shop.example:8080""#;
    assert_eq!(lines(&config, "10.0.0.1:1", &[]), [own]);
    assert_eq!(lines(&config, "10.0.0.1:1", &[("forwarded", " ")]), [own]);
    // A client may have begun a string that its proxy has not ended. The proxy is not the client then.
    for open in [r#"for=""#, r#"for="a\"#, r#"for="a\""#, r#"a="b";c="d"#, "for=\u{1}", r#"for=a", for=192.0.2.7"#] {
        assert_eq!(
            lines(&config, "10.0.0.1:1", &[("forwarded", open)]),
            ["forwarded: for=unknown, for=10.0.0.1"],
            "{open}"
        );
        assert_eq!(
            lines(&config, "10.0.0.1:1", &[("forwarded", "for=a"), ("forwarded", open), ("forwarded", "for=b")]),
            ["forwarded: for=a, for=unknown, for=b, for=10.0.0.1"],
            "{open}"
        );
    }
    for closed in [r#"for="\"""#, r#"for=a\"#, r#"for="\\""#] {
        assert_eq!(
            lines(&config, "10.0.0.1:1", &[("forwarded", closed)]),
            [format!("forwarded: {closed}, for=10.0.0.1")]
        );
    }
}

#[test]
fn none_tells_nothing_and_passes_on_what_a_trusted_proxy_says() {
    let none = config(ClientHeaders::None, &["10.0.0.0/8"]);
    let came = [("accept", "x"), ("x-forwarded-for", "a"), ("forwarded", "for=b"), ("x_forwarded_for", "c")];
    assert_eq!(told(&none, Some(("192.0.2.7:1", true)), &came), (vec!["accept: x".to_owned()], None));
    let passed = ["accept: x", "x-forwarded-for: a", "forwarded: for=b"].map(str::to_owned).to_vec();
    assert_eq!(told(&none, Some(("10.0.0.1:1", true)), &came), (passed, None));
    assert_eq!(told(&none, Some(("192.0.2.7:1", true)), &came[..1]), (vec!["accept: x".to_owned()], None));
}

#[test]
fn the_servers_own_requests_are_not_changed() {
    let came = [("x-forwarded-for", "a")];
    for headers in [ClientHeaders::None, ClientHeaders::XForwarded, ClientHeaders::Forwarded] {
        assert_eq!(told(&config(headers, &[]), None, &came), (vec!["x-forwarded-for: a".to_owned()], None));
    }
}

#[test]
fn a_request_without_a_valid_host_has_none() {
    for host in [&[][..], &[Header { name: b"host", value: b"" }], &[Header { name: b"host", value: b"a\nb" }]] {
        let client = Some(Client { address: "192.0.2.7:1".parse().unwrap(), is_encrypted: false });
        let request = Request { method: b"GET", path: b"/", query: b"", headers: host, body: b"", client };
        with_client(&plain(), &request, |request| {
            let names: Vec<_> = request.headers.iter().map(|header| header.name).collect();
            assert_eq!(names[host.len()..], [&b"x-forwarded-for"[..], b"x-forwarded-proto"]);
        });
    }
}

#[test]
fn what_is_added_to_most_requests_stays_on_the_stack() {
    let name = "a.".repeat(126) + "a:65535";
    let headers: Vec<_> = std::iter::once(("host", &name[..]))
        .chain([("accept", "*/*"); 31])
        .map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() })
        .collect();
    let address = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535".parse().unwrap();
    let client = Some(Client { address, is_encrypted: true });
    let request = Request { method: b"GET", path: b"/", query: b"", headers: &headers, body: b"", client };
    for setting in [ClientHeaders::XForwarded, ClientHeaders::Forwarded, ClientHeaders::None] {
        with_client(&config(setting, &[]), &request, |told| {
            assert!(told.headers.len() <= HEADERS_ON_STACK);
            let added = told.headers.last().unwrap();
            assert!(added.name != b"forwarded" || (326..=TEXT_ON_STACK).contains(&added.value.len()), "{added:?}");
        });
    }
}

proptest! {
    /// For any headers from any peer: one list whose last element is the peer, and nothing of an untrusted client.
    #[test]
    fn the_last_element_is_the_peer(
        came in prop::collection::vec((
            "x-forwarded-(for|proto|host|port)|forwarded|x[-_]real[-_]ip|x_forwarded_for|accept|[a-gi-z_-]{1,12}",
            prop_oneof![
                "[ \"\\\\a,;=]{0,12}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..20),
                (1000..70_000_usize).prop_map(|len| vec![b'a'; len]),
            ],
        ), 0..12),
        is_trusted in any::<bool>(),
        is_standard in any::<bool>(),
    ) {
        let setting = if is_standard { ClientHeaders::Forwarded } else { ClientHeaders::XForwarded };
        let config = config(setting, if is_trusted { &["192.0.2.0/24"] } else { &[] });
        let headers: Vec<_> = came.iter().map(|(name, value)| Header { name: name.as_bytes(), value }).collect();
        let client = Some(Client { address: "192.0.2.7:1".parse().unwrap(), is_encrypted: false });
        let request = Request { method: b"GET", path: b"/", query: b"", headers: &headers, body: b"", client };
        with_client(&config, &request, |told| {
            let (list, end) = match setting {
                ClientHeaders::Forwarded => (&b"forwarded"[..], &b"for=192.0.2.7"[..]),
                _ => (&b"x-forwarded-for"[..], &b"192.0.2.7"[..]),
            };
            let lists: Vec<_> = told.headers.iter().filter(|header| header.name == list).collect();
            prop_assert_eq!(lists.len(), 1);
            let value = lists[0].value;
            prop_assert!(is_value(value));
            let own = [end, if is_standard { b";proto=http" } else { b"" }].concat();
            let before = value.strip_suffix(&own[..]).or_else(|| value.strip_suffix(end)).unwrap();
            prop_assert!(before.is_empty() || (is_trusted && before.ends_with(b", ")));
            prop_assert!(told.headers.len() <= headers.len() + 3);
            let family: Vec<_> = told.headers.iter().filter(|header| Forwarding::of(header.name).is_some()).collect();
            prop_assert!(is_trusted || family.len() <= 3);
            prop_assert!(family.iter().all(|header| Forwarding::of(header.name) != Some(Forwarding::Disguised)));
            // All others are as they came.
            let others = |headers: &[Header<'_>]| -> Vec<_> {
                headers.iter().filter(|header| Forwarding::of(header.name).is_none())
                    .map(|header| (header.name.to_vec(), header.value.to_vec())).collect()
            };
            prop_assert_eq!(others(told.headers), others(&headers));
            Ok(())
        })?;
    }
}
