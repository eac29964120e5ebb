//! Two PoPs that share an address, a router before them, and clients: networks of their own, and what runs in them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::client::{Client, HOST, Socket};
use crate::deadline::until;
use crate::node::binary;
use crate::process::{Process, Scratch};
use crate::response::End;

pub const ORIGIN: &str = "10.0.3.2:9000";
pub const ANYCAST: [&str; 2] = ["192.0.2.1:8080", "[2001:db8::1]:8080"];

/// Runs commands, a line each.
pub fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().expect("a shell");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A program in a namespace.
fn within(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// A router `r` between the clients, here, and two PoPs, `p1` and `p2`. The way to `p1` leads over a switch `s`, which can be
/// cut without the router's port going down.
pub fn networks() {
    shell(
        "mount -t tmpfs none /run\nmkdir -p /run/netns\nip link set lo up
        for n in r p1 p2 s; do ip netns add $n; ip -n $n link set lo up; done
        ip link add name c0 type veth peer name rc netns r
        ip -n r link add name r2 type veth peer name e0 netns p2
        ip -n r link add name r1 type veth peer name s0 netns s
        ip -n s link add name s1 type veth peer name e0 netns p1
        ip -n s link add name sw type bridge
        for d in s0 s1; do ip -n s link set $d master sw; ip -n s link set $d up; done; ip -n s link set sw up
        ip address add 10.0.3.2/24 dev c0; ip address add fd00:3::2/64 dev c0 nodad; ip link set c0 up
        ip -n r address add 10.0.3.1/24 dev rc; ip -n r address add fd00:3::1/64 dev rc nodad; ip -n r link set rc up
        for p in 1 2; do
            ip -n r address add 10.0.$p.1/24 dev r$p; ip -n r address add fd00:$p::1/64 dev r$p nodad
            ip -n r link set r$p up
            ip -n p$p address add 10.0.$p.2/24 dev e0; ip -n p$p address add fd00:$p::2/64 dev e0 nodad
            ip -n p$p link set e0 up
            ip -n p$p address add 192.0.2.1/32 dev lo; ip -n p$p address add 2001:db8::1/128 dev lo nodad
            ip -n p$p route add default via 10.0.$p.1; ip -n p$p -6 route add default via fd00:$p::1
        done
        ip route add default via 10.0.3.1; ip -6 route add default via fd00:3::1
        ip netns exec r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
}

/// Whether the switch passes anything to `p1`.
pub fn link_to_p1(up: bool) {
    shell(if up { "ip -n s link set s1 master sw" } else { "ip -n s link set s1 nomaster" });
}

/// BIRD in a namespace.
pub fn bird(namespace: &str, configuration: &str) -> Process {
    let scratch = Scratch::new(&format!("bird-{namespace}"));
    scratch.write("bird.conf", configuration.as_bytes());
    let mut command = within(namespace, Path::new("bird"));
    command.args(["-f", "-c", "bird.conf", "-s"]).arg(control(namespace));
    Process::start("bird", command, scratch)
}

pub fn control(namespace: &str) -> PathBuf {
    format!("/run/bird-{namespace}.ctl").into()
}

/// The router prefers the first PoP.
pub fn router() -> Process {
    let mut text = "router id 10.0.3.1;\nlog stderr all;\nprotocol device {}\nprotocol bfd { interface \"*\" { interval 300 ms; multiplier 3; }; }
        protocol kernel { ipv4 { import none; export all; }; }\nprotocol kernel { ipv6 { import none; export all; }; }\n"
        .to_owned();
    for pop in [1, 2] {
        for (version, neighbor, net) in
            [(4, format!("10.0.{pop}.2"), "192.0.2.1/32"), (6, format!("fd00:{pop}::2"), "2001:db8::1/128")]
        {
            text += &format!(
                "protocol bgp pop{pop}v{version} {{ local as 64496; neighbor {neighbor} as 6451{pop}; bfd; connect delay time 1; error wait time 1, 10; \
                 hold time 9; ipv{version} {{ import filter {{ if net != {net} then reject; bgp_local_pref = {}; accept; }}; export none; }}; }}\n",
                300 - 100 * pop
            );
        }
    }
    bird("r", &text)
}

/// What is shipped, with the values of a PoP.
pub fn shipped(pop: u8) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/bird/bird.conf");
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (shipped, own) in [
        ("198.51.100.11", format!("10.0.{pop}.2")),
        ("= 64512", format!("= 6451{pop}")),
        ("198.51.100.1;", format!("10.0.{pop}.1;")),
        ("2001:db8:100::1", format!("fd00:{pop}::1")),
        ("log syslog", "log stderr".to_owned()),
    ] {
        assert!(text.contains(shipped), "{shipped} is not in {}", path.display());
        text = text.replace(shipped, &own);
    }
    text
}

/// A node, which says in its answers which it is.
pub fn node(pop: u8) -> Process {
    let scratch = Scratch::new(&format!("pop-{pop}"));
    let text = format!(
        "workers = 2\n[listen]\nhttp = \"[::]:8080\"\n[admin]\nlisten = \"10.0.{pop}.2:9900\"\n[cache]\nmemory = \"64MiB\"\n\
         [telemetry]\naccess_log = \"access.log\"\n[limits]\ndrain_timeout = \"6s\"\n[anycast]\n\
         addresses = [\"192.0.2.1/32\", \"2001:db8::1/128\"]\nwithdraw_linger = \"1s\"\n\
         [site.main]\nhosts = [\"*\"]\norigins = [\"http://{ORIGIN}\"]\n\
         [[site.main.rule]]\nthen = {{ set_response = {{ x-pop = \"p{pop}\" }} }}\n"
    );
    scratch.write("edge.toml", text.as_bytes());
    let mut command = within(&format!("p{pop}"), &binary());
    command.args(["run", "--config", "edge.toml"]);
    Process::start("littoral", command, scratch)
}

/// What watches over it.
pub fn announce(pop: u8) -> Process {
    let name = format!("p{pop}");
    let mut command = within(&name, &binary());
    command.args(["announce", "--admin", &format!("10.0.{pop}.2:9900"), "--bird"]).arg(control(&name));
    Process::start("announce", command, Scratch::new("announce"))
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Who answers a new connection to an address, within a second and a half.
pub async fn who(anycast: &str, target: &str) -> Result<(String, Option<String>), String> {
    let asked = async {
        let connected = Client::connect_with(address(anycast), Socket::default()).await;
        let mut client = connected.map_err(|error| format!("not connected: {error}"))?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request).await.map_err(|error| format!("not sent: {error}"))?;
        let response = client.response("GET").await.map_err(|end: End| format!("no answer: {end:?}"))?;
        let pop = response.head.field("x-pop").ok_or(format!("{} of nobody", response.status))?;
        match response.status == 200 && response.end.is_clean() {
            true => Ok((pop, response.head.field("connection"))),
            false => Err(format!("{} {:?}", response.status, response.end)),
        }
    };
    tokio::time::timeout(Duration::from_millis(1_500), asked).await.unwrap_or(Err("no answer in time".to_owned()))
}

/// Waits until both addresses lead to a PoP.
pub async fn leads_to(pop: &str, limit: Duration) {
    for anycast in ANYCAST {
        until(limit, &format!("{anycast} leads to {pop}"), || async {
            match who(anycast, "/page").await {
                Ok((served, _)) if served == pop => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// The status that a node's own address answers.
pub async fn asked(pop: u8, method: &str, path: &str) -> Option<u16> {
    let admin = SocketAddr::new(IpAddr::from([10, 0, 0, 0]), 9900);
    let admin = SocketAddr::new(format!("10.0.{pop}.2").parse().unwrap_or(admin.ip()), admin.port());
    let mut client = Client::connect_with(admin, Socket::default()).await.ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    client.send(request).await.ok()?;
    client.response(method).await.ok().map(|response| response.status)
}
