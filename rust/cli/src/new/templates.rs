// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of new projects, by language. They are files of this repository, compiled in: a project needs nothing
//! else of Mayfly but this command.

use crate::options::Language;

/// A file of a project: its path, and its text with `{{name}}` and others to be filled in.
pub(super) type File = (&'static str, &'static str);

/// A file of the SDK, which is copied as it is.
macro_rules! sdk {
    ($path:literal) => {
        (concat!("sdk/", $path), include_str!(concat!("../../../../tenants/sdk/", $path)))
    };
}

macro_rules! template {
    ($path:literal, $from:literal) => {
        ($path, include_str!(concat!("../../templates/", $from)))
    };
}

/// The files of all projects.
const ALL: [File; 2] = [template!("README.md", "README.md"), template!(".gitignore", "gitignore")];
const C: &[File] = &[
    template!("main.c", "c/main.c"),
    template!("Makefile", "c/Makefile"),
    template!("mayfly.json", "native.json"),
    sdk!("mayfly.h"),
];
const CPP: &[File] = &[
    template!("main.cpp", "cpp/main.cpp"),
    template!("Makefile", "cpp/Makefile"),
    template!("mayfly.json", "native.json"),
    sdk!("mayfly.h"),
];
const RUST: &[File] = &[
    template!("src/main.rs", "rust/main.rs"),
    template!("Cargo.toml", "rust/manifest.toml"),
    template!(".cargo/config.toml", "rust/cargo-config.toml"),
    template!("Makefile", "rust/Makefile"),
    template!("mayfly.json", "native.json"),
    sdk!("rust/Cargo.toml"),
    sdk!("rust/src/abi.rs"),
    sdk!("rust/src/host.rs"),
    sdk!("rust/src/lib.rs"),
    sdk!("rust/src/request.rs"),
    sdk!("rust/src/serve.rs"),
];
const JS: &[File] = &[
    template!("server.mjs", "js/server.mjs"),
    template!("package.json", "js/package.json"),
    template!("Makefile", "js/Makefile"),
    template!("mayfly.json", "js/mayfly.json"),
    sdk!("js/fresh.mjs"),
    sdk!("node/fresh.mjs"),
    sdk!("node/crypto.mjs"),
    sdk!("node/version.mjs"),
    sdk!("libmayfly/fresh.c"),
    sdk!("libmayfly/openssl.h"),
];
const PYTHON: &[File] = &[
    template!("app.py", "python/app.py"),
    template!("Makefile", "python/Makefile"),
    template!("mayfly.json", "python/mayfly.json"),
    sdk!("python/mayfly.py"),
    sdk!("python/mayfly_python.py"),
    sdk!("libmayfly/libmayfly.c"),
    sdk!("libmayfly/libmayfly.h"),
    sdk!("libmayfly/chacha.h"),
    sdk!("libmayfly/openssl.h"),
    sdk!("mayfly.h"),
];
const PYTHRAN: &[File] = &[
    template!("page.py", "pythran/page.py"),
    template!("page.pythran", "pythran/page.pythran"),
    ("adapter.cpp", include_str!("../../../../tenants/pythran/adapter.cpp")),
    ("requirements.txt", include_str!("../../../../tenants/pythran/requirements.txt")),
    template!("Makefile", "pythran/Makefile"),
    template!("mayfly.json", "native.json"),
    sdk!("mayfly.h"),
];

impl Language {
    /// The files of a project, the program's source first.
    pub(super) fn files(self) -> impl Iterator<Item = File> {
        let own = match self {
            Self::C => C,
            Self::Cpp => CPP,
            Self::Rust => RUST,
            Self::Js => JS,
            Self::Python => PYTHON,
            Self::Pythran => PYTHRAN,
        };
        own.iter().copied().chain(ALL)
    }

    /// The runtime that runs the program, or builds it.
    pub(super) fn runtime(self) -> Option<&'static str> {
        match self {
            Self::C | Self::Cpp | Self::Rust => None,
            Self::Js => Some("node"),
            Self::Python | Self::Pythran => Some("python3"),
        }
    }

    /// Whether the program is a file that the project builds, and not the runtime.
    pub(super) fn is_compiled(self) -> bool {
        !matches!(self, Self::Js | Self::Python)
    }
}
