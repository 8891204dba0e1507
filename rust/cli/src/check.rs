// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly check`: a configuration file, without starting anything.

use mayfly_sandbox::Program;
use mayfly_tenancy::Config;

use crate::Failure;
use crate::options::CheckOptions;

pub fn check(options: &CheckOptions) -> Result<(), Failure> {
    let file = options.config.display();
    let config = Config::from_file(&options.config).map_err(|error| Failure::Usage(format!("{file}: {error}")))?;
    let mut missing = 0;
    for tenant in &config.tenants {
        let program = tenant.program.display();
        println!("{:<24} {:<24} {program}", tenant.path.as_str(), tenant.name.as_str());
        if let Err(error) = Program::load(&tenant.program) {
            eprintln!("mayfly: {file}: tenant {}: {error}", tenant.name);
            missing += 1;
        }
    }
    match missing {
        0 => {
            let count = config.tenants.len();
            println!("{file}: {count} tenant{}, no error", if count == 1 { "" } else { "s" });
            Ok(())
        }
        _ => Err(Failure::Program(format!("{file}: {missing} of {} programs cannot be read", config.tenants.len()))),
    }
}
