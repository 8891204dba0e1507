// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid configurations, and the errors of invalid ones.

mod files;

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::*;

fn error(text: &str) -> String {
    Config::from_json(text).unwrap_err().to_string()
}

/// The error without its position, which must be in the first line.
pub(super) fn problem(text: &str) -> String {
    let error = Config::from_json(text).unwrap_err();
    assert!(error.to_string().starts_with("line 1, column "), "{error}");
    format!("{}: {}", error.key(), error.problem())
}

fn file(tenants: &str) -> String {
    format!(r#"{{"tenants": [{tenants}]}}"#)
}

pub(super) fn tenant(more: &str) -> String {
    file(&format!(r#"{{"name": "a", "program": "p", "path": "/a"{more}}}"#))
}

/// A tenant with the given routes.
fn routed(more: &str) -> String {
    file(&format!(r#"{{"name": "a", "program": "p", {more}}}"#))
}

pub(super) fn only(text: &str) -> TenantConfig {
    Config::from_json(text).unwrap().tenants.remove(0)
}

fn routes(text: &str) -> Vec<String> {
    only(text).routes.iter().map(Route::to_string).collect()
}

#[test]
fn servers_monotonic_clocks_are_suspended_by_default() {
    use mayfly_sandbox::MonotonicClock::{Runs, Suspends};
    for (more, expected) in [
        ("", Runs),
        (r#", "serve": "connections""#, Suspends),
        (r#", "serve": "connections", "monotonic_clock": "runs""#, Runs),
        (r#", "monotonic_clock": "suspends""#, Suspends),
    ] {
        let config = Config::from_json(&tenant(more)).unwrap();
        assert_eq!(config.tenants[0].monotonic, expected, "{more}");
    }
}

#[test]
fn a_small_file_gets_the_defaults() {
    let config = Config::from_json(&tenant("")).unwrap();
    let expected = TenantConfig {
        name: "a".to_owned().try_into().unwrap(),
        program: "p".into(),
        engine: Choice::Auto,
        args: vec![],
        env: vec![],
        mounts: vec![],
        watch: vec![],
        outbound: vec![],
        client: ClientConfig::default(),
        monotonic: mayfly_sandbox::MonotonicClock::Runs,
        service: None,
        routes: vec![Route { host: HostPattern::Any, path: "/a".to_owned().try_into().unwrap() }],
        is_default: false,
        mode: Mode::Ephemeral,
        workers: None,
        affinity: None,
        boot: BootWhen::Auto,
        limits: Limits::default(),
        shared: None,
        storage: None,
        health: None,
        upload_key: None,
    };
    let whole = Config {
        tenants: vec![expected],
        max_workers: None,
        max_memory_bytes: None,
        overflow_threads: 4,
        boot_at_start: 64,
        watch: true,
        admin: None,
        snapshots: None,
        mode_header: false,
        pin_loops: None,
        forced_engine: None,
        source: None,
    };
    assert_eq!(config, whole);
}

#[test]
fn an_empty_file_has_no_tenants() {
    assert!(Config::from_json("{}").unwrap().tenants.is_empty());
}

#[test]
fn every_key_is_understood() {
    let config = Config::from_json(
        r#"{
            "$schema": "tenants.schema.json",
            "root": "/srv", "max_workers": 100, "max_memory_mib": 512, "overflow_threads": 8, "boot_at_start": 0, "watch": false, "mode_header": true,
            "admin": {"listen": "[::1]:9", "key_sha256": "AB00000000000000000000000000000000000000000000000000000000000001",
                      "uploads": "up", "upload_mib": 2}, "snapshots": "frozen",
            "groups": {"free": {"env": {"A": "group", "B": "group"}}},
            "tenants": [{
                "name": "a", "group": "free", "program": "p", "args": ["-x"], "env": {"B": "own"},
                "hosts": ["Shop.Example", "*.shop.example"], "paths": ["/", "/b"], "default": true,
                "reset_every": 10, "workers": 4, "affinity": "header:X-User", "boot": "first_call",
                "shared_memory": {"kib": 8, "file": "counter"},
                "storage": {"program": "s", "args": ["-y"], "env": {"C": "1"}, "limits": {"cpu_ms": 3}, "call_ms": 7},
                "health": {"path": "/health?full", "status": 204},
                "upload_key_sha256": "0000000000000000000000000000000000000000000000000000000000000002"
            }]}"#,
    )
    .unwrap();
    let text = |text: &str| text.to_owned();
    assert_eq!(config.max_memory_bytes, Some(512 << 20));
    assert_eq!((config.max_workers, config.overflow_threads, config.boot_at_start), (Some(100), 8, 0));
    assert!(!config.watch && config.mode_header);
    assert_eq!(config.snapshots.as_deref(), Some(Path::new("/srv/frozen")));
    let admin = config.admin.unwrap();
    assert_eq!(admin.listen, "[::1]:9".parse().unwrap());
    assert_eq!(admin.key.unwrap().as_bytes()[..2], [0xab, 0]);
    assert_eq!((admin.uploads.unwrap().as_path(), admin.upload_bytes), (Path::new("/srv/up"), 2 << 20));
    let tenant = &config.tenants[0];
    assert_eq!(tenant.env, [(text("A"), text("group")), (text("B"), text("own"))]);
    let routes: Vec<String> = tenant.routes.iter().map(Route::to_string).collect();
    assert_eq!(routes, ["shop.example/", "shop.example/b", "*.shop.example/", "*.shop.example/b"]);
    assert!(tenant.is_default);
    assert_eq!((tenant.mode, tenant.boot), (Mode::ResetEvery(NonZeroU32::new(10).unwrap()), BootWhen::FirstCall));
    assert_eq!(tenant.workers.map(NonZeroU32::get), Some(4));
    assert_eq!(tenant.affinity, Some(Affinity::Header(text("x-user"))));
    assert_eq!(tenant.shared, Some(SharedConfig { bytes: 8 << 10, file: Some("/srv/counter".into()) }));
    let storage = tenant.storage.as_ref().unwrap();
    assert_eq!((storage.program.as_path(), &storage.args[..]), (Path::new("/srv/s"), &[text("-y")][..]));
    assert_eq!(storage.env, [(text("C"), text("1"))]);
    assert_eq!(storage.limits.machine.cpu_time, Duration::from_millis(3));
    assert_eq!(storage.call_time, Duration::from_millis(7));
    assert_eq!(tenant.health, Some(HealthConfig { path: text("/health?full"), status: 204 }));
    assert_eq!(tenant.upload_key.unwrap().as_bytes()[31], 2);
}

#[test]
fn limits_merge_tenant_over_group_over_file_over_built_in() {
    let config = Config::from_json(
        r#"{
            // Comments are fine, as in Drogon's own files.
            "root": "/srv",
            "defaults": {"limits": {"cpu_ms": 5, "request_kib": 8, "memory_mib": 3}},
            "groups": {"free": {"limits": {"cpu_ms": 6, "memory_mib": 4}}},
            "tenants": [{"name": "a", "program": "p", "path": "/a", "group": "free", "limits": {"cpu_ms": 7},
                         "storage": {"program": "s"}},
                        {"name": "b", "program": "/q", "path": "/"}]}"#,
    )
    .unwrap();
    let [a, b] = &config.tenants[..] else { panic!() };
    let ms = Duration::from_millis;
    assert_eq!((a.limits.machine.cpu_time, b.limits.machine.cpu_time), (ms(7), ms(5)));
    assert_eq!((a.limits.machine.private_memory_bytes, b.limits.machine.private_memory_bytes), (4 << 20, 3 << 20));
    assert_eq!((a.limits.machine.request_bytes, b.limits.machine.request_bytes), (8 << 10, 8 << 10));
    assert_eq!(a.limits.machine.response_bytes, Limits::default().machine.response_bytes);
    assert_eq!(a.storage.as_ref().unwrap().limits.machine.cpu_time, ms(6));
    assert_eq!((a.program.as_path(), b.program.as_path()), (Path::new("/srv/p"), Path::new("/q")));
}

#[test]
fn the_engine_is_the_tenants_or_its_groups_or_the_files_or_the_best() {
    use mayfly_sandbox::Engine::{Kvm, Process};
    let config = |top: &str| {
        Config::from_json(&format!(
            r#"{{{top} "groups": {{"v": {{"engine": "kvm"}}, "g": {{}}}}, "tenants": [
                {{"name": "a", "program": "p", "path": "/a"}},
                {{"name": "b", "program": "p", "path": "/b", "group": "g"}},
                {{"name": "c", "program": "p", "path": "/c", "group": "v", "storage": {{"program": "s"}}}},
                {{"name": "d", "program": "p", "path": "/d", "group": "v", "engine": "auto"}}]}}"#
        ))
        .unwrap()
    };
    let engines = |config: &Config| -> Vec<Choice> { config.tenants.iter().map(|tenant| tenant.engine).collect() };
    let (auto, kvm, process) = (Choice::Auto, Choice::Only(Kvm), Choice::Only(Process));
    assert_eq!(engines(&config("")), [auto, auto, kvm, auto]);
    let mut config = config(r#""engine": "process","#);
    assert_eq!(engines(&config), [process, process, kvm, auto]);
    assert_eq!(config.tenants[2].storage.as_ref().unwrap().engine, kvm);
    config.force_engine(process);
    assert_eq!(engines(&config), [process; 4]);
    assert_eq!(config.tenants[2].storage.as_ref().unwrap().engine, process);
}

#[test]
fn an_unknown_engine_is_refused_with_those_that_there_are() {
    let problem = problem(&tenant(r#", "engine": "xen""#));
    assert_eq!(problem, "tenants[0].engine: unknown variant `xen`, expected one of `auto`, `kvm`, `process`");
    for (text, key) in [(r#"{"engine": "KVM"}"#, "engine"), (r#"{"groups": {"g": {"engine": ""}}}"#, "groups.g.engine")]
    {
        assert_eq!(Config::from_json(text).unwrap_err().key(), key, "{text}");
    }
}

#[test]
fn every_limit_reaches_its_field() {
    let limits = only(&tenant(
        r#", "limits": {"boot_ms": 1, "boot_memory_mib": 2, "cpu_ms": 3, "wall_ms": 4, "memory_mib": 5, "request_kib": 6,
            "response_kib": 7, "work_set_kib": 64, "descriptors": 9, "threads": 10, "mappings": 16, "files_mib": 13, "log_bytes_per_second": 12,
            "inline_budget_us": 130, "concurrent_requests": 14, "background_cpu": 0.0},
            "reset_every": 5"#,
    ))
    .limits;
    let machine = mayfly_sandbox::Limits {
        boot_time: Duration::from_millis(1),
        boot_memory_bytes: 2 << 20,
        cpu_time: Duration::from_millis(3),
        wall_time: Duration::from_millis(4),
        private_memory_bytes: 5 << 20,
        request_bytes: 6 << 10,
        response_bytes: 7 << 10,
        retained_bytes: 64 << 10,
        retains_more: false,
        descriptors: 9,
        threads: 10,
        mappings: 16,
        files_bytes: 13 << 20,
    };
    let inline_budget = Duration::from_micros(130);
    let (log_bytes_per_second, concurrent_requests, background_cpu) = (12, 14, CpuShare::NONE);
    assert_eq!(limits, Limits { machine, log_bytes_per_second, inline_budget, concurrent_requests, background_cpu });
}

#[test]
fn modes_exclude_each_other() {
    assert_eq!(only(&tenant(r#", "ephemeral": true"#)).mode, Mode::Ephemeral);
    assert_eq!(only(&tenant(r#", "ephemeral": false"#)).mode, Mode::Stateful);
    assert_eq!(only(&tenant(r#", "reset_every": 3"#)).mode.to_string(), "reset-every-3");
    for ephemeral in ["true", "false"] {
        let text = tenant(&format!(r#", "ephemeral": {ephemeral}, "reset_every": 3"#));
        assert_eq!(problem(&text), "tenants[0].reset_every: cannot be combined with `ephemeral`");
    }
    assert!(problem(&tenant(r#", "reset_every": 0"#)).starts_with("tenants[0].reset_every: invalid value"));
}

#[test]
fn a_number_of_workers_is_for_tenants_that_keep_state_and_an_affinity_for_several_workers() {
    for ephemeral in ["", r#", "ephemeral": true"#] {
        let expected = "tenants[0].workers: only for a tenant that keeps state: expected `\"ephemeral\": false` or \
                        `reset_every` as well";
        assert_eq!(problem(&tenant(&format!(r#"{ephemeral}, "workers": 1"#))), expected);
    }
    for workers in ["", r#", "workers": 1"#] {
        let text = tenant(&format!(r#", "ephemeral": false, "affinity": "connection"{workers}"#));
        let expected = "tenants[0].affinity: there is no choice of workers: expected `workers` of at least 2 as well";
        assert_eq!(problem(&text), expected);
    }
    let several = |affinity: &str| tenant(&format!(r#", "ephemeral": false, "workers": 2, "affinity": {affinity}"#));
    let expected = "tenants[0].affinity: invalid value: string \"cookie:\", expected \"connection\"";
    assert!(problem(&several(r#""cookie:""#)).starts_with(expected));
    assert_eq!(only(&several(r#""cookie:a""#)).affinity, Some(Affinity::Cookie("a".to_owned())));
    let two = |most| format!(r#"{{"max_workers": {most}, {}"#, &several(r#""connection""#)[1..]);
    assert!(Config::from_json(&two(2)).is_ok());
    let expected = "max_workers: the tenants' `workers` are 2 together: expected at least as many";
    assert_eq!(problem(&two(1)), expected);
}

#[test]
fn only_kept_servers_run_between_requests() {
    let share = |more: &str| only(&tenant(more)).background_cpu();
    let kept = r#", "serve": "connections", "ephemeral": false"#;
    assert_eq!(share(kept), CpuShare::BETWEEN_REQUESTS);
    assert_eq!(share(r#", "serve": "connections", "reset_every": 9"#), CpuShare::BETWEEN_REQUESTS);
    assert_eq!(share(&format!(r#"{kept}, "limits": {{"background_cpu": 0}}"#)), CpuShare::NONE);
    for others in ["", r#", "ephemeral": false"#, r#", "serve": "connections""#] {
        assert_eq!(share(others), CpuShare::NONE);
        // 0 is what they have anyway.
        assert_eq!(share(&format!(r#"{others}, "limits": {{"background_cpu": 0}}"#)), CpuShare::NONE);
        let problem = problem(&tenant(&format!(r#"{others}, "limits": {{"background_cpu": 0.1}}"#)));
        let expected =
            "tenants[0].limits.background_cpu: only for a tenant that keeps its state and serves connections";
        assert!(problem.starts_with(expected), "{problem}");
    }
    // Where it does not say it for one tenant, it is for those that can.
    let text = format!(r#"{{"defaults": {{"limits": {{"background_cpu": 0.5}}}}, {}"#, &tenant("")[1..]);
    assert_eq!(only(&text).background_cpu(), CpuShare::NONE);
    let storage = tenant(r#", "storage": {"program": "s", "limits": {"background_cpu": 0.5}}"#);
    let expected = "tenants[0].storage.limits.background_cpu: a storage program stands still between calls";
    assert_eq!(problem(&storage), expected);
    let problem = problem(&tenant(&format!(r#"{kept}, "limits": {{"background_cpu": 1.5}}"#)));
    assert!(problem.contains("expected a share of one processor from 0 to 1"), "{problem}");
}

#[test]
fn routes_are_every_host_with_every_path() {
    assert_eq!(routes(&routed(r#""path": "/x""#)), ["/x"]);
    assert_eq!(routes(&routed(r#""paths": ["/x", "/y"]"#)), ["/x", "/y"]);
    assert_eq!(routes(&routed(r#""hosts": ["a", "*.b"]"#)), ["a/", "*.b/"]);
    assert_eq!(routes(&routed(r#""hosts": ["a", "b"], "path": "/x""#)), ["a/x", "b/x"]);
    assert!(routes(&routed(r#""default": true"#)).is_empty());
    assert_eq!(routes(&routed(r#""default": true, "path": "/x""#)), ["/x"]);
    assert_eq!(
        problem(&routed(r#""path": "/x", "paths": ["/y"]"#)),
        "tenants[0].paths: cannot be combined with `path`"
    );
    for empty in ["hosts", "paths"] {
        let message = problem(&routed(&format!(r#""path": "/", "{empty}": []"#)));
        assert!(
            message.starts_with(&format!("tenants[0].{empty}: invalid length 0, expected a list of 1")),
            "{message}"
        );
    }
    let nothing = problem(&routed(r#""default": false"#));
    assert!(nothing.starts_with("tenants[0]: nothing is routed to it: expected `path`"), "{nothing}");
}

#[test]
fn hosts_are_names_and_addresses() {
    for (written, read) in [
        ("shop.example", "shop.example"),
        ("SHOP.Example", "shop.example"),
        ("*.Shop.example", "*.shop.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
    ] {
        assert_eq!(routes(&routed(&format!(r#""hosts": ["{written}"]"#))), [format!("{read}/")]);
    }
    for host in [
        "",
        "*",
        "*.",
        ".a",
        "a.",
        "a..b",
        "a:80",
        "[::1]:80",
        "[::g]",
        "[]",
        "*.[::1]",
        "a.*.b",
        "*a",
        "bücher",
        "a b",
        "-a",
        "a-",
        "a/b",
        &"x".repeat(64),
        &["x"; 128].join("."),
    ] {
        let message = problem(&routed(&format!(r#""hosts": ["a", "{host}"]"#)));
        assert!(message.starts_with("tenants[0].hosts[1]: invalid value: "), "{message}");
        assert!(message.contains("expected a host such as"), "{message}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let message = error("{\n  \"tenants\": [\n    {\"name\": \"a\", \"limits\": {\"cpu\": 5}}]}");
    let place = "line 3, column 30: tenants[0].limits.cpu: unknown field `cpu`, expected one of `boot_ms`";
    assert!(message.starts_with(place), "{message}");
    assert!(problem(r#"{"tenant": []}"#).starts_with("tenant: unknown field"));
    assert!(problem(r#"{"defaults": {"ephemeral": true}}"#).starts_with("defaults.ephemeral: unknown"));
    assert!(problem(r#"{"tenants_file": "x"}"#).starts_with("tenants_file: unknown"));
}

#[test]
fn a_missing_key_and_a_wrong_type_are_named() {
    let message = error("\n{\"tenants\": [ {\"name\": \"a\", \"path\": \"/a\"}]}");
    assert_eq!(message, "line 2, column 15: tenants[0]: missing field `program`");
    assert!(problem(&tenant(r#", "args": [1]"#)).starts_with("tenants[0].args[0]: invalid type"));
    assert!(problem(&tenant(r#", "env": {"A": 1}"#)).starts_with("tenants[0].env.A: invalid type"));
    assert!(problem(&tenant(r#", "ephemeral": "yes""#)).starts_with("tenants[0].ephemeral: invalid type"));
    assert!(problem(&tenant(r#", "boot": "later""#)).contains("expected `start` or `first_call`"));
    assert!(problem("7").starts_with(": invalid type: integer `7`, expected"));
}

#[test]
fn ranges_are_checked_and_reported() {
    for (limits, key) in [
        (r#"{"cpu_ms": 0}"#, "cpu_ms"),
        (r#"{"boot_ms": 9000000}"#, "boot_ms"),
        (r#"{"memory_mib": 0}"#, "memory_mib"),
        (r#"{"request_kib": -1}"#, "request_kib"),
        (r#"{"response_kib": 99999999}"#, "response_kib"),
        (r#"{"boot_memory_mib": 18446744073709551615}"#, "boot_memory_mib"),
        (r#"{"log_bytes_per_second": 1.5}"#, "log_bytes_per_second"),
        (r#"{"wall_ms": 0}"#, "wall_ms"),
        (r#"{"descriptors": 2}"#, "descriptors"),
        (r#"{"threads": 0}"#, "threads"),
        (r#"{"mappings": 0}"#, "mappings"),
        (r#"{"files_mib": 0}"#, "files_mib"),
        (r#"{"inline_budget_us": 0}"#, "inline_budget_us"),
        (r#"{"concurrent_requests": 0}"#, "concurrent_requests"),
    ] {
        let message = problem(&tenant(&format!(r#", "limits": {limits}"#)));
        assert!(message.starts_with(&format!("tenants[0].limits.{key}: ")), "{message}");
        assert!(message.contains("expected a whole number from "), "{message}");
    }
    let message = problem(&tenant(r#", "shared_memory": {"kib": 6}"#));
    assert_eq!(
        message,
        "tenants[0].shared_memory.kib: invalid value: integer `6`, expected a whole number from 4 to 4194304, a multiple of 4"
    );
}

#[test]
fn bad_names_and_paths_are_refused() {
    for name in ["", "a b", "ä", "-a", "a/b", &"x".repeat(65)] {
        let message = problem(&file(&format!(r#"{{"name": "{name}", "program": "p", "path": "/"}}"#)));
        assert!(message.starts_with("tenants[0].name: "), "{message}");
    }
    for path in ["", "a", "/a/", "//", "/a//b", "/a?b", "/a#", "/a/../b", "/.", "/a b", "/ä"] {
        let message = problem(&routed(&format!(r#""path": "{path}""#)));
        assert!(message.starts_with("tenants[0].path: "), "{message}");
    }
    assert!(problem(&tenant(r#", "args": ["a\u0000b"]"#)).starts_with("tenants[0].args[0]: "));
    assert!(problem(&tenant(r#", "env": {"A=B": "1"}"#)).starts_with("tenants[0].env"));
    assert!(problem(&file(r#"{"name": "a", "program": "", "path": "/"}"#)).starts_with("tenants[0].program: "));
    for path in ["health", "/a b", "/a#b", "/ä", ""] {
        let message = problem(&tenant(&format!(r#", "health": {{"path": "{path}"}}"#)));
        assert!(message.starts_with("tenants[0].health.path: "), "{message}");
    }
}

#[test]
fn duplicates_are_refused() {
    let two = |first: &str, second: &str| {
        let tenant = |name: &str, more: &str| format!(r#"{{"name": "{name}", "program": "p", {more}}}"#);
        problem(&file(&format!("{}, {}", tenant("a", first), tenant("b", second))))
    };
    assert_eq!(
        problem(&file(r#"{"name": "a", "program": "p", "path": "/a"}, {"name": "a", "program": "p", "path": "/b"}"#)),
        r#"tenants[1].name: "a" is already the name of tenants[0]"#
    );
    for (first, second, message) in [
        (r#""path": "/a""#, r#""path": "/a""#, r#"path: "/a" is already a route of tenants[0]"#),
        (r#""paths": ["/b", "/a"]"#, r#""paths": ["/c", "/a"]"#, r#"paths[1]: "/a" is already a route of tenants[0]"#),
        (r#""hosts": ["x"]"#, r#""hosts": ["y", "X"]"#, r#"hosts[1]: "x/" is already a route of tenants[0]"#),
        (
            r#""hosts": ["*.x", "y"], "path": "/a""#,
            r#""hosts": ["y"], "paths": ["/b", "/a"]"#,
            r#"paths[1]: "y/a" is already a route of tenants[0]"#,
        ),
        (r#""default": true"#, r#""default": true"#, "default: tenants[0] is already the default"),
        (
            r#""path": "/a", "shared_memory": {"kib": 4, "file": "f"}"#,
            r#""path": "/b", "shared_memory": {"kib": 4, "file": "f"}"#,
            "shared_memory.file: f is already the shared memory of tenants[0]",
        ),
    ] {
        assert_eq!(two(first, second), format!("tenants[1].{message}"));
    }
    assert_eq!(
        problem(&routed(r#""paths": ["/a", "/a"]"#)),
        r#"tenants[0].paths[1]: "/a" is already a route of tenants[0]"#
    );
    assert!(problem(&tenant(r#", "path": "/b""#)).contains("duplicate field `path`"));
}

#[test]
fn one_path_on_several_hosts_is_not_a_duplicate() {
    let tenants = r#"{"name": "a", "program": "p", "hosts": ["x"]}, {"name": "b", "program": "p", "hosts": ["*.x"]},
                     {"name": "c", "program": "p", "path": "/"}, {"name": "d", "program": "p", "default": true}"#;
    assert_eq!(Config::from_json(&file(tenants)).unwrap().tenants.len(), 4);
}

#[test]
fn a_group_must_exist() {
    let message = error(
        "{\"groups\": {\"paid\": {}, \"free\": {}},\n \"tenants\": [{\"name\": \"a\", \"program\": \"p\", \"path\": \"/\", \"group\": \"fre\"}]}",
    );
    assert_eq!(message, "line 2, column 57: tenants[0].group: no group is named \"fre\"; expected one of: free, paid");
    assert!(problem(&tenant(r#", "group": "x""#)).ends_with("there are no `groups`"));
}

#[test]
fn an_admin_listener_that_is_not_on_loopback_needs_a_key() {
    let key = "0".repeat(64);
    let admin = |admin: &str| Config::from_json(&format!(r#"{{"admin": {admin}}}"#));
    let default = admin("{}").unwrap().admin.unwrap();
    assert_eq!(default.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!((default.key, default.uploads, default.upload_bytes), (None, None, 64 << 20));
    for listen in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        let error = admin(&format!(r#"{{"listen": "{listen}"}}"#)).unwrap_err();
        assert_eq!(error.key(), "admin.listen");
        assert!(error.problem().contains("expected `key_sha256`"), "{error}");
        admin(&format!(r#"{{"listen": "{listen}", "key_sha256": "{key}"}}"#)).unwrap();
    }
    for digest in ["", "secret", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"ä".repeat(32)] {
        let error = admin(&format!(r#"{{"key_sha256": "{digest}"}}"#)).unwrap_err();
        assert_eq!(error.key(), "admin.key_sha256");
        assert!(error.problem().contains("64 hexadecimal digits"), "{error}");
        assert!(digest.is_empty() || !error.to_string().contains(digest), "{error}");
    }
}

#[test]
fn a_change_of_routes_keeps_the_program() {
    let tenant = only(&tenant(""));
    let mut other = only(&routed(r#""default": true, "boot": "start", "client": {"headers": "none"}"#));
    assert!(tenant.same_program(&other));
    assert!(tenant != other);
    other.limits.concurrent_requests += 1;
    assert!(!tenant.same_program(&other));
    for more in [
        r#""args": ["x"]"#,
        r#""engine": "process""#,
        r#""env": {"A": "1"}"#,
        r#""ephemeral": false"#,
        r#""ephemeral": false, "workers": 2"#,
        r#""health": {"path": "/"}"#,
        r#""mounts": [{"host": "/usr"}]"#,
        r#""serve": "connections""#,
        r#""outbound": ["a:1"]"#,
    ] {
        assert!(!tenant.same_program(&only(&routed(&format!(r#""path": "/a", {more}"#)))), "{more}");
    }
    let kept = |more: &str| only(&tenant_with_two_workers(more));
    assert!(kept("").same_program(&kept(r#", "affinity": "connection""#)));
    let at = |port: &str| only(&routed(&format!(r#""path": "/", "serve": "connections"{port}"#)));
    assert!(at(r#", "port": 80"#).same_program(&at(r#", "port": 80"#)));
    for port in ["", r#", "port": 81"#] {
        assert!(!at(port).same_program(&at(r#", "port": 80"#)), "{port}");
    }
}

fn tenant_with_two_workers(more: &str) -> String {
    tenant(&format!(r#", "ephemeral": false, "workers": 2{more}"#))
}

#[test]
fn an_invalid_port_is_reported_with_its_position() {
    let message = |keys: &str| {
        error(&format!("{{\"tenants\": [{{\"name\": \"a\", \"program\": \"p\", \"path\": \"/\",\n {keys}}}]}}"))
    };
    let text = message(r#""port": 8080"#);
    assert!(text.starts_with("line 2, column 2: tenants[0].port: only for programs with"), "{text}");
    let text = message(r#""serve": "connections", "port": 80800"#);
    assert!(text.starts_with("line 2, column 26: tenants[0].port: invalid value: integer `80800`"), "{text}");
}

#[test]
fn syntax_errors_have_a_line() {
    assert_eq!(error("{\n \"tenants\": [}"), "line 2, column 14: not valid JSON: expected value");
    assert!(error("{} {}").starts_with("line 1, column 4: not valid JSON: trailing characters"));
    assert!(error("").contains("not valid JSON: EOF"));
    assert!(error("{\n").starts_with("line 2, column 1: not valid JSON: EOF"));
}
