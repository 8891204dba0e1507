// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much freed memory the process's heap keeps.
//!
//! glibc gives blocks above a threshold a mapping of their own, which goes back to the system when they are freed;
//! smaller blocks are parts of an arena and may not. By default it raises the threshold as such blocks are freed, up to
//! 32 MiB, and keeps up to twice that at the end of each arena, of which there are eight per processor. So a process
//! kept hundreds of megabytes after many threads had each held a large file of a program for one request. With a fixed
//! threshold a large block goes back to the system at once, and an arena keeps a bounded amount.

/// Blocks from this size on go back to the system when they are freed. Requests use many smaller ones: those stay in
/// the arena.
#[cfg(target_env = "gnu")]
const BLOCK_BYTES: i32 = 1 << 20;
/// How much each arena may keep at its end.
#[cfg(target_env = "gnu")]
const ARENA_BYTES: i32 = 2 << 20;

/// Makes the heap keep little freed memory from now on. One call is enough.
pub fn keep_little() {
    // Other C libraries have no threshold that moves.
    #[cfg(target_env = "gnu")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: these set numbers that the allocator reads; it may be in use.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK_BYTES);
                libc::mallopt(libc::M_TRIM_THRESHOLD, ARENA_BYTES);
            }
        });
    }
}

/// Gives free whole pages back to the system, also from the middle of arenas. This takes milliseconds, and other
/// threads may wait for an arena meanwhile: call it when memory is short.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no preconditions.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Bytes that are free in the heap and not given back: above this, [`give_back`] is worth its time.
#[must_use]
pub fn keeps_much() -> bool {
    #[cfg(target_env = "gnu")]
    {
        const MUCH: usize = 32 << 20;
        // SAFETY: no preconditions.
        unsafe { libc::mallinfo2() }.fordblks > MUCH
    }
    #[cfg(not(target_env = "gnu"))]
    false
}
