// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of files, and who looks at them.

use super::*;

/// A tenants file and a program in a directory, and a watch over them.
struct Watching {
    folder: tempfile::TempDir,
    tenants: Fake,
    _admin: Admin,
}

impl Watching {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("programs")).unwrap();
        fs::write(folder.path().join("programs/p"), "one").unwrap();
        let file = folder.path().join("tenants.json");
        fs::write(&file, content(folder.path(), "first")).unwrap();
        let tenants = Fake::new(Config::from_file(&file).unwrap());
        let admin = Admin::start_for(tenants.clone(), Patience::default()).unwrap();
        assert_eq!(admin.address(), None);
        Self { folder, tenants, _admin: admin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, tenant: &str) {
        fs::write(self.path("tenants.json"), content(self.folder.path(), tenant)).unwrap();
    }

    /// Writes another file, and renames it to this one.
    fn replace(&self, name: &str, content: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, content).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
    }

    fn count(&self, call: &str) -> usize {
        self.tenants.calls().iter().filter(|other| *other == call).count()
    }
}

fn content(folder: &Path, tenant: &str) -> String {
    format!(r#"{{"root": {folder:?}, "tenants": [{{"name": "{tenant}", "program": "programs/p", "path": "/"}}]}}"#)
}

#[test]
fn a_changed_file_is_applied_whatever_the_way_of_the_change() {
    let watching = Watching::start();
    watching.write("second");
    until(|| watching.count("apply second") == 1);
    watching.replace("tenants.json", &content(watching.folder.path(), "third"));
    until(|| watching.count("apply third") == 1);
    fs::remove_file(watching.path("tenants.json")).unwrap();
    watching.write("fourth");
    until(|| watching.count("apply fourth") == 1);
    assert_eq!(watching.count("apply first"), 0, "it is in force already");
}

#[test]
fn a_bad_file_changes_nothing_and_the_next_good_one_is_applied() {
    let watching = Watching::start();
    let before = watching.tenants.config();
    for bad in ["{", "{\"tenant\": []}", ""] {
        let looks = watching.count("reload changed");
        watching.replace("tenants.json", bad);
        until(|| watching.count("reload changed") > looks);
        assert_eq!(watching.tenants.config(), before);
    }
    watching.write("second");
    until(|| watching.count("apply second") == 1);
}

#[test]
fn a_changed_program_is_noticed() {
    let watching = Watching::start();
    for change in [
        |watching: &Watching| fs::write(watching.path("programs/p"), "two").unwrap(),
        |watching: &Watching| watching.replace("programs/p", "three"),
        |watching: &Watching| {
            fs::remove_file(watching.path("programs/p")).unwrap();
            std::os::unix::fs::symlink("/bin/true", watching.path("programs/p")).unwrap();
        },
        |watching: &Watching| {
            // The whole directory is replaced.
            fs::create_dir(watching.path("other")).unwrap();
            fs::write(watching.path("other/p"), "five").unwrap();
            fs::rename(watching.path("programs"), watching.path("old")).unwrap();
            fs::rename(watching.path("other"), watching.path("programs")).unwrap();
        },
        |watching: &Watching| fs::write(watching.path("programs/p"), "six").unwrap(),
    ] {
        let looks = watching.count("reload changed");
        change(&watching);
        until(|| watching.count("reload changed") > looks);
        // Waits for all consequences of this change, the watch over the new directory included, before the next one.
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn programs_of_a_new_file_are_watched_too() {
    let watching = Watching::start();
    let elsewhere = tempfile::tempdir().unwrap();
    watching.replace("tenants.json", &content(elsewhere.path(), "second"));
    until(|| watching.count("apply second") == 1);
    // The directory does not exist yet: the watch looks for it now and then.
    let looks = watching.count("reload changed");
    fs::create_dir(elsewhere.path().join("programs")).unwrap();
    until(|| watching.count("reload changed") > looks);
    let looks = watching.count("reload changed");
    fs::write(elsewhere.path().join("programs/p"), "new").unwrap();
    until(|| watching.count("reload changed") > looks);
}

#[test]
fn changes_below_watched_directories_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("app/lib")).unwrap();
    fs::write(at("app/lib/a.js"), "one").unwrap();
    let file = at("tenants.json");
    let text = format!(
        r#"{{"root": {:?}, "tenants": [{{"name": "a", "program": "programs/p", "path": "/", "mounts": [{{"host": "app", "at": "/srv"}}],
           "watch": ["/srv"]}}]}}"#,
        folder.path()
    );
    fs::create_dir(at("programs")).unwrap();
    fs::write(&file, text).unwrap();
    let tenants = Fake::new(Config::from_file(&file).unwrap());
    let _admin = Admin::start_for(tenants.clone(), Patience::default()).unwrap();
    let looks = || tenants.calls().len();
    let changes: [&dyn Fn(); 6] = [
        &|| fs::write(at("app/lib/a.js"), "two").unwrap(),
        &|| fs::write(at("app/lib/new.js"), "").unwrap(),
        &|| fs::rename(at("app/lib/new.js"), at("app/lib/newer.js")).unwrap(),
        &|| fs::create_dir_all(at("app/later/deep")).unwrap(),
        // In a directory that did not exist when the watch began.
        &|| fs::write(at("app/later/deep/b.js"), "").unwrap(),
        &|| fs::remove_file(at("app/lib/a.js")).unwrap(),
    ];
    for change in changes {
        let before = looks();
        change();
        until(|| looks() > before);
        // Waits for all consequences of this change, the watch over a new directory included, before the next one.
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn many_changes_in_a_row_are_one() {
    let watching = Watching::start();
    for number in 0..100 {
        watching.replace("programs/p", &number.to_string());
    }
    until(|| watching.count("reload changed") > 0);
    assert!(watching.count("reload changed") < 50);
}
