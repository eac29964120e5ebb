//! `littoral dns`: the files of name servers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_config::section::dns::{Dns, Steering};
use edge_config::{Config, Problems};
use serde_json::json;

use crate::ask::{self, AskError};
use crate::cli::AdminAddress;
use crate::cli::dns::{Dns as Command, Of, Server};
use crate::clock;
use crate::steering::gdnsd::{Machine, configuration, serial_of, zone};
use crate::steering::latency::{Latencies, LineError};
use crate::steering::{File, OneLabel, Plan, labels};

/// Why nothing was written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DnsError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] Problems),
    #[error("{0} has no [dns]")]
    #[diagnostic(help("add [dns] with zone, nameservers and contact, and a [pop.NAME] with addresses for each PoP"))]
    NoZone(PathBuf),
    #[error("{path}: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    #[diagnostic(help("`latency` of [dns] names a file of lines as in 192.0.2.0/24,fra,12.5"))]
    Latencies { path: PathBuf, errors: Vec<LineError> },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    OneLabel(#[from] OneLabel),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ask(#[from] AskError),
    #[error("not as it would be written: {}", .0.join(", "))]
    #[diagnostic(help("write it without --check, and have the name server read it again"))]
    Differs(Vec<String>),
}

impl DnsError {
    /// 78 for configuration (as `sysexits` has it), 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::File(_) | Self::NoZone(_) | Self::Latencies { .. } | Self::OneLabel(_) => 78,
            Self::Io { .. } | Self::Ask(_) | Self::Differs(_) => 1,
        }
    }
}

/// A table of measurements is at most this large: some millions of lines.
const LATENCIES_BYTES_MAX: u64 = 256 << 20;

/// Does what a command says, and tells what was done.
///
/// # Errors
/// It was not.
pub fn run(command: &Command) -> Result<String, DnsError> {
    match command {
        Command::Render { server: Server::Gdnsd, out, check, serial, machine, of } => {
            let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
            let machine = Machine {
                listen: machine.listen.clone(),
                run_dir: text(&machine.run_dir),
                state_dir: text(&machine.state_dir),
            };
            render(of, out.as_deref(), *check, *serial, &machine)
        }
        Command::Names { json, of } => names(of, *json),
    }
}

/// A configuration with a zone, and the sites that a node knows besides.
struct Read {
    config: Config,
    dns: Dns,
    more: Vec<String>,
}

impl Read {
    fn new(of: &Of) -> Result<Self, DnsError> {
        let config = edge_config::load(&of.config)?;
        let dns = config.dns.clone().ok_or_else(|| DnsError::NoZone(of.config.clone()))?;
        let more = match of.admin {
            Some(admin) => ask::statistics::sites(&AdminAddress { admin, token: of.token.clone() })?,
            None => Vec::new(),
        };
        Ok(Self { config, dns, more })
    }

    fn sites(&self) -> impl Iterator<Item = &str> {
        self.config.sites.iter().map(|site| site.name.as_str()).chain(self.more.iter().map(String::as_str))
    }
}

fn render(
    of: &Of,
    out: Option<&Path>,
    check: bool,
    serial: Option<u32>,
    machine: &Machine,
) -> Result<String, DnsError> {
    let read = Read::new(of)?;
    let latencies = latencies(&read)?;
    let labels = labels(read.sites())?;
    let plan = Plan { dns: &read.dns, pops: &read.config.pops, labels: &labels, latencies: latencies.as_ref() };
    let mut files = configuration(&plan, machine);
    let fixed = read.config.dns_addresses();
    let before = out.map(|out| out.join("zones").join(&read.dns.zone)).and_then(|path| fs::read_to_string(path).ok());
    // The time, which is later than every serial that was counted up once a second or less.
    let now = u32::try_from(clock::wall().0 / 1_000).unwrap_or(u32::MAX);
    let serial =
        serial.unwrap_or_else(|| next_serial(before.as_deref(), now, |serial| zone(&plan, &fixed, serial).text));
    // Last: it names what the others have.
    files.push(zone(&plan, &fixed, serial));
    let Some(out) = out else {
        return Ok(files.iter().map(|file| format!("# {}\n{}", file.path, file.text)).collect::<Vec<_>>().join("\n"));
    };
    let changed: Vec<&File> = files.iter().filter(|file| is_changed(out, file)).collect();
    let paths: Vec<String> = changed.iter().map(|file| file.path.clone()).collect();
    if check {
        return if paths.is_empty() { Ok("nothing has changed".into()) } else { Err(DnsError::Differs(paths)) };
    }
    for file in changed {
        write(out, file)?;
    }
    Ok(match paths.as_slice() {
        [] => "nothing has changed".into(),
        // gdnsd looks at databases and nets by itself.
        paths if paths.iter().any(|path| path == "config") => {
            format!("{}\nhave it read them: gdnsdctl replace", written(out, paths))
        }
        paths => format!("{}\nhave it read them: gdnsdctl reload-zones", written(out, paths)),
    })
}

fn written(out: &Path, paths: &[String]) -> String {
    format!("written to {}: {}", out.display(), paths.join(", "))
}

/// The serial there is, if the zone is the same with it; else a later one.
fn next_serial(before: Option<&str>, now: u32, zone: impl Fn(u32) -> String) -> u32 {
    match before.and_then(|text| Some((text, serial_of(text)?))) {
        None => now,
        Some((text, serial)) if zone(serial) == text => serial,
        Some((_, serial)) => now.max(serial.wrapping_add(1)),
    }
}

fn latencies(read: &Read) -> Result<Option<Latencies>, DnsError> {
    let Some(path) = read.dns.latency.as_ref().filter(|_| read.dns.steering == Steering::Latency) else {
        return Ok(None);
    };
    let failed = |error| DnsError::Io { path: path.clone(), error };
    if fs::metadata(path).map_err(failed)?.len() > LATENCIES_BYTES_MAX {
        return Err(failed(io::Error::other("expected at most 256MiB of measurements")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let parsed = Latencies::parse(&text, &read.config.pops);
    parsed.map(Some).map_err(|errors| DnsError::Latencies { path: path.clone(), errors })
}

fn is_changed(out: &Path, file: &File) -> bool {
    fs::read(out.join(&file.path)).map_or(true, |found| found != file.text.as_bytes())
}

/// Beside, and in its place when all of it is there: who reads sees one or the other. Names that begin with a dot are no zones.
fn write(out: &Path, file: &File) -> Result<(), DnsError> {
    let path = out.join(&file.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = path.with_file_name(format!(".{name}.new"));
    let written = || {
        fs::create_dir_all(path.parent().unwrap_or(out))?;
        fs::write(&beside, &file.text)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, &path)
    };
    written().map_err(|error| DnsError::Io { path: path.clone(), error })
}

fn names(of: &Of, json: bool) -> Result<String, DnsError> {
    let read = Read::new(of)?;
    // Two with one name would be found out by whoever sets theirs second.
    labels(read.sites())?;
    let own = read.config.sites.iter().map(|site| {
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        (site.name.clone(), hosts)
    });
    let more = read.more.iter().filter(|name| read.config.sites.iter().all(|site| site.name != **name));
    let sites: Vec<(String, Vec<String>)> = own.chain(more.map(|name| (name.clone(), Vec::new()))).collect();
    let addresses: Vec<String> = read.config.dns_addresses().iter().map(ToString::to_string).collect();
    if json {
        let sites =
            sites.iter().map(|(name, hosts)| json!({ "site": name, "hosts": hosts, "cname": read.dns.target(name) }));
        let answer = json!({ "sites": sites.collect::<Vec<_>>(), "addresses": addresses });
        return Ok(answer.to_string());
    }
    let line = |(name, hosts): &(String, Vec<String>)| {
        let hosts = if hosts.is_empty() { "its hosts".to_owned() } else { hosts.join(", ") };
        format!("{name}: {hosts}: CNAME {}.", read.dns.target(name))
    };
    let mut lines: Vec<String> = sites.iter().map(line).collect();
    lines.push(format!("a name that cannot be a CNAME: {}", addresses.join(", ")));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials() {
        let zone = |serial: u32| format!("@ 30 SOA a. b. ( {serial} 1 )\nshop");
        for (before, now, expected) in [
            (None, 1_000, 1_000),
            (Some("no zone"), 1_000, 1_000),
            (Some("@ 30 SOA a. b. ( 7 1 )\nshop"), 1_000, 7),
            (Some("@ 30 SOA a. b. ( 7 1 )\nblog"), 1_000, 1_000),
            (Some("@ 30 SOA a. b. ( 1000 1 )\nblog"), 1_000, 1_001),
            (Some("@ 30 SOA a. b. ( 4294967295 1 )\nblog"), 1_000, 1_000),
        ] {
            assert_eq!(next_serial(before, now, zone), expected, "{before:?}");
        }
    }
}
