# SPDX-License-Identifier: MIT OR Apache-2.0
"""Messages of HTTP/1.1, right and wrong ones, with the right answers by RFC 9110 and RFC 9112.

One table for all that answers requests here: Drogon's own routes, tenants through the plugin (by the SDK and as HTTP
servers of their own), and `mayfly run` (test_http.py). In what a client sends, `/T` stands for the path and `HOST` for
the host of the receiver.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    name: str
    # Where the answer stands; MAY says that the RFC leaves others open, of which this is ours.
    rfc: str
    # What the client sends; between two parts it waits for an interim response.
    sends: str | tuple
    # The statuses of the final responses in their order; a set where the RFC has more than one.
    answers: tuple
    # Whether the server closes the connection behind the last response.
    closes: bool = False
    # What a tenant has to see of the last request: "method", "body", and fields by their names, values joined.
    sees: dict = field(default_factory=dict)
    # What it must not see.
    sees_no: tuple = ()
    # The answers of `mayfly run` where the RFC leaves the choice; the connection stays open then. It takes any method.
    run: tuple | None = None


def get(fields="", line="GET /T HTTP/1.1", host="host: HOST\r\n"):
    return f"{line}\r\n{host}{fields}\r\n"


def post(fields, body="", line="POST /T HTTP/1.1"):
    return get(fields, line) + body


def chunked(body, fields=""):
    return post("transfer-encoding: chunked\r\n" + fields, body)


def refused(name, rfc, sends, answer=400, **more):
    """A message that the server refuses; what follows it on the connection is not looked at."""
    return Case(name, rfc, sends + get(), (answer,), closes=True, **more)


HELLO = "content-length: 5\r\n"

LINES = [
    Case("the simplest request", "9112 3", get(), (200,)),
    Case("empty lines before a request", "9112 2.2", "\r\n\r\n" + get() + "\r\n" + get(), (200, 200)),
    Case("a query", "9112 3.2.1", get(line="GET /T?a=b&c HTTP/1.1"), (200,), sees={"query": "a=b&c"}),
    refused("a blank behind the version", "9112 3", get(line="GET /T HTTP/1.1 ")),
    refused("two blanks before the target", "MAY 9112 3", get(line="GET  /T HTTP/1.1")),
    refused("two blanks before the version", "MAY 9112 3", get(line="GET /T  HTTP/1.1")),
    refused("a blank in the target", "9112 3.2", get(line="GET /T x HTTP/1.1")),
    refused("a line without a version", "9112 3", get(line="GET /T")),
    refused("a version in lower case", "9112 2.3", get(line="GET /T http/1.1")),
    refused("a version that is none", "9112 2.3", get(line="GET /T HTTP/1.1.1")),
    Case("a later minor version", "9110 2.5", get(line="GET /T HTTP/1.7"), (200,)),
    refused("another major version", "9110 15.6.6", get(line="GET /T HTTP/2.0"), {505, 400}),
    refused("an unknown method", "MAY 9110 9.1", get(line="BREW /T HTTP/1.1"), 501, run=(200, 200)),
    refused("a method in lower case", "MAY 9110 9.1", get(line="get /T HTTP/1.1"), 501, run=(200, 200)),
    refused("a method that is no token", "9110 9.1", get(line="G(T /T HTTP/1.1")),
    refused("no method", "9112 3", get(line=" /T HTTP/1.1")),
    refused("bare LF for all lines", "MAY 9112 2.2", get().replace("\r\n", "\n")),
    refused("bare LF for one line", "MAY 9112 2.2", get("x: y\nz: 1\r\n")),
    refused("bare CR in a field", "9112 2.2", get("x: a\rb\r\n")),
    refused("bare CR for a line's end", "9112 2.2", get("x: a\ry: b\r\n")),
    refused("a request line of 70,000 characters", "MAY 9112 3", get(line=f"GET /{'a' * 70_000} HTTP/1.1"), {414, 431}),
    refused("noise", "9112 3", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
]

FIELDS = [
    refused("a blank before the colon", "9112 5.1", get("x : y\r\n")),
    refused("a tab before the colon", "9112 5.1", get("content-length\t: 5\r\n")),
    refused("a folded line", "9112 5.2", get("x: a\r\n b\r\n")),
    refused("a blank before the first field", "9112 2.2", get(host=" x: y\r\nhost: HOST\r\n")),
    refused("a line without a colon", "9112 5", get("nonsense\r\n")),
    refused("an empty name", "9112 5", get(": x\r\n")),
    refused("a name that is no token", "9110 5.1", get("a(b): x\r\n")),
    refused("a name that is not ASCII", "9110 5.1", get("\xe4: x\r\n")),
    refused("NUL in a value", "9110 5.5", get("x: a\0b\r\n")),
    refused("another control character in a value", "MAY 9110 5.5", get("x: a\x01b\r\n")),
    Case("an empty value", "9110 5.5", get("x:\r\n"), (200,), sees={"x": ""}),
    Case("blanks around a value", "9112 5.1", get("x: \t a b \t\r\n"), (200,), sees={"x": "a b"}),
    Case("a tab in a value", "9110 5.5", get("x: a\tb\r\n"), (200,), sees={"x": "a\tb"}),
    Case("many fields", "9110 5.4", get("".join(f"x-{n}: {n}\r\n" for n in range(90))), (200,), sees={"x-89": "89"}),
    refused("too many fields", "9110 5.4", get("".join(f"x-{n}: {n}\r\n" for n in range(500))), 431),
    refused("a head of 100,000 bytes", "9110 5.4", get("".join(f"x-{n}: {'y' * 2000}\r\n" for n in range(50))), 431),
    Case("repeated fields in their order", "9110 5.3",
         get("X-List: a\r\nVia: 1.1 a\r\nx-list: b\r\nvia: 1.1 b, 1.1 c\r\nX-LIST: c\r\n"), (200,),
         sees={"x-list": "a, b, c", "via": "1.1 a, 1.1 b, 1.1 c"}),
    Case("repeated conditions and preferences", "9110 5.3",
         get('if-none-match: "a"\r\nAccept: text/html\r\nif-none-match: W/"b"\r\naccept: */*;q=0.1\r\n'), (200,),
         sees={"if-none-match": '"a", W/"b"', "accept": "text/html, */*;q=0.1"}),
    Case("cookies as they were sent", "6265 5.4", get("Cookie: b=2; a=1; a=0; bare; =x; c=\"q;=\";  d = 1\r\n"), (200,),
         sees={"cookie": "b=2; a=1; a=0; bare; =x; c=\"q;=\";  d = 1"}),
    *(
        Case(f"cookie: {value}", "6265 5.4", get(f"Cookie: {value}\r\n"), (200,), sees={"cookie": value})
        for value in ("a=1", "a=", "=1", "a=b=c", "a =1", "a= 1", "a=1;", "a;b", "a=1; a=1")
    ),
    Case("a cookie field without a pair", "6265 5.4", get("Cookie: bare\r\n"), (200,), sees={"cookie": "bare"}),
    Case("two cookie fields", "9113 8.2.3", get("Cookie: a=1; b=2\r\nx: y\r\ncookie: a=3\r\n"), (200,),
         sees={"cookie": "a=1; b=2; a=3"}),
    Case("fields of Mayfly's own", "9110 5.1", get("mayfly-cookie: a=1\r\nmayfly-refused: 200 x\r\n"), (200,),
         sees_no=("cookie",)),
]

HOSTS = [
    refused("no host", "9112 3.2", get(host="")),
    refused("two hosts", "9112 3.2", get("host: other\r\n")),
    refused("one host twice", "9112 3.2", get("Host: HOST\r\n")),
    refused("two hosts in one field", "9112 3.2", get(host="host: HOST, other\r\n")),
    refused("a host that is none", "9112 3.2", get(host="host: a b\r\n")),
    refused("a host with a path", "9112 3.2", get(host="host: HOST/x\r\n")),
    refused("a host with a user", "9112 3.2", get(host="host: u@HOST\r\n")),
    refused("a port that is none", "9112 3.2", get(host="host: HOST:eighty\r\n")),
    Case("a host with a port", "9110 7.2", get(host="host: HOST:80\r\n"), (200,), sees={"host": "HOST:80"}),
    Case("no host in HTTP/1.0", "9112 3.2", get(line="GET /T HTTP/1.0", host=""), (200,), closes=True),
    Case("the target's authority wins", "9112 3.2.2", get(line="GET http://HOST/T?q HTTP/1.1", host="host: other\r\n"), (200,),
         sees={"host": "HOST", "query": "q"}),
    Case("an authority with a port", "9112 3.2.2", get(line="GET http://HOST:99/T HTTP/1.1", host="host: other\r\n"), (200,),
         sees={"host": "HOST:99"}),
    Case("a scheme in capitals", "9110 4.2.3", get(line="GET HTTP://HOST/T HTTP/1.1"), (200,), sees={"host": "HOST"}),
    refused("an absolute target without a host field", "9112 3.2", get(line="GET http://HOST/T HTTP/1.1", host="")),
    refused("an absolute target with two host fields", "9112 3.2", get("host: b\r\n", line="GET http://HOST/T HTTP/1.1")),
    refused("an authority with a user", "9110 4.2.4", get(line="GET http://u@HOST/T HTTP/1.1")),
    refused("an authority without a host", "9110 4.2.1", get(line="GET http:///T HTTP/1.1")),
    refused("a target without a slash", "9112 3.2", get(line="GET T HTTP/1.1")),
    refused("an authority for a target", "9112 3.2.3", get(line="GET HOST:80 HTTP/1.1")),
    refused("a tunnel", "9110 9.3.6", get(line="CONNECT HOST:80 HTTP/1.1"), {501, 400, 405}),
    Case("options of the server", "9110 9.3.7", get(line="OPTIONS * HTTP/1.1"), ({200, 204, 404},)),
    refused("the server for a target of another method", "9112 3.2.4", get(line="GET * HTTP/1.1")),
]

LENGTHS = [
    Case("a length", "9112 6.2", post(HELLO, "hello"), (200,), sees={"body": "hello"}),
    Case("a length of zero", "9112 6.2", post("content-length: 0\r\n"), (200,), sees={"body": ""}),
    Case("a length with zeros", "9110 8.6", post("content-length: 0005\r\n", "hello"), (200,), sees={"body": "hello"}),
    Case("no length", "9112 6.3", post(""), (200,), sees={"body": ""}),
    *(
        refused(f"a length of {value!r}", "9112 6.3", post(f"content-length: {value}\r\n", "hello"))
        for value in ("5abc", "+5", "-5", "0x5", "5 5", "5,", "5.0", "", "10, 11", "\xb2")
    ),
    refused("a length twice in a field", "MAY 9110 8.6", post("content-length: 5, 5\r\n", "hello")),
    refused("a length twice", "MAY 9110 8.6", post(HELLO + "Content-Length: 5\r\n", "hello")),
    refused("two lengths", "9112 6.3", post(HELLO + "content-length: 6\r\n", "hello!")),
    refused("a huge length", "9110 8.6", post("content-length: 99999999999999999999999\r\n"), {413, 400}),
    refused("a length near the bounds of 64 bits", "9110 8.6", post("content-length: 18446744073709551615\r\n"), {413, 400}),
    refused("a length that is too large", "9110 15.5.14", post("content-length: 999999999\r\n"), 413),
    refused("a length and a transfer coding", "9112 6.3", chunked("5\r\nhello\r\n0\r\n\r\n", HELLO)),
    refused("a transfer coding and a length", "9112 6.3", post(HELLO + "Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
    refused("a transfer coding in HTTP/1.0", "9112 6.1",
            post("transfer-encoding: chunked\r\n", "0\r\n\r\n", line="POST /T HTTP/1.0")),
    *(
        refused(f"a transfer coding {value!r}", "9112 6.3", post(f"transfer-encoding: {value}\r\n", "0\r\n\r\n"), {400, 501})
        for value in ("chunked, chunked", "xchunked", "identity", "chunked, gzip", "gzip", "gzip, chunked", "chunked;q=1", "")
    ),
    refused("a transfer coding twice", "9112 6.1", chunked("0\r\n\r\n", "transfer-encoding: chunked\r\n")),
]

CHUNKS = [
    Case("chunks", "9112 7.1", chunked("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), (200,), sees={"body": "hello!"}),
    Case("a coding in capitals", "9112 7", post("Transfer-Encoding: CHUNKED\r\n", "1\r\nx\r\n0\r\n\r\n"), (200,), sees={"body": "x"}),
    Case("a chunk's size in capitals and with zeros", "9112 7.1", chunked("000A\r\n0123456789\r\n000\r\n\r\n"), (200,),
         sees={"body": "0123456789"}),
    Case("an extension", "9112 7.1.1", chunked('5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n'), (200,), sees={"body": "hello"}),
    Case("a long extension", "MAY 9112 7.1.1", chunked(f"5;{'x' * 2000}\r\nhello\r\n0\r\n\r\n"), (200,), sees={"body": "hello"}),
    Case("trailers", "9110 6.5", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\nhost: other\r\n\r\n", "trailer: x-sum\r\n"), (200,),
         sees={"body": "hello", "host": "HOST"}, sees_no=("x-sum",)),
    *(
        refused(f"a chunk of the size {size!r}", "9112 7.1", chunked(f"{size}\r\n0123456789\r\n0\r\n\r\n"), {400, 413})
        for size in ("zz", "0xa", "+a", " a", "-a", "a b", "", ";a", "a,", "fffffffffffffffff", "ffffffffffffffff", "8000000000000000")
    ),
    refused("a chunk that is longer than its size", "9112 7.1", chunked("5\r\nhello!\r\n0\r\n\r\n")),
    refused("a chunk without its end", "9112 7.1", chunked("5\r\nhello0\r\n\r\n")),
    refused("a chunk's size that ends with LF", "9112 7.1", chunked("5\nhello\r\n0\r\n\r\n")),
    refused("a chunk that ends with LF", "9112 7.1", chunked("5\r\nhello\n0\r\n\r\n")),
    refused("a trailer that is malformed", "9112 7.1.2", chunked("0\r\nnonsense\r\n\r\n")),
]

CONNECTIONS = [
    *(
        Case(f"connection: {value}", "9112 9.6", get(f"Connection: {value}\r\n") + get(line="GET /T?late HTTP/1.1"), (200,), closes=True)
        for value in ("close", "Close", "CLOSE", "keep-alive, close", "close, keep-alive", "te,close", "Close , te")
    ),
    Case("close in another of two fields", "9112 9.6", get("connection: te\r\nconnection: close\r\n") + get(), (200,), closes=True),
    *(Case(f"connection: {value}", "9112 9.3", get(f"Connection: {value}\r\n"), (200,)) for value in ("keep-alive", "te", "", "closed")),
    Case("HTTP/1.0 closes", "9112 9.3", get(line="GET /T HTTP/1.0") + get(), (200,), closes=True),
    *(
        Case(f"HTTP/1.0 with {value}", "9112 9.3", get(f"Connection: {value}\r\n", line="GET /T HTTP/1.0"), (200,))
        for value in ("keep-alive", "Keep-Alive", "KEEP-ALIVE", "te, keep-alive")
    ),
    Case("a pipeline that ends with close", "9112 9.3.2",
         get() * 3 + get("connection: Close\r\n") + get() * 2, (200,) * 4, closes=True),
    Case("a pipeline that ends with what is refused", "9112 9.3.2", get() * 3 + get("x : y\r\n") + get() * 2, (200, 200, 200, 400),
         closes=True),
    Case("an upgrade to an unknown protocol", "9110 7.8", get("connection: upgrade\r\nupgrade: foo/2\r\n"), (200,)),
    Case("an upgrade to HTTP/2", "9110 7.8",
         get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"), (200,)),
]

EXPECTATIONS = [
    Case("a client that waits with a length", "9110 10.1.1", (post("Expect: 100-continue\r\n" + HELLO), "hello"), (200,),
         sees={"body": "hello"}),
    Case("a client that waits with chunks", "9110 10.1.1", (chunked("", "Expect: 100-Continue\r\n"), "5\r\nhello\r\n0\r\n\r\n"), (200,),
         sees={"body": "hello"}),
    Case("one that waits for nothing", "9110 10.1.1", get("Expect: 100-continue\r\n"), (200,)),
    Case("one that waits for nothing to send", "9110 10.1.1", post("Expect: 100-continue\r\ncontent-length: 0\r\n"), (200,)),
    Case("one that does not wait", "9110 10.1.1", post("Expect: 100-continue\r\n" + HELLO, "hello"), (200,), sees={"body": "hello"}),
    Case("one that does not wait with chunks", "9110 10.1.1", chunked("1\r\nx\r\n0\r\n\r\n", "expect: 100-continue\r\n"), (200,),
         sees={"body": "x"}),
    Case("HTTP/1.0 does not wait", "9110 10.1.1", post("Expect: 100-continue\r\n" + HELLO, "hello", line="POST /T HTTP/1.0"), (200,),
         closes=True, sees={"body": "hello"}),
    refused("wonders", "MAY 9110 10.1.1", get("Expect: wonders\r\n"), 417),
]

CASES = LINES + FIELDS + HOSTS + LENGTHS + CHUNKS + CONNECTIONS + EXPECTATIONS
