//! The Debian package: what is in it, and what becomes of a machine and a running node when it is installed, upgraded, removed and
//! purged. Data and changed configurations are kept until it is purged; an upgrade does not stop the node.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use cache_tests::node::binary;
use cache_tests::process::Scratch;
use cache_tests::world::{Machine, World, enter};

const CONFIGURATION: &str = "/etc/littoral/edge.toml";
const DATA: [&str; 3] = ["/var/lib/littoral", "/var/cache/littoral", "/var/log/littoral"];
/// Ten times what `systemd-analyze security` calls exposure: below two is "OK".
const EXPOSURE_MAX: u32 = 20;

/// A unit in the place of the package's, of a process that says so when it gets SIGUSR2.
const CATCHES: &str = "[Service]\nType=simple\nExecStart=/root/catches\n";
const CATCHER: &str = "#!/bin/bash\ntrap 'touch /root/caught' USR2\nwhile :; do sleep 0.05; done\n";

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    if !enter("a_package_is_installed_upgraded_removed_and_purged") {
        return;
    }
    let out = Scratch::new("package");
    let (old, new) = (package(&out, "1.0.0"), package(&out, "1.0.1"));
    contents(&old);
    let mut world = World::new(Path::new(env!("CARGO_BIN_EXE_systemctl")));
    let machine = world.machine("machine", Ipv4Addr::new(192, 0, 2, 10));
    for (file, package) in [("old.deb", &old), ("new.deb", &new)] {
        machine.write(&format!("/root/{file}"), &std::fs::read(package).expect("a package that was made"));
    }

    installed(machine);
    runs(machine);
    upgraded(machine);
    tells_the_node(machine);
    removed(machine);
    purged(machine);
}

fn package(out: &Scratch, version: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/debian/build");
    let mut command = Command::new(build);
    command.args(["--compression", "gzip", "--version", version, "--out"]).arg(out.path()).arg(binary());
    let output = command.output().expect("deploy/debian/build can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().last().expect("the path of the package").into()
}

fn contents(package: &Path) {
    let of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(package).output().expect("a program of Debian's");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, files) = of("dpkg-deb", &["-c"]);
    for (mode, file) in [
        ("-rwxr-xr-x root/root", "./usr/bin/littoral"),
        ("-rw-r--r-- root/root", "./etc/littoral/edge.toml"),
        ("-rw-r--r-- root/root", "./lib/systemd/system/littoral.service"),
        ("-rw-r--r-- root/root", "./usr/share/doc/littoral/RUNBOOK.md"),
        ("-rw-r--r-- root/root", "./usr/share/doc/littoral/reference.md"),
    ] {
        let is_there = files.lines().any(|line| line.starts_with(mode) && line.ends_with(file));
        assert!(is_there, "no {file} that is {mode} in\n{files}");
    }
    let (_, said) = of("dpkg-deb", &["-I"]);
    assert!(said.contains("Depends: libc6"), "{said}");
    // Overrides, with their reasons: deploy/debian/lintian-overrides.
    let (good, said) = of(
        "lintian",
        &["--fail-on", "error,warning", "--allow-root", "--suppress-tags", "bad-distribution-in-changes-file"],
    );
    assert!(good, "lintian:\n{said}");
}

fn installed(machine: &Machine) {
    machine.run("apt-get install -y -qq ./old.deb");
    machine.run(
        "getent passwd littoral | grep nologin; [ \"$(stat -c %U:%G:%a /etc/littoral/tls)\" = root:littoral:750 ]",
    );
    machine.run("! systemctl is-enabled littoral; ! systemctl is-active littoral");
    machine.run(&format!(
        "for unit in /lib/systemd/system/littoral*.service; do systemd-analyze verify $unit; \
         systemd-analyze security --offline=true --threshold={EXPOSURE_MAX} $unit; done"
    ));
}

fn runs(machine: &Machine) {
    // Ten gigabytes are much for a machine in memory.
    machine.run(&format!("sed -i 's/10GiB/64MiB/' {CONFIGURATION}; echo '# mine' >> {CONFIGURATION}"));
    machine.run("littoral check /etc/littoral/edge.toml; systemctl enable --now littoral");
    machine.run("curl -sf http://127.0.0.1:9900/readyz; curl -s -o /dev/null http://127.0.0.1:8080/");
    machine.run("[ \"$(stat -c %U /proc/$(systemctl show --property MainPID --value littoral))\" = littoral ]");
    machine.run(&format!("touch {}", DATA.map(|directory| format!("{directory}/mine")).join(" ")));
}

/// Says what must outlive an upgrade; how often the node was started stands beside it.
const SECRET: &str = "sed -n '/\"secret\"/,/]/p' /var/lib/littoral/node.json";

fn upgraded(machine: &Machine) {
    let before = machine.run(&format!("systemctl show --property MainPID --value littoral; {SECRET}"));
    let (main, secret) = before.split_once('\n').expect("two lines");
    let catches = machine.run(&format!("sed -n 's/^SigCgt:.*\\(....\\)$/\\1/p' /proc/{main}/status"));
    let catches = u32::from_str_radix(catches.trim(), 16).is_ok_and(|mask| mask >> 11 & 1 == 1);
    let said = machine.run("apt-get install -y -qq ./new.deb");
    let expected = if catches { "is being handed over" } else { "goes on with the version before" };
    assert!(said.contains(expected), "{said}");
    machine.run("for n in $(seq 50); do curl -sf http://127.0.0.1:9900/readyz && exit 0; sleep 0.1; done; exit 1");
    machine.run(
        "systemctl is-active littoral; systemctl is-enabled littoral; dpkg -s littoral | grep -x 'Version: 1.0.1-1'",
    );
    assert_eq!(machine.run(SECRET), secret);
    kept(machine);
    if catches {
        let handed = "main=$(systemctl show --property MainPID --value littoral); [ $main != OLD ] && [ \"$(readlink /proc/$main/exe)\" = /usr/bin/littoral ]";
        machine.run(&format!(
            "for n in $(seq 100); do {} && exit 0; sleep 0.1; done; exit 1",
            handed.replace("OLD", main)
        ));
    } else {
        let after = machine.run("systemctl show --property MainPID --value littoral");
        assert_eq!(after.trim(), main, "it is still the process it was");
    }
}

/// Where a process has a handler for it, the signal comes; the installation of the same version again is an upgrade too.
fn tells_the_node(machine: &Machine) {
    machine.run("systemctl stop littoral");
    machine.write("/root/catches", CATCHER.as_bytes());
    machine.write("/etc/systemd/system/littoral.service", CATCHES.as_bytes());
    machine.run("chmod 0755 /root/catches; systemctl start littoral; sleep 0.2");
    let said =
        machine.run("dpkg -i new.deb; for n in $(seq 50); do [ -e caught ] && break; sleep 0.1; done; rm caught");
    assert!(said.contains("is being handed over"), "{said}");
    machine.run("systemctl is-active littoral; systemctl stop littoral; rm /etc/systemd/system/littoral.service");
    machine.run("systemctl start littoral");
}

fn removed(machine: &Machine) {
    machine.run("apt-get remove -y -qq littoral");
    machine.run("! systemctl is-active littoral; [ ! -e /usr/bin/littoral ]");
    kept(machine);
}

fn purged(machine: &Machine) {
    machine.run("apt-get purge -y -qq littoral");
    for path in DATA.iter().chain(&["/etc/littoral", "/lib/systemd/system/littoral.service"]) {
        machine.run(&format!("[ ! -e {path} ]"));
    }
    machine.run("! systemctl is-enabled littoral");
}

fn kept(machine: &Machine) {
    machine.run(&format!("tail -1 {CONFIGURATION} | grep -x '# mine'; grep 64MiB {CONFIGURATION}"));
    for directory in DATA {
        machine.run(&format!("[ -e {directory}/mine ]"));
    }
}
