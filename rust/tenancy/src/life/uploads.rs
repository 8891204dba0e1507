// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploaded programs on disk: `NAME.elf` is what the next start boots, `NAME.elf.previous` what it replaced.
//!
//! Every change is one rename, so that a crash leaves one of the two programs complete.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mayfly_files::waiting_for;

use crate::config::values::TenantName;

/// The path of a tenant's uploaded program. A tenant's name has no slash and does not start with a dot, so the path
/// stays in the directory.
pub(crate) fn path(directory: &Path, tenant: &TenantName) -> PathBuf {
    directory.join(format!("{tenant}.elf"))
}

fn previous(directory: &Path, tenant: &TenantName) -> PathBuf {
    directory.join(format!("{tenant}.elf.previous"))
}

/// Stores a program for the next start, and keeps the previous one for a rollback.
pub(crate) fn keep(directory: &Path, tenant: &TenantName, elf: &[u8]) -> io::Result<()> {
    waiting_for(directory, || fs::create_dir_all(directory))?;
    let (now, new) = (path(directory, tenant), directory.join(format!("{tenant}.elf.new")));
    let mut file = mayfly_files::create_anew(&new)?;
    waiting_for(&new, || file.write_all(elf).and_then(|()| file.sync_all()))?;
    rename_if_exists(&now, &previous(directory, tenant))?;
    waiting_for(&now, || fs::rename(&new, &now))?;
    Ok(mayfly_files::sync_directory(directory)?)
}

/// Makes the next start boot the previous upload or, without one, the configured program.
pub(crate) fn swap(directory: &Path, tenant: &TenantName) -> io::Result<()> {
    let (now, before) = (path(directory, tenant), previous(directory, tenant));
    let aside = directory.join(format!("{tenant}.elf.new"));
    rename_if_exists(&now, &aside)?;
    rename_if_exists(&before, &now)?;
    rename_if_exists(&aside, &before)
}

fn rename_if_exists(from: &Path, to: &Path) -> io::Result<()> {
    match waiting_for(to, || fs::rename(from, to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_uploads_are_kept_and_swapped() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("made/on/demand");
        let name = TenantName::try_from("shop".to_owned()).unwrap();
        let now = || fs::read(path(&directory, &name)).ok();
        keep(&directory, &name, b"one").unwrap();
        assert_eq!(now().unwrap(), b"one");
        swap(&directory, &name).unwrap();
        assert_eq!(now(), None, "before the first upload, the configured program was in use");
        swap(&directory, &name).unwrap();
        assert_eq!(now().unwrap(), b"one");
        keep(&directory, &name, b"two").unwrap();
        keep(&directory, &name, b"three").unwrap();
        swap(&directory, &name).unwrap();
        assert_eq!(now().unwrap(), b"two");
        swap(&directory, &name).unwrap();
        assert_eq!(now().unwrap(), b"three");
    }
}
