//! What a CDN finds outside of itself, for machines of a test's own: name servers of others, an authority that issues certificates,
//! and the commands that reach other machines.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::name_server::{Data, NameServer};
use crate::tls::{Identity, authority_pem};
use crate::world::{FIRST, Machine, World};

const AUTHORITY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);
/// Where machines have what vouches for the authority's own address.
const VOUCHES: &str = "/usr/local/share/authority.pem";

/// `ssh root@NAME COMMAND`, where all machines are below /machines.
const SSH: &str = r#"#!/bin/bash -eu
[[ $1 =~ ^root@([a-z0-9-]+)\.[a-z.]+$ ]] || { echo "ssh (a stand-in): $1" >&2; exit 1; }
machine=${BASH_REMATCH[1]} && shift
exec nsenter --net=/run/netns/$machine chroot /machines/$machine env -i HOME=/root LANG=C.UTF-8 PATH="$PATH" bash -c "cd; $*"
"#;

/// `scp FILE... root@NAME:PATH`, and `scp root@NAME:PATH PATH`.
const SCP: &str = r#"#!/bin/bash -eu
options=() paths=()
for word in "$@"; do
    if [[ $word == -* ]]; then
        options+=("$word")
    elif [[ $word =~ ^root@([a-z0-9-]+)\.[a-z.]+:(.*)$ ]]; then
        path=${BASH_REMATCH[2]}
        [[ $path == /* ]] || path=/root/$path
        paths+=("/machines/${BASH_REMATCH[1]}$path")
    else
        paths+=("$word")
    fi
done
recursive=; [[ " ${options[*]} " == *r* ]] && recursive=-r
exec cp $recursive "${paths[@]}"
"#;

/// Gives a machine what an operator has on a desk: a way to log in to all others.
pub fn equip(machine: &Machine) {
    for (name, text) in [("ssh", SSH), ("scp", SCP)] {
        let path = format!("/usr/local/bin/{name}");
        machine.write(&path, text.as_bytes());
        machine.run(&format!("chmod 0755 {path}"));
    }
}

/// The name server that everybody asks.
pub struct Names(NameServer);

impl Names {
    /// For all machines there are.
    pub fn start(world: &World) -> Self {
        for machine in world.machines() {
            machine.run("rm -f /etc/resolv.conf");
            machine.write("/etc/resolv.conf", format!("nameserver {FIRST}\n").as_bytes());
        }
        Self(NameServer::start_at(SocketAddr::from((FIRST, 53))))
    }

    /// What somebody writes into a zone of theirs: one line for each record.
    ///
    /// # Panics
    /// When it is no record that is known here. A name server's address stands before who is delegated to it.
    pub fn records(&self, text: &str) {
        let mut addresses = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_end_matches('.')).collect();
            let &[name, seconds, "IN", kind, value] = words.as_slice() else { panic!("not a record: {line}") };
            let data = match kind {
                "CNAME" => Data::Alias(value.to_owned()),
                "A" => {
                    let address: IpAddr = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
                    addresses.push((name, address));
                    Data::Address(address)
                }
                "NS" => {
                    let known = addresses.iter().find(|(name, _)| *name == value);
                    Data::Delegated(SocketAddr::new(known.unwrap_or_else(|| panic!("{line}: of no address")).1, 53))
                }
                _ => panic!("not known here: {line}"),
            };
            self.0.set(name, seconds.parse().expect("seconds"), vec![data]);
        }
    }
}

/// An authority that issues certificates by ACME: pebble, on a machine of its own.
#[derive(Debug)]
pub struct Authority;

impl Authority {
    /// # Panics
    /// When it does not start.
    pub fn start(world: &mut World) -> Self {
        let machine = world.machine("authority", AUTHORITY);
        let identity = Identity::of(&[&AUTHORITY.to_string()]);
        machine.write("/srv/cert.pem", identity.certificate_pem.as_bytes());
        machine.write("/srv/key.pem", identity.key_pem.as_bytes());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": "0.0.0.0:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": "/srv/cert.pem",
            "privateKey": "/srv/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        } });
        machine.write("/srv/pebble.json", config.to_string().as_bytes());
        machine.run(&format!(
            "PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0 pebble -config /srv/pebble.json -dnsserver {FIRST}:53 > /srv/said 2>&1 &
             for try in $(seq 50); do
                 ! curl -sk https://127.0.0.1:15000/roots/0 > /srv/root.pem || break
                 sleep 0.1
             done
             grep -q CERTIFICATE /srv/root.pem"
        ));
        let root = machine.run("cat /srv/root.pem");
        for machine in world.machines() {
            machine.write(VOUCHES, authority_pem().as_bytes());
        }
        // Whoever looks at a site trusts it, as browsers do.
        let desk = world.of("desk");
        desk.write("/usr/local/share/public.pem", root.as_bytes());
        desk.run("cat /usr/local/share/public.pem >> /etc/ssl/certs/ca-certificates.crt");
        Self
    }

    /// What is said of it in a configuration, in place of the authority everybody uses.
    pub fn settings(&self) -> String {
        format!("directory = \"https://{AUTHORITY}:14000/dir\"\nca = \"{VOUCHES}\"\n")
    }
}
