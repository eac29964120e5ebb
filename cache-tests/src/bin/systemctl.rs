//! A stand-in for `systemctl` where systemd is not the first process: what a package and a runbook ask of it, and nothing else.
//!
//! It starts what a unit's `ExecStart` says, as its user, with its directories, capabilities, environment and the socket for what the
//! service tells (`READY=1`, `MAINPID=`), and stops it with SIGTERM and the unit's time. Each service has a supervisor: this program
//! again, as `systemctl supervise UNIT`. Sandboxing, limits and `Restart` are not
//! done here; `systemd-analyze` looks at the first two.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Where it keeps what it knows of services: the state, the main process, what was said.
const KEPT: &str = "/run/systemctl";
const UNITS: [&str; 2] = ["/etc/systemd/system", "/lib/systemd/system"];
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants";
/// How often it looks, and how long a service may take to start.
const LOOK: Duration = Duration::from_millis(20);
const START: Duration = Duration::from_secs(30);
/// As systemd's own default.
const STOP: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("systemctl (a stand-in): {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> io::Result<ExitCode> {
    let mut words = arguments.iter().filter(|word| !word.starts_with('-') && *word != "MainPID").map(String::as_str);
    let verb = words.next().unwrap_or_default();
    let named: Vec<String> = words.map(|name| name.trim_end_matches(".service").to_owned()).collect();
    let has = |option: &str| arguments.iter().any(|word| word == option);
    if verb == "daemon-reload" {
        return Ok(ExitCode::SUCCESS);
    }
    let Some(name) = named.first() else { return Err(io::Error::other(format!("no unit: {arguments:?}"))) };
    let service = Service { name: name.clone() };
    let mut good = true;
    match verb {
        "supervise" => service.supervise()?,
        "start" => service.start()?,
        "stop" => service.stop()?,
        "restart" => service.stop().and_then(|()| service.start())?,
        "reload" => service.reload()?,
        "reload-or-restart" if service.state() == "active" => service.reload()?,
        "reload-or-restart" => service.start()?,
        "enable" => service.enable(has("--now"))?,
        "disable" => service.disable(has("--now"))?,
        "is-active" => good = service.state() == "active",
        "is-enabled" => good = Path::new(WANTED).join(format!("{name}.service")).is_symlink(),
        "kill" => {
            let signal = arguments.iter().find_map(|word| word.strip_prefix("--signal=")).unwrap_or("TERM");
            good = signal_to(service.main(), signal);
        }
        "show" if has("--value") => println!("{}", service.main()),
        "show" => service.show(),
        "status" => println!("{name} is {}, process {}\n{}", service.state(), service.main(), service.said()),
        _ => return Err(io::Error::other(format!("cannot do {arguments:?}"))),
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

struct Service {
    name: String,
}

impl Service {
    fn kept(&self, what: &str) -> PathBuf {
        Path::new(KEPT).join(format!("{}.{what}", self.name))
    }

    fn read(&self, what: &str) -> String {
        fs::read_to_string(self.kept(what)).unwrap_or_default().trim().to_owned()
    }

    /// Written beside and moved, so that nobody reads half of it.
    fn keep(&self, what: &str, text: &str) -> io::Result<()> {
        let beside = self.kept("beside");
        fs::write(&beside, text)?;
        fs::rename(&beside, self.kept(what))
    }

    fn state(&self) -> String {
        let state = self.read("state");
        if state.is_empty() { "inactive".to_owned() } else { state }
    }

    fn main(&self) -> u32 {
        self.read("main").parse().unwrap_or(0)
    }

    fn said(&self) -> String {
        self.read("said")
    }

    fn path(&self) -> io::Result<PathBuf> {
        let file = format!("{}.service", self.name);
        let path = UNITS.iter().map(|directory| Path::new(directory).join(&file)).find(|path| path.exists());
        path.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("no unit {file}")))
    }

    fn unit(&self) -> io::Result<Unit> {
        Ok(Unit::of(&fs::read_to_string(self.path()?)?))
    }

    /// What a program asks for that looks at services.
    fn show(&self) {
        let state = self.state();
        let is_loaded = if self.path().is_ok() { "loaded" } else { "not-found" };
        println!("Id={}.service\nLoadState={is_loaded}\nActiveState={state}\nMainPID={}", self.name, self.main());
    }

    fn start(&self) -> io::Result<()> {
        if self.state() == "active" {
            return Ok(());
        }
        fs::create_dir_all(KEPT)?;
        self.unit()?;
        self.keep("state", "activating")?;
        let said = File::options().create(true).append(true).open(self.kept("said"))?;
        Command::new(std::env::current_exe()?)
            .args(["supervise", &self.name])
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()?;
        wait(START, || self.state() != "activating");
        match self.state().as_str() {
            "active" => Ok(()),
            state => Err(io::Error::other(format!("{} is {state}; it said:\n{}", self.name, self.said()))),
        }
    }

    fn stop(&self) -> io::Result<()> {
        if self.state() != "active" {
            return Ok(());
        }
        let unit = self.unit()?;
        signal_to(self.main(), "TERM");
        if !wait(unit.seconds("TimeoutStopSec").unwrap_or(STOP), || self.state() != "active") {
            signal_to(self.main(), "KILL");
            wait(STOP, || self.state() != "active");
        }
        Ok(())
    }

    fn reload(&self) -> io::Result<()> {
        let line = self.unit()?.value("ExecReload").map(str::to_owned);
        let line = line.ok_or_else(|| io::Error::other(format!("{} cannot be reloaded", self.name)))?;
        done(&mut command(&line.replace("$MAINPID", &self.main().to_string())), &line)
    }

    fn enable(&self, now: bool) -> io::Result<()> {
        fs::create_dir_all(WANTED)?;
        let file = format!("{}.service", self.name);
        let (link, wanted) = (Path::new(WANTED).join(&file), self.path()?);
        match std::os::unix::fs::symlink(wanted, link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if now { self.start() } else { Ok(()) }
    }

    fn disable(&self, now: bool) -> io::Result<()> {
        let link = Path::new(WANTED).join(format!("{}.service", self.name));
        match fs::remove_file(link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if now { self.stop() } else { Ok(()) }
    }

    /// Runs it until its main process has ended.
    fn supervise(&self) -> io::Result<()> {
        let ran = self.run();
        let unit = self.unit()?;
        for line in unit.values("ExecStopPost") {
            let _ = unit.command(line.trim_start_matches('-')).status();
        }
        let state = if matches!(ran, Ok(true)) { "inactive" } else { "failed" };
        self.keep("main", "0")?;
        self.keep("state", state)?;
        ran.map(|_| ())
    }

    fn run(&self) -> io::Result<bool> {
        let unit = self.unit()?;
        let socket = self.kept("notify");
        let _ = fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
        told.set_read_timeout(Some(LOOK))?;
        let environment = unit.prepare()?;
        for line in unit.values("ExecStartPre") {
            done(unit.command(line).envs(environment.iter().cloned()), line)?;
        }
        let line = unit.value("ExecStart").ok_or_else(|| io::Error::other("no ExecStart"))?;
        let mut command = unit.command(line);
        command.envs(environment).env("NOTIFY_SOCKET", &socket);
        let mut child = command.spawn()?;
        let mut main = child.id();
        self.keep("main", &main.to_string())?;
        if unit.value("Type") != Some("notify") {
            self.keep("state", "active")?;
        }
        let mut good = true;
        let mut buffer = [0; 4096];
        loop {
            if let Ok(count) = told.recv(&mut buffer) {
                for line in String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).lines() {
                    if line == "READY=1" {
                        self.keep("state", "active")?;
                    } else if let Some(other) = line.strip_prefix("MAINPID=").and_then(|id| id.parse().ok()) {
                        main = other;
                        self.keep("main", &main.to_string())?;
                    }
                }
            }
            if let Some(status) = child.try_wait()? {
                good = status.success();
                if main == child.id() {
                    return Ok(good);
                }
            }
            if main != child.id() && !is_running(main) {
                return Ok(good);
            }
        }
    }
}

/// The lines of a unit's [Service], and what it takes from them.
struct Unit(Vec<(String, String)>);

impl Unit {
    fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect())
    }

    fn values<'u>(&'u self, key: &'u str) -> impl Iterator<Item = &'u str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn value<'u>(&'u self, key: &'u str) -> Option<&'u str> {
        self.values(key).last()
    }

    fn seconds(&self, key: &str) -> Option<Duration> {
        self.value(key)?.trim_end_matches('s').parse().ok().map(Duration::from_secs)
    }

    /// Makes its directories, and gives the variables that name them.
    fn prepare(&self) -> io::Result<Vec<(String, String)>> {
        let mut variables = Vec::new();
        for (key, variable, above, mode) in [
            ("StateDirectory", "STATE_DIRECTORY", "/var/lib", "0755"),
            ("CacheDirectory", "CACHE_DIRECTORY", "/var/cache", "0755"),
            ("LogsDirectory", "LOGS_DIRECTORY", "/var/log", "0755"),
            ("RuntimeDirectory", "RUNTIME_DIRECTORY", "/run", "0755"),
            ("ConfigurationDirectory", "CONFIGURATION_DIRECTORY", "/etc", ""),
        ] {
            let Some(name) = self.value(key) else { continue };
            let path = format!("{above}/{name}");
            if !mode.is_empty() {
                let mut install = Command::new("install");
                install.args(["-d", "-m", self.value(&format!("{key}Mode")).unwrap_or(mode)]);
                if let Some(user) = self.value("User") {
                    install.args(["-o", user, "-g", self.value("Group").unwrap_or(user)]);
                }
                done(install.arg(&path), &path)?;
            }
            variables.push((variable.to_owned(), path));
        }
        for pair in self.values("Environment") {
            variables.extend(pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        variables.extend(self.of_files());
        Ok(variables)
    }

    /// The variables that stand in its files.
    fn of_files(&self) -> Vec<(String, String)> {
        let texts = self.values("EnvironmentFile").filter_map(|path| fs::read_to_string(path).ok());
        let pairs = |text: String| -> Vec<_> {
            let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        texts.flat_map(pairs).collect()
    }

    /// A line of it, as its user and with no more rights than it has.
    fn command(&self, line: &str) -> Command {
        let variables = self.of_files();
        let given = |word: &str| variables.iter().find(|(name, _)| name == word).map(|(_, value)| value.clone());
        let words = line.split_whitespace().filter_map(|word| match word.strip_prefix('$') {
            Some(name) => given(name),
            None => Some(word.to_owned()),
        });
        let line = words.collect::<Vec<_>>().join(" ");
        let Some(user) = self.value("User") else { return command(&line) };
        let mut command = Command::new("setpriv");
        let group = self.value("Group").unwrap_or(user);
        let groups = match self.value("SupplementaryGroups") {
            Some(more) => format!("--groups={group},{more}"),
            None => "--init-groups".to_owned(),
        };
        command.args([format!("--reuid={user}"), format!("--regid={group}"), groups]);
        if let Some(all) = self.value("AmbientCapabilities") {
            let given =
                all.split_whitespace().map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
            let given: String = std::iter::once("-all".to_owned()).chain(given).collect();
            command.args([
                format!("--inh-caps={given}"),
                format!("--ambient-caps={given}"),
                format!("--bounding-set={given}"),
            ]);
        }
        if self.value("NoNewPrivileges") == Some("yes") {
            command.arg("--no-new-privs");
        }
        command.args(line.split_whitespace());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn done(command: &mut Command, what: &str) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{what}: {status}"))) }
}

fn signal_to(process: u32, signal: &str) -> bool {
    process != 0
        && Command::new("/bin/kill").args(["-s", signal, &process.to_string()]).status().is_ok_and(|s| s.success())
}

/// Whether there is such a process, and it has not ended.
fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Whether it came true in time.
fn wait(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..limit.as_millis() / LOOK.as_millis() {
        if is_so() {
            return true;
        }
        std::thread::park_timeout(LOOK);
    }
    is_so()
}
