// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a program that can be booted from a configuration.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use mayfly_files::waiting_for;
use mayfly_sandbox::{Elf, MonotonicClock, MountError, MountPoint, Mounts, Program, ProgramError, Service};

use crate::config::{StorageConfig, TenantConfig};
use crate::http1::Http1;

/// Why a program cannot be booted, as far as that can be determined without a machine.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program cannot be read.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// One of its mounts cannot be made.
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl TenantConfig {
    /// The configured program, ready to boot except for its shared memory: its file is read and its mounts are opened.
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub fn launch(&self) -> Result<Program, LaunchError> {
        let program = Program::load(&self.program)?;
        self.configured(Program { name: name_in_view(&self.program, &self.mounts), ..program })
    }

    /// A program that was uploaded to replace the configured one. It is none of the files in its view, so it has a name
    /// without a directory.
    pub(crate) fn launch_upload(&self, elf: Elf) -> Result<Program, LaunchError> {
        self.configured(Program {
            elf,
            name: file_name(&self.program),
            args: Vec::new(),
            env: Vec::new(),
            shared: None,
            mounts: Mounts::default(),
            outbound: Vec::new(),
            monotonic: MonotonicClock::default(),
            service: None,
        })
    }

    fn configured(&self, program: Program) -> Result<Program, LaunchError> {
        let service = self.service.as_ref();
        Ok(Program {
            args: self.args.clone(),
            env: self.env.clone(),
            mounts: Mounts::open(&self.mounts)?,
            outbound: self.outbound.clone(),
            monotonic: self.monotonic,
            service: service.map(|service| Service {
                protocol: Arc::new(Http1),
                port: service.port,
                ready: service.ready.clone(),
                warm_up: service.warm_up.clone(),
                settle: service.settle,
                before_freeze: service.before_freeze.clone(),
                after_restore: service.after_restore.clone(),
            }),
            ..program
        })
    }
}

impl StorageConfig {
    /// Like [`TenantConfig::launch`].
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub fn launch(&self) -> Result<Program, LaunchError> {
        Ok(Program {
            name: name_in_view(&self.program, &self.mounts),
            args: self.args.clone(),
            env: self.env.clone(),
            mounts: Mounts::open(&self.mounts)?,
            ..Program::load(&self.program)?
        })
    }
}

/// The program's own name: its path in its own view if it is in one of its mounts, so that opening `/proc/self/exe`
/// works; otherwise only the file's name.
fn name_in_view(program: &Path, mounts: &[MountPoint]) -> String {
    // The configured path first: a link's own name can have a meaning for the program, as in Python's virtual
    // environments.
    let as_written = std::path::absolute(program).ok();
    let resolve = |path: &Path| waiting_for(path, || path.canonicalize()).ok();
    let resolved = resolve(program);
    let found = [(as_written, false), (resolved, true)].into_iter().find_map(|(path, resolves)| {
        let path = path?;
        let host = |mount: &MountPoint| {
            if resolves { resolve(&mount.host) } else { std::path::absolute(&mount.host).ok() }
        };
        mounts.iter().find_map(|mount| view(&path, mount, &host(mount)?, mounts))
    });
    found.unwrap_or_else(|| file_name(program))
}

/// The path at which a program sees the file `path` through `mount`, whose directory is `host`, unless another mount
/// hides it.
fn view(path: &Path, mount: &MountPoint, host: &Path, mounts: &[MountPoint]) -> Option<String> {
    let rest = path.strip_prefix(host).ok()?;
    if rest.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let seen: PathBuf = Path::new(&mount.guest).join(rest);
    let is_hidden = mounts.iter().any(|other| other.guest.len() > mount.guest.len() && seen.starts_with(&other.guest));
    if is_hidden { None } else { seen.into_os_string().into_string().ok() }
}

fn file_name(program: &Path) -> String {
    program.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use mayfly_sandbox::MountAccess;

    use super::*;

    fn mount(host: &Path, guest: &str) -> MountPoint {
        MountPoint { guest: guest.to_owned(), host: host.to_owned(), access: MountAccess::ReadOnly }
    }

    #[test]
    fn a_program_in_a_mount_is_named_by_its_path_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("venv")).unwrap();
        fs::write(at("usr/bin/real"), "").unwrap();
        symlink(at("usr/bin/real"), at("venv/python")).unwrap();
        symlink(at("usr"), at("link")).unwrap();
        let name = |program: &str, mounts: &[MountPoint]| name_in_view(&at(program), mounts);
        assert_eq!(name("usr/bin/real", &[]), "real");
        assert_eq!(name("usr/bin/real", &[mount(&at("usr"), "/usr")]), "/usr/bin/real");
        assert_eq!(name("usr/bin/real", &[mount(&at("usr/bin"), "/app")]), "/app/real");
        assert_eq!(name("usr/bin/real", &[mount(&root, "/")]), "/usr/bin/real");
        assert_eq!(
            name("usr/bin/real", &[mount(&at("usr/b"), "/b")]),
            "real",
            "a prefix of a component does not match"
        );
        // A link keeps its name if the link itself is visible, and is resolved if only its target is.
        let (usr, venv) = (mount(&at("usr"), "/usr"), mount(&at("venv"), "/venv"));
        assert_eq!(name("venv/python", &[usr.clone(), venv]), "/venv/python");
        assert_eq!(name("venv/python", &[usr]), "/usr/bin/real");
        assert_eq!(name("usr/bin/real", &[mount(&at("link"), "/usr")]), "/usr/bin/real");
        // A file that another mount covers is not visible.
        let covered = [mount(&at("usr"), "/usr"), mount(&at("venv"), "/usr/bin")];
        assert_eq!(name("usr/bin/real", &covered), "real");
        assert_eq!(name("venv/../usr/bin/real", &[mount(&root, "/r")]), "/r/usr/bin/real");
        assert_eq!(name("missing/program", &[mount(&at("missing"), "/m")]), "/m/program");
    }
}
