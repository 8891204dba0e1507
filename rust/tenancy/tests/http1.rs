// SPDX-License-Identifier: MIT OR Apache-2.0
//! The HTTP/1.1 of a tenant's connection, tested against an independent server: Python's, running natively.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking; clippy knows test functions only, not what they share"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mayfly_sandbox::{BufferedResponse, Decoded, Header, Protocol, Request};
use mayfly_tenancy::Http1;

const SERVER: &str = r#"
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = f"{self.command} {self.path} {self.headers['host']} ".encode()
        body += self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 7):
                part = body[at : at + 7]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/until-end":
            self.close_connection = True
            self.end_headers()
            self.wfile.write(body)
        else:
            if self.path == "/close":
                self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_GET

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

struct Python(Child, u16);

impl Python {
    fn start() -> Self {
        let mut command = Command::new("/usr/bin/python3");
        let mut child =
            command.args(["-c", SERVER]).stdout(Stdio::piped()).spawn().expect("these tests need /usr/bin/python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        connection
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn requests_and_responses_of_an_independent_server_are_understood() {
    let python = Python::start();
    let mut decoder = Http1.decoder();
    let mut connection = python.connect();
    let mut connections = 1;
    let headers = [Header { name: b"host", value: b"shop.example" }, Header { name: b"connection", value: b"close" }];
    for round in 0..3 {
        for (method, path, keeps_open) in [
            ("GET", "/length", Some(true)),
            ("POST", "/length", Some(true)),
            ("PUT", "/chunked", Some(true)),
            ("GET", "/chunked", Some(true)),
            ("HEAD", "/length", Some(true)),
            ("GET", "/close", Some(false)),
            ("POST", "/until-end", None),
        ] {
            let body = if matches!(method, "POST" | "PUT") { "x".repeat(round * 50_000) } else { String::new() };
            let request = Request {
                method: method.as_bytes(),
                path: path.as_bytes(),
                query: b"",
                headers: &headers,
                body: body.as_bytes(),
                client: None,
            };
            let mut text = Vec::new();
            Http1.encode(&request, &mut text);
            connection.write_all(&text).unwrap();
            decoder.begin(request.method);
            let mut piece = [0; 1000];
            let left = loop {
                let size = connection.read(&mut piece).unwrap();
                if size == 0 {
                    decoder.end().unwrap();
                    break None;
                }
                if let Decoded::Complete { keeps_open } = decoder.take(&piece[..size]).unwrap() {
                    break Some(keeps_open);
                }
            };
            assert_eq!(left, keeps_open, "{method} {path}");
            let mut response = BufferedResponse::default();
            decoder.deliver(&mut response);
            let mut expected = format!("{method} {path} shop.example {body}");
            if method == "HEAD" {
                // The server in front passes the length on.
                assert_eq!(response.announced, Some(expected.len() as u64));
                expected.clear();
            }
            assert_eq!((response.status, response.body), (200, expected.into_bytes()), "{method} {path}");
            let names: Vec<_> =
                response.headers.iter().map(|(name, _)| String::from_utf8(name.clone()).unwrap()).collect();
            assert_eq!(names, ["Server", "Date"]);
            if left != Some(true) {
                connection = python.connect();
                connections += 1;
            }
        }
    }
    assert_eq!(connections, 7, "connections are reused unless the response ends them");
}
