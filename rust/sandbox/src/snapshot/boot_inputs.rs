// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a snapshot was made from, as digests: a saved snapshot replaces a boot only if all of them are equal.

use mayfly_engine::digest;
use mayfly_machine::SharedMemory;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::program::Program;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootInputs {
    program: u64,
    arguments: u64,
    mounts: u64,
    limits: u64,
    service: u64,
    shared_bytes: Option<u64>,
}

impl BootInputs {
    pub(crate) fn of(program: &Program, limits: &Limits) -> Self {
        // The other limits apply to workers, which get the limits of their own time.
        let Limits {
            boot_memory_bytes,
            request_bytes,
            response_bytes,
            descriptors,
            threads,
            mappings,
            files_bytes,
            boot_time: _,
            cpu_time: _,
            wall_time: _,
            private_memory_bytes: _,
            retained_bytes: _,
            retains_more: _,
        } = limits;
        Self {
            program: program.elf.identity(),
            arguments: digest(&(&program.name, &program.args, &program.env)),
            mounts: program.mounts.digest(),
            limits: digest(&(
                boot_memory_bytes,
                request_bytes,
                response_bytes,
                descriptors,
                threads,
                mappings,
                files_bytes,
            )),
            service: digest(&(format!("{:?}", program.service), &program.outbound)),
            shared_bytes: program.shared.as_ref().map(SharedMemory::bytes),
        }
    }

    /// The first difference from `other`, if there is one.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            (self.program == other.program, "another program"),
            (self.arguments == other.arguments, "other arguments or another environment"),
            (self.mounts == other.mounts, "other mounts"),
            (self.limits == other.limits, "other limits"),
            (
                self.service == other.service,
                "another way to serve, another port, other requests around the freeze or other destinations",
            ),
            (self.shared_bytes == other.shared_bytes, "other shared memory"),
        ]
        .into_iter()
        .find_map(|(same, what)| (!same).then_some(what))
    }

    /// All digests in one number.
    pub(crate) fn digest(&self) -> u64 {
        let Self { program, arguments, mounts, limits, service, shared_bytes } = self;
        digest(&(program, arguments, mounts, limits, service, shared_bytes))
    }
}
