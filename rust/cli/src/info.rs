// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly info`: which engines can run programs on the host, which one `auto` means, and what is missing.

use std::collections::BTreeMap;

use mayfly_sandbox::{Choice, Engine, EngineReport, Hosts};
use serde::Serialize;

use crate::failure::Failure;
use crate::host::HostFacts;
use crate::options::InfoOptions;

#[derive(Serialize)]
struct Info {
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// What `auto` means.
    auto: Auto,
    /// By the engine's name.
    engines: BTreeMap<&'static str, EngineInfo>,
    host: HostFacts,
}

#[derive(Serialize)]
struct Auto {
    engine: Option<&'static str>,
    why: String,
}

#[derive(Serialize)]
struct EngineInfo {
    usable: bool,
    /// What the probe found, or what is missing.
    details: String,
}

/// # Errors
///
/// [`Failure::Host`] if `auto` means no engine, after everything has been printed.
pub fn info(options: &InfoOptions) -> Result<(), Failure> {
    let hosts = Hosts::new();
    let auto = hosts.auto();
    let engine = auto.host.as_ref().ok().map(mayfly_sandbox::Host::engine);
    let engines = Engine::ALL.map(|engine| (engine.name(), about(&hosts, engine))).into();
    let missing = auto.host.err().map(|error| error.to_string());
    let info = Info {
        usable: missing.is_none(),
        missing: missing.clone(),
        auto: Auto { engine: engine.map(Engine::name), why: auto.why },
        engines,
        host: HostFacts::read(&hosts, engine),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&info).unwrap_or_default());
    } else {
        print(&info);
    }
    missing.map_or(Ok(()), |reason| Err(Failure::Host(reason)))
}

/// Opens the engine, and says what was found.
fn about(hosts: &Hosts, engine: Engine) -> EngineInfo {
    // The report has the reason if it fails.
    let _ = hosts.choose(Choice::Only(engine));
    match hosts.report(engine) {
        EngineReport::Usable { details, .. } => EngineInfo { usable: true, details },
        EngineReport::Unusable { reason } => EngineInfo { usable: false, details: reason },
        EngineReport::Unopened => EngineInfo { usable: false, details: "it was not tried".to_owned() },
    }
}

fn print(info: &Info) {
    println!("cpu          {}", info.host.cpu);
    println!("kernel       {}", info.host.kernel);
    for (name, EngineInfo { usable, details }) in &info.engines {
        let usable = if *usable { "usable" } else { "cannot be used" };
        println!("{name:<12} {usable}: {details}");
    }
    println!("auto         {}: {}", info.auto.engine.unwrap_or("none"), info.auto.why);
    println!("mitigations  {}", info.host.mitigations);
    println!("programs     {}", if info.usable { "can run here" } else { "cannot run here" });
}
