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

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn small_blocks_that_were_freed_count_until_they_are_given_back() {
        // The last one stays, so that the arena cannot shrink by itself.
        let mut blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4096]).collect();
        let last = blocks.pop();
        drop(blocks);
        assert!(keeps_much());
        let before = anonymous_kib();
        give_back();
        let less = before.saturating_sub(anonymous_kib());
        assert!(less > 64 << 10, "{less} KiB");
        drop(last);
    }

    #[test]
    fn memory_that_threads_freed_goes_back_to_the_system() {
        keep_little();
        let before = anonymous_kib();
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..4 {
                        let mut file: Vec<u8> = Vec::new();
                        (0..15 * 16).for_each(|_| file.extend_from_slice(&[round; 64 << 10]));
                        barrier.wait();
                        drop(file);
                        // A block that stays allocated behind the large one.
                        std::mem::forget(vec![round; 1000]);
                    }
                    barrier.wait();
                });
            }
        });
        let kept = anonymous_kib().saturating_sub(before);
        assert!(kept < 24 << 10, "{kept} KiB");
    }
}
