// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a project's directory.

use std::fmt::Display;
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
/// The permissions of each file, whatever the umask is: nothing in a new project is a secret, and a server may run as
/// another user. The umask applies to the directories alone.
const MODE: u32 = 0o644;

pub fn new(options: &NewOptions) -> Result<(), Failure> {
    let directory = &options.name;
    let name = directory.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name)).ok_or_else(|| {
        let expected = "letters, digits, '-' and '_', at most 64, the first a letter";
        Failure::Usage(format!("\"{}\" is no name for a project: expected {expected}", directory.display()))
    })?;
    let root = root(directory, name)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    let private: Vec<_> = home.as_deref().into_iter().chain([Path::new(&root)]).collect();
    let runtime = options.lang.runtime().map(|runtime| Runtime::find(runtime, &path, &private));
    make(directory, &root, name, options.lang, runtime.as_ref())?;
    if let Some(Runtime { program, is_missing: true, .. }) = &runtime {
        let where_to = if options.lang.is_compiled() { "the Makefile" } else { "`program` in mayfly.json" };
        eprintln!("mayfly: {program} is not there: install it, or change {where_to}");
    }
    let mounted = runtime.as_ref().filter(|_| !options.lang.is_compiled());
    if let Some(Runtime { program, private: Some(folder), .. }) = mounted {
        eprintln!(
            "mayfly: {program}: its folder {} has other things, too, and is not mounted: install the runtime in a \
             folder of its own, or change `program` and `mounts` in mayfly.json",
            folder.display()
        );
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

/// The project's directory from `/`, which does not exist yet: the server may be started anywhere.
fn root(directory: &Path, name: &str) -> Result<String, Failure> {
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = above.canonicalize().map_err(|error| failed(directory, &error))?.join(name);
    root.to_str().map(str::to_owned).ok_or_else(|| failed(directory, &"its path is not valid UTF-8"))
}

fn failed(path: &Path, error: &dyn Display) -> Failure {
    Failure::Usage(format!("cannot make {}: {error}", path.display()))
}

fn make(
    directory: &Path,
    root: &str,
    name: &str,
    language: Language,
    runtime: Option<&Runtime>,
) -> Result<(), Failure> {
    // Nothing of what is there is touched.
    fs::create_dir(directory).map_err(|error| failed(directory, &error))?;
    let built = format!("build/{name}");
    let program = match runtime {
        Some(runtime) if !language.is_compiled() => &runtime.program,
        _ => &built,
    };
    let text = |path: &str| serde_json::Value::from(path).to_string();
    let mounts = runtime.map(|runtime| &runtime.mounts[..]).unwrap_or_default();
    let mounts: String = mounts.iter().map(|host| format!(" {{ \"host\": {} }},", text(host))).collect();
    let source = language.files().next().map_or("", |(path, _)| path);
    let values = [
        ("{{name}}", name),
        ("{{root}}", &text(root)),
        ("{{program}}", &text(program)),
        ("{{python}}", runtime.map_or("python3", |runtime| &runtime.program)),
        ("{{mounts}}", &mounts),
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
        let mounts = ["/opt/r/bin", "/opt/r \"2\"/lib"].map(str::to_owned);
        let runtime =
            Runtime { program: "/opt/r/bin/node".into(), mounts: mounts.clone().into(), ..Runtime::default() };
        for (number, language) in ALL.into_iter().enumerate() {
            let directory = folder.path().join(format!("shop-{number}"));
            let root = directory.to_str().unwrap();
            make(&directory, root, "shop", language, language.runtime().map(|_| &runtime)).unwrap();
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
            assert!(tenant.program.is_absolute(), "{language:?}: {}", tenant.program.display());
            for mount in &mounts {
                let is_mounted = tenant.mounts.iter().any(|other| other.guest == *mount);
                assert_eq!(is_mounted, !language.is_compiled(), "{language:?}");
            }
            assert_eq!(tenant.advice(), [""; 0], "{language:?}");
            assert!(make(&directory, root, "shop", language, None).is_err(), "what is there stays");
        }
    }

    #[test]
    fn the_root_is_a_path_from_the_top_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        fs::create_dir(top.join("a")).unwrap();
        std::os::unix::fs::symlink("a", top.join("link")).unwrap();
        for directory in ["a/shop", "link/shop", "link/../a/shop"] {
            assert_eq!(root(&top.join(directory), "shop").unwrap(), top.join("a/shop").to_str().unwrap());
        }
        let here = std::env::current_dir().unwrap().canonicalize().unwrap().join("shop");
        assert_eq!(root(Path::new("shop"), "shop").unwrap(), here.to_str().unwrap());
        assert!(root(&top.join("none/shop"), "shop").unwrap_err().to_string().contains("cannot make"));
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
