// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tenant's program: one ELF file, arguments, environment.

use std::net::IpAddr;
use std::path::Path;

use mayfly_kvm::SharedMemory;
use mayfly_linux::Mounts;

use crate::error::ProgramError;
use crate::protocol::Service;

/// A program to boot.
#[derive(Debug, Clone)]
pub struct Program {
    /// The ELF file's content.
    pub elf: Vec<u8>,
    /// `argv[0]`, and what `/proc/self/exe` names.
    pub name: String,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Memory that all workers of the program see at one address, and that no reset touches.
    pub shared: Option<SharedMemory>,
    /// What the program sees of the host's files: nothing, by default.
    pub mounts: Mounts,
    /// Where the program may connect to: nowhere, by default.
    pub outbound: Vec<Outbound>,
    /// For a program that serves connections: what it speaks. Others wait at the doorbell.
    pub service: Option<Service>,
}

/// A place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outbound {
    /// Its host.
    pub host: OutboundHost,
    /// Its TCP port; not 0.
    pub port: u16,
}

/// A host in the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OutboundHost {
    /// A name in lower case, to be resolved by the host.
    Name(String),
    /// An address; one of IPv4 is not written as one of IPv6.
    Address(IpAddr),
}

impl Program {
    /// Reads a program from a file.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] with the path and the reason.
    pub fn load(path: &Path) -> Result<Self, ProgramError> {
        let elf = std::fs::read(path).map_err(|source| ProgramError { path: path.into(), source })?;
        let name = path.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            elf,
            name,
            args: Vec::new(),
            env: Vec::new(),
            shared: None,
            mounts: Mounts::default(),
            outbound: Vec::new(),
            service: None,
        })
    }
}
