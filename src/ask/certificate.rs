//! `littoral certificate`: the certificates that sites bring, asked for and said.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};

use super::{AskError, ask};
use crate::cli::certificate::Certificate;
use crate::semantics::time::UnixMs;

/// Why a certificate was not brought.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CertificateError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ask(#[from] AskError),
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
}

/// Asks a node what the command is about. Gives what to print.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(command: &Certificate) -> Result<String, CertificateError> {
    let (json, answer, said) = match command {
        Certificate::Add { site, chain, key, asked } => {
            let body = json!({ "site": site, "chain": read(chain)?, "key": read(key)? });
            let answer = ask(&Method::POST, &asked.admin, "/v1/certificates", Some(&body))?;
            (asked.json, answer.clone(), changed(&answer, "added"))
        }
        Certificate::List { site, asked } => {
            let mut answer = ask(&Method::GET, &asked.admin, "/v1/certificates", None)?;
            for list in ["certificates", "unusable"] {
                if let (Some(site), Some(Value::Array(all))) = (site, answer.get_mut(list)) {
                    all.retain(|one| one.get("site").and_then(Value::as_str) == Some(site));
                }
            }
            (asked.json, answer.clone(), listed(&answer))
        }
        Certificate::ForgetAccount { asked } => {
            let answer = ask(&Method::POST, &asked.admin, "/v1/certificates/account/forget", None)?;
            (asked.json, answer, "another account is made for the next order".to_owned())
        }
        Certificate::Remove { site, fingerprint, asked } => {
            let body = json!({ "site": site, "fingerprint": fingerprint });
            let answer = ask(&Method::POST, &asked.admin, "/v1/certificates/delete", Some(&body))?;
            (asked.json, answer.clone(), changed(&answer, "removed"))
        }
    };
    Ok(if json { answer.to_string() } else { said })
}

fn read(file: &Path) -> Result<String, CertificateError> {
    std::fs::read_to_string(file).map_err(|error| CertificateError::File(file.to_owned(), error))
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn changed(answer: &Value, what: &str) -> String {
    let (site, fingerprint) = (word(answer, "site"), word(answer, "fingerprint"));
    let here = match word(answer, "here") {
        "in force" => "that is in force here, and on its way to other nodes".to_owned(),
        other => format!("here that is {other}"),
    };
    format!("certificate {fingerprint} of {site} is {what}; {here}")
}

fn listed(answer: &Value) -> String {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let certificate = |certificate: &Value| {
        let names = |key: &str| {
            list(certificate, key).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>().join(", ")
        };
        let seconds = certificate.get("not_after").and_then(Value::as_u64).unwrap_or_default();
        let site = match word(certificate, "site") {
            "" => "no site",
            site => site,
        };
        let from = match word(certificate, "from") {
            "api" => "brought by the site",
            "acme" => "had by ACME",
            _ => "from a file",
        };
        let mut line = format!(
            "{site}: {}, until {}, {from}, issued by {}, {}",
            if names("names").is_empty() { "no host".to_owned() } else { names("names") },
            crate::pipeline::explain::date(UnixMs(seconds.saturating_mul(1_000))),
            word(certificate, "issuer"),
            word(certificate, "fingerprint"),
        );
        if !names("unused").is_empty() {
            line += &format!("; not used for {}", names("unused"));
        }
        line
    };
    let mut lines: Vec<String> = list(answer, "certificates").iter().map(certificate).collect();
    let unusable = |unusable: &Value| {
        let line = format!("{}: cannot be used: {}", word(unusable, "site"), word(unusable, "why"));
        let fingerprints = list(unusable, "fingerprints");
        std::iter::once(line)
            .chain(fingerprints.iter().filter_map(Value::as_str).map(|it| format!("  {it}")))
            .collect::<Vec<_>>()
            .join("\n")
    };
    lines.extend(list(answer, "unusable").iter().map(unusable));
    if lines.is_empty() {
        lines.push("there is no certificate".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_said_in_words() {
        let answer = json!({
            "certificates": [
                { "site": "shop", "names": ["shop.test", "*.shop.test"], "unused": ["blog.test"], "issuer": "CN=A",
                  "not_before": 0, "not_after": 86_400, "fingerprint": "0a", "from": "api" },
                { "site": null, "names": [], "unused": ["x.test"], "issuer": "CN=B", "not_after": 0, "fingerprint": "0b",
                  "from": "file" },
            ],
            "unusable": [{ "site": "blog", "why": "another key", "fingerprints": ["0c"] }],
        });
        let expected = "shop: shop.test, *.shop.test, until Fri, 02 Jan 1970 00:00:00 GMT, brought by the site, issued by \
            CN=A, 0a; not used for blog.test\n\
            no site: no host, until Thu, 01 Jan 1970 00:00:00 GMT, from a file, issued by CN=B, 0b; not used for x.test\n\
            blog: cannot be used: another key\n  0c";
        assert_eq!(listed(&answer), expected);
        assert_eq!(listed(&json!({})), "there is no certificate");
        let answer = json!({ "site": "shop", "fingerprint": "0a", "here": "in force" });
        let expected = "certificate 0a of shop is added; that is in force here, and on its way to other nodes";
        assert_eq!(changed(&answer, "added"), expected);
    }
}
