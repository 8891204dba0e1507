// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploaded programs on disk: `NAME` is what a start would boot, `NAME.previous` what it replaced.
//!
//! Every change is one rename, so that a crash leaves either program, whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mayfly_files::waiting_for;

use crate::config::values::TenantName;

/// Where the uploaded program of a tenant is. The name holds no slash and does not start with a dot: it stays in the
/// directory.
pub(crate) fn path(directory: &Path, tenant: &TenantName) -> PathBuf {
    directory.join(format!("{tenant}.elf"))
}

fn previous(directory: &Path, tenant: &TenantName) -> PathBuf {
    directory.join(format!("{tenant}.elf.previous"))
}

/// Keeps a program for the next start, and the former one for a rollback.
pub(crate) fn keep(directory: &Path, tenant: &TenantName, elf: &[u8]) -> io::Result<()> {
    waiting_for(directory, || fs::create_dir_all(directory))?;
    let (now, new) = (path(directory, tenant), directory.join(format!("{tenant}.elf.new")));
    let mut file = mayfly_files::create_anew(&new)?;
    waiting_for(&new, || file.write_all(elf).and_then(|()| file.sync_all()))?;
    rename_if_there(&now, &previous(directory, tenant))?;
    waiting_for(&now, || fs::rename(&new, &now))?;
    Ok(mayfly_files::sync_directory(directory)?)
}

/// Lets the next start boot the program before the last one; without one, the configured program.
pub(crate) fn swap(directory: &Path, tenant: &TenantName) -> io::Result<()> {
    let (now, before) = (path(directory, tenant), previous(directory, tenant));
    let aside = directory.join(format!("{tenant}.elf.new"));
    rename_if_there(&now, &aside)?;
    rename_if_there(&before, &now)?;
    rename_if_there(&aside, &before)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match waiting_for(to, || fs::rename(from, to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_are_kept_and_swapped() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("made/on/demand");
        let name = TenantName::try_from("shop".to_owned()).unwrap();
        let now = || fs::read(path(&directory, &name)).ok();
        keep(&directory, &name, b"one").unwrap();
        assert_eq!(now().unwrap(), b"one");
        swap(&directory, &name).unwrap();
        assert_eq!(now(), None, "before the first upload there was the configured program");
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
