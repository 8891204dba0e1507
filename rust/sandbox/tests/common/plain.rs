// SPDX-License-Identifier: MIT OR Apache-2.0
//! A protocol for programs that serve connections.

use mayfly_sandbox::{Decoded, Decoder, Protocol, Request, ResponseError, ResponseSink};

/// The part of HTTP/1.1 that these tests need.
#[derive(Debug)]
pub struct Plain;

#[derive(Debug, Default)]
struct PlainDecoder {
    taken: Vec<u8>,
    body: Vec<u8>,
}

impl Protocol for Plain {
    fn encode(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        let target = [request.path, b"?", request.query].concat();
        out.extend([b"POST ", &target[..], b" HTTP/1.1\r\n"].concat());
        out.extend(format!("content-length: {}\r\n\r\n", request.body.len()).bytes());
        out.extend(request.body);
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::<PlainDecoder>::default()
    }
}

impl Decoder for PlainDecoder {
    fn begin(&mut self, _: &[u8]) {
        *self = Self::default();
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Decoded, ResponseError> {
        self.taken.extend(bytes);
        if !self.taken.starts_with(b"HTTP/1.1 200 OK\r\n") && self.taken.len() >= 17 {
            return Err(ResponseError::Malformed("no status line"));
        }
        let text = String::from_utf8_lossy(&self.taken);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(Decoded::Partial) };
        let keeps_open = !head.contains("connection: close");
        if let Some((_, length)) = head.split_once("content-length: ") {
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            self.body = body.as_bytes().to_vec();
            return Ok(if body.len() < length { Decoded::Partial } else { Decoded::Complete { keeps_open } });
        }
        if head.contains("chunked") && body.ends_with("0\r\n\r\n") {
            self.body = body.as_bytes().to_vec();
            return Ok(Decoded::Complete { keeps_open });
        }
        Ok(Decoded::Partial)
    }

    fn end(&mut self) -> Result<(), ResponseError> {
        let text = String::from_utf8_lossy(&self.taken);
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if !head.contains("content-length") => {
                self.body = body.as_bytes().to_vec();
                Ok(())
            }
            _ => Err(ResponseError::Malformed("cut short")),
        }
    }

    fn deliver(&mut self, sink: &mut dyn ResponseSink) {
        sink.body(self.body.len()).copy_from_slice(&self.body);
        sink.status(200);
    }
}
