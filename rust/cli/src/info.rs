// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mayfly info`: whether the host can run programs, and what is missing.

use mayfly_sandbox::Host;
use serde::Serialize;

use crate::failure::Failure;
use crate::host::HostFacts;
use crate::options::InfoOptions;

#[derive(Serialize)]
struct Info {
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    host: HostFacts,
}

/// # Errors
///
/// [`Failure::Host`] if programs cannot run here, after everything has been printed.
pub fn info(options: &InfoOptions) -> Result<(), Failure> {
    let opened = Host::open();
    let kind = opened.as_ref().map_or("none", |host| host.report().kind);
    let host = HostFacts::read(kind);
    let missing = opened.err().map(|error| error.to_string());
    if options.json {
        let info = Info { usable: missing.is_none(), missing: missing.clone(), host };
        println!("{}", serde_json::to_string_pretty(&info).unwrap_or_default());
    } else {
        println!("cpu          {}", host.cpu);
        println!("kernel       {}", host.kernel);
        println!("kvm          {}", host.kvm);
        println!("mitigations  {}", host.mitigations);
        println!("programs     {}", if missing.is_none() { "can run here" } else { "cannot run here" });
    }
    missing.map_or(Ok(()), |reason| Err(Failure::Host(reason)))
}
