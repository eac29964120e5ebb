//! What every answer of the admin API is made as.

use http::StatusCode;
use serde_json::json;

use super::purge::Wrong;

/// Room for most answers: a receipt of one purge.
const RECEIPT_BYTES: usize = 512;

/// An answer of the API.
pub struct Reply {
    pub status: StatusCode,
    pub kind: &'static str,
    pub body: String,
    /// Seconds, for `Retry-After`.
    pub retry_after: Option<u64>,
}

impl Reply {
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into(), retry_after: None }
    }

    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let mut body = Vec::with_capacity(RECEIPT_BYTES);
        // What cannot be told is an empty answer; nothing that is told here is of that kind.
        let body = match serde_json::to_writer(&mut body, value) {
            Ok(()) => String::from_utf8(body).unwrap_or_default() + "\n",
            Err(_) => "\n".to_owned(),
        };
        Self { status, kind: "application/json", body, retry_after: None }
    }

    /// Errors, in the one form they all have.
    pub fn errors(status: StatusCode, errors: &[Wrong]) -> Self {
        Self::json(status, &json!({ "errors": errors }))
    }

    pub fn error(status: StatusCode, message: impl Into<String>) -> Self {
        Self::errors(status, &[Wrong { key: String::new(), message: message.into() }])
    }
}
