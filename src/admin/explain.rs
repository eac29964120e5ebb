//! `GET /v1/explain?url=URL`: what is asked about, read from a query.

use std::net::Ipv4Addr;

use super::purge::Wrong;
use crate::pipeline::explain::Question;

/// Fields that one may ask about at once.
const FIELDS_MAX: usize = 100;

/// Reads `url`, `method`, `header` (which may be repeated) and `client`.
///
/// # Errors
/// What is wrong with it.
pub fn read(query: Option<&str>) -> Result<Question, Wrong> {
    let wrong = |key: &str, message: String| Wrong { key: key.to_owned(), message };
    let mut question = Question {
        method: "GET".into(),
        scheme: String::new(),
        host: String::new(),
        target: String::new(),
        fields: Vec::new(),
        client: Ipv4Addr::LOCALHOST.into(),
    };
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "url" => {
                let uri = value.parse::<http::Uri>().ok();
                let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
                let Some((uri, authority)) = uri.as_ref().and_then(|uri| Some((uri, uri.authority()?))) else {
                    let message = format!("`{value}` is not a URL: expected http:// or https://, a host and a path");
                    return Err(wrong("url", message));
                };
                question.scheme = uri.scheme_str().unwrap_or_default().to_owned();
                question.host = authority.as_str().to_owned();
                question.target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
            }
            "method" => question.method = value.into_owned(),
            "header" => {
                let is_line = value.contains(':') && !value.contains(['\r', '\n']);
                if !is_line || question.fields.len() == FIELDS_MAX {
                    return Err(wrong("header", format!("`{value}` is not a field: expected Name: value")));
                }
                question.fields.push(value.into_owned());
            }
            "client" => match value.parse() {
                Ok(client) => question.client = client,
                Err(_) => return Err(wrong("client", format!("`{value}` is not an address"))),
            },
            other => return Err(wrong(other, "expected url, method, header and client".into())),
        }
    }
    if question.host.is_empty() {
        return Err(wrong("url", "url is missing".into()));
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let query = "url=https%3A%2F%2Fwww.example.com%3A8443%2Fa%3Fb%3D1&header=Accept%3A+text%2Fhtml&header=A:b\
                     &method=HEAD&client=192.0.2.1";
        let question = read(Some(query)).expect("a question");
        assert_eq!(
            (&*question.scheme, &*question.host, &*question.target),
            ("https", "www.example.com:8443", "/a?b=1")
        );
        assert_eq!(question.fields, ["Accept: text/html", "A:b"]);
        assert_eq!((&*question.method, question.client.to_string()), ("HEAD", "192.0.2.1".into()));
        for (query, key) in [
            ("", "url"),
            ("url=nonsense", "url"),
            ("url=ftp%3A%2F%2Fa%2F", "url"),
            ("url=http%3A%2F%2Fa%2F&header=nonsense", "header"),
            ("url=http%3A%2F%2Fa%2F&header=a%3A%0D%0Ab%3A", "header"),
            ("url=http%3A%2F%2Fa%2F&client=me", "client"),
            ("url=http%3A%2F%2Fa%2F&what=this", "what"),
        ] {
            assert_eq!(read(Some(query)).expect_err(query).key, key, "{query}");
        }
    }
}
