// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a project's directory.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::failure::Failure;
use crate::new::runtime::Runtime;
use crate::options::{Language, NewOptions};

/// The line that says under which licence a file of this repository is. A project is its author's.
const LICENCE: &str = "SPDX-License-Identifier";
const NAME_MAX: usize = 64;
/// Permissions of a file, before those that the umask takes away would be known: as `git clone` makes them.
const MODE: u32 = 0o644;

pub fn new(options: &NewOptions) -> Result<(), Failure> {
    let directory = &options.name;
    let name = directory.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name)).ok_or_else(|| {
        let expected = "letters, digits, '-' and '_', at most 64, the first a letter";
        Failure::Usage(format!("\"{}\" is no name for a project: expected {expected}", directory.display()))
    })?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runtime = options.lang.runtime().map(|runtime| Runtime::find(runtime, &path));
    make(directory, name, options.lang, runtime.as_ref())?;
    if let Some(Runtime { program, is_missing: true, .. }) = &runtime {
        let where_to = if options.lang.is_compiled() { "the Makefile" } else { "`program` in mayfly.json" };
        eprintln!("mayfly: {program} is not there: install it, or change {where_to}");
    }
    println!("{}: made. To run it:\n\n  cd {0}\n  make\n  mayfly run", directory.display());
    Ok(())
}

/// A name for tenants, Cargo's packages and files alike.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char))
}

fn make(directory: &Path, name: &str, language: Language, runtime: Option<&Runtime>) -> Result<(), Failure> {
    let failed =
        |path: &Path, error: &dyn std::fmt::Display| Failure::Usage(format!("cannot make {}: {error}", path.display()));
    // Nothing of what is there is touched.
    fs::create_dir(directory).map_err(|error| failed(directory, &error))?;
    let built = format!("build/{name}");
    let program = match runtime {
        Some(runtime) if !language.is_compiled() => &runtime.program,
        _ => &built,
    };
    let mount = runtime.and_then(|runtime| runtime.mount.as_deref());
    let mount = mount.map(|host| format!(" {{ \"host\": {} }},", serde_json::Value::from(host))).unwrap_or_default();
    let source = language.files().next().map_or("", |(path, _)| path);
    let values = [
        ("{{name}}", name),
        ("{{program}}", program),
        ("{{python}}", runtime.map_or("python3", |runtime| &runtime.program)),
        ("{{mount}}", &mount),
        ("{{source}}", source),
    ];
    for (file, text) in language.files() {
        let path = directory.join(file);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        let text = if file.starts_with("sdk/") { text.to_owned() } else { fill(text, &values) };
        let mut made = mayfly_files::create_new(&path).map_err(|error| failed(&path, &error))?;
        made.write_all(text.as_bytes())
            .and_then(|()| made.set_permissions(Permissions::from_mode(MODE)))
            .map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// A template's text, without its line about the licence.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.contains(LICENCE) => rest.strip_prefix("//\n").unwrap_or(rest),
        _ => text,
    };
    values.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_tenancy::Config;

    const ALL: [Language; 6] =
        [Language::C, Language::Cpp, Language::Rust, Language::Js, Language::Python, Language::Pythran];

    #[test]
    fn every_language_has_a_valid_configuration_and_nothing_left_to_fill_in() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime { program: "/opt/r/bin/node".into(), mount: Some("/opt/r".into()), is_missing: false };
        for (number, language) in ALL.into_iter().enumerate() {
            let directory = folder.path().join(format!("shop-{number}"));
            make(&directory, "shop", language, language.runtime().map(|_| &runtime)).unwrap();
            for (file, _) in language.files().filter(|(file, _)| !file.starts_with("sdk/")) {
                let text = fs::read_to_string(directory.join(file)).unwrap();
                assert!(!text.contains(LICENCE) && !text.is_empty(), "{file}");
                for (place, _) in text.match_indices("{{") {
                    assert!(!text[place..].contains("}}"), "{language:?}, {file}: {}", &text[place..]);
                }
            }
            let config = Config::from_file(&directory.join("mayfly.json")).unwrap();
            let tenant = &config.tenants[0];
            assert_eq!(tenant.name.as_str(), "shop");
            let is_mounted = tenant.mounts.iter().any(|mount| mount.guest == "/opt/r");
            assert_eq!(is_mounted, !language.is_compiled(), "{language:?}");
            assert_eq!(tenant.advice(), [""; 0], "{language:?}");
            assert!(make(&directory, "shop", language, None).is_err(), "what is there stays");
        }
    }

    #[test]
    fn a_name_is_one_for_tenants_packages_and_files() {
        for name in ["a", "Shop-2_b", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "2a", "-a", "_a", "a.b", "a b", "\u{e9}", "a/b", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
