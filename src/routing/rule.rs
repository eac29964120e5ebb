//! The rules of a site: which of them match a request, and what they say about it and about its responses.
//!
//! Every rule that matches applies, in order; of one setting the last wins. What a rule asks of the request is decided
//! once, when the request comes; a rule for responses is looked at again when an origin has answered.
//!
//! What follows from that, and may surprise:
//!
//! - Conditions see the request as the client sent it, ignored parameters included, and the response as the origin sent
//!   it, before any rule has changed its fields. After a 304 that is the stored response, as rules have left it, under the
//!   fields of the 304: a rule that strips the field it looks for does not match again.
//! - `cache = true` undoes an earlier `cache = false` of its own kind: among rules for requests, or for responses.
//! - What is stored is for everybody who asks for the same, and has what the rules made of the response to whoever asked
//!   first. A rule about cookies, fields or clients therefore says `cache = false`, or goes with a `Vary`.
//! - A request past the cache neither stores anything nor removes anything that is stored.
//! - `ttl` counts as `max-age` does, from when the response was made: an `Age` that it comes with is used up already.
//! - An unsafe request invalidates the target that is left of its own after `ignore_query`; a rule that is only about GET
//!   has it invalidate another. It reaches what all groups have answered.
//! - What is stored is known by the client's URL without ignored parameters, and beside that by the group and the path that
//!   were asked. So a purge of what clients ask for reaches all of it, and what one group answered is no other's.

mod share;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::section::geo::{Country, Geo};
use edge_config::section::named_group::OWN;
use edge_config::section::rule::{Glob, Mirror, Mirroring, NamedMatch, Reply, Rule, Then, ValueMatch, When};
use percent_encoding::percent_decode;

use crate::semantics::cookies::{cookies, split_at_sign};
use crate::semantics::fields::Fields;
use crate::semantics::time::DeltaSeconds;

/// What rules look at in a request.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Path and query, as the client sent them.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    pub method: &'a str,
    pub fields: Fields<'a>,
    pub client: IpAddr,
    /// In which country that is.
    pub geo: Option<&'a Geo>,
}

/// The rules that match a request, and what they say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Their indices, in order; of those for responses the request's part has matched.
    rules: Arc<[usize]>,
    /// Nothing stored is used or made.
    pub bypass: bool,
}

/// What the rules say about a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseSettings<'r> {
    pub cache: Option<bool>,
    pub ttl: Option<DeltaSeconds>,
    /// The longest lifetime.
    pub ttl_max: Option<DeltaSeconds>,
    /// The longest body that is stored.
    pub max_size: Option<u64>,
    /// Surrogate keys besides those of the response.
    pub surrogate_keys: Vec<&'r str>,
    pub browser_ttl: Option<DeltaSeconds>,
    pub stale_while_revalidate: Option<DeltaSeconds>,
    pub stale_if_error: Option<DeltaSeconds>,
    pub strip: Vec<&'r str>,
    pub set: Vec<(&'r str, &'r str)>,
}

/// The rules of a site, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that match a request; none where none does.
    pub fn request(&self, facts: &Facts<'_>) -> Option<Matched> {
        let of_request = RequestParts::new(facts);
        let matching = self.0.iter().enumerate().filter(|(_, rule)| of_request.matches(&rule.when));
        let rules: Arc<[usize]> = matching.map(|(index, _)| index).collect();
        if rules.is_empty() {
            return None;
        }
        let last = rules.iter().rev().filter_map(|index| self.0.get(*index)).find_map(|rule| {
            let for_requests = rule.when.response.is_none();
            rule.then.cache.filter(|_| for_requests)
        });
        Some(Matched { rules, bypass: last == Some(false) })
    }

    /// The target without the query parameters that make no difference; none where there are none of them.
    pub fn target(&self, matched: &Matched, target: &[u8]) -> Option<Vec<u8>> {
        let ignored: Vec<&Glob> = self.thens(matched).flat_map(|then| &then.ignore_query).collect();
        if ignored.is_empty() {
            return None;
        }
        let (path, query) = target.split_at(memchr::memchr(b'?', target)?);
        let is_ignored = |parameter: &[u8]| {
            let name = decoded(parameter.split(|byte| *byte == b'=').next().unwrap_or_default());
            ignored.iter().any(|glob| glob.matches(&name))
        };
        let kept: Vec<&[u8]> =
            query.get(1..)?.split(|byte| *byte == b'&').filter(|parameter| !is_ignored(parameter)).collect();
        let query = kept.join(&b'&');
        let question_mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
        Some([path, question_mark, &query].concat())
    }

    /// What the rules that matched the request say about a response to it.
    pub fn response<'r>(&'r self, matched: &Matched, status: u16, fields: Fields<'_>) -> ResponseSettings<'r> {
        let mut settings = ResponseSettings::default();
        for rule in matched.rules.iter().filter_map(|index| self.0.get(*index)) {
            if !response_matches(&rule.when, status, fields) {
                continue;
            }
            let then = &rule.then;
            if rule.when.response.is_some() {
                settings.cache = then.cache.or(settings.cache);
            }
            let seconds =
                |time: Option<edge_config::Duration>| time.map(|time| DeltaSeconds::saturating(time.get().as_secs()));
            settings.ttl = seconds(then.ttl).or(settings.ttl);
            settings.ttl_max = seconds(then.ttl_max).or(settings.ttl_max);
            settings.max_size = then.max_size.map(|size| size.bytes()).or(settings.max_size);
            settings.surrogate_keys.extend(then.surrogate_key.iter().map(String::as_str));
            settings.browser_ttl = seconds(then.browser_ttl).or(settings.browser_ttl);
            settings.stale_while_revalidate = seconds(then.stale_while_revalidate).or(settings.stale_while_revalidate);
            settings.stale_if_error = seconds(then.stale_if_error).or(settings.stale_if_error);
            settings.strip.extend(then.strip_response.iter().map(String::as_str));
            for (name, value) in &then.set_response {
                settings.set.retain(|(other, _)| other != name);
                settings.set.push((name, value));
            }
        }
        settings
    }

    /// What the rules that matched answer themselves: the last that does.
    pub fn reply(&self, matched: &Matched) -> Option<&Reply> {
        self.last(matched, |then| then.reply.as_ref())
    }

    /// The name of the group that is asked; none for the site's own origins. The last rule that names one decides.
    pub fn group(&self, matched: &Matched, facts: &Facts<'_>) -> Option<&str> {
        let split = self.last(matched, |then| then.split.as_ref())?;
        Some(share::group_of(split, facts)).filter(|group| *group != OWN)
    }

    /// The target that is asked for, where that is not `target`: another path, and its own query.
    pub fn asked(&self, matched: &Matched, target: &[u8]) -> Option<Vec<u8>> {
        let rewrite = self.last(matched, |then| then.rewrite.as_ref())?;
        let (path, query) = target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()));
        Some([&rewrite.path(path)?, query].concat())
    }

    /// Who gets a copy of the request, if anybody.
    pub fn mirror(&self, matched: &Matched) -> Option<&Mirror> {
        match self.last(matched, |then| then.mirror.as_ref())? {
            Mirroring::Off => None,
            Mirroring::To(mirror) => Some(mirror),
        }
    }

    /// What the last rule says that says anything about it.
    fn last<'r, T>(&'r self, matched: &Matched, of: impl Fn(&'r Then) -> Option<T>) -> Option<T> {
        matched.rules.iter().rev().filter_map(|index| self.0.get(*index)).find_map(|rule| of(&rule.then))
    }

    /// The rules that match, in order.
    pub fn matching<'r>(&'r self, matched: &'r Matched) -> impl Iterator<Item = &'r Rule> {
        matched.rules.iter().filter_map(|index| self.0.get(*index))
    }

    fn thens(&self, matched: &Matched) -> impl Iterator<Item = &Then> {
        let rules = matched.rules.iter().filter_map(|index| self.0.get(*index));
        rules.map(|rule| &rule.then)
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}

/// A request taken apart, as far as rules look into it.
struct RequestParts<'a> {
    path: &'a [u8],
    host: Vec<u8>,
    facts: &'a Facts<'a>,
    /// Looked up once, when a rule asks.
    country: OnceCell<Option<Country>>,
}

impl<'a> RequestParts<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        let end = memchr::memchr(b'?', facts.target).unwrap_or(facts.target.len());
        // A name is the same with the dot that ends a full one: the key has it so, and rules must not be got around by it.
        let host = super::snapshot::without_port(facts.host);
        let host = host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase();
        Self { path: facts.target.get(..end).unwrap_or_default(), host, facts, country: OnceCell::new() }
    }

    fn matches(&self, when: &When) -> bool {
        let any = |globs: &[Glob], text: &[u8]| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        any(&when.path, self.path)
            && any(&when.host, &self.host)
            && (when.method.is_empty() || when.method.iter().any(|method| method == self.facts.method))
            && (when.client.is_empty() || when.client.iter().any(|network| network.contains(self.facts.client)))
            && (when.country.is_empty() || self.country().is_some_and(|country| when.country.contains(&country)))
            && when.share.is_none_or(|share| share::is_among(&when.share_by, self.facts, share.get()))
            && fields_match(&when.header, self.facts.fields)
            && when.cookie.iter().all(|wanted| named(wanted, self.cookies()))
            && when.query.iter().all(|wanted| named(wanted, self.parameters()))
    }

    fn country(&self) -> Option<Country> {
        *self.country.get_or_init(|| self.facts.geo?.country(self.facts.client))
    }

    fn cookies(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        cookies(self.facts.fields).map(|(name, value)| (name.into(), value.into()))
    }

    fn parameters(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        let query = self.facts.target.get(self.path.len() + 1..).unwrap_or_default();
        query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = split_at_sign(pair);
            (decoded(name), decoded(value))
        })
    }
}

/// Whether what has a name is as it should be.
fn named<'a>(wanted: &NamedMatch, mut all: impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)>) -> bool {
    let has = |name: &[u8]| name == wanted.name.as_bytes();
    match &wanted.value {
        ValueMatch::Present => all.any(|(name, _)| has(&name)),
        ValueMatch::Absent => !all.any(|(name, _)| has(&name)),
        ValueMatch::Any(globs) => all.any(|(name, value)| has(&name) && globs.iter().any(|glob| glob.matches(&value))),
    }
}

fn fields_match(wanted: &[NamedMatch], fields: Fields<'_>) -> bool {
    wanted.iter().all(|wanted| match &wanted.value {
        ValueMatch::Present => fields.contains(&wanted.name),
        ValueMatch::Absent => !fields.contains(&wanted.name),
        ValueMatch::Any(globs) => fields.values(&wanted.name).any(|value| globs.iter().any(|glob| glob.matches(value))),
    })
}

fn response_matches(when: &When, status: u16, fields: Fields<'_>) -> bool {
    let Some(response) = &when.response else { return true };
    let media_type = || {
        let value = fields.first("content-type").unwrap_or_default();
        value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
    };
    (response.status.is_empty() || response.status.iter().any(|range| range.contains(status)))
        && (response.content_type.is_empty() || {
            let media_type = media_type();
            response.content_type.iter().any(|glob| glob.matches(&media_type))
        })
        && fields_match(&response.header, fields)
}

#[cfg(test)]
mod tests;
