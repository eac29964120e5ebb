//! What every answer of the admin API is made as.

use http::StatusCode;
use serde_json::json;

use super::purge::Wrong;

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
        let body = serde_json::to_string(value).unwrap_or_default() + "\n";
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
