//! Why a head was refused.

use httparse::Error;

/// What is wrong with a head. The connection is closed after it: where the next request starts is anybody's guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub enum Refusal {
    EmptyLines,
    BareLineFeed,
    BareCarriageReturn,
    MalformedMethod,
    MalformedTarget,
    TargetTooLong,
    MalformedVersion,
    UnsupportedVersion,
    ObsoleteLineFolding,
    EmptyFieldName,
    SpaceBeforeColon,
    MalformedFieldName,
    ControlCharacterInValue,
    TooManyFields,
    HeadTooLarge,
    MissingHost,
    RepeatedHost,
    MalformedHost,
    HostDisagreesWithTarget,
    MalformedContentLength,
    RepeatedContentLength,
    ContentLengthWithTransferEncoding,
    TransferEncoding,
    TransferEncodingInHttp10,
    MalformedScheme,
    ConnectionField,
    SpaceAroundValue,
    ContentLengthWithoutBody,
}

impl Refusal {
    /// Every refusal: what a counter with one series for each starts from.
    pub const ALL: [Self; 28] = [
        Self::EmptyLines,
        Self::BareLineFeed,
        Self::BareCarriageReturn,
        Self::MalformedMethod,
        Self::MalformedTarget,
        Self::TargetTooLong,
        Self::MalformedVersion,
        Self::UnsupportedVersion,
        Self::ObsoleteLineFolding,
        Self::EmptyFieldName,
        Self::SpaceBeforeColon,
        Self::MalformedFieldName,
        Self::ControlCharacterInValue,
        Self::TooManyFields,
        Self::HeadTooLarge,
        Self::MissingHost,
        Self::RepeatedHost,
        Self::MalformedHost,
        Self::HostDisagreesWithTarget,
        Self::MalformedContentLength,
        Self::RepeatedContentLength,
        Self::ContentLengthWithTransferEncoding,
        Self::TransferEncoding,
        Self::TransferEncodingInHttp10,
        Self::MalformedScheme,
        Self::ConnectionField,
        Self::SpaceAroundValue,
        Self::ContentLengthWithoutBody,
    ];

    /// The reason as one token, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::TooManyFields | Self::HeadTooLarge => 431,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// The reason as a sentence for the client.
    pub const fn sentence(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::EmptyLines => ("empty-lines", "There are too many empty lines before the request line."),
            Self::BareLineFeed => ("bare-line-feed", "A line ends with a line feed alone, without a carriage return."),
            Self::BareCarriageReturn => ("bare-carriage-return", "A carriage return is not followed by a line feed."),
            Self::MalformedMethod => ("malformed-method", "The method is not a token."),
            Self::MalformedTarget => (
                "malformed-target",
                "The request target is neither a path nor an absolute http or https URI, in visible ASCII, without a \
                 fragment.",
            ),
            Self::TargetTooLong => ("target-too-long", "The request target is longer than 8 KiB."),
            Self::MalformedVersion => ("malformed-version", "The request line does not end with an HTTP version."),
            Self::UnsupportedVersion => ("unsupported-version", "This node speaks HTTP/1.0 and HTTP/1.1."),
            Self::ObsoleteLineFolding => ("obsolete-line-folding", "A field line is folded."),
            Self::EmptyFieldName => ("empty-field-name", "A field line has no name."),
            Self::SpaceBeforeColon => {
                ("space-before-colon", "There is white space between a field name and its colon.")
            }
            Self::MalformedFieldName => ("malformed-field-name", "A field line is not a token and a colon."),
            Self::ControlCharacterInValue => ("control-character-in-value", "A field value has a control character."),
            Self::TooManyFields => ("too-many-fields", "There are more than 128 field lines."),
            Self::HeadTooLarge => ("head-too-large", "The request line and the fields are larger than 64 KiB."),
            Self::MissingHost => ("missing-host", "There is neither a Host field nor an authority."),
            Self::RepeatedHost => ("repeated-host", "There is more than one Host field."),
            Self::MalformedHost => ("malformed-host", "The Host field is not a host with an optional port."),
            Self::HostDisagreesWithTarget => {
                ("host-disagrees-with-target", "The Host field and the request target name different hosts.")
            }
            Self::MalformedContentLength => {
                ("malformed-content-length", "The Content-Length is not a number of bytes.")
            }
            Self::RepeatedContentLength => ("repeated-content-length", "There is more than one Content-Length field."),
            Self::ContentLengthWithTransferEncoding => {
                ("content-length-with-transfer-encoding", "There are both Content-Length and Transfer-Encoding.")
            }
            Self::TransferEncoding => {
                ("transfer-encoding", "The Transfer-Encoding is not one field with the one coding chunked.")
            }
            Self::TransferEncodingInHttp10 => {
                ("transfer-encoding-in-http10", "Transfer-Encoding is not part of HTTP/1.0.")
            }
            Self::MalformedScheme => ("malformed-scheme", "The scheme is not that of the connection."),
            Self::ConnectionField => ("connection-field", "HTTP/2 has no fields about the connection."),
            Self::SpaceAroundValue => ("space-around-value", "A field value begins or ends with white space."),
            Self::ContentLengthWithoutBody => {
                ("content-length-without-body", "The Content-Length promises a body, and none follows.")
            }
        }
    }
}

/// What `httparse` stumbled over; nothing if it did so too early, over the beginning of a version.
///
/// `method` and `target` are as far as it got in `seen`.
pub(super) fn cause(error: Error, method: Option<&str>, target: Option<&str>, seen: &[u8]) -> Option<Refusal> {
    let Some(method) = method else {
        let bad = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        return Some(line_end(seen, bad).unwrap_or(Refusal::MalformedMethod));
    };
    let after_method = seen.get(method.len() + 1..).unwrap_or_default();
    let Some(target) = target else {
        let end = after_method.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
        let short = matches!(end.and_then(|end| after_method.get(end..)), Some([b'\r', b'\n', ..]));
        let otherwise = if short && end != Some(0) { Refusal::MalformedVersion } else { Refusal::MalformedTarget };
        return Some(line_end(after_method, end).unwrap_or(otherwise));
    };
    let after_target = after_method.get(target.len() + 1..).unwrap_or_default();
    match error {
        Error::Version => version(after_target),
        // A line end that broke off, of the request line or of the empty line at the end.
        Error::NewLine if matches!(after_target.get("HTTP/1.1".len()), Some(b'\r' | b'\n')) => {
            Some(Refusal::BareCarriageReturn)
        }
        Error::NewLine => Some(Refusal::MalformedVersion),
        Error::TooManyHeaders => Some(Refusal::TooManyFields),
        _ => Some(field(after_target)),
    }
}

/// Whether the byte at `at` is half of a line end.
fn line_end(bytes: &[u8], at: Option<usize>) -> Option<Refusal> {
    match bytes.get(at?..)? {
        [b'\n', ..] => Some(Refusal::BareLineFeed),
        [b'\r', b'\n', ..] => None,
        [b'\r', ..] => Some(Refusal::BareCarriageReturn),
        _ => None,
    }
}

fn version(text: &[u8]) -> Option<Refusal> {
    const FORM: &[u8; 8] = b"HTTP/0.0";
    let fits =
        text.iter().zip(FORM).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form });
    match text.get(FORM.len()) {
        _ if !fits => Some(Refusal::MalformedVersion),
        None => (text.len() == FORM.len()).then_some(Refusal::UnsupportedVersion),
        Some(b'\r') => Some(Refusal::UnsupportedVersion),
        Some(_) => Some(Refusal::MalformedVersion),
    }
}

/// The first thing wrong in lines of which some are; the first is the rest of the request line.
fn field(lines: &[u8]) -> Refusal {
    for (index, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        // The last piece has not ended, or the lines are gone through without a finding.
        let whole = line.strip_suffix(b"\r");
        let text = whole.unwrap_or(line);
        if text.contains(&b'\r') {
            return Refusal::BareCarriageReturn;
        }
        let name_length = text.iter().take_while(|byte| is_token(**byte)).count();
        let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        match text.get(name_length..).unwrap_or_default() {
            _ if index == 0 => {}
            [b' ' | b'\t', ..] if name_length == 0 => return Refusal::ObsoleteLineFolding,
            [b':', ..] if name_length == 0 => return Refusal::EmptyFieldName,
            [b' ' | b'\t', rest @ ..] if rest.contains(&b':') => return Refusal::SpaceBeforeColon,
            [b':', value @ ..] if !value.iter().all(is_value) => return Refusal::ControlCharacterInValue,
            [b':', ..] => {}
            _ => return Refusal::MalformedFieldName,
        }
        if whole.is_none() {
            return Refusal::BareLineFeed;
        }
    }
    Refusal::MalformedFieldName
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
