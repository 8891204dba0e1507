// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits on what the host stores for a program, and counters of refusals.

/// Limits on what the host stores for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most mappings.
    pub mappings: usize,
    /// Most descriptors, 3 to 1,024: RLIMIT_NOFILE.
    pub descriptors: usize,
    /// Most threads, 1 to 1,024: RLIMIT_NPROC.
    pub threads: u32,
    /// Most bytes of all mappings together, whether touched or not: RLIMIT_AS.
    pub address_space_bytes: u64,
    /// Size of the stack in bytes, rounded up to pages: RLIMIT_STACK.
    pub stack_bytes: u64,
    /// Memory in bytes that `sysinfo(2)` reports to the program. The machine enforces the actual limit.
    pub memory_bytes: u64,
    /// Most bytes in files that the program has written, names included. The host stores them.
    pub overlay_bytes: u64,
    /// Most files and directories that the program has written.
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

/// How often a limit refused something to a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitHits {
    /// A descriptor: `EMFILE`.
    pub descriptors: u32,
    /// A thread: `EAGAIN`.
    pub threads: u32,
    /// A mapping: `ENOMEM`.
    pub mappings: u32,
}

/// How often a program tried to connect to a host outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connects {
    /// Connections begun, to destinations on its list.
    pub made: u32,
    /// Connections refused.
    pub refused: u32,
}

/// How often a program was refused another process. A program may go on without what that process would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedProcesses {
    /// Calls for a new process: `fork`, `vfork`, and `clone` and `clone3` without `CLONE_THREAD`.
    pub forks: u32,
    /// Calls for another program in place of this one: `execve`, `execveat`.
    pub execs: u32,
}
