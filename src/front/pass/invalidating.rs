//! What an unsafe request that succeeded makes gone: here, and at the nodes between this one and the origin.

use pingora::http::ResponseHeader;

use super::App;
use super::passed::Passed;
use crate::origin::Changed;
use crate::pipeline::fill::group_number;
use crate::purge::ledger::Invalidated;
use crate::purge::record::host_number;
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::fields::Fields;
use crate::semantics::invalidation::targets;
use crate::semantics::surrogate::invalidated_groups;

impl App {
    /// RFC 9111 section 4.4: an unsafe request that succeeded makes what was stored of its targets gone, and the groups
    /// that the answer names (RFC 9875 section 3). Whatever group was asked, and for whatever path: all that is stored for
    /// the URL is gone. Gives what became of that.
    pub(super) fn invalidate(&self, passed: &Passed, response: &ResponseHeader) -> Option<Invalidated> {
        let status = response.status.as_u16();
        let mut fields = Vec::new();
        for name in ["location", "content-location", "cache-group-invalidation"] {
            for value in response.headers.get_all(name) {
                fields.extend_from_slice(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
        }
        let lines = Fields::new(&fields);
        let host = canonical_host(&passed.host, passed.scheme);
        let (mut scratch, mut own) = (Vec::new(), None);
        let paths = targets(passed.method.as_bytes(), status, &passed.target, passed.scheme, &passed.host, lines);
        for path in &paths {
            let parts = KeyParts::of_url(&passed.site.name, passed.scheme, &host, path);
            let key = self.pipeline.store.keyer.primary(&parts, &mut scratch);
            let invalidated = self.pipeline.store.invalidate(&key);
            // The target comes first.
            own.get_or_insert(invalidated);
        }
        if own.is_some() {
            let ledger = &self.pipeline.store.ledger;
            let number = host_number(ledger, &passed.host);
            for group in invalidated_groups(lines) {
                ledger.invalidate_group(group_number(ledger, number, &group));
            }
            let (secure, host) = (passed.scheme == "https", passed.host.clone());
            let groups = lines.lines().filter(|line| line.is("cache-group-invalidation"));
            let mut fields = Vec::new();
            groups.for_each(|line| line.write(&mut fields));
            *passed.changed.lock() = Some(Changed { host, targets: paths, secure, fields });
        }
        own
    }
}

impl Passed {
    /// Has the nodes that are asked for this before an origin is forget it too, before its client hears that it succeeded: what
    /// it asks for next is not to be what they had.
    pub(super) async fn tell_others(&self) {
        let changed = self.changed.lock().take();
        if let Some(changed) = changed {
            self.site.upstream(self.group).changed(&changed).await;
        }
    }
}
