//! `[geo]`: in which country an address is.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use maxminddb::{PathElement, Reader as Database};

use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table, Value};

/// A database of countries, as it was when the configuration was read.
#[derive(Clone)]
pub struct Geo {
    file: PathBuf,
    database: Arc<Database<Vec<u8>>>,
}

/// A country: two capitals (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

section! {
    /// In which country an address is.
    GEO = "[geo]" {
        /// A database of MaxMind's format (mmdb) with countries, as GeoLite2-Country, GeoIP2-City or DB-IP's. It is read
        /// again with every reload.
        DATABASE = "database": Kind::Text("a file");
    }
}

/// Larger ones are no databases of countries; all of it is in memory.
const DATABASE_BYTES_MAX: u64 = 512 << 20;

impl Country {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn read(reader: &mut Reader, key: &Key, value: Value<'_>) -> Option<Self> {
        let country = reader.parse::<Self>(key, value)?;
        if !reader.known.countries {
            let help = "add [geo] with database = \"FILE\"";
            reader.wrong(&country.span, "`country` needs a database, and there is none", "needs [geo]", help);
        }
        Some(country.value)
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no country.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a country: expected two capitals of ISO 3166-1, as in \"DE\"")]
pub struct CountryError(String);

impl FromStr for Country {
    type Err = CountryError;

    fn from_str(text: &str) -> Result<Self, CountryError> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Self([*a, *b])),
            _ => Err(CountryError(text.into())),
        }
    }
}

impl Geo {
    /// The country of an address, if the database knows one.
    pub fn country(&self, client: IpAddr) -> Option<Country> {
        let found = self.database.lookup(client.to_canonical()).ok()?;
        let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
        found.decode_path::<&str>(&path).ok()??.parse().ok()
    }

    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Option<Self> {
        let table = table?;
        // Also when something is wrong with it: rules are right to rely on it.
        reader.known.countries = true;
        if table.value(&DATABASE).is_none() {
            reader.wrong(&table.span, "[geo] has no `database`", "`database` is missing", DATABASE.summary());
        }
        let file = table.file(reader, &DATABASE);
        table.finish(reader);
        let (file, span) = file?;
        match open(&file) {
            Ok(database) => Some(Self { file, database: Arc::new(database) }),
            Err(error) => {
                let message = format!("{} is no database of countries: {error}", file.display());
                reader.wrong(&span, message, "expected a file of MaxMind's format", DATABASE.summary());
                None
            }
        }
    }
}

fn open(file: &std::path::Path) -> Result<Database<Vec<u8>>, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > DATABASE_BYTES_MAX {
        return Err(format!("it has {length} bytes, expected at most {DATABASE_BYTES_MAX}"));
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let database = Database::from_source(bytes).map_err(|error| error.to_string())?;
    // A file that was cut short would be found out by a client only.
    database.verify().map_err(|error| error.to_string())?;
    Ok(database)
}

/// Two readings of a file are the same when they hold the same.
impl PartialEq for Geo {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.database.metadata().build_epoch == other.database.metadata().build_epoch
    }
}

impl Eq for Geo {}

impl fmt::Debug for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Geo").field("file", &self.file).finish_non_exhaustive()
    }
}
