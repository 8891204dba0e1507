// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the configuration about how a program runs.

use std::time::Duration;

use mayfly_sandbox::{DurableLimits, MountAccess, MountPoint, Outbound, OutboundHost, WarmUp};

use crate::config::limits::Limits;
use crate::config::tests::{only, problem, tenant};
use crate::config::{Config, ServiceConfig, TenantConfig};

#[test]
fn a_program_connects_to_its_own_and_its_groups_destinations() {
    let text = r#"{"groups": {"g": {"outbound": ["db.example:5432", "127.0.0.1:6379"]}},
        "tenants": [{"name": "a", "program": "p", "path": "/", "group": "g", "outbound": ["DB.example:5432", "cache:1"]}]}"#;
    let name = |name: &str, port| Outbound { host: OutboundHost::Name(name.to_owned()), port };
    let redis = Outbound { host: OutboundHost::Address([127, 0, 0, 1].into()), port: 6379 };
    assert_eq!(only(text).outbound, [name("db.example", 5432), redis, name("cache", 1)]);
    assert_eq!(only(&tenant("")).outbound, [], "deny by default");
    let message = problem(&tenant(r#", "outbound": ["a:1", "a:*"]"#));
    assert!(message.starts_with("tenants[0].outbound[1]: ") && message.contains("no wildcard"), "{message}");
}

fn mounts(tenant: &TenantConfig) -> Vec<String> {
    let line = |mount: &MountPoint| {
        let access = match mount.access {
            MountAccess::ReadOnly => String::new(),
            MountAccess::Private => ":w".to_owned(),
            MountAccess::Durable(DurableLimits { bytes, files }) => format!(":{}:{files}", bytes >> 20),
        };
        format!("{}={}{access}", mount.guest, mount.host.display())
    };
    tenant.mounts.iter().map(line).collect()
}

#[test]
fn mounts_merge_tenant_over_group_over_file() {
    let config = Config::from_json(
        r#"{
            "root": "/srv",
            "defaults": {"mounts": [{"host": "/lib"}, {"host": "/usr", "at": "/usr"}]},
            "groups": {"g": {"mounts": [{"host": "group", "at": "/data"}, {"host": "/opt/usr", "at": "/usr"}]}},
            "tenants": [
                {"name": "a", "program": "p", "path": "/a", "group": "g", "mounts": [{"host": "own", "at": "/data", "writable": true}],
                 "storage": {"program": "s", "mounts": [{"host": "/s"}]}},
                {"name": "b", "program": "p", "path": "/b"}
            ]
        }"#,
    )
    .unwrap();
    assert_eq!(mounts(&config.tenants[0]), ["/lib=/lib", "/usr=/opt/usr", "/data=/srv/own:w"]);
    assert_eq!(mounts(&config.tenants[1]), ["/lib=/lib", "/usr=/usr"]);
    let storage = &config.tenants[0].storage.as_ref().unwrap().mounts;
    let places: Vec<_> = storage.iter().map(|mount| mount.guest.as_str()).collect();
    assert_eq!(places, ["/lib", "/data", "/usr", "/s"]);
    assert_eq!(mounts(&only(&tenant(""))), [""; 0], "deny by default");
}

#[test]
fn a_mount_is_seen_at_the_hosts_path_by_default() {
    let config = Config::from_json(
        r#"{"root": "/srv", "tenants": [{"name": "a", "program": "p", "path": "/a", "mounts": [{"host": "venv"}, {"host": "/opt"}]}]}"#,
    );
    assert_eq!(mounts(&config.unwrap().tenants[0]), ["/srv/venv=/srv/venv", "/opt=/opt"]);
    let message = problem(&tenant(r#", "mounts": [{"host": "venv"}]"#));
    assert!(message.contains("relative, and so is the root: expected `at`"), "{message}");
}

#[test]
fn an_invalid_mount_is_reported() {
    let mount = |mounts: &str| problem(&tenant(&format!(r#", "mounts": [{{"host": "/x"}}, {mounts}]"#)));
    for at in ["usr", "", "/usr/", "//", "/a/../b", "/a/.", "/proc", "/dev/shm", "/sys"] {
        let message = mount(&format!(r#"{{"host": "/h", "at": "{at}"}}"#));
        assert!(message.starts_with("tenants[0].mounts[1].at: ") && message.contains("absolute path"), "{message}");
    }
    for host in ["relative", "/usr/", "/dev"] {
        let message = mount(&format!(r#"{{"host": "{host}"}}"#));
        assert!(message.starts_with("tenants[0].mounts[1].host: ") && message.contains("expected `at`"), "{message}");
    }
    assert_eq!(
        mount(r#"{"host": "/h", "at": "/x"}"#),
        r#"tenants[0].mounts[1]: "/x" is already the mount point of mounts[0]"#
    );
    assert!(mount(r#"{"at": "/x"}"#).contains("missing field `host`"));
    let message = problem(r#"{"groups": {"g": {"mounts": [{"host": "a"}]}}}"#);
    assert!(message.starts_with("groups.g.mounts[0].host: "), "{message}");
    let message = problem(r#"{"defaults": {"mounts": [{"host": "a"}]}}"#);
    assert!(message.starts_with("defaults.mounts[0].host: "), "{message}");
    let message = problem(&tenant(r#", "storage": {"program": "s", "mounts": [{"host": "a"}]}"#));
    assert!(message.starts_with("tenants[0].storage.mounts[0].host: "), "{message}");
    let many: Vec<String> = (0..65).map(|number| format!(r#"{{"host": "/{number}"}}"#)).collect();
    let message = problem(&tenant(&format!(r#", "mounts": [{}]"#, many.join(", "))));
    assert!(message.starts_with("tenants[0].mounts: 65 with those of"), "{message}");
}

#[test]
fn a_durable_mount_has_limits_that_all_who_mount_the_directory_share() {
    let tenant = |name: &str, mounts: &str| {
        format!(r#"{{"name": "{name}", "program": "p", "path": "/{name}", "mounts": [{mounts}]}}"#)
    };
    let both = |one: &str, other: &str| {
        format!(r#"{{"root": "/srv", "tenants": [{}, {}]}}"#, tenant("a", one), tenant("b", other))
    };
    let own = r#"{"host": "d", "at": "/d", "writable": "durable"}"#;
    let small = r#"{"host": "d", "at": "/d", "writable": "durable", "mib": 5, "files": 7}"#;
    let config = Config::from_json(&both(own, own)).unwrap();
    assert_eq!(mounts(&config.tenants[1]), ["/d=/srv/d:1024:10000"]);
    let config = Config::from_json(&both(small, r#"{"host": "d", "at": "/d"}"#)).unwrap();
    assert_eq!(mounts(&config.tenants[0]), ["/d=/srv/d:5:7"]);
    assert_eq!(mounts(&config.tenants[1]), ["/d=/srv/d"]);
    for (other, expected) in [
        (small, "tenants[1].mounts: /srv/d is durable for tenants[0] with other limits"),
        (
            r#"{"host": "d/in", "at": "/d", "writable": "durable"}"#,
            "tenants[1].mounts: /srv/d/in and /srv/d, which is durable for tenants[0], lie one in the other",
        ),
        (
            r#"{"host": "/srv", "at": "/d", "writable": "durable"}"#,
            "tenants[1].mounts: /srv and /srv/d, which is durable for tenants[0], lie one in the other",
        ),
        (r#"{"host": "d", "at": "/d", "mib": 5}"#, "tenants[1].mounts[0].mib: only for mounts with"),
        (r#"{"host": "d", "at": "/d", "writable": true, "files": 5}"#, "tenants[1].mounts[0].files: only for"),
        (r#"{"host": "d", "at": "/d", "writable": "yes"}"#, "expected true, false or \"durable\""),
        (r#"{"host": "d", "at": "/d", "writable": "durable", "mib": 0}"#, "tenants[1].mounts[0].mib: "),
    ] {
        let message = problem(&both(own, other));
        assert!(message.contains(expected), "{message}");
    }
}

proptest::proptest! {
    #[test]
    fn a_mount_point_that_is_valid_here_is_valid_for_the_mounts(path in "(/(proc|dev|a|\\.{1,3}|)){0,3}/?[a.\\x00]{0,2}") {
        let here = crate::config::values::MountPath::try_from(path.clone()).is_ok();
        let there = mayfly_sandbox::Mounts::open(&[MountPoint { guest: path.clone(), host: "/".into(), access: MountAccess::ReadOnly }]).is_ok();
        // Only one notation is accepted here.
        let slash = path.len() > 1 && path.ends_with('/');
        proptest::prop_assert_eq!(here, there && !slash, "{:?}", path);
    }
}

#[test]
fn a_program_that_serves_connections_has_a_runtimes_limits_and_may_be_warmed_up() {
    assert_eq!(only(&tenant(r#", "serve": "doorbell""#)), only(&tenant("")));
    let plain = only(&tenant(r#", "serve": "connections""#));
    let nothing_more = ServiceConfig {
        port: None,
        ready: None,
        warm_up: vec![],
        settle: Duration::from_secs(2),
        before_freeze: None,
        after_restore: None,
    };
    assert_eq!(plain.service, Some(nothing_more.clone()));
    assert_eq!(plain.limits, Limits::of_a_server());
    let tenant_ = only(&tenant(
        r#", "serve": "connections", "limits": {"threads": 3}, "warm_up": [
            {"path": "/a?b=c", "method": "POST", "headers": {"Accept": "text/html", "X": ""}, "body": "{\u00e9}", "times": 3}, {"path": "/", "steady": true}]"#,
    ));
    let bytes = |text: &str| text.as_bytes().to_vec();
    let expected = [
        WarmUp {
            method: bytes("POST"),
            path: bytes("/a"),
            query: bytes("b=c"),
            headers: vec![(bytes("accept"), bytes("text/html")), (bytes("x"), vec![])],
            body: "{\u{e9}}".into(),
            times: 3,
            steady: false,
        },
        WarmUp {
            method: bytes("GET"),
            path: bytes("/"),
            query: vec![],
            headers: vec![],
            body: vec![],
            times: 1,
            steady: true,
        },
    ];
    assert_eq!(tenant_.service.unwrap().warm_up, expected);
    assert_eq!(tenant_.limits.machine.threads, 3);
    // The file's defaults apply to these programs, too.
    let config = Config::from_json(
        r#"{"defaults": {"limits": {"threads": 5}}, "groups": {"g": {"limits": {"descriptors": 7}}},
            "tenants": [{"name": "a", "group": "g", "program": "p", "path": "/", "serve": "connections"}]}"#,
    )
    .unwrap();
    let machine = &config.tenants[0].limits.machine;
    assert_eq!((machine.threads, machine.descriptors, machine.boot_memory_bytes), (5, 7, 1 << 30));

    for port in [1, 8080, 65_535] {
        let service = only(&tenant(&format!(r#", "serve": "connections", "port": {port}"#))).service;
        assert_eq!(service, Some(ServiceConfig { port: Some(port), ..nothing_more.clone() }));
    }

    for (keys, message) in [
        (r#""port": 80"#, "port: only for programs with `\"serve\": \"connections\"`"),
        (r#""serve": "doorbell", "port": 80, "warm_up": []"#, "port: only for programs with"),
        (
            r#""serve": "connections", "port": 0"#,
            "port: invalid value: integer `0`, expected a whole number from 1 to 65535",
        ),
        (r#""serve": "connections", "port": 65536"#, "port: invalid value: integer `65536`"),
        (r#""serve": "connections", "port": "80""#, "port: invalid type: string"),
        (r#""serve": "connections", "port": [80]"#, "port: invalid type: sequence"),
        (r#""warm_up": []"#, "warm_up: only for programs with"),
        (r#""serve": "doorbell", "warm_up": [{"path": "/"}]"#, "warm_up: only for programs with"),
        (r#""serve": "http""#, "serve: unknown variant `http`, expected `doorbell` or `connections`"),
        (r#""serve": "connections", "warm_up": [{"path": "x"}]"#, "warm_up[0].path: "),
        (r#""serve": "connections", "warm_up": [{"path": "/", "method": "G T"}]"#, "warm_up[0].method: "),
        (r#""serve": "connections", "warm_up": [{"path": "/", "headers": {"a:": ""}}]"#, "warm_up[0].headers"),
        (
            r#""serve": "connections", "warm_up": [{"path": "/", "headers": {"a": "\r\nb: c"}}]"#,
            "warm_up[0].headers.a: ",
        ),
        (r#""serve": "connections", "warm_up": [{"path": "/", "times": 0}]"#, "warm_up[0].times: "),
    ] {
        let found = problem(&tenant(&format!(", {keys}")));
        assert!(found.starts_with(&format!("tenants[0].{message}")), "{found}");
    }
}

#[test]
fn the_moment_of_the_freeze_is_configured() {
    let service = |keys: &str| only(&tenant(&format!(r#", "serve": "connections", {keys}"#))).service.unwrap();
    let ready = service(r#""ready": {"path": "/ready?deep"}"#).ready.unwrap();
    assert_eq!((ready.target.to_string(), ready.status), ("GET /ready?deep".to_owned(), 200));
    assert_eq!(ready.within, Duration::from_secs(30));
    let ready = service(r#""ready": {"path": "/", "status": 204, "within_ms": 1}"#).ready.unwrap();
    assert_eq!((ready.status, ready.within), (204, Duration::from_millis(1)));
    assert_eq!(service(r#""settle_ms": 0"#).settle, Duration::ZERO);
    let hooks = service(r#""before_freeze": "/freeze", "after_restore": "/restore?now""#);
    let hooks = [hooks.before_freeze, hooks.after_restore].map(|hook| hook.unwrap().to_string());
    assert_eq!(hooks, ["GET /freeze", "GET /restore?now"]);

    for (keys, message) in [
        (
            r#""ready": {"path": "/"}"#,
            "ready: only for programs with `\"serve\": \"connections\"`: a program with the SDK",
        ),
        (r#""settle_ms": 1"#, "settle_ms: only for programs with"),
        (r#""before_freeze": "/""#, "before_freeze: only for programs with"),
        (r#""serve": "doorbell", "after_restore": "/""#, "after_restore: only for programs with"),
        (r#""serve": "connections", "ready": {}"#, "ready: missing field `path`"),
        (r#""serve": "connections", "ready": {"path": "ready"}"#, "ready.path: "),
        (r#""serve": "connections", "ready": {"path": "/", "status": 199}"#, "ready.status: "),
        (r#""serve": "connections", "ready": {"path": "/", "within_ms": 0}"#, "ready.within_ms: "),
        (r#""serve": "connections", "settle_ms": 600001"#, "settle_ms: "),
        (r#""serve": "connections", "before_freeze": "freeze""#, "before_freeze: "),
        (r#""serve": "connections", "after_restore": ["/"]"#, "after_restore: "),
    ] {
        let found = problem(&tenant(&format!(", {keys}")));
        assert!(found.starts_with(&format!("tenants[0].{message}")), "{found}");
    }
}

#[test]
fn a_runtime_at_the_doorbell_has_a_runtimes_limits() {
    let limits = |program: &str, more: &str| {
        let text = format!(r#"{{"tenants": [{{"name": "a", "path": "/", "program": "{program}"{more}}}]}}"#);
        only(&text).limits
    };
    for program in ["/usr/bin/node", "build/deno", "python3.11"] {
        assert_eq!(limits(program, ""), Limits::of_a_server(), "{program}");
        assert_eq!(limits(program, r#", "limits": {"threads": 2}"#).machine.threads, 2, "{program}");
    }
    assert_eq!(limits("server", ""), Limits::default());
}

#[test]
fn watched_paths_are_those_that_the_program_sees() {
    let text = |watch: &str| {
        format!(
            r#"{{"root": "/srv", "defaults": {{"mounts": [{{"host": "/usr"}}]}}, "tenants": [{{"name": "a", "program": "p", "path": "/",
               "mounts": [{{"host": "shop", "at": "/app"}}, {{"host": "data", "at": "/app/data"}}], "watch": {watch}}}]}}"#
        )
    };
    let watched = only(&text(r#"["/app", "/app/server.mjs", "/app/data/x/y", "/usr/share"]"#)).watch;
    let expected = ["/srv/shop", "/srv/shop/server.mjs", "/srv/data/x/y", "/usr/share"];
    assert_eq!(watched, expected.map(std::path::PathBuf::from));
    assert!(only(&tenant("")).watch.is_empty(), "nothing by default");
    for wrong in ["/application", "/lib", "/"] {
        let error = Config::from_json(&text(&format!(r#"["/app", "{wrong}"]"#))).unwrap_err();
        assert_eq!(error.key(), "tenants[0].watch[1]");
        assert!(error.problem().contains("none of the tenant's mounts"), "{}", error.problem());
    }
    for wrong in ["app", "/app/../x", "/app/"] {
        assert!(Config::from_json(&text(&format!(r#"["{wrong}"]"#))).unwrap_err().problem().contains("absolute path"));
    }
    assert!(Config::from_json(&text("[]")).is_err());
}
