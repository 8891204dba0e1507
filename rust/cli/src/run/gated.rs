// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client's connection behind a gate, which only unambiguous requests pass ([`mayfly_tenancy::inbound`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mayfly_tenancy::inbound::{Framework, Gate};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The size of a read.
const READ_BYTES: usize = 16 << 10;

/// What hyper supports.
const HYPER: Framework = Framework { knows_all_methods: true, continues_chunks: true };

/// A connection whose incoming bytes go through a gate.
pub(crate) struct Gated {
    socket: TcpStream,
    gate: Gate,
    /// Bytes that have arrived and are not complete.
    held: Vec<u8>,
    /// Bytes that have passed the gate, and how many of them have been read.
    passed: Vec<u8>,
    read: usize,
}

impl Gated {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, gate: Gate::new(HYPER), held: Vec::new(), passed: Vec::new(), read: 0 }
    }

    fn take(&mut self) {
        let result = self.gate.take(&self.held);
        self.passed.clear();
        self.read = 0;
        let output = if result.is_unchanged { &self.held[..result.consumed] } else { self.gate.output() };
        self.passed.extend_from_slice(output);
        self.held.drain(..result.consumed);
    }
}

impl AsyncRead for Gated {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read == this.passed.len() {
            let mut space = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(read.filled());
            this.take();
        }
        let rest = &this.passed[this.read..];
        let len = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..len]);
        this.read += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gated {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
