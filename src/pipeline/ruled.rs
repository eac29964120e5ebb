//! What the rules of a site do to an origin's response, before it is judged.

use crate::routing::Site;
use crate::routing::rule::{Matched, ResponseSettings};
use crate::semantics::directives::ResponseDirectives;
use crate::semantics::fields::Fields;
use crate::store::record::Browser;

/// The rules' part in a response.
#[derive(Default)]
pub struct Ruled<'s> {
    settings: ResponseSettings<'s>,
}

/// What `Cache-Control` does not say alone.
const REPLACED: [&str; 3] = ["cache-control", "expires", "pragma"];

impl<'s> Ruled<'s> {
    /// Applies what concerns the fields. Rules look at the response as the origin sent it.
    pub fn apply(site: &'s Site, matched: Option<&Matched>, status: u16, fields: &mut Vec<u8>) -> Self {
        let Some(matched) = matched else { return Self::default() };
        let settings = site.rules.response(matched, status, Fields::new(fields));
        let is_changed = |name: &[u8]| {
            let named = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            settings.strip.iter().any(|other| named(other)) || settings.set.iter().any(|(other, _)| named(other))
        };
        if !settings.strip.is_empty() || !settings.set.is_empty() {
            let mut changed = Vec::with_capacity(fields.len() + 64);
            Fields::new(fields).lines().filter(|line| !is_changed(line.name)).for_each(|line| line.write(&mut changed));
            for (name, value) in &settings.set {
                changed.extend_from_slice(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            *fields = changed;
        }
        Self { settings }
    }

    /// Whether a rule forbids to store the response.
    pub fn forbids(&self) -> bool {
        self.settings.cache == Some(false)
    }

    /// Whether a rule gives the response its lifetime, whatever its status.
    pub fn gives_lifetime(&self) -> bool {
        self.settings.ttl.is_some()
    }

    /// The longest body that is stored.
    pub fn max_size(&self) -> Option<u64> {
        self.settings.max_size
    }

    /// The surrogate keys that rules add.
    pub fn surrogate_keys(&self) -> impl Iterator<Item = &'s str> {
        self.settings.surrogate_keys.iter().copied()
    }

    /// The directives as the rules have them. What forbids to store is the origin's word, and stays; so does what lets a
    /// response with a cookie be shared.
    pub fn directives(&self, mut directives: ResponseDirectives) -> ResponseDirectives {
        if let Some(ttl) = self.settings.ttl {
            match &mut directives.s_maxage {
                Some(s_maxage) => *s_maxage = ttl,
                None => directives.max_age = Some(ttl),
            }
            directives.no_cache = false;
        }
        directives.lifetime_max = self.settings.ttl_max;
        let windows = [self.settings.stale_while_revalidate, self.settings.stale_if_error];
        directives.stale_by_rule = windows.iter().any(Option::is_some);
        directives.stale_while_revalidate = windows[0].or(directives.stale_while_revalidate);
        directives.stale_if_error = windows[1].or(directives.stale_if_error);
        directives
    }

    /// Takes out of the fields what would tell browsers otherwise. A response that is not for sharing keeps its own, also
    /// where a targeted field lets us share it: what `Cache-Control` forbids it forbids others.
    pub fn browser(&self, directives: &ResponseDirectives, fields: &mut Vec<u8>) -> Option<Browser> {
        let ttl = self.settings.browser_ttl?;
        let others = ResponseDirectives::parse_untargeted(Fields::new(fields));
        if [directives, &others].into_iter().any(|directives| directives.no_store || directives.private) {
            return None;
        }
        let (mut kept, mut replaced) = (Vec::with_capacity(fields.len()), Vec::new());
        for line in Fields::new(fields).lines() {
            let is_replaced = REPLACED.iter().any(|name| line.is(name));
            line.write(if is_replaced { &mut replaced } else { &mut kept });
        }
        *fields = kept;
        Some(Browser { ttl, replaced: replaced.into_boxed_slice() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Nobody;
    use crate::origin::group::Group;
    use crate::routing::Backings;
    use crate::semantics::time::DeltaSeconds;
    use std::sync::Arc;

    fn site(then: &str) -> Site {
        let rules = edge_config::load::rules_of(&format!("[[site.s.rule]]\nthen = {{ {then} }}\n"));
        let origin: edge_config::section::origin::Origin = "http://127.0.0.1:1".parse().expect("an origin");
        let mut config = edge_config::section::site::Site::of_one("s", origin.clone());
        config.rules = rules.unwrap_or_else(|problems| panic!("{}", problems.summary()));
        Site::new(&config, 0, Backings::of_one(Group::idle("s", origin), Arc::new(Nobody)), None)
    }

    fn matched(site: &Site) -> Option<Matched> {
        site.rules.request(&crate::routing::rule::Facts {
            target: b"/",
            host: b"a",
            method: "GET",
            fields: Fields::new(b""),
            client: [127, 0, 0, 1].into(),
            geo: None,
        })
    }

    #[test]
    fn fields_and_directives() {
        let site = site(
            "ttl = \"1h\", browser_ttl = \"5m\", stale_if_error = \"1d\", strip_response = [\"set-cookie\"], \
             set_response = { x-a = \"2\" }",
        );
        let mut fields = b"X-A: 1\r\nset-cookie: a\r\ncache-control: s-maxage=5, no-cache\r\nexpires: 0\r\n".to_vec();
        let matched = matched(&site);
        let ruled = Ruled::apply(&site, matched.as_ref(), 200, &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        assert_eq!(directives.s_maxage, Some(DeltaSeconds(3_600)));
        assert!(!directives.no_cache && !directives.forbids_stale());
        assert_eq!(directives.stale_if_error, Some(DeltaSeconds(86_400)));
        let browser = ruled.browser(&directives, &mut fields).expect("a browser's lifetime");
        assert_eq!(browser.ttl, DeltaSeconds(300));
        assert_eq!(&*browser.replaced, b"cache-control: s-maxage=5, no-cache\r\nexpires: 0\r\n");
        assert_eq!(fields, b"x-a: 2\r\n");
    }

    #[test]
    fn what_is_private_stays_so() {
        let site = site("ttl = \"1h\", browser_ttl = \"5m\"");
        let mut fields = b"cache-control: private\r\n".to_vec();
        let matched = matched(&site);
        let ruled = Ruled::apply(&site, matched.as_ref(), 200, &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        assert!(directives.private);
        assert_eq!(ruled.browser(&directives, &mut fields), None);
        assert_eq!(fields, b"cache-control: private\r\n");
    }
}
