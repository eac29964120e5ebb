//! What a key of the configuration is: its name, what it takes, its default and its manual.
//!
//! The same declaration is what reads the key, what suggests it, and what the schema and the reference are made from, so
//! that no key can be read that is not documented.

/// A table of the configuration and its keys.
#[derive(Debug)]
pub struct Section {
    /// As in the file: `[cache]`.
    pub title: &'static str,
    pub doc: &'static str,
    pub keys: &'static [&'static Key],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// What an absent key means, written as in the file but without quotation marks.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string; the words say of what.
    Text(&'static str),
    /// A number of bytes with its unit.
    Size,
    /// A length of time with its unit.
    Duration,
    /// A part in a hundred.
    Percent,
    /// A whole number from the first to the second.
    Integer(u32, u32),
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One, or an array of them.
    Many(&'static Kind),
    Table(&'static Section),
    /// Tables by names of the operator's choice.
    Named(&'static Section),
    /// Values by names of the operator's choice.
    Map(&'static Kind),
    /// Any of these.
    Any(&'static [Kind]),
    /// `false`, to turn off what is on by default.
    Off,
}

/// Declares a table and its keys.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $section:ident = $title:literal {
            $($(#[doc = $doc:literal])+ $key:ident = $name:literal: $kind:expr $(, $default:literal)?;)*
        }
    ) => {
        $(#[doc = $section_doc])+
        pub static $section: $crate::read::key::Section = $crate::read::key::Section {
            title: $title,
            doc: concat!($($section_doc, "\n"),+),
            keys: &[$(&$key),*],
        };
        $(
            $(#[doc = $doc])+
            pub(crate) static $key: $crate::read::key::Key = $crate::read::key::Key {
                name: $name,
                kind: $kind,
                default: section!(@default $($default)?),
                doc: concat!($($doc, "\n"),+),
            };
        )*
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
}
pub(crate) use section;
