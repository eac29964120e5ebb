//! Cache deception: a page of one user, asked for under the name of a file that everybody's cache keeps.
//!
//! Somebody is led to `/account/x.css`; the origin ignores the end of the path and answers with the account's page, and
//! a rule that stores stylesheets stores it for whoever asks next. What gives it away is that the name promises one
//! thing and `Content-Type` says another. Cloudflare calls this defence Cache Deception Armor.

use super::fields::{same_name, trim};

/// What an extension promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Stylesheet,
    Script,
    Image,
    /// SVG: an image, and XML.
    Drawing,
    Font,
}

/// The files that sites have stored for their names. Documents and data are none of them: those may be anything.
const EXTENSIONS: &[(&str, Promise)] = &[
    ("css", Promise::Stylesheet),
    ("js", Promise::Script),
    ("mjs", Promise::Script),
    ("cjs", Promise::Script),
    ("png", Promise::Image),
    ("apng", Promise::Image),
    ("jpg", Promise::Image),
    ("jpeg", Promise::Image),
    ("jfif", Promise::Image),
    ("gif", Promise::Image),
    ("webp", Promise::Image),
    ("avif", Promise::Image),
    ("jxl", Promise::Image),
    ("heic", Promise::Image),
    ("heif", Promise::Image),
    ("ico", Promise::Image),
    ("cur", Promise::Image),
    ("bmp", Promise::Image),
    ("tif", Promise::Image),
    ("tiff", Promise::Image),
    ("svg", Promise::Drawing),
    ("svgz", Promise::Drawing),
    ("woff", Promise::Font),
    ("woff2", Promise::Font),
    ("ttf", Promise::Font),
    ("ttc", Promise::Font),
    ("otf", Promise::Font),
    ("eot", Promise::Font),
];

/// Types that say nothing about what is inside: the defaults of file servers and object stores.
const UNKNOWN: &[&str] = &["application/octet-stream", "binary/octet-stream"];

/// Whether the name of the file that `path` asks for and the `Content-Type` of the answer contradict each other, so
/// that the answer must not be stored on account of its name.
///
/// `path` is without query and as it was sent: a dot that is percent-encoded begins no extension. A response without
/// `Content-Type`, or with a type that says nothing, contradicts nothing.
pub fn contradicts(path: &[u8], content_type: Option<&[u8]>) -> bool {
    let Some(promise) = Promise::of(path) else { return false };
    let essence = essence(content_type.unwrap_or_default());
    !essence.is_empty() && !is_among(UNKNOWN, essence) && !promise.allows(essence)
}

impl Promise {
    fn of(path: &[u8]) -> Option<Self> {
        let segment = path.rsplit(|byte| *byte == b'/').next()?;
        let extension = segment.get(memchr::memrchr(b'.', segment)? + 1..)?;
        EXTENSIONS.iter().find(|(name, _)| same_name(name.as_bytes(), extension)).map(|(_, promise)| *promise)
    }

    /// Whether a media type keeps the promise. Old names of types count too, and what files are converted to on the
    /// way: a defence that keeps files from being stored is one that gets turned off.
    fn allows(self, essence: &[u8]) -> bool {
        let begins = |prefixes: &[&str]| {
            prefixes.iter().any(|prefix| {
                essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            })
        };
        match self {
            Self::Stylesheet => is_among(&["text/css", "text/plain"], essence),
            Self::Script => is_among(SCRIPTS, essence),
            // A film in the place of a GIF is what image services make of it.
            Self::Image => begins(&["image/", "video/"]),
            Self::Drawing => begins(&["image/"]) || is_among(&["text/xml", "application/xml", "text/plain"], essence),
            Self::Font => {
                begins(&["font/", "x-font/", "application/font-", "application/x-font-"]) || is_among(FONTS, essence)
            }
        }
    }
}

/// RFC 9239 section 6 and what was written before it; JSON, for scripts that are only data.
const SCRIPTS: &[&str] = &[
    "text/javascript",
    "application/javascript",
    "application/x-javascript",
    "text/x-javascript",
    "application/ecmascript",
    "application/x-ecmascript",
    "text/ecmascript",
    "application/json",
    "text/plain",
];

/// What RFC 8081 gave `font/` for, besides names that begin with `application/font-`.
const FONTS: &[&str] = &[
    "application/vnd.ms-fontobject",
    "application/vnd.ms-opentype",
    "application/woff",
    "application/woff2",
    "application/x-woff",
];

/// The type and subtype, without parameters (RFC 9110 section 8.3.1).
fn essence(content_type: &[u8]) -> &[u8] {
    trim(content_type.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// Types fold case (RFC 9110 section 8.3.1).
fn is_among(types: &[&str], essence: &[u8]) -> bool {
    types.iter().any(|one| essence.eq_ignore_ascii_case(one.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, path: &str, content_type: Option<&str>, expected: bool) {
        let contradicts = contradicts(path.as_bytes(), content_type.map(str::as_bytes));
        assert_eq!(contradicts, expected, "{name}: {path} {content_type:?}");
    }

    #[test]
    fn decisions() {
        let html = Some("text/html; charset=utf-8");
        let rows = [
            ("a page for a stylesheet", "/account/x.css", html, true),
            ("a page for a script", "/account/x.js", html, true),
            ("a page for an image", "/account/x.png", html, true),
            ("a page for a drawing", "/account/x.svg", html, true),
            ("a page for a font", "/account/x.woff2", html, true),
            ("a file that is only an extension", "/account/.css", html, true),
            ("behind a parameter", "/account;x.css", html, true),
            ("behind an encoded slash", "/account%2Fx.css", html, true),
            ("behind an encoded null", "/account%00.css", html, true),
            ("case of the extension", "/account/x.CSS", html, true),
            ("9110 8.3.1: case of the type", "/account/x.css", Some("TEXT/HTML"), true),
            ("the last of two", "/x.html.css", html, true),
            ("data for an image", "/account/x.jpg", Some("application/json"), true),
            ("text for an image", "/account/x.jpg", Some("text/plain"), true),
            ("text for a font", "/account/x.ttf", Some("text/plain"), true),
            ("data for a stylesheet", "/account/x.css", Some("application/json"), true),
            ("XHTML for a drawing", "/account/x.svg", Some("application/xhtml+xml"), true),
            ("a page and something else", "/account/x.css", Some("text/html, text/css"), true),
            ("no media type at all", "/account/x.css", Some("html"), true),
            ("a prefix of a type", "/account/x.png", Some("image"), true),
            ("a page for a page", "/account", html, false),
            ("a page for a page, by name", "/account.html", html, false),
            ("what may be anything", "/report.pdf", html, false),
            ("an extension of the directory", "/x.css/account", html, false),
            ("an extension of the directory", "/x.css/", html, false),
            ("an encoded dot", "/account/x%2Ecss", html, false),
            ("another extension", "/account/x.csss", html, false),
            ("no extension", "/account/css", html, false),
            ("an empty one", "/account/x.", html, false),
            ("no path", "", html, false),
            ("no type", "/x.css", None, false),
            ("an empty type", "/x.css", Some(" ; charset=utf-8"), false),
            ("a type that says nothing", "/x.png", Some("application/octet-stream"), false),
            ("a type that says nothing", "/x.woff", Some("Binary/Octet-Stream"), false),
            ("as promised", "/x.css", Some("text/css;charset=utf-8"), false),
            ("as promised", "/x.css", Some("Text/CSS"), false),
            ("text", "/x.css", Some("text/plain"), false),
            ("text", "/x.mjs", Some("text/plain"), false),
            ("text", "/x.svg", Some("text/plain"), false),
            ("as promised", "/x.js", Some("text/javascript"), false),
            ("as promised", "/x.js", Some("application/javascript; charset=UTF-8"), false),
            ("an old name", "/x.js", Some("application/x-javascript"), false),
            ("an old name", "/x.js", Some("application/ecmascript"), false),
            ("data", "/x.js", Some("application/json"), false),
            ("as promised", "/x.svg", Some("image/svg+xml"), false),
            ("XML", "/x.svg", Some("text/xml"), false),
            ("XML", "/x.svgz", Some("application/xml"), false),
            ("converted on the way", "/x.jpg", Some("image/webp"), false),
            ("converted on the way", "/x.gif", Some("video/mp4"), false),
            ("9110 8.3.1: case of the type", "/x.png", Some("Image/PNG"), false),
            ("an icon", "/favicon.ico", Some("image/vnd.microsoft.icon"), false),
            ("as promised", "/x.woff2", Some("font/woff2"), false),
            ("an old name", "/x.woff", Some("application/font-woff"), false),
            ("an old name", "/x.ttf", Some("application/x-font-ttf"), false),
            ("an old name", "/x.eot", Some("application/vnd.ms-fontobject"), false),
        ];
        for (name, path, content_type, expected) in rows {
            check(name, path, content_type, expected);
        }
    }

    proptest! {
        #[test]
        fn a_page_is_none_of_these(
            path in "/[a-z/.%;]{0,9}",
            (extension, _) in prop::sample::select(EXTENSIONS),
            shouts in any::<bool>(),
            parameters in "( ?; ?charset=[a-z0-9-]{1,5})?",
        ) {
            let extension = if shouts { extension.to_ascii_uppercase() } else { extension.to_owned() };
            let path = format!("{path}.{extension}");
            for page in ["text/html", "application/xhtml+xml", "application/pdf"] {
                let content_type = format!("{page}{parameters}");
                prop_assert!(contradicts(path.as_bytes(), Some(content_type.as_bytes())), "{}", content_type);
            }
            prop_assert!(!contradicts(path.as_bytes(), None));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            path in prop::collection::vec(any::<u8>(), 0..20),
            content_type in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            contradicts(&path, Some(&content_type));
            contradicts(&[&path[..], b".css"].concat(), Some(&content_type));
        }
    }
}
