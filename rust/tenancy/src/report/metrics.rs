// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports in the text format of Prometheus, version 0.0.4.
//!
//! Names end with their unit; counters end with `_total`. Every metric of a tenant has the label `tenant`. A series for
//! a kind of failure or a limit exists from its first occurrence on.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::memory::Bound;
use crate::report::{EngineState, FixedWorkersReport, HostState, Report, TenantReport, TenantState, Usability};
use crate::server::Server;

/// The `Content-Type` of [`Report::metrics`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric with one value per tenant.
struct TenantMetric {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    value: fn(&TenantReport) -> f64,
}

#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
}

use MetricKind::{Counter, Gauge};

#[rustfmt::skip]
const TENANT_METRICS: &[TenantMetric] = &[
    TenantMetric { name: "mayfly_tenant_requests_total", kind: Counter, help: "Requests that were routed to the tenant, answered or not.", value: |tenant| tenant.requests as f64 },
    TenantMetric { name: "mayfly_tenant_cpu_seconds_total", kind: Counter, help: "CPU time of the tenant's requests, including its storage program and resets.", value: |tenant| tenant.cpu_seconds },
    TenantMetric { name: "mayfly_tenant_background_cpu_seconds_total", kind: Counter, help: "The part of the tenant's CPU time that its programs used between requests.", value: |tenant| tenant.background_cpu_seconds },
    TenantMetric { name: "mayfly_tenant_background_failures_total", kind: Counter, help: "Workers that were lost between requests, and replaced.", value: |tenant| tenant.background_failures as f64 },
    TenantMetric { name: "mayfly_tenant_resets_total", kind: Counter, help: "Workers rolled back after a request.", value: |tenant| tenant.resets as f64 },
    TenantMetric { name: "mayfly_tenant_work_sets_given_back_total", kind: Counter, help: "Resets that gave changed memory back to the system, since it was more than a worker may keep.", value: |tenant| tenant.work_sets_given_back as f64 },
    TenantMetric { name: "mayfly_tenant_forks_total", kind: Counter, help: "Workers forked.", value: |tenant| tenant.forks as f64 },
    TenantMetric { name: "mayfly_tenant_fork_failures_total", kind: Counter, help: "Workers that could not be forked.", value: |tenant| tenant.fork_failures as f64 },
    TenantMetric { name: "mayfly_tenant_parked_requests_total", kind: Counter, help: "Requests that left their loop thread.", value: |tenant| tenant.parked as f64 },
    TenantMetric { name: "mayfly_tenant_parked_requests", kind: Gauge, help: "Requests that have left their loop thread and are not answered yet.", value: |tenant| tenant.in_flight.into() },
    TenantMetric { name: "mayfly_tenant_workers", kind: Gauge, help: "The tenant's fixed number of workers; 0 if each event loop has its own.", value: |tenant| workers(tenant).number as f64 },
    TenantMetric { name: "mayfly_tenant_idle_workers", kind: Gauge, help: "Those of the tenant's fixed number of workers that have no request.", value: |tenant| workers(tenant).idle as f64 },
    TenantMetric { name: "mayfly_tenant_waiting_requests", kind: Gauge, help: "Requests that wait for one of the tenant's fixed number of workers.", value: |tenant| workers(tenant).waiting as f64 },
    TenantMetric { name: "mayfly_tenant_storage_calls_total", kind: Counter, help: "Calls of functions of the storage program.", value: |tenant| tenant.store_calls as f64 },
    TenantMetric { name: "mayfly_tenant_connects_total", kind: Counter, help: "Outbound connections that the program began.", value: |tenant| tenant.connects as f64 },
    TenantMetric { name: "mayfly_tenant_refused_connects_total", kind: Counter, help: "Outbound connections that the program was refused because their destination is not listed.", value: |tenant| tenant.refused_connects as f64 },
    TenantMetric { name: "mayfly_tenant_reloads_total", kind: Counter, help: "New generations, including rollbacks.", value: |tenant| tenant.reloads as f64 },
    TenantMetric { name: "mayfly_tenant_reload_failures_total", kind: Counter, help: "New generations that failed.", value: |tenant| tenant.reload_failures as f64 },
    TenantMetric { name: "mayfly_tenant_violations_total", kind: Counter, help: "How often the program brought a machine into a state that no well-behaved program reaches: it may be attacking.", value: |tenant| tenant.violations as f64 },
    TenantMetric { name: "mayfly_tenant_waits_for_files", kind: Gauge, help: "Whether a boot or a reload waits for a file that does not respond.", value: |tenant| if tenant.waits_for.is_some() { 1.0 } else { 0.0 } },
    TenantMetric { name: "mayfly_tenant_dropped_log_lines_total", kind: Counter, help: "Lines that the log limit dropped.", value: |tenant| tenant.dropped_log_lines as f64 },
    TenantMetric { name: "mayfly_tenant_memory_bytes", kind: Gauge, help: "Memory that the tenant's machines hold, including its frozen programs.", value: |tenant| tenant.memory_bytes as f64 },
    TenantMetric { name: "mayfly_tenant_memory_refusals_total", kind: Counter, help: "How often they were refused memory because the process had reached its bound.", value: |tenant| tenant.memory_refusals as f64 },
    TenantMetric { name: "mayfly_tenant_ready", kind: Gauge, help: "Whether the tenant serves requests.", value: |tenant| if generation(tenant) > 0 { 1.0 } else { 0.0 } },
    TenantMetric { name: "mayfly_tenant_generation", kind: Gauge, help: "The number of the current generation; 0 if there is none.", value: |tenant| generation(tenant) as f64 },
    TenantMetric { name: "mayfly_tenant_boot_seconds", kind: Gauge, help: "How long the current generation took to boot; 0 if there is none.", value: boot_seconds },
    TenantMetric { name: "mayfly_tenant_booted_from_snapshot", kind: Gauge, help: "Whether the current generation was loaded from a snapshot file.", value: booted_from_snapshot },
];

fn workers(tenant: &TenantReport) -> FixedWorkersReport {
    tenant.workers.unwrap_or(FixedWorkersReport { number: 0, idle: 0, waiting: 0 })
}

fn generation(tenant: &TenantReport) -> u64 {
    match tenant.state {
        TenantState::Ready { generation, .. } => generation,
        _ => 0,
    }
}

fn boot_seconds(tenant: &TenantReport) -> f64 {
    match tenant.state {
        TenantState::Ready { boot_ms, .. } => boot_ms / 1e3,
        _ => 0.0,
    }
}

fn booted_from_snapshot(tenant: &TenantReport) -> f64 {
    match tenant.state {
        TenantState::Ready { booted_from: "snapshot", .. } => 1.0,
        _ => 0.0,
    }
}

impl Server {
    /// The current report in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.report().metrics()
    }
}

impl Report {
    /// The report in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = Text::default();
        self.write_process(&mut text);
        for metric in TENANT_METRICS {
            text.family(metric.name, metric.kind, metric.help);
            for tenant in &self.tenants {
                text.sample(metric.name, &[("tenant", &tenant.name)], (metric.value)(tenant));
            }
        }
        let by = |text: &mut Text, name, help, label, counts: fn(&TenantReport) -> &BTreeMap<&'static str, u64>| {
            text.family(name, Counter, help);
            for tenant in &self.tenants {
                for (kind, count) in counts(tenant) {
                    text.sample(name, &[("tenant", &tenant.name), (label, kind)], *count as f64);
                }
            }
        };
        let failures = "Requests that Mayfly answered in the tenant's place, by the answer's error.";
        by(&mut text, "mayfly_tenant_failures_total", failures, "error", |tenant| &tenant.errors);
        let hits = "How often a limit refused something to the program.";
        by(&mut text, "mayfly_tenant_limit_hits_total", hits, "limit", |tenant| &tenant.limit_hits);
        let refused = "How often the program was refused another process, and may have answered without its result.";
        by(&mut text, "mayfly_tenant_refused_processes_total", refused, "call", |tenant| &tenant.refused_processes);
        text.family("mayfly_tenant_info", Gauge, "What happens to a worker's state after a request, and the engine.");
        for tenant in &self.tenants {
            let labels = [("tenant", &*tenant.name), ("mode", &*tenant.mode), ("engine", tenant.engine)];
            text.sample("mayfly_tenant_info", &labels, 1.0);
        }
        text.0
    }

    fn write_process(&self, text: &mut Text) {
        let mut one = |name, kind, help, labels: &[(&str, &str)], value| {
            text.family(name, kind, help);
            text.sample(name, labels, value);
        };
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        one("mayfly_build_info", Gauge, "The version of Mayfly.", &version, 1.0);
        let (usable, kvm) = match &self.host.state {
            HostState::Usable { kvm } => (1.0, *kvm),
            HostState::Unusable { .. } => (0.0, "none"),
        };
        let help = "Whether tenants can run on this host, and its kind of KVM.";
        one("mayfly_host_usable", Gauge, help, &[("kvm", kvm)], usable);
        one("mayfly_workers", Gauge, "Current number of workers.", &[], self.workers as f64);
        one("mayfly_workers_max", Gauge, "Largest allowed number of workers.", &[], self.max_workers as f64);
        one(
            "mayfly_process_descriptors",
            Gauge,
            "Descriptors that the process has open.",
            &[],
            self.descriptors as f64,
        );
        let help = "Descriptors that the process may have open.";
        one("mayfly_process_descriptors_max", Gauge, help, &[], self.max_descriptors as f64);
        let help = "Resident memory of the process, including shared pages.";
        one("mayfly_process_resident_bytes", Gauge, help, &[], self.resident_bytes as f64);
        let help = "Whether memory is short: idle workers are closed.";
        one("mayfly_memory_short", Gauge, help, &[], if self.memory.is_short { 1.0 } else { 0.0 });
        let help = "How often memory became short.";
        one("mayfly_memory_shortages_total", Counter, help, &[], self.memory.shortages as f64);
        let help = "Workers that were closed because memory was short.";
        one("mayfly_memory_closed_workers_total", Counter, help, &[], self.memory.closed_workers as f64);
        let help = "Programs that were stopped because memory was short; they boot again at their next request.";
        one("mayfly_memory_stopped_programs_total", Counter, help, &[], self.memory.stopped_programs as f64);
        let help = "Requests that have exceeded their inline budget, left their loop thread, and are not answered yet.";
        one("mayfly_overflow_requests", Gauge, help, &[], self.overflow as f64);
        let help = "Requests without a tenant.";
        one("mayfly_unrouted_requests_total", Counter, help, &[], self.unrouted as f64);
        self.write_engines(text);
        self.write_memory(text);
    }

    fn write_engines(&self, text: &mut Text) {
        let name = "mayfly_engine_usable";
        text.family(name, Gauge, "Whether the engine can run programs, and its kind, for engines that tenants need.");
        for EngineState { engine, usability } in &self.host.engines {
            let (kind, usable) = match usability {
                Usability::Unopened => continue,
                Usability::Usable { kind, .. } => (*kind, 1.0),
                Usability::Unusable { .. } => ("none", 0.0),
            };
            text.sample(name, &[("engine", engine), ("kind", kind)], usable);
        }
    }

    fn write_memory(&self, text: &mut Text) {
        let memory = &self.memory;
        text.family("mayfly_memory_bytes", Gauge, "Memory in use, by the process and under each bound.");
        text.sample("mayfly_memory_bytes", &[("of", "process"), ("path", "")], memory.bytes as f64);
        let others = || memory.bounds.iter().filter(|bound| bound.of != "process");
        let path = |bound: &Bound| bound.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        for bound in others() {
            text.sample("mayfly_memory_bytes", &[("of", bound.of), ("path", &path(bound))], bound.bytes as f64);
        }
        text.family("mayfly_memory_max_bytes", Gauge, "Largest allowed memory in use, by bound.");
        for bound in &memory.bounds {
            text.sample("mayfly_memory_max_bytes", &[("of", bound.of), ("path", &path(bound))], bound.max_bytes as f64);
        }
        text.family("mayfly_memory_machines_bytes", Gauge, "Memory that machines hold, by kind.");
        for (kind, bytes) in
            [("images", memory.image_bytes), ("workers", memory.machine_bytes.saturating_sub(memory.image_bytes))]
        {
            text.sample("mayfly_memory_machines_bytes", &[("kind", kind)], bytes as f64);
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
        };
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}=\"{}\"", Escaped(text)));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

/// A label's value, escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryReport;
    use crate::report::{AutoReport, HostReport};
    use std::collections::HashMap;

    /// A series: its name and its labels in order.
    type Series = (String, Vec<(String, String)>);

    /// Parses the format strictly as it is defined.
    fn parse(text: &str) -> HashMap<Series, f64> {
        let mut series = HashMap::new();
        let mut families: Vec<&str> = Vec::new();
        let mut lines = text.strip_suffix('\n').unwrap().split('\n').peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(is_name(name) && name.starts_with("mayfly_") && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(!families.contains(&name), "{name} comes twice");
            families.push(name);
            let (typed, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert!(["counter", "gauge"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let ((of, labels), value) = sample_line(sample);
                assert_eq!(of, name, "a sample of another family");
                assert!(value >= 0.0 && value.is_finite(), "{sample}");
                assert!(series.insert((of, labels), value).is_none(), "{sample} comes twice");
            }
        }
        series
    }

    fn is_name(text: &str) -> bool {
        !text.starts_with(|first: char| first.is_ascii_digit())
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }

    fn sample_line(line: &str) -> (Series, f64) {
        let end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(end);
        assert!(is_name(name), "{line}");
        let mut labels = Vec::new();
        if rest.starts_with('{') {
            loop {
                let (label, value) = rest[1..].split_once("=\"").unwrap();
                assert!(is_name(label), "{line}");
                let mut text = String::new();
                let mut chars = value.char_indices();
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => text.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            char @ ('\\' | '"') => char,
                            other => panic!("\\{other} in {line}"),
                        }),
                        (_, char) => text.push(char),
                    }
                };
                labels.push((label.to_owned(), text));
                rest = &value[end + 1..];
                match rest.as_bytes()[0] {
                    b',' => {}
                    b'}' => break,
                    _ => panic!("{line}"),
                }
            }
            rest = &rest[1..];
        }
        ((name.to_owned(), labels), rest.strip_prefix(' ').unwrap().parse().unwrap())
    }

    fn tenant(name: &str, state: TenantState) -> TenantReport {
        TenantReport {
            name: name.to_owned(),
            routes: vec!["/".to_owned()],
            mode: "reset-every-9".to_owned(),
            engine: "process",
            program: "p".into(),
            state,
            waits_for: Some("p has not answered for 2 s".to_owned()),
            requests: 1 << 40,
            cpu_seconds: 1.25,
            background_cpu_seconds: 0.25,
            background_failures: 29,
            resets: 2,
            work_sets_given_back: 1,
            forks: 3,
            fork_failures: 19,
            parked: 4,
            in_flight: 5,
            workers: Some(FixedWorkersReport { number: 26, idle: 27, waiting: 28 }),
            store_calls: 6,
            connects: 17,
            refused_connects: 18,
            refused_processes: BTreeMap::from([("exec", 25)]),
            reloads: 7,
            reload_failures: 8,
            limit_hits: BTreeMap::from([("descriptors", 9)]),
            errors: BTreeMap::from([("cpu-limit", 10), ("exited", 11)]),
            violations: 23,
            dropped_log_lines: 12,
            memory_bytes: 23,
            memory_refusals: 24,
        }
    }

    fn report() -> Report {
        Report {
            host: HostReport {
                state: HostState::Usable { kvm: "paging" },
                auto: Some(AutoReport { engine: Some("process"), why: "it works".to_owned() }),
                engines: vec![
                    EngineState {
                        engine: "kvm",
                        usability: Usability::Usable { kind: "paging", details: "slowly".to_owned() },
                    },
                    EngineState { engine: "process", usability: Usability::Unusable { reason: "no".to_owned() } },
                ],
            },
            tenants: vec![
                tenant("shop", TenantState::Ready { generation: 3, boot_ms: 1.5, booted_from: "snapshot" }),
                tenant("we\"i\\rd\n", TenantState::Failed { reason: "no\nfile".to_owned() }),
            ],
            unrouted: 13,
            workers: 14,
            max_workers: 15,
            overflow: 16,
            descriptors: 20,
            max_descriptors: 1024,
            resident_bytes: 22,
            memory: MemoryReport {
                bounds: vec![
                    Bound { of: "process", path: None, max_bytes: 31, bytes: 30 },
                    Bound { of: "cgroup", path: Some("/sys/fs/cgroup/a b".into()), max_bytes: 33, bytes: 32 },
                ],
                bytes: 30,
                machine_bytes: 29,
                image_bytes: 9,
                is_short: true,
                shortages: 34,
                closed_workers: 35,
                stopped_programs: 36,
            },
        }
    }

    #[test]
    fn a_strict_parser_finds_every_metric() {
        let series = parse(&report().metrics());
        let get = |name: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
            *series.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("{name} is missing"))
        };
        for (name, value) in [
            ("requests_total", 2_f64.powi(40)),
            ("cpu_seconds_total", 1.25),
            ("background_cpu_seconds_total", 0.25),
            ("background_failures_total", 29.0),
            ("resets_total", 2.0),
            ("work_sets_given_back_total", 1.0),
            ("forks_total", 3.0),
            ("fork_failures_total", 19.0),
            ("parked_requests_total", 4.0),
            ("parked_requests", 5.0),
            ("workers", 26.0),
            ("idle_workers", 27.0),
            ("waiting_requests", 28.0),
            ("storage_calls_total", 6.0),
            ("connects_total", 17.0),
            ("refused_connects_total", 18.0),
            ("reloads_total", 7.0),
            ("reload_failures_total", 8.0),
            ("violations_total", 23.0),
            ("waits_for_files", 1.0),
            ("dropped_log_lines_total", 12.0),
            ("memory_bytes", 23.0),
            ("memory_refusals_total", 24.0),
        ] {
            for tenant in ["shop", "we\"i\\rd\n"] {
                assert_eq!(get(&format!("mayfly_tenant_{name}"), &[("tenant", tenant)]), value, "{name}");
            }
        }
        assert_eq!(get("mayfly_tenant_ready", &[("tenant", "shop")]), 1.0);
        assert_eq!(get("mayfly_tenant_ready", &[("tenant", "we\"i\\rd\n")]), 0.0);
        assert_eq!(get("mayfly_tenant_generation", &[("tenant", "shop")]), 3.0);
        assert_eq!(get("mayfly_tenant_boot_seconds", &[("tenant", "shop")]), 0.0015);
        assert_eq!(get("mayfly_tenant_booted_from_snapshot", &[("tenant", "shop")]), 1.0);
        assert_eq!(get("mayfly_tenant_failures_total", &[("tenant", "shop"), ("error", "exited")]), 11.0);
        assert_eq!(get("mayfly_tenant_limit_hits_total", &[("tenant", "shop"), ("limit", "descriptors")]), 9.0);
        let refused = [("tenant", "shop"), ("call", "exec")];
        assert_eq!(get("mayfly_tenant_refused_processes_total", &refused), 25.0);
        let info = [("tenant", "shop"), ("mode", "reset-every-9"), ("engine", "process")];
        assert_eq!(get("mayfly_tenant_info", &info), 1.0);
        assert_eq!(get("mayfly_engine_usable", &[("engine", "kvm"), ("kind", "paging")]), 1.0);
        assert_eq!(get("mayfly_engine_usable", &[("engine", "process"), ("kind", "none")]), 0.0);
        assert_eq!(get("mayfly_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        assert_eq!(get("mayfly_host_usable", &[("kvm", "paging")]), 1.0);
        assert_eq!((get("mayfly_workers", &[]), get("mayfly_workers_max", &[])), (14.0, 15.0));
        assert_eq!(
            (get("mayfly_process_descriptors", &[]), get("mayfly_process_descriptors_max", &[])),
            (20.0, 1024.0)
        );
        assert_eq!(get("mayfly_process_resident_bytes", &[]), 22.0);
        let cgroup: &[_] = &[("of", "cgroup"), ("path", "/sys/fs/cgroup/a b")];
        let process: &[_] = &[("of", "process"), ("path", "")];
        for (name, labels, value) in [
            ("bytes", process, 30.0),
            ("bytes", cgroup, 32.0),
            ("max_bytes", process, 31.0),
            ("max_bytes", cgroup, 33.0),
            ("machines_bytes", &[("kind", "images")], 9.0),
            ("machines_bytes", &[("kind", "workers")], 20.0),
            ("short", &[], 1.0),
            ("shortages_total", &[], 34.0),
            ("closed_workers_total", &[], 35.0),
            ("stopped_programs_total", &[], 36.0),
        ] {
            assert_eq!(get(&format!("mayfly_memory_{name}"), labels), value, "{name}");
        }
        assert_eq!((get("mayfly_unrouted_requests_total", &[]), get("mayfly_overflow_requests", &[])), (13.0, 16.0));
    }

    #[test]
    fn a_server_without_tenants_and_kvm_has_metrics_too() {
        let state = HostState::Unusable { reason: "no \"kvm\"\n".to_owned() };
        let host = HostReport { state, auto: None, engines: vec![] };
        let series = parse(&Report { host, tenants: vec![], ..report() }.metrics());
        assert_eq!(series[&("mayfly_host_usable".to_owned(), vec![("kvm".to_owned(), "none".to_owned())])], 0.0);
    }
}
