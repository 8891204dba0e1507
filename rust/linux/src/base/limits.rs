// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program may have of things that the host keeps for it, and how often it was refused more.

/// What a program may have of things that the host keeps for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of mappings.
    pub mappings: usize,
    /// Number of descriptors, 3 to 1,024: RLIMIT_NOFILE.
    pub descriptors: usize,
    /// Number of threads, 1 to 1,024: RLIMIT_NPROC.
    pub threads: u32,
    /// Sum of the sizes of all mappings in bytes, whether touched or not: RLIMIT_AS.
    pub address_space_bytes: u64,
    /// Size of the stack in bytes, rounded up to pages: RLIMIT_STACK.
    pub stack_bytes: u64,
    /// How much memory the program is told that there is, in bytes: `sysinfo(2)`. The machine is what enforces a limit.
    pub memory_bytes: u64,
    /// Most bytes that it may have written to files, names included. The host keeps them.
    pub overlay_bytes: u64,
    /// Most files and directories that it may have written.
    pub overlay_entries: usize,
}

impl Default for Limits {
    /// 16,384 mappings; 1,024 descriptors; 1 thread; 64 TiB of address space, since runtimes reserve far more than they
    /// use; 8 MiB of stack, as on Linux; 512 MiB of memory; 16 MiB in 1,024 written files.
    fn default() -> Self {
        Self {
            mappings: 16_384,
            descriptors: 1024,
            threads: 1,
            address_space_bytes: 1 << 46,
            stack_bytes: 8 << 20,
            memory_bytes: 512 << 20,
            overlay_bytes: 16 << 20,
            overlay_entries: 1024,
        }
    }
}

/// How often a program was refused something because of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitHits {
    /// A descriptor: `EMFILE`.
    pub descriptors: u32,
    /// A thread: `EAGAIN`.
    pub threads: u32,
    /// A mapping: `ENOMEM`.
    pub mappings: u32,
}

/// How often a program has turned to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connects {
    /// Connections that it began, to where it may connect.
    pub made: u32,
    /// Those that it was refused.
    pub refused: u32,
}
