//! `mesh-node check`: what this kernel has and lacks, hook by hook, each really loaded; and who else hooks `connect()`.
//!
//! Invariant: it only looks. Nothing is attached, pinned or changed, so that it may run beside a live agent.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::bpf::{self, HooksConfig};
use crate::sys;

/// `ingress_ifindex` in sk_lookup is what decides the floor.
const KERNEL_FLOOR: (u32, u32) = (5, 17);

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Is it as needed?
    pub verdict: Verdict,
    /// What was found, and what to do.
    pub detail: String,
}

/// How a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As needed.
    Good,
    /// Works, but a person should know.
    Warning,
    /// The node cannot work.
    Bad,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which one would mend them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Can a node work here?
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Bad)
    }

    fn add(&mut self, name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.findings.push(Finding { name: name.into(), verdict, detail: detail.into() });
    }

    fn judge(
        &mut self,
        name: impl Into<String>,
        good: bool,
        found: impl Into<String>,
        otherwise: impl Into<String>,
    ) {
        if good { self.add(name, Verdict::Good, found) } else { self.add(name, Verdict::Bad, otherwise) }
    }
}

/// A table for people; a verifier log, being many lines, follows its row indented.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for Finding { name, verdict, detail } in &self.findings {
            let mark = match verdict {
                Verdict::Good => "ok",
                Verdict::Warning => "warning",
                Verdict::Bad => "MISSING",
            };
            let detail = detail.trim_end().replace('\n', &format!("\n{:1$}", "", width + 11));
            writeln!(out, "{name:width$}  {mark:7}  {detail}")?;
        }
        Ok(())
    }
}

/// Looks at everything. Needs root.
pub fn run(config: &HooksConfig) -> Report {
    let mut report = Report::default();
    let root = nix::unistd::geteuid().is_root();
    report.judge("root", root, "running as root", "run as root: programs are loaded for the try");
    capabilities(&mut report);
    kernel(&mut report);
    bpffs(&mut report, &config.bpffs);
    let cgroup = config.cgroup_root();
    match &cgroup {
        Ok(path) => report.add("cgroup v2", Verdict::Good, path.display().to_string()),
        Err(error) => report.add("cgroup v2", Verdict::Bad, error.to_string()),
    }
    hooks(&mut report);
    match sys::Netns::current() {
        Ok(netns) => report.add("netns cookie", Verdict::Good, netns.cookie().to_string()),
        Err(error) => {
            report.add("netns cookie", Verdict::Bad, format!("SO_NETNS_COOKIE: {error} (kernel 5.14)"))
        }
    }
    match sys::can_destroy() {
        Ok(true) => report.add("socket destroy", Verdict::Good, "old connections of a pod can be ended"),
        Ok(false) | Err(_) => report.add(
            "socket destroy",
            Verdict::Warning,
            "no CONFIG_INET_DIAG_DESTROY: connections older than a policy cannot be ended, only counted",
        ),
    }
    processes(&mut report);
    if let Ok(cgroup) = &cgroup {
        foreign(&mut report, cgroup);
    }
    report
}

/// One line for each that is missing, so that a manifest can be mended by name.
fn capabilities(report: &mut Report) {
    match sys::missing_capabilities() {
        Ok(missing) if missing.is_empty() => {
            report.add("capabilities", Verdict::Good, "SYS_ADMIN, NET_ADMIN and SYS_PTRACE are held");
        }
        Ok(missing) => {
            for capability in missing {
                report.add(format!("capability {}", capability.name), Verdict::Bad, capability.purpose);
            }
        }
        Err(error) => report.add("capabilities", Verdict::Warning, format!("cannot be read: {error}")),
    }
}

/// Running pods and the kubelet are found among the node's processes.
fn processes(report: &mut Report) {
    if sys::sees_every_process() {
        report.add("processes", Verdict::Good, "those of the whole machine are seen");
    } else {
        report.add(
            "processes",
            Verdict::Warning,
            "not in the machine's initial pid namespace: without hostPID running pods are not found, and the kubelet's probes of \
             strict pods do not pass",
        );
    }
}

fn kernel(report: &mut Report) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let (major, minor) = KERNEL_FLOOR;
    let new = version(&release).is_some_and(|version| version >= KERNEL_FLOOR);
    report.judge("kernel", new, &release, format!("{release} is older than {major}.{minor}"));
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    report.judge(
        "BTF",
        btf,
        "present",
        "no /sys/kernel/btf/vmlinux: a kernel with CONFIG_DEBUG_INFO_BTF is needed",
    );
}

/// The two leading numbers of `6.18.44-fc`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn bpffs(report: &mut Report, path: &Path) {
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = kinds.lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    let mounted = sys::is_bpffs(path);
    let shown = path.display();
    match (known, mounted) {
        (true, true) => report.add("bpffs", Verdict::Good, format!("mounted at {shown}")),
        (true, false) if path.is_dir() => {
            report.add("bpffs", Verdict::Good, format!("the agent will mount it at {shown}"))
        }
        (true, false) => {
            report.add("bpffs", Verdict::Bad, format!("there is no folder {shown} to mount it at"))
        }
        (false, _) => {
            report.add("bpffs", Verdict::Bad, "the kernel does not know it: CONFIG_BPF_SYSCALL is needed")
        }
    }
}

fn hooks(report: &mut Report) {
    match bpf::try_hooks() {
        Ok(outcomes) => {
            for (section, outcome) in outcomes {
                let name = format!("hook {section}");
                match outcome {
                    Ok(()) => report.add(name, Verdict::Good, "loads"),
                    Err(error) => report.add(name, Verdict::Bad, chain(&error)),
                }
            }
        }
        Err(error) => report.add("hooks", Verdict::Bad, chain(&error)),
    }
}

/// An error with its causes, the verifier's log among them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// Programs of others at the root cgroup. They run beside ours; a socket load balancer rewrites a Service's address before
/// we see it, and the Service is then unknown to us.
fn foreign(report: &mut Report, cgroup: &Path) {
    let programs = match bpf::attached(cgroup) {
        Ok(programs) => programs,
        Err(error) => {
            return report.add("other programs", Verdict::Warning, format!("cannot be listed: {error}"));
        }
    };
    let mut ours = std::collections::BTreeMap::<_, usize>::new();
    for program in programs {
        if program.is_ours() {
            *ours.entry(program.hook).or_default() += 1;
            continue;
        }
        let name = format!("other program {}", program.name);
        let advice = advice(program.hook, &program.name);
        report.add(name, Verdict::Warning, format!("id {} on {}: {advice}", program.id, program.hook));
    }
    // The kernel runs at most 64 programs per hook and cgroup; each agent of this kernel takes one.
    let attached: Vec<_> = ours.iter().map(|(hook, count)| format!("{hook} {count}")).collect();
    if !attached.is_empty() {
        report.add("our hooks", Verdict::Good, format!("attached: {}", attached.join(", ")));
    }
}

/// What to change so that Service addresses reach us.
fn advice(hook: &str, name: &str) -> &'static str {
    let connects = hook.starts_with("cgroup/connect");
    if connects && (name.starts_with("cil_sock") || name.starts_with("sock4_") || name.starts_with("sock6_"))
    {
        "Cilium's socket load balancer: set `socketLB.hostNamespaceOnly=true`, or Services are seen as pod addresses only"
    } else if connects && (name.starts_with("calico_") || name.starts_with("cali_")) {
        "Calico's connect-time load balancer: set `bpfConnectTimeLoadBalancing: Disabled` in FelixConfiguration"
    } else if connects {
        "it may rewrite destinations before or after us; if Services are not recognised, look there first"
    } else {
        "it runs beside ours"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert!(version("5.4.0") < Some(KERNEL_FLOOR));
        assert!(version("10.1-rc1") > Some(KERNEL_FLOOR));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn the_known_load_balancers_are_named_with_their_setting() {
        assert!(advice("cgroup/connect4", "cil_sock4_connect").contains("socketLB"));
        assert!(advice("cgroup/connect6", "calico_connect_v6").contains("bpfConnectTime"));
        assert!(advice("sockops", "calico_sockops").contains("beside"));
    }

    #[test]
    fn many_lines_stay_in_their_column() {
        let mut report = Report::default();
        report.add("hook x", Verdict::Bad, "one\ntwo");
        assert_eq!(report.to_string(), "hook x  MISSING  one\n                 two\n");
        assert!(!report.is_good());
    }
}
