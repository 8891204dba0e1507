// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engines that the tenants need: opened when the first tenant needs them, logged, and reported.

use std::cell::LazyCell;

use mayfly_sandbox::{Auto, Choice, Engine, EngineReport, Hosts};

use super::TenantSet;
use crate::life::env::BootEnv;
use crate::model::outcome::ReloadError;
use crate::model::tenant::State;
use crate::report::{AutoReport, HostReport, HostState};

/// Opens the engines that the tenants need, and marks those tenants as failed whose engine cannot be used. Without
/// tenants, it opens what `auto` would mean, so that the reports say whether tenants could run.
pub(super) fn open(set: &TenantSet, env: &BootEnv) {
    let before = Engine::ALL.map(|engine| env.hosts.report(engine));
    let mut failed = Vec::new();
    for (tenant, config) in set.tenants.iter().zip(&set.config.tenants) {
        if matches!(tenant.state(), State::Unbooted)
            && let Err(ReloadError::Host(reason)) = env.host(tenant, config)
        {
            failed.push((tenant, reason));
        }
    }
    if set.tenants.is_empty() {
        let _ = env.hosts.auto();
    }
    log(set, &env.hosts, &before);
    for (tenant, reason) in failed {
        tenant.fail_for_ever(&reason);
    }
}

/// Whether an engine that was opened can run programs.
pub(super) fn is_usable(hosts: &Hosts) -> bool {
    Engine::ALL.iter().any(|&engine| matches!(hosts.report(engine), EngineReport::Usable { .. }))
}

/// Logs the engines that have been opened since `before`, and what `auto` means if it matters.
fn log(set: &TenantSet, hosts: &Hosts, before: &[EngineReport]) {
    let mut is_news = false;
    for (engine, _) in Engine::ALL.iter().zip(before).filter(|(_, before)| **before == EngineReport::Unopened) {
        let name = engine.name();
        match hosts.report(*engine) {
            EngineReport::Unopened => continue,
            EngineReport::Usable { kind, details } => {
                tracing::info!(target: "mayfly::server", engine = name, kind, "engine is usable: {details}");
            }
            EngineReport::Unusable { reason } => {
                tracing::warn!(target: "mayfly::server", engine = name, "engine cannot be used: {reason}");
            }
        }
        is_news = true;
    }
    let host = report(set, hosts);
    if let (true, Some(AutoReport { engine: Some(engine), why })) = (is_news, &host.auto) {
        tracing::info!(target: "mayfly::server", engine, "\"auto\" means {engine}: {why}");
    }
    if let HostState::Unusable { reason } = host.state {
        tracing::error!(target: "mayfly::server", "no tenant can run on this host: {reason}");
    }
}

/// What the reports say about the host.
pub(super) fn report(set: &TenantSet, hosts: &Hosts) -> HostReport {
    let tenants = &set.config.tenants;
    let is_auto = tenants.is_empty() || tenants.iter().any(|tenant| tenant.engine == Choice::Auto);
    let auto = is_auto.then(|| hosts.auto());
    let engines = Engine::ALL.map(|engine| (engine, hosts.report(engine)));
    let kvm = match hosts.report(Engine::Kvm) {
        EngineReport::Usable { kind, .. } => kind,
        EngineReport::Unopened | EngineReport::Unusable { .. } => "none",
    };
    let state = match &auto {
        _ if is_usable(hosts) => HostState::Usable { kvm },
        Some(Auto { host: Err(error), .. }) => HostState::Unusable { reason: error.to_string() },
        _ => HostState::Unusable { reason: reasons(&engines) },
    };
    HostReport {
        state,
        auto: auto.map(AutoReport::from),
        engines: engines.into_iter().map(|(engine, report)| (engine, report).into()).collect(),
    }
}

/// Why no engine that was opened can be used.
fn reasons(engines: &[(Engine, EngineReport)]) -> String {
    let reasons = engines.iter().filter_map(|(_, report)| match report {
        EngineReport::Unusable { reason } => Some(reason.as_str()),
        EngineReport::Unopened | EngineReport::Usable { .. } => None,
    });
    reasons.collect::<Vec<_>>().join("; ")
}

/// Names the engine that a choice means here; `auto` if none can be used.
pub(super) fn namer(hosts: &Hosts) -> impl Fn(Choice) -> &'static str {
    let auto = LazyCell::new(|| hosts.auto().host.map_or(Choice::Auto, |host| Choice::Only(host.engine())));
    move |choice| match choice {
        Choice::Auto => auto.name(),
        only @ Choice::Only(_) => only.name(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;
    use crate::server::Server;
    use crate::{LoopPool, Outcome, Request};
    use mayfly_sandbox::BufferedResponse;

    fn hello() -> String {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tenants/hello/hello");
        assert!(program.exists(), "{} is missing: run `make tenants`", program.display());
        program.display().to_string()
    }

    /// The response, as soon as a worker is there for it.
    fn get(pool: &mut LoopPool, path: &str) -> BufferedResponse {
        let request =
            Request { method: b"GET", path: path.as_bytes(), query: b"", headers: &[], body: b"", client: None };
        let mut response = BufferedResponse::default();
        let end = Instant::now() + Duration::from_secs(120);
        while pool.call(&request, &mut response) != Outcome::Done {
            assert!(Instant::now() < end, "there is no worker for {path}");
            std::thread::sleep(Duration::from_millis(5));
        }
        response
    }

    #[test]
    fn where_kvm_is_missing_auto_means_processes_and_tenants_of_kvm_say_why_they_do_not_run() {
        let config = serde_json::json!({"tenants": [
            {"name": "a", "program": hello(), "path": "/a", "limits": {"inline_budget_us": 1_000_000}},
            {"name": "b", "program": hello(), "path": "/b", "engine": "kvm"},
            {"name": "c", "program": hello(), "path": "/c", "engine": "kvm", "boot": "first_call"},
        ]});
        let config = Config::from_value(&config).unwrap();
        let server = Server::start_on(Hosts::of_device("/nowhere".as_ref()), config).unwrap();
        server.boots().wait(Duration::from_secs(120));
        let mut pool = server.loop_pool();
        assert_eq!(get(&mut pool, "/a").status, 200);
        for path in ["/b", "/c"] {
            let response = get(&mut pool, path);
            let body = String::from_utf8(response.body).unwrap();
            assert_eq!(response.status, 503);
            assert!(body.contains("unavailable") && body.contains("/nowhere does not exist"), "{body}");
        }
        let report = serde_json::to_value(server.report()).unwrap();
        assert_eq!((&report["host"]["state"], &report["host"]["kvm"]), (&"usable".into(), &"none".into()));
        assert_eq!(report["host"]["auto"]["engine"], "process");
        let why = report["host"]["auto"]["why"].as_str().unwrap();
        assert!(why.starts_with("KVM cannot be used: /nowhere does not exist"), "{why}");
        let engines = [0, 1, 2].map(|tenant: usize| report["tenants"][tenant]["engine"].clone());
        assert_eq!(engines, ["process", "kvm", "kvm"]);
        let readiness = server.readiness();
        assert!(readiness.ready && readiness.failed == 2, "{readiness:?}");
        assert!(server.metrics().contains(r#"mayfly_engine_usable{engine="kvm",kind="none"} 0"#));
        // Neither is its file's change one that lets it run.
        assert!(server.reload_changed().is_empty());
        assert!(matches!(server.reload("b"), Err(ReloadError::Host(_))));
    }

    #[test]
    fn a_tenant_leaves_a_missing_engine_by_a_reload_and_does_not_enter_one() {
        let config = |engine: &str| {
            let tenant = serde_json::json!({"name": "a", "program": hello(), "path": "/", "engine": engine,
                "limits": {"inline_budget_us": 1_000_000}});
            Config::from_value(&serde_json::json!({"tenants": [tenant]})).unwrap()
        };
        let server = Server::start_on(Hosts::of_device("/nowhere".as_ref()), config("kvm")).unwrap();
        assert!(!server.readiness().ready);
        assert_eq!(server.apply(config("process")).changed, ["a"]);
        let mut pool = server.loop_pool();
        assert_eq!(get(&mut pool, "/").status, 200);
        assert!(server.readiness().ready);
        let applied = server.apply(config("kvm"));
        assert!(matches!(&applied.failed[..], [(name, why)] if name == "a" && why.contains("/nowhere")), "{applied:?}");
        assert_eq!(get(&mut pool, "/").status, 200);
        assert_eq!(server.report().tenants[0].engine, "process");
    }

    #[test]
    fn without_tenants_the_host_is_looked_at_all_the_same() {
        let server = Server::start_on(Hosts::of_device("/nowhere".as_ref()), Config::from_json("{}").unwrap()).unwrap();
        let auto = server.report().host.auto.unwrap();
        assert_eq!(auto.engine, Some("process"));
        assert!(server.readiness().ready);
    }
}
