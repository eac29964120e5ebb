//! BIRD's control socket: commands in lines, and replies whose lines begin with a number of four digits.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long BIRD may take for a reply.
const REPLY_WITHIN: Duration = Duration::from_secs(2);
/// A line, and the lines of a reply, at most: those of one protocol are short.
const REPLY_LINES_MAX: usize = 64;

/// Why BIRD does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    #[error("{0}: {1}")]
    Socket(PathBuf, io::Error),
    #[error("{0}: BIRD says nothing")]
    Silent(PathBuf),
    #[error("BIRD says {0} to \"{1}\"")]
    Refused(String, String),
    #[error("what {0} says is no reply of BIRD: {1}")]
    NotBird(PathBuf, String),
}

/// A connection to BIRD, made again when it is gone.
pub struct Bird {
    path: PathBuf,
    connection: Option<BufReader<UnixStream>>,
}

impl Bird {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: None }
    }

    /// Enables a protocol, or disables it. Either is done when it is so already.
    ///
    /// # Errors
    /// It is not done. The next call connects anew.
    pub async fn set(&mut self, protocol: &str, enabled: bool) -> Result<(), BirdError> {
        let command = format!("{} {protocol}", if enabled { "enable" } else { "disable" });
        let done = match tokio::time::timeout(REPLY_WITHIN, self.command(&command)).await {
            Ok(done) => done,
            Err(_) => Err(BirdError::Silent(self.path.clone())),
        };
        if done.is_err() {
            self.connection = None;
        }
        done
    }

    async fn command(&mut self, command: &str) -> Result<(), BirdError> {
        let path = self.path.clone();
        let socket = |error| BirdError::Socket(path.clone(), error);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = UnixStream::connect(&self.path).await.map_err(socket)?;
                let mut connection = BufReader::new(stream);
                reply(&path, &mut connection).await?;
                connection
            }
        };
        connection.write_all(format!("{command}\n").as_bytes()).await.map_err(socket)?;
        match reply(&path, &mut connection).await? {
            Some(refused) => Err(BirdError::Refused(refused, command.to_owned())),
            None => {
                self.connection = Some(connection);
                Ok(())
            }
        }
    }
}

/// Reads a whole reply, and gives the line that refuses, if one does.
async fn reply(path: &Path, connection: &mut BufReader<UnixStream>) -> Result<Option<String>, BirdError> {
    let mut refused = None;
    for _ in 0..REPLY_LINES_MAX {
        let mut line = String::new();
        let read = connection.read_line(&mut line).await;
        match read.map_err(|error| BirdError::Socket(path.to_owned(), error))? {
            0 => return Err(BirdError::Socket(path.to_owned(), io::ErrorKind::UnexpectedEof.into())),
            _ => match parse(line.trim_end()) {
                None => return Err(BirdError::NotBird(path.to_owned(), line)),
                Some((code, text, last)) => {
                    if code.is_some_and(|code| code >= REFUSED) {
                        refused = Some(text.to_owned());
                    }
                    if last {
                        return Ok(refused);
                    }
                }
            },
        }
    }
    Err(BirdError::NotBird(path.to_owned(), "a reply without an end".to_owned()))
}

/// Replies of 8000 and more are errors: of what was asked for, and from 9000 on of how.
const REFUSED: u16 = 8_000;

/// One line of a reply: its number, if it has one of its own, its text, and whether it is the last.
fn parse(line: &str) -> Option<(Option<u16>, &str, bool)> {
    if let Some(text) = line.strip_prefix([' ', '+']) {
        return Some((None, text, false));
    }
    let (code, rest) = line.split_at_checked(4)?;
    let code = code.parse().ok().filter(|_| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    match rest.chars().next() {
        None => Some((Some(code), "", true)),
        Some(' ') => Some((Some(code), &rest[1..], true)),
        Some('-') => Some((Some(code), &rest[1..], false)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_replies() {
        for (line, expected) in [
            ("0001 BIRD 2.17.1 ready.", Some((Some(1), "BIRD 2.17.1 ready.", true))),
            ("0011-anycast4: enabled", Some((Some(11), "anycast4: enabled", false))),
            ("0000 ", Some((Some(0), "", true))),
            ("0000", Some((Some(0), "", true))),
            (" goes on", Some((None, "goes on", false))),
            ("8003 No protocols match", Some((Some(8003), "No protocols match", true))),
            (
                "9001 syntax error, unexpected end of file",
                Some((Some(9001), "syntax error, unexpected end of file", true)),
            ),
            ("HTTP/1.1 400 Bad Request", None),
            ("+123 x", Some((None, "123 x", false))),
            ("00", None),
            ("0000äx", None),
            ("", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
