//! Putting in force what the hub has of the configuration: all of it when it is good, else as much as is.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::change::{SiteChanges, needs_restart, site_changes};
use tokio::runtime::Handle;

use super::certificates::are_the_same_configuration;
use super::control::{Control, InForce, Refused};
use super::copy;
use super::node::read_files;
use crate::purge::nats::documents::{Text, Texts, Which};
use crate::purge::nats::shelf::{Refusal, Wanted};

/// Puts in force what the hub has whenever there is something else, as long as the runtime lasts.
pub fn follow(control: &Arc<Control>, runtime: &Handle) {
    let Some(shelf) = control.shares.shelf.clone() else { return };
    let control = control.clone();
    runtime.spawn(async move {
        loop {
            shelf.changed().await;
            let control = control.clone();
            // Files are read. What is wrong is in the log.
            let _ = tokio::task::spawn_blocking(move || control.adopt()).await;
        }
    });
}

/// A document and the text it is to have.
type Change = (Which, Text);

impl Control {
    /// Puts in force what the hub has. A document that is not good stays as it is here; the others do not wait for it.
    pub fn adopt(&self) {
        let Some(shelf) = &self.shares.shelf else { return };
        let mut current = self.current.lock();
        let Wanted { texts, unreadable: mut refused, last } = shelf.wanted();
        let mut changes: Vec<Change> =
            texts.into_iter().filter(|(which, text)| current.documents.get(which) != Some(text)).collect();
        // As they were published: what a later one needs of an earlier one is there.
        changes.sort_by_key(|(_, text)| text.version);
        let before = current.config.clone();
        let count = changes.len();
        self.adopt_some(&mut current, &changes, &mut refused);
        let documents = current.documents.clone();
        let adopted = changes.iter().filter(|(which, text)| documents.get(which) == Some(text)).count();
        if adopted > 0 {
            let SiteChanges { added, removed, changed } = site_changes(&before, &current.config);
            tracing::info!(adopted, count, ?added, ?removed, ?changed, "configuration of the hub is in force");
            let directory = current.config.purge.directory();
            if let Err(error) = copy::save(&directory, &documents) {
                tracing::error!(%error, directory = %directory.display(), "the next start does not know the hub's configuration");
            }
        }
        drop(current);
        if adopted > 0 {
            self.report();
        }
        for (which, Refusal { version, why }) in shelf.settle(last, documents, refused) {
            self.origins.metrics.config_refused();
            tracing::error!(document = %which, version, why, "configuration of the hub is not in force, the one before it stays");
        }
    }

    /// Puts these in force together; if that is not good, each half of them.
    fn adopt_some(&self, current: &mut InForce, changes: &[Change], refused: &mut BTreeMap<Which, Refusal>) {
        if changes.is_empty() {
            return;
        }
        let mut documents = current.documents.clone();
        documents.extend(changes.iter().cloned());
        let Err(why) = self.put(current, documents) else { return };
        match changes {
            [(which, text)] => _ = refused.insert(which.clone(), Refusal { version: text.version, why: why.text() }),
            several => {
                let (first, second) = several.split_at(several.len() / 2);
                self.adopt_some(current, first, refused);
                self.adopt_some(current, second, refused);
            }
        }
    }

    fn put(&self, current: &mut InForce, documents: Texts) -> Result<(), Refused> {
        match are_the_same_configuration(&current.documents, &documents) {
            true => self.replace_certificates(current, &documents)?,
            false => {
                let config = self.source.config(&current.read, &documents).map_err(Refused::Start)?;
                self.replace(current, config, &documents)?;
            }
        }
        current.documents = documents;
        Ok(())
    }

    /// Whether a document could have this text, with all else that is in force here. Nothing is changed.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn try_document(&self, which: &Which, text: &str) -> Result<(), Refused> {
        let current = self.current.lock();
        let mut documents = current.documents.clone();
        // Later than all: what does not go together is said of this one.
        documents.insert(which.clone(), Text { version: u64::MAX, text: text.to_owned() });
        let config = self.source.config(&current.read, &documents).map_err(Refused::Start)?;
        let keys = needs_restart(&current.config, &config);
        if !keys.is_empty() {
            return Err(Refused::NeedsRestart(keys));
        }
        drop(current);
        read_files(&config).map_err(Refused::Start)
    }
}
