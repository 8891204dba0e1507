// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: mounts agree with the host's directories, and nothing leads out of them.
#![allow(clippy::disallowed_methods, reason = "tests make the files that they open")]
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mayfly_linux::{Elf, Limits, MountPoint, Mounts, Step};
use support::{
    Guest, Linking, MEMORY, agrees_with_native, agrees_with_native_in, agrees_with_native_on, compile, has_whole_system,
};

/// A tree with every kind of node that may be a problem in a path.
fn tree(root: &Path) {
    let at = |name: &str| root.join(name);
    std::fs::write(at("file"), "the file\n").unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    std::fs::write(at("directory/inner"), "inner\n").unwrap();
    std::fs::create_dir_all(at("deep/a/b/c/d/e")).unwrap();
    std::fs::write(at("deep/a/b/c/d/e/f"), "deep\n").unwrap();
    std::fs::write(at("script"), "#!\n").unwrap();
    std::fs::set_permissions(at("script"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut numbers = String::new();
    (0..1000).for_each(|number| writeln!(numbers, "{number}").unwrap());
    std::fs::write(at("numbers"), numbers).unwrap();
    let large: Vec<u8> = (0..3_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(at("large"), large).unwrap();
    std::fs::create_dir(at("many")).unwrap();
    for number in 0..2000 {
        std::fs::write(at("many").join(format!("a-name-that-is-not-short-{number}")), "").unwrap();
    }
    symlink("file", at("link")).unwrap();
    symlink("directory", at("link-to-directory")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("link", at("chain-2")).unwrap();
    symlink("./directory/../chain-2", at("chain")).unwrap();
    symlink(at("directory"), at("absolute")).unwrap();
    symlink("..", at("directory/up")).unwrap();
    symlink("directory/up/directory", at("up")).unwrap();
}

#[test]
fn a_mounted_tree_agrees() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = root.path().canonicalize().unwrap();
    tree(&root);
    agrees_with_native_on("tree", &[Linking::Glibc], &[root.to_str().unwrap()], &[&root]);
}

#[test]
fn synthetic_files_agree() {
    if has_whole_system() {
        agrees_with_native("virtual", &[Linking::Glibc]);
    }
}

#[test]
fn what_the_system_says_about_the_program_agrees() {
    if has_whole_system() {
        let limits = Limits { threads: 4, ..Limits::default() };
        agrees_with_native_in("figures", &[Linking::Glibc], &[], &[Path::new("/usr")], &limits);
    }
}

/// What is resident differs natively and inside by what is shared, and by how much a fault brings in; not by orders of
/// magnitude.
#[test]
fn resident_memory_is_near_natives() {
    let dynamic: &[_] = if has_whole_system() { &[Linking::GlibcDynamic] } else { &[] };
    for linking in [Linking::Glibc].iter().chain(dynamic) {
        let program = compile("figures", *linking);
        let values = |text: &str| -> Vec<(String, u64)> {
            let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
            pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
        };
        let guest = Guest::load_mapped(&program, &["values"], &Limits::default(), MEMORY, &support::libraries());
        let inside = values(&guest.outcome().stdout);
        let native = values(&String::from_utf8(support::run_natively(&program, &["values"]).stdout).unwrap());
        for ((name, inside), (_, native)) in inside.iter().zip(&native) {
            // The stack counts whole inside, and page faults bring in up to 1 MiB of a file.
            let more = if name == "size" { 12_000 } else { 4_000 };
            assert!(
                *inside <= native + more && *inside + 2_000 >= native / 2,
                "{linking:?}, {name}: {inside} {native}"
            );
        }
        assert_eq!(inside.len(), 4);
    }
}

#[test]
fn what_parts_of_a_program_share_by_files_agrees() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = compile("sharing", Linking::Glibc);
    let native = support::run_natively(&program, &[root.path().to_str().unwrap()]);
    assert!(native.status.success(), "{native:?}");
    let limits = Limits { threads: 4, ..Limits::default() };
    let directory = tempfile::tempdir().unwrap();
    let point = MountPoint {
        guest: "/srv/data".into(),
        host: directory.path().into(),
        access: mayfly_linux::MountAccess::Private,
    };
    let mounts = Mounts::open(&[point]).unwrap();
    for place in ["/tmp", "/srv/data"] {
        let inside = Guest::load_mounted(&program, &[place], &limits, MEMORY, &mounts).outcome();
        let native = String::from_utf8_lossy(&native.stdout);
        for (line, (inside, native)) in inside.stdout.lines().zip(native.lines()).enumerate() {
            assert_eq!(inside, native, "{place}, line {line}: in the machine and natively");
        }
        assert_eq!(inside.stdout.lines().count(), native.lines().count(), "{inside:?}");
        assert_eq!(inside.end, Step::Exited { status: 0 }, "{inside:?}");
        support::compared::check("sharing", Linking::Glibc, &inside.calls);
    }
}

/// A runtime finds its libraries next to itself, by `/proc/self/exe`.
#[test]
fn a_program_called_by_a_link_knows_its_own_place() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("lib/runtime/bin")).unwrap();
    std::fs::create_dir(root.join("bin")).unwrap();
    let own = root.join("lib/runtime/bin/open");
    std::fs::copy(compile("open", Linking::Glibc), &own).unwrap();
    symlink("../lib/runtime/bin/open", root.join("bin/middle")).unwrap();
    symlink("middle", root.join("bin/open")).unwrap();
    let point = MountPoint { guest: "/usr".into(), host: root.clone(), access: mayfly_linux::MountAccess::ReadOnly };
    let mounts = Mounts::open(&[point]).unwrap();
    let file = std::fs::File::open(&own).unwrap();
    let args = ["-l", "/proc/self/exe"];
    let guest =
        Guest::load_elf(Elf::File(&file), Path::new("/usr/bin/open"), &args, &Limits::default(), MEMORY, &mounts);
    let outcome = guest.outcome();
    assert_eq!(outcome.stdout, "/proc/self/exe -> /usr/lib/runtime/bin/open\n");
}

/// The program's output for `paths` when `inside` is mounted at `/srv`.
fn seen(inside: &Path, paths: &[&str]) -> String {
    let program = compile("open", Linking::Glibc);
    let mount = MountPoint { guest: "/srv".into(), host: inside.into(), access: mayfly_linux::MountAccess::ReadOnly };
    let mounts = Mounts::open(&[mount]).unwrap();
    let outcome = Guest::load_mounted(&program, paths, &Limits::default(), MEMORY, &mounts).outcome();
    assert_eq!(outcome.end, Step::Exited { status: 0 });
    outcome.stdout
}

#[test]
fn nothing_leads_out_of_a_mount() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = root.path().canonicalize().unwrap();
    let (inside, secret) = (root.join("inside"), root.join("secret"));
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(&secret, "secret").unwrap();
    std::fs::write(inside.join("public"), "public").unwrap();
    symlink("../secret", inside.join("up")).unwrap();
    symlink("../../secret", inside.join("sub/up")).unwrap();
    symlink(&secret, inside.join("absolute")).unwrap();
    symlink("/proc/self/root/etc/passwd", inside.join("magic")).unwrap();
    symlink("/srv/public", inside.join("right")).unwrap();
    symlink("..", inside.join("sub/parent")).unwrap();
    symlink("/", inside.join("sub/top")).unwrap();
    let absolute = secret.to_str().unwrap();
    let through = format!("/srv/sub/top{absolute}");
    let paths = [
        "/srv/public",
        "/srv/right",
        "/srv/sub/top/srv/public",
        "/../../srv/sub/../../srv/public",
        absolute,
        &through,
        "/srv/../secret",
        "/srv/up",
        "/srv/sub/up",
        "/srv/sub/parent/../secret",
        "/srv/absolute",
        "/proc/self/root/root",
        "/proc/self/cwd/../../etc/shadow",
        "/proc/1/root/etc/passwd",
        "/etc/shadow",
    ];
    let seen = seen(&inside, &paths);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines.len(), paths.len());
    for (index, line) in lines.iter().enumerate() {
        let expected = if index < 4 { ": 6 public" } else { ": error 2" };
        assert!(line.ends_with(expected), "{line}");
    }
    // `/proc/self/root` is the program's own root, and `/etc/passwd` there is synthetic.
    assert!(self::seen(&inside, &["/srv/magic"]).contains("root:x:0:0:root:/:/bin/false\nmayfly:"));
}

#[test]
fn only_files_and_directories_of_the_host_can_be_opened() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fifo = root.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    let seen = seen(root.path(), &["/srv/fifo", "/srv/socket"]);
    assert_eq!(seen, "/srv/fifo: error 13\n/srv/socket: error 13\n");
    assert_eq!(
        self::seen(Path::new("/dev"), &["/srv/null", "/srv/zero"]),
        "/srv/null: error 13\n/srv/zero: error 13\n"
    );
}

#[test]
fn a_mount_ends_where_the_hosts_file_system_does() {
    assert_eq!(seen(Path::new("/"), &["/srv/proc/self/status"]), "/srv/proc/self/status: error 13\n");
}

#[test]
fn without_mounts_nothing_of_the_host_is_visible() {
    let program = compile("open", Linking::Glibc);
    let here = program.to_str().unwrap();
    let outcome = support::run(&program, &[here, "/etc/machine-id", "/root/x", "/usr", "/proc/self/status"]);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    for line in &lines[..4] {
        assert!(line.ends_with(": error 2"), "{line}");
    }
    assert!(lines[4].contains("Name:\topen"), "{}", lines[4]);
}

#[test]
fn mappings_of_files_agree() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = root.path().canonicalize().unwrap();
    let file = root.join("pages");
    let content: Vec<u8> = b"abcd".iter().flat_map(|&letter| [letter; 4096]).take(3 * 4096 + 100).collect();
    std::fs::write(&file, content).unwrap();
    let args = [file.to_str().unwrap(), root.to_str().unwrap()];
    agrees_with_native_on("mapping", &[Linking::Glibc], &args, &[&root]);
}

/// Files that `writing.c` changes.
fn old_tree(root: &Path) {
    for name in ["old/a", "old/b", "old/c", "old/d", "old/e", "old/f", "old/sub/g", "two/x", "two/y"] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("content of {name}")).unwrap();
    }
    std::fs::create_dir(root.join("hollow")).unwrap();
    symlink("a", root.join("old/link")).unwrap();
}

/// All nodes of a tree.
fn census(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let content = if kind.is_file() { std::fs::read_to_string(&path).unwrap() } else { String::new() };
        found.push(format!("{path:?} {kind:?} {content}"));
        if kind.is_dir() {
            found.extend(census(&path));
        }
    }
    found.sort();
    found
}

/// Runs a program in a machine with `host` mounted at `guest`, and then natively on `host`.
fn changes_agree(name: &str, guest: &str, host: &Path, mounts: &[MountPoint]) {
    let program = compile(name, Linking::Glibc);
    let mounts = Mounts::open(mounts).unwrap();
    let before = census(host);
    let inside = Guest::load_mounted(&program, &[guest], &Limits::default(), MEMORY, &mounts).outcome();
    assert_eq!(inside.end, Step::Exited { status: 0 }, "{inside:?}");
    assert_eq!(census(host), before, "the host's files have not changed");
    support::compared::check(name, Linking::Glibc, &inside.calls);
    let native = support::run_natively(&program, &[host.to_str().unwrap()]);
    assert!(native.status.success());
    let native = String::from_utf8(native.stdout).unwrap();
    let differences: Vec<_> = inside.stdout.lines().zip(native.lines()).filter(|(a, b)| a != b).collect();
    assert!(differences.is_empty(), "in the machine, natively: {differences:#?}");
    assert_eq!(inside.stdout.lines().count(), native.lines().count());
}

#[test]
fn writing_to_the_temporary_directory_agrees() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    changes_agree("writing", "/tmp", root.path(), &[]);
}

#[test]
fn writing_to_a_mount_agrees_and_does_not_change_it() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    old_tree(root.path());
    let point =
        MountPoint { guest: "/srv/data".into(), host: root.path().into(), access: mayfly_linux::MountAccess::Private };
    changes_agree("writing", "/srv/data", root.path(), &[point]);
}

/// The files that `sparse.c` finds.
fn lettered(root: &Path) {
    let letters =
        |count: usize| (b'a'..=b'z').cycle().flat_map(|letter| [letter; 4096]).take(count).collect::<Vec<_>>();
    std::fs::write(root.join("base"), letters(60 * 4096)).unwrap();
    std::fs::write(root.join("second"), letters(3 * 4096 + 7)).unwrap();
}

#[test]
fn writing_page_by_page_agrees_and_does_not_change_the_mount() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    lettered(root.path());
    let point =
        MountPoint { guest: "/srv/data".into(), host: root.path().into(), access: mayfly_linux::MountAccess::Private };
    changes_agree("sparse", "/srv/data", root.path(), &[point]);
}

/// What a program prints in a durable mount of a copy of what it finds natively, and natively.
fn in_a_durable_mount(name: &str, fill: impl Fn(&Path)) -> (Vec<String>, Vec<String>) {
    let program = compile(name, Linking::Glibc);
    let [own, native] = [(); 2].map(|()| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    for root in [&own, &native] {
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o777)).unwrap();
        fill(root.path());
    }
    let access = mayfly_linux::MountAccess::Durable(mayfly_linux::DurableLimits { bytes: 8 << 30, files: 1000 });
    let point = MountPoint { guest: "/srv/data".into(), host: own.path().into(), access };
    let mounts = Mounts::open(&[point]).unwrap();
    let limits = Limits { threads: 4, ..Limits::default() };
    let inside = Guest::load_mounted(&program, &["/srv/data"], &limits, MEMORY, &mounts).outcome();
    let native = support::run_natively(&program, &[native.path().to_str().unwrap()]);
    assert!(native.status.success());
    let lines = |text: &str| text.lines().map(str::to_owned).collect();
    (lines(&inside.stdout), lines(&String::from_utf8_lossy(&native.stdout)))
}

#[test]
fn writing_to_a_durable_mount_agrees_but_for_links_and_sockets() {
    // What follows from the names that cannot be made there differs too.
    for (name, most) in [("writing", 25), ("sharing", 70)] {
        let (inside, native) = in_a_durable_mount(name, old_tree);
        assert_eq!(inside.len(), native.len(), "{name}: {inside:?}");
        let differences: Vec<_> = inside.iter().zip(&native).filter(|(inside, native)| inside != native).collect();
        assert!(differences.len() < most, "{name}: {differences:#?}");
        for (inside, native) in &differences {
            let same = ["lock(", "range(", "type ", "write(", "truncate(", "mkdir(", "fsync("];
            assert!(!same.iter().any(|call| native.contains(call)), "{name}: {inside}, natively {native}");
        }
    }
}

#[test]
fn mappings_of_a_durable_mount_agree_but_for_private_ones() {
    let (inside, native) = in_a_durable_mount("sparse", lettered);
    assert_eq!(inside.len(), native.len(), "{inside:?}");
    for (inside, native) in inside.iter().zip(&native).filter(|(inside, native)| inside != native) {
        // Copies, page by page.
        assert!(native.contains("private"), "{inside}, natively {native}");
    }
}

#[test]
fn written_files_are_bounded() {
    let program = compile("fill", Linking::Glibc);
    let limits = Limits { overlay_bytes: 1 << 20, overlay_entries: 50, ..Limits::default() };
    let outcome = Guest::load(&program, &[], &limits, MEMORY).outcome();
    assert_eq!(outcome.end, Step::Exited { status: 0 });
    assert_eq!(outcome.stdout, "files 50, error 28\nbytes 1044, error 28\nagain 1044\nread-only error 30\n");
}
