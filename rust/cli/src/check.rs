// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly check`: checks a configuration file, without starting anything.

use mayfly_tenancy::{Config, StorageConfig, TenantConfig, tenants_schema};

use crate::failure::Failure;
use crate::options::CheckOptions;

pub fn check(options: &CheckOptions) -> Result<(), Failure> {
    let Some(path) = options.config.as_deref() else {
        print!("{}", tenants_schema());
        return Ok(());
    };
    let config = Config::from_file(path).map_err(Failure::usage)?;
    // The file with the tenants, which may differ from the one on the command line.
    let file = config.source.as_deref().unwrap_or(path).display();
    config.tenants.iter().for_each(print_routes);
    print_admin(&config);
    if let Some(directory) = &config.snapshots {
        println!("snapshots: {}", directory.display());
    }
    let mut missing = 0;
    for tenant in &config.tenants {
        let storage = tenant.storage.as_ref().map(StorageConfig::launch);
        for error in std::iter::once(tenant.launch()).chain(storage).filter_map(Result::err) {
            eprintln!("mayfly: {file}: tenant {}: {error}", tenant.name);
            missing += 1;
        }
    }
    for tenant in &config.tenants {
        print_doubts(tenant, &file.to_string());
    }
    if missing > 0 {
        return Err(Failure::Program(format!(
            "{file}: {} cannot be read, or have no mounts",
            count(missing, "program")
        )));
    }
    for tenant in &config.tenants {
        tenant.advice().iter().for_each(|advice| println!("tenant {}: {advice}", tenant.name));
    }
    let routes = config.tenants.iter().map(|tenant| tenant.routes.len()).sum();
    println!("{file}: {}, {}, no error", count(config.tenants.len(), "tenant"), count(routes, "route"));
    Ok(())
}

/// Warns of what is allowed but probably not meant.
fn print_doubts(tenant: &TenantConfig, file: &str) {
    let found = tenant.watched_files();
    for path in found.named.iter().filter(|path| !path.exists()) {
        eprintln!(
            "mayfly: {file}: tenant {}: warning: `watch` names {}, which is not there",
            tenant.name,
            path.display()
        );
    }
    if found.is_cut {
        let most = "256 directories, 16384 files";
        eprintln!("mayfly: {file}: tenant {}: warning: `watch` names more than is watched ({most})", tenant.name);
    }
}

/// One line for each route.
fn print_routes(tenant: &TenantConfig) {
    let (name, mode) = (tenant.name.as_str(), tenant.mode.to_string());
    let line = |route: &str| println!("{route:<32} {name:<24} {mode:<12} {}", tenant.program.display());
    tenant.routes.iter().for_each(|route| line(&route.to_string()));
    if tenant.is_default {
        line("(default)");
    }
}

fn print_admin(config: &Config) {
    if let Some(admin) = &config.admin {
        let key = if admin.key.is_some() { "with a key" } else { "without a key: status and metrics only" };
        let uploads = admin.uploads.as_ref().map(|path| format!("; uploads to {}", path.display())).unwrap_or_default();
        println!("operators: http://{}/_mayfly/, {key}{uploads}", admin.listen);
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
