// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals of requests at the gate.

/// Why a request is refused before it reaches the framework's routes. The connection closes after the answer, because
/// the start of the next request is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The word in the answer's `error`.
    pub word: &'static str,
    /// A sentence for the client.
    pub reason: &'static str,
}

/// Why parsing has stopped without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input is valid so far, but incomplete.
    Incomplete,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The target of the request that replaces a refused one. The framework answers it in its turn, after the requests
/// before it. No client can send it, since `#` ends a target.
pub const REFUSED_TARGET: &str = "/_mayfly/#refused";

/// The field of that request with the status and, after a space, the answer's body.
pub const REFUSED_FIELD: &str = "mayfly-refused";

impl Refusal {
    pub(super) const fn bad(reason: &'static str) -> Self {
        Self { status: 400, word: "bad-request", reason }
    }

    pub(super) const fn unsupported(reason: &'static str) -> Self {
        Self { status: 501, word: "not-implemented", reason }
    }

    pub(super) const HEAD_TOO_LARGE: Self =
        Self { status: 431, word: "head-too-large", reason: "the request's head has more than 64 KiB or 100 fields" };
    pub(super) const TARGET_TOO_LONG: Self =
        Self { status: 414, word: "target-too-long", reason: "the request line has more than 64 KiB" };
    pub(super) const BODY_TOO_LARGE: Self =
        Self { status: 413, word: "request-too-large", reason: "the length of the request's body is too large" };
    pub(super) const EXPECTATION: Self =
        Self { status: 417, word: "expectation-failed", reason: "the only supported value of Expect is 100-continue" };
    pub(super) const VERSION: Self =
        Self { status: 505, word: "version-not-supported", reason: "the server supports HTTP/1.1 and HTTP/1.0" };

    /// The refusal of a malformed body, which the gate cannot answer in the middle of the body (RFC 9112, 7.1).
    pub const MALFORMED_BODY: Self = Self::bad("the request's body is malformed or ends early");

    /// The answer's body: JSON, like Mayfly's other answers.
    #[must_use]
    pub fn json(&self) -> String {
        // Both are constants that need no escaping.
        format!(r#"{{"error":"{}","reason":"{}"}}"#, self.word, self.reason)
    }

    /// Writes the request that replaces the refused one.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let json = self.json();
        let text = format!(
            "GET {REFUSED_TARGET} HTTP/1.1\r\nconnection: close\r\n{REFUSED_FIELD}: {} {json}\r\n\r\n",
            self.status
        );
        out.extend_from_slice(text.as_bytes());
    }
}
