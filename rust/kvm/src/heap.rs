// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the process's heap keeps of what is freed.
//!
//! By default glibc moves its border between blocks of their own, which go back to the system when they are freed, and
//! parts of an arena, which may not, up to 32 MiB as such blocks are freed; and it keeps up to twice that at the end of
//! each arena, of which there are eight a processor. So a process in which many threads have held a large file of a
//! program's for one request each kept hundreds of megabytes. With a border that does not move, a large block is the
//! system's again at once, and what an arena keeps has a bound.

/// Blocks from this size on are the system's again when they are freed. Smaller ones are what requests have many of:
/// those stay at hand.
#[cfg(target_env = "gnu")]
const BLOCK_BYTES: i32 = 1 << 20;
/// What each arena may keep at its end.
#[cfg(target_env = "gnu")]
const ARENA_BYTES: i32 = 2 << 20;

/// Has the heap keep little, from now on. Once is enough.
pub fn keep_little() {
    // Other C libraries have no border that moves.
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

/// Gives whole pages that are free back to the system, in the middle of arenas, too. This takes milliseconds, and other
/// threads may wait for an arena meanwhile: for when memory is short.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no preconditions.
        unsafe { libc::malloc_trim(0) };
    }
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
    fn what_threads_have_held_goes_back_to_the_system() {
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
                        // A block that stays, behind where the large one was.
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
