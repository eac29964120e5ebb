//! Whether certificates are revoked: what a node staples to handshakes, with `openssl ocsp` as the responder and `openssl s_client`
//! as the client.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::node::{Node, NodeOptions, free_port};
use cache_tests::origin::Origin;
use cache_tests::process::{Process, Scratch};
use serde_json::json;

/// A node asks again 5 s after the first failure.
const ASKED_AGAIN: Duration = Duration::from_secs(20);

/// An authority, the certificates it has given out, and its responder.
struct Authority {
    files: Scratch,
    port: u16,
    responder: Option<Process>,
}

impl Authority {
    fn new() -> Self {
        let authority =
            Self { files: Scratch::new("authority"), port: free_port(Ipv4Addr::LOCALHOST.into()), responder: None };
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 2 \
             -addext basicConstraints=critical,CA:TRUE",
        );
        authority
    }

    fn openssl(&self, arguments: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(self.files.path()).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("openssl does not start: {error}"));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "openssl {arguments}: {said}");
        said
    }

    /// The chain and the key of a certificate for a name, which names the responder.
    fn certify(&self, name: &str, serial: u32) -> (String, String) {
        let url = format!("http://127.0.0.1:{}/ocsp", self.port);
        let extensions = format!("subjectAltName=DNS:{name}\nauthorityInfoAccess=OCSP;URI:{url}\n");
        self.files.write("extensions", extensions.as_bytes());
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 2 -extfile extensions -out {name}.pem"
        ));
        (self.files.read(&format!("{name}.pem")) + &self.files.read("ca.pem"), self.files.read(&format!("{name}.key")))
    }

    /// Answers questions from now on: about certificates by serial, and whether they are revoked. Answers are for a minute.
    async fn answer(&mut self, certificates: &[(u32, bool)]) {
        self.responder = None;
        let line = |(serial, is_revoked): &(u32, bool)| match is_revoked {
            false => format!("V\t491231235959Z\t\t{serial:04X}\tunknown\t/CN={serial}\n"),
            true => format!("R\t491231235959Z\t260101000000Z\t{serial:04X}\tunknown\t/CN={serial}\n"),
        };
        let index: String = certificates.iter().map(line).collect();
        self.files.write("index.txt", index.as_bytes());
        let path = |name: &str| self.files.path().join(name).display().to_string();
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-port", &self.port.to_string(), "-nmin", "1", "-index", &path("index.txt")]);
        command.args(["-CA", &path("ca.pem"), "-rsigner", &path("ca.pem"), "-rkey", &path("ca.key")]);
        let responder = self.responder.insert(Process::start("openssl", command, Scratch::new("responder")));
        // It waits for ever for somebody who connects and says nothing.
        until(PATIENCE, "the responder to listen", || {
            let said = responder.said();
            async move { if said.contains("waiting for OCSP client") { Ok(()) } else { Err(said) } }
        })
        .await;
    }

    /// The status that a client gets with its handshake. None: nothing about it.
    fn stapled(&self, node: &Node, name: &str) -> Option<String> {
        let said = self.openssl(&format!(
            "s_client -connect {} -servername {name} -status -CAfile ca.pem -verify_return_error",
            node.tls_address()
        ));
        let (_, status) = said.split_once("Cert Status: ")?;
        assert!(said.contains("OCSP Response Status: successful"), "{said}");
        status.lines().next().map(|line| line.trim().to_owned())
    }

    async fn until_stapled(&self, node: &Node, name: &str, expected: Option<&str>) {
        until(ASKED_AGAIN, &format!("{name} to have {expected:?} stapled"), || async {
            let stapled = self.stapled(node, name);
            if stapled.as_deref() == expected { Ok(()) } else { Err(format!("{stapled:?}: {}", node.said())) }
        })
        .await;
    }
}

const FILE: &str = "file.example.test";
const OWN: &str = "own.example.test";
const SERIALS: (u32, u32) = (0x1001, 0x1002);

fn text(ocsp: &str) -> String {
    format!(
        "[tls]\ncertificates = [{{ certificate = \"file.pem\", key = \"file.key\" }}]\nstore_key = \"store.key\"\n{ocsp}\
         [site.main]\nhosts = [\"{FILE}\", \"{OWN}\"]\norigins = [\"{{origin}}\"]\n"
    )
}

/// A node with a certificate of a file, and then with one of its site's own.
async fn node(authority: &Authority, origin: &Origin, ocsp: &str) -> Node {
    let (chain, key) = authority.certify(FILE, SERIALS.0);
    let options = NodeOptions::configured(origin, &text(ocsp)).file("file.pem", chain).file("file.key", key);
    let node = options.file("store.key", [7; 32]).test_clock().start().await;
    let (chain, key) = authority.certify(OWN, SERIALS.1);
    let body = json!({ "site": "main", "chain": chain, "key": key });
    let answer = node.admin_json("POST", "/v1/certificates", &body, None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    node
}

async fn asked(node: &Node, outcome: &str) -> f64 {
    node.metrics().await.sum("littoral_ocsp_requests_total", &[("outcome", outcome)])
}

#[tokio::test]
async fn what_a_responder_says_is_stapled_while_it_holds() {
    let (mut authority, origin) = (Authority::new(), Origin::start());
    let node = node(&authority, &origin, "ocsp = \"any\"\n").await;
    until(PATIENCE, "the silent responder to be asked", || async {
        let failed = asked(&node, "failed").await;
        if failed >= 2.0 { Ok(()) } else { Err(failed.to_string()) }
    })
    .await;
    assert_eq!(authority.stapled(&node, FILE), None);
    assert!(node.said().contains("nobody says whether a certificate is revoked"), "{}", node.said());

    authority.answer(&[(SERIALS.0, false), (SERIALS.1, false)]).await;
    for name in [FILE, OWN] {
        authority.until_stapled(&node, name, Some("good")).await;
    }
    until(PATIENCE, "two staples to be counted", || async {
        let count = node.metrics().await.sum("littoral_ocsp_staples", &[]);
        if count as u32 == 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;

    // The responder goes, the word stays: over a reload too, as long as it is for.
    authority.responder = None;
    assert_eq!(node.reload(&text("ocsp = \"any\"\n")).await.status, 200);
    for name in [FILE, OWN] {
        assert_eq!(authority.stapled(&node, name).as_deref(), Some("good"), "{name}");
    }
    node.advance_clock(Duration::from_secs(61)).await;
    for name in [FILE, OWN] {
        assert_eq!(authority.stapled(&node, name), None, "{name}: it is over");
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_not_called_good() {
    let (mut authority, origin) = (Authority::new(), Origin::start());
    authority.answer(&[(SERIALS.0, false), (SERIALS.1, false)]).await;
    let node = node(&authority, &origin, "ocsp = \"any\"\n").await;
    for name in [FILE, OWN] {
        authority.until_stapled(&node, name, Some("good")).await;
    }
    authority.answer(&[(SERIALS.0, true), (SERIALS.1, false)]).await;
    assert_eq!(authority.stapled(&node, FILE).as_deref(), Some("good"), "nobody has asked again");
    // Half of the minute is over: it is asked again.
    let before = asked(&node, "good").await;
    node.advance_clock(Duration::from_secs(35)).await;
    authority.until_stapled(&node, FILE, None).await;
    until(PATIENCE, "the other one to be asked about", || async {
        let good = asked(&node, "good").await;
        if good > before { Ok(()) } else { Err(good.to_string()) }
    })
    .await;
    assert_eq!(authority.stapled(&node, OWN).as_deref(), Some("good"), "the other one");
    assert!(node.said().contains("a certificate is revoked: replace it"), "{}", node.said());

    // And nobody is asked who is not to be.
    assert_eq!(node.reload(&text("ocsp = \"off\"\n")).await.status, 200);
    authority.until_stapled(&node, OWN, None).await;
}

/// Sites bring certificates: what these name is not to be the network inside.
#[tokio::test]
async fn a_responder_of_the_network_inside_is_not_asked() {
    let (mut authority, origin) = (Authority::new(), Origin::start());
    authority.answer(&[(SERIALS.0, false), (SERIALS.1, false)]).await;
    let node = node(&authority, &origin, "").await;
    until(PATIENCE, "both to be refused", || async {
        let failed = asked(&node, "failed").await;
        if failed >= 2.0 { Ok(()) } else { Err(failed.to_string()) }
    })
    .await;
    assert_eq!(authority.stapled(&node, OWN), None);
    assert!(node.said().contains("not at a public address"), "{}", node.said());
    let responder = authority.responder.as_ref().expect("it runs");
    let heard = fs::read_to_string(PathBuf::from(responder.scratch().path()).join("stdout")).unwrap_or_default();
    assert!(!heard.contains("Serial Number"), "it was asked: {heard}");
}
