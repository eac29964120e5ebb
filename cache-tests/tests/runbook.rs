//! "Three PoPs, step by step" of the runbook, followed to the letter by somebody who has machines for it, and looked at as a user.
//!
//! What is not to the letter: the package is of the binary under test, sizes and the time of a drain are small, `TOKEN_OF_NAME` is what
//! NAME's token is, the authority that issues certificates is pebble, what others have in DNS a name server here answers, `ssh`, `scp`
//! and `systemctl` are stand-ins (see [`cache_tests::world`] and [`cache_tests::outside`]).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use cache_tests::answer::Answer;
use cache_tests::manual::{Block, Step, blocks};
use cache_tests::node::binary;
use cache_tests::origin::Origin;
use cache_tests::outside::{Authority, Names, equip};
use cache_tests::process::Scratch;
use cache_tests::world::{World, enter};

const PAGE: &str = include_str!("../../deploy/RUNBOOK.md");
const CHAPTER: &str = "Three PoPs, step by step";
/// What is smaller here than in earnest.
const SMALLER: [(&str, &str); 3] =
    [("\"200GiB\"", "\"64MiB\""), ("\"2GiB\"", "\"128MiB\""), ("drain_grace = \"40s\"", "drain_grace = \"500ms\"")];
/// How often a block with `until` is tried, and how long it waits in between: twenty seconds.
const TRIES: u32 = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

#[test]
fn three_pops_are_made_to_the_letter() {
    if !enter("three_pops_are_made_to_the_letter") {
        return;
    }
    let blocks = blocks(PAGE, CHAPTER);
    let (mut followed, origin) = Followed::begin(&blocks);
    followed.follow_all(&blocks);
    // The shield has asked once for each version, whoever was asked first; nobody else has, where the shield could be asked.
    let asked = origin.count("/page");
    assert!(asked >= 3, "the origin was asked {asked} times");
}

/// The chapter about a hub of three servers, behind the steps by which there is a site.
#[test]
#[ignore = "long: LITTORAL_SOAK=1 cargo test -p cache-tests --test runbook -- --ignored"]
fn the_hub_grows_to_three_servers() {
    if !enter("the_hub_grows_to_three_servers") {
        return;
    }
    let mut all = blocks(PAGE, CHAPTER);
    let end = all.iter().position(|block| block.heading.starts_with("Take a PoP out")).expect("what comes later");
    all.truncate(end);
    all.extend(blocks(PAGE, "Three servers for the hub"));
    let (mut followed, _origin) = Followed::begin(&all);
    followed.follow_all(&all);
}

/// The role of `deploy/ansible`, on the machine itself: a fourth PoP; then it has nothing more to change; then an upgrade.
#[test]
#[ignore = "long, and needs Ansible: LITTORAL_SOAK=1 cargo test -p cache-tests --test runbook -- --ignored"]
fn a_pop_is_added_by_ansible() {
    if !enter("a_pop_is_added_by_ansible") {
        return;
    }
    let mut blocks = blocks(PAGE, CHAPTER);
    let end = blocks.iter().position(|block| block.heading.starts_with("4.")).expect("a fourth step");
    blocks.truncate(end);
    let (mut followed, _origin) = Followed::begin(&blocks);
    followed.follow_all(&blocks);
    let (desk, hub, node) = (followed.world.of("desk"), followed.world.of("hub-1"), followed.world.of("syd-1"));
    desk.run("cd cdn; ./users syd-1; ./certificate syd-1.cdn.example.net; scp littoral_*.deb root@syd-1.cdn.example.net:/root/");
    hub.run("systemctl reload nats-server");
    desk.write("/root/cdn/given", GIVEN.as_bytes());
    desk.run("cd cdn; bash given > given.json; scp given.json root@syd-1.cdn.example.net:/root/");
    let ansible = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ansible");
    let copied = Command::new("cp").arg("-R").arg(ansible).arg(node.path("/root/ansible")).status();
    assert!(copied.is_ok_and(|status| status.success()), "the role cannot be copied");
    node.write("/root/ansible/here.yml", INVENTORY.as_bytes());
    let play = |book: &str| {
        node.run(&format!("cd ansible; ansible-playbook -i here.yml -e @/root/given.json -e littoral_package=$(ls /root/littoral_*.deb) {book}"))
    };
    let said = play("site.yml");
    assert!(said.contains("failed=0"), "{said}");
    let listed = followed.world.of("fra-1").run("littoral node list");
    assert!(listed.contains("syd-1"), "{listed}");
    let again = play("site.yml");
    assert!(again.contains("changed=0"), "{again}");
    let upgraded = play("upgrade.yml");
    assert!(upgraded.contains("failed=0"), "{upgraded}");
    node.run("systemctl is-active littoral; [ \"$(stat -c %U:%G:%a /etc/littoral/edge.toml)\" = root:littoral:640 ]");
}

const INVENTORY: &str = "littoral:\n  children:\n    syd:\n      hosts:\n        syd-1.cdn.example.net:\n";

/// What the role is told, of what lies on the desk.
const GIVEN: &str = r#"python3 - <<'PYTHON'
import base64, json, pathlib
text = lambda name: pathlib.Path(name).read_text()
key = lambda name: base64.b64encode(pathlib.Path(name).read_bytes()).decode()
print(json.dumps({
    "ansible_connection": "local", "ansible_become": False,
    "littoral_hub": ["tls://hub-1.cdn.example.net:4222"], "littoral_hub_password": text("syd-1.password").strip(),
    "littoral_node_key": key("node.key"), "littoral_store_key": key("store.key"), "littoral_ticket_key": key("tickets.key"),
    "littoral_authority": text("ca.pem"), "littoral_certificate": text("syd-1.cdn.example.net.pem"),
    "littoral_certificate_key": text("syd-1.cdn.example.net.key"),
    "littoral_memory": "128MiB", "littoral_disks": [{"path": "/var/cache/littoral", "size": "64MiB"}],
    "littoral_drain_grace": "500ms",
}))
PYTHON
"#;

fn names(blocks: &[Block]) -> Vec<(String, Ipv4Addr)> {
    let text = blocks.iter().filter(|block| block.step == Step::Names).map(|block| block.text.as_str());
    let pairs = text.flat_map(str::lines).filter_map(|line| line.split_once(char::is_whitespace));
    pairs.map(|(address, name)| (name.trim().to_owned(), address.parse().expect("an address of a machine"))).collect()
}

/// All machines of the CDN that have a name, and the desk.
fn machines(world: &mut World, names: &[(String, Ipv4Addr)]) {
    let mut hosts = String::from("127.0.0.1 localhost\n");
    for (name, address) in names {
        let _ = writeln!(hosts, "{address} {name}");
    }
    world.machine("desk", Ipv4Addr::new(192, 0, 2, 2));
    let ours = names.iter().filter_map(|(name, address)| Some((name.strip_suffix(".cdn.example.net")?, *address)));
    for (name, address) in ours {
        world.machine(name, address);
    }
    for machine in world.machines() {
        machine.write("/etc/hosts", hosts.as_bytes());
        if machine.name != "desk" {
            machine.share_with(world.of("desk"));
        }
    }
    let desk = world.of("desk");
    equip(desk);
    let out = Scratch::new("runbook");
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/debian/build");
    let output = Command::new(build)
        .args(["--compression", "gzip", "--out"])
        .arg(out.path())
        .arg(binary())
        .output()
        .expect("a script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package = String::from_utf8_lossy(&output.stdout).lines().last().expect("the path of a package").to_owned();
    let package = Path::new(&package);
    let name = package.file_name().expect("a file").to_string_lossy();
    desk.write(&format!("/root/cdn/{name}"), &std::fs::read(package).expect("a package that was made"));
}

struct Followed {
    world: World,
    authority: Authority,
    outside: Names,
    /// What the last block that was typed has shown.
    said: String,
}

impl Followed {
    /// The machines, and an origin that answers with another number each time, so that what is new can be told from what is stored.
    fn begin(blocks: &[Block]) -> (Self, Origin) {
        let mut world = World::new(Path::new(env!("CARGO_BIN_EXE_systemctl")));
        let names = names(blocks);
        machines(&mut world, &names);
        let address = names.iter().find(|(name, _)| name == "origin.example.net").expect("an origin among the names").1;
        world.address(address);
        let origin = Origin::start_at(SocketAddr::from((address, 8080)));
        origin.serve("/page", Answer::ok("version ").field("Cache-Control: max-age=6000").numbered());
        let authority = Authority::start(&mut world);
        let outside = Names::start(&world);
        (Self { world, authority, outside, said: String::new() }, origin)
    }

    fn follow_all(&mut self, blocks: &[Block]) {
        let mut steps = blocks.iter().peekable();
        while let Some(block) = steps.next() {
            let expected = steps.peek().filter(|next| next.step == Step::Shows).map(|next| next.text.as_str());
            self.follow(block, expected.unwrap_or_default());
        }
    }

    fn follow(&mut self, block: &Block, expected: &str) {
        let text = self.as_here(&block.text);
        match &block.step {
            Step::Names => {}
            Step::Records => self.outside.records(&block.text),
            Step::File { on, path } => {
                for machine in on {
                    let machine = self.world.of(machine);
                    machine.write(path, text.as_bytes());
                    if text.starts_with("#!") {
                        machine.run(&format!("chmod 0755 {path}"));
                    }
                }
            }
            Step::Run { on, until } => {
                self.said = on.iter().map(|machine| self.typed(block, machine, &text, expected, *until)).collect();
            }
            Step::Shows => {
                let missing = missing(&self.said, &block.text);
                assert!(missing.is_none(), "line {}: no {missing:?} in what was shown:\n{}", block.line, self.said);
            }
        }
    }

    fn typed(&self, block: &Block, machine: &str, text: &str, expected: &str, until: bool) -> String {
        let mut tries = if until { TRIES } else { 1 };
        loop {
            let output = self.world.of(machine).try_run(text);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            tries -= 1;
            let is_good = output.status.success() && missing(&said, expected).is_none();
            if is_good || (!until && output.status.success()) {
                return said;
            }
            assert!(
                tries > 0,
                "RUNBOOK.md, line {}, {}, on {machine}: {}\n{text}\nshown:\n{said}\nthe nodes:\n{}",
                block.line,
                block.heading,
                output.status,
                self.nodes()
            );
            std::thread::park_timeout(PAUSE);
        }
    }

    /// What services on all machines have said last.
    fn nodes(&self) -> String {
        let said = self.world.machines().iter().map(|machine| {
            let output = machine.try_run(
                "for file in /run/systemctl/*.said; do [ ! -e $file ] || tail -n 15 $file | cut -c1-300; done",
            );
            format!("--- {}\n{}", machine.name, String::from_utf8_lossy(&output.stdout))
        });
        said.collect()
    }

    /// The text, with what is smaller or known only now.
    fn as_here(&self, text: &str) -> String {
        let mut text = SMALLER.iter().fold(text.to_owned(), |text, (large, small)| text.replace(large, small));
        text = text.replace("[acme]\n", &format!("[acme]\n{}", self.authority.settings()));
        for name in ["operator", "shop"] {
            let word = format!("TOKEN_OF_{}", name.to_uppercase());
            if text.contains(&word) {
                text = text.replace(&word, self.world.of("desk").run(&format!("cat cdn/{name}.token")).trim());
            }
        }
        text
    }
}

/// The first of these lines that is nowhere in what was shown.
fn missing<'e>(said: &str, expected: &'e str) -> Option<&'e str> {
    expected.lines().find(|line| !said.contains(line.trim()))
}
