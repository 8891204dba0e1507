// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly check`: a configuration file, without starting anything.

use mayfly_sandbox::Program;
use mayfly_tenancy::{Config, TenantConfig};

use crate::Failure;
use crate::options::CheckOptions;

pub fn check(options: &CheckOptions) -> Result<(), Failure> {
    let config = Config::from_file(&options.config).map_err(|error| Failure::Usage(error.to_string()))?;
    // The file that has the tenants, which may be another than the one that was named.
    let file = config.source.as_deref().unwrap_or(&options.config).display();
    let mut missing = 0;
    for tenant in &config.tenants {
        print(tenant);
        let storage = tenant.storage.as_ref().map(|storage| &storage.program);
        for program in std::iter::once(&tenant.program).chain(storage) {
            if let Err(error) = Program::load(program) {
                eprintln!("mayfly: {file}: tenant {}: {error}", tenant.name);
                missing += 1;
            }
        }
    }
    match missing {
        0 => {
            let count = config.tenants.len();
            println!("{file}: {count} tenant{}, no error", if count == 1 { "" } else { "s" });
            Ok(())
        }
        1 => Err(Failure::Program(format!("{file}: a program cannot be read"))),
        _ => Err(Failure::Program(format!("{file}: {missing} programs cannot be read"))),
    }
}

/// One line for each route.
fn print(tenant: &TenantConfig) {
    let line = |route: &str| {
        println!(
            "{route:<32} {:<24} {:<12} {}",
            tenant.name.as_str(),
            tenant.mode.to_string(),
            tenant.program.display()
        )
    };
    tenant.routes.iter().for_each(|route| line(&route.to_string()));
    if tenant.is_default {
        line("(default)");
    }
}
