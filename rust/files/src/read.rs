// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads whole files, up to a limit.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::errand::waiting_for;
use crate::open::open;
use crate::problem::Problem;

/// Bytes to read at a time: each read shows that the file system still answers.
const STEP: usize = 1 << 20;
/// More than any kernel file that is read here has.
const KERNEL_TEXT_MAX: u64 = 4 << 20;

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
///
/// [`Problem`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Problem> {
    read_opened(&open(path)?, path, limit)
}

/// The content of a regular file of at most `limit` bytes, which is UTF-8.
///
/// # Errors
///
/// [`Problem`].
pub fn read_text(path: &Path, limit: u64) -> Result<String, Problem> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error.utf8_error()).into())
}

/// The content of an open file, from its beginning.
///
/// # Errors
///
/// [`Problem`].
pub fn read_opened(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, Problem> {
    let look = || {
        let seen = waiting_for(path, || file.metadata())?;
        Ok::<_, Problem>((seen.len(), seen.mtime(), seen.mtime_nsec()))
    };
    let before = look()?;
    let (size, ..) = before;
    let too_large = || Problem::TooLarge { bytes: size, limit };
    if size > limit {
        return Err(too_large());
    }
    let size = usize::try_from(size).map_err(|_| too_large())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| std::io::Error::from(ErrorKind::OutOfMemory))?;
    let mut file = file;
    // Up to the file's size at the start, and one byte more, which must not be there.
    loop {
        let have = bytes.len();
        let step = size.saturating_sub(have).clamp(1, STEP);
        match waiting_for(path, || file.by_ref().take(step as u64).read_to_end(&mut bytes))? {
            0 => break,
            _ if bytes.len() > size => return Err(Problem::Changes),
            _ => {}
        }
    }
    if bytes.len() == size && look()? == before { Ok(bytes) } else { Err(Problem::Changes) }
}

/// The content of one of the kernel's own files, in `/proc` or `/sys`, by a path that is a constant of the code.
///
/// # Errors
///
/// What the system says.
#[allow(clippy::disallowed_methods, reason = "it is the kernel's, and known to answer")]
pub fn kernel_text(path: &'static str) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KERNEL_TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// As [`kernel_text`], for a file in a cgroup's directory that the kernel itself has named in `/proc/self/mountinfo`.
///
/// # Errors
///
/// What the system says.
#[allow(clippy::disallowed_methods, reason = "the directory and the name are the kernel's")]
pub fn cgroup_text(directory: &std::path::Path, name: &'static str) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(directory.join(name))?.take(KERNEL_TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_read_is_bounded_before_and_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        assert_eq!(read(&path, 3 << 20).unwrap(), vec![7; 3 << 20]);
        let refused = read(&path, (3 << 20) - 1).unwrap_err();
        assert_eq!(refused.to_string(), "it has 3145728 bytes: expected at most 3145727");
        // A hole of four tebibytes takes no time and no memory.
        File::create(&path).unwrap().set_len(4 << 40).unwrap();
        assert!(matches!(read(&path, 1 << 20), Err(Problem::TooLarge { .. })));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 1).unwrap_err().to_string().contains("utf-8"));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(read_text(&path, 0).unwrap(), "");
    }

    #[test]
    fn reading_a_file_that_grows_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
                while !done.load(Ordering::Relaxed) && file.metadata().unwrap().len() < 64 << 20 {
                    file.write_all(&[1; 4096]).unwrap();
                }
            });
            // The writer may have to wait for a processor.
            let end = Instant::now() + Duration::from_secs(60);
            let reads = std::iter::repeat_with(|| read(&path, 8 << 20));
            let changed = reads.take_while(|_| Instant::now() < end).find(Result::is_err);
            done.store(true, Ordering::Relaxed);
            assert!(matches!(changed, Some(Err(Problem::Changes | Problem::TooLarge { .. }))));
        });
    }

    #[test]
    fn a_file_that_has_changed_since_it_was_opened_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let file = open(&path).unwrap();
        std::fs::write(&path, "three").unwrap();
        assert_eq!(read_opened(&file, &path, 16).unwrap(), b"three");
    }

    #[test]
    fn the_kernels_own_files_are_read_by_name() {
        assert!(kernel_text("/proc/self/statm").unwrap().ends_with('\n'));
        assert!(kernel_text("/proc/self/nothing").is_err());
    }
}
