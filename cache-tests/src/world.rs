//! Machines of a test's own: each has its network and a copy of this machine's file system that is forgotten afterwards.
//!
//! A test that needs some runs again in namespaces of its own ([`enter`]): mounts, network and processes, so that nothing it does is
//! seen outside, and nothing is left when it ends. A machine has an address on the one network there is, and `systemctl` is a
//! stand-in (`src/bin/systemctl.rs`), as systemd does not run there. It takes root, or `sudo` that does not ask.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Said in the environment to the test that runs inside: a file it writes, so that nobody takes a test that never ran for one that passed.
const INSIDE: &str = "LITTORAL_TEST_WORLD";
/// Where machines are, once inside: a file system in memory.
const MACHINES: &str = "/run/machines";
/// How long all of it may take, in seconds.
const TEST_MAX: u32 = 240;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether the test that calls this is inside. Where it is not, it has been run there, to a good end.
///
/// # Panics
/// When what was run inside failed.
pub fn enter(test: &str) -> bool {
    if let Some(sign) = std::env::var_os(INSIDE) {
        fs::write(sign, test).expect("the test outside has a place for it");
        return true;
    }
    let outside = crate::process::Scratch::new("world");
    let sign = outside.path().join("sign");
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    let limit = TEST_MAX.to_string();
    let mut command = Command::new(if is_root { "env" } else { "sudo" });
    if !is_root {
        command.args(["-n", "--preserve-env", "env"]);
    }
    let status = command
        .arg(format!("{INSIDE}={}", sign.display()))
        .arg(format!("LITTORAL_BIN={}", crate::node::binary().display()))
        .args(["timeout", "--kill-after", "10", &limit, "unshare", "--mount", "--propagation", "private"])
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("a test is a program"))
        .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads", "1"])
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("namespaces of its own (as root, or with sudo): {error}"));
    assert!(status.success(), "{test}, in namespaces of its own: {status}");
    assert_eq!(fs::read_to_string(&sign).ok().as_deref(), Some(test), "it is not the name of the test that calls this");
    false
}

/// All machines, and the network between them. The test itself is at the first address.
#[derive(Debug)]
pub struct World {
    machines: Vec<Machine>,
}

/// The network: one for documentation, so that nothing of it is anybody's.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl World {
    /// # Panics
    /// When it cannot be made.
    pub fn new(systemctl: &Path) -> Self {
        let stand_in = fs::read(systemctl).unwrap_or_else(|error| panic!("{}: {error}", systemctl.display()));
        shell(
            "mount -t tmpfs -o mode=0755 tmpfs /run\nmkdir -p /run/machines/shared\nip link set lo up\n\
             ip link add littoral0 type bridge\nip link set littoral0 up",
        );
        shell(&format!("ip address add {FIRST}/24 dev littoral0"));
        let path = Path::new(MACHINES).join("shared/systemctl");
        fs::write(&path, stand_in).expect("a file in memory can be written");
        shell(&format!("chmod 0755 {}", path.display()));
        Self { machines: Vec::new() }
    }

    /// Gives this side of the network another address.
    pub fn address(&self, address: Ipv4Addr) {
        shell(&format!("ip address add {address}/24 dev littoral0"));
    }

    /// A machine as this one was, with a network of its own.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn machine(&mut self, name: &str, address: Ipv4Addr) -> &Machine {
        let number = self.machines.len();
        let place = Path::new(MACHINES).join(name);
        let root = place.join("root");
        shell(&format!(
            "cd {place}
             mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
             mount -t proc proc root/proc
             mount --rbind /dev root/dev
             mount -t tmpfs -o mode=0755 tmpfs root/run
             mount -t tmpfs -o mode=1777 tmpfs root/tmp
             mkdir -p root/run/systemd/system root/usr/local/bin
             for place in local/bin bin; do cp --remove-destination {MACHINES}/shared/systemctl root/usr/$place/systemctl; done
             ip netns add {name}
             ip link add littoral-{number} master littoral0 type veth peer name eth0 netns {name}
             ip link set littoral-{number} up
             ip -n {name} link set lo up
             ip -n {name} address add {address}/24 dev eth0
             ip -n {name} link set eth0 up",
            place = made(&place, &["upper", "work", "root"]).display(),
        ));
        self.machines.push(Machine { name: name.to_owned(), root });
        self.machines.last().expect("one was put there")
    }

    /// # Panics
    /// When there is none of this name.
    pub fn of(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("there is no machine {name}"))
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub name: String,
    root: PathBuf,
}

impl Machine {
    /// What a path of it is called from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Writes a file, and the directories it is in.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &[u8]) {
        let path = self.path(path);
        let directory = path.parent().expect("a file is in a directory");
        let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, text));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Another one sees its files, below /machines, and may enter its network.
    pub fn share_with(&self, other: &Self) {
        let place = other.path(&format!("/machines/{}", self.name));
        shell(&format!("mkdir -p {0}; mount --rbind {1} {0}", place.display(), self.root.display()));
        let networks = other.path("/run/netns");
        shell(&format!(
            "mkdir -p {0}; touch {0}/{1}; mount --bind /run/netns/{1} {0}/{1}",
            networks.display(),
            self.name
        ));
    }

    /// Runs lines of bash as root, to the first that fails.
    pub fn try_run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("chroot").arg(&self.root);
        command.args(["env", "-i", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg(format!("PATH={PATH}")).args(["bash", "-euo", "pipefail", "-c"]);
        command.arg(format!("cd; {{ {script}\n}} 2>&1")).stdin(Stdio::null());
        // What is started in the background must not keep the test waiting: output goes to a file.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let said = self.path(&format!("/tmp/said-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = fs::File::create(&said).unwrap_or_else(|error| panic!("{}: {error}", said.display()));
        let status = command.stdout(file).status().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let stdout = fs::read(&said).unwrap_or_default();
        let _ = fs::remove_file(&said);
        Output { status, stdout, stderr: Vec::new() }
    }

    /// What they said.
    ///
    /// # Panics
    /// When one fails.
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "on {}: {}\n{script}\n\nsaid:\n{said}", self.name, output.status);
        said
    }
}

fn made(place: &Path, directories: &[&str]) -> PathBuf {
    for directory in directories {
        fs::create_dir_all(place.join(directory)).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    }
    place.to_owned()
}

fn shell(script: &str) {
    let output = Command::new("bash").args(["-euc", script]).env("PATH", PATH).output();
    let output = output.unwrap_or_else(|error| panic!("bash: {error}"));
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}
