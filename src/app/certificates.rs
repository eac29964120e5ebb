//! The certificates of a node: those of its files, and those that sites have brought, as they are kept and put in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_config::Config;

use super::StartError;
use super::control::{Control, InForce, Refused};
use super::copy;
use crate::admin::certificates::{CertificateState, Change, Held, NotChanged, Unusable};
use crate::clock;
use crate::front::tls::Settings;
use crate::front::tls::certificates::{CertificateError, Certificates, server_config};
use crate::front::tls::hosts::Hosts;
use crate::front::tls::issued::{Issued, IssuedCertificate};
use crate::front::tls::leaf::Leaf;
use crate::front::tls::own::{self, Changed, OwnCertificate, OwnError};
use crate::front::tls::sealed::StoreKey;
use crate::purge::nats::documents::{Text, Texts, Which};

/// What was read, and opened.
pub struct Loaded {
    files: Arc<Certificates>,
    key: Option<Arc<StoreKey>>,
    issued: Arc<Issued>,
    /// Those of each site.
    own: BTreeMap<String, Arc<[OwnCertificate]>>,
    /// The sites whose certificates could not be used when the node was started, and why.
    unusable: BTreeMap<String, String>,
}

impl Loaded {
    /// What a node starts with. Certificates of a site that cannot be used are no reason not to start.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn at_start(config: &Config, documents: &Texts, issued: Arc<Issued>) -> Result<Self, CertificateError> {
        let mut loaded = Self::files(config, issued)?;
        for (site, text) in certificates(documents) {
            match loaded.open(config, site, text) {
                Ok(own) => _ = loaded.own.insert(site.to_owned(), own),
                Err(error) => {
                    tracing::error!(site, %error, "certificates of a site cannot be used");
                    loaded.unusable.insert(site.to_owned(), error.to_string());
                }
            }
        }
        Ok(loaded)
    }

    /// With files that are read again.
    ///
    /// # Errors
    /// One of them cannot be used, or what sites have brought cannot be used with them any more.
    pub fn again(&self, config: &Config, documents: &Texts, before: &Texts) -> Result<Self, CertificateError> {
        self.opened(Self::files(config, self.issued.clone())?, config, documents, before)
    }

    /// With other documents.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn with(&self, config: &Config, documents: &Texts, before: &Texts) -> Result<Self, CertificateError> {
        let files = Self {
            files: self.files.clone(),
            key: self.key.clone(),
            issued: self.issued.clone(),
            own: BTreeMap::new(),
            unusable: BTreeMap::new(),
        };
        self.opened(files, config, documents, before)
    }

    /// Opens what is not known yet. What could not be used when the node was started may stay so.
    fn opened(
        &self,
        files: Self,
        config: &Config,
        documents: &Texts,
        before: &Texts,
    ) -> Result<Self, CertificateError> {
        let mut loaded = files;
        loaded.files = Arc::new(loaded.files.stapled_as(&self.files));
        let is_same_key = loaded.key == self.key;
        let is_same = |site: &str, text: &str| {
            let before = before.get(&Which::Certificates(site.to_owned()));
            before.is_some_and(|before| before.text == text)
        };
        for (site, text) in certificates(documents) {
            let is_same = is_same(site, text);
            // What is left of what could not be used is no reason to refuse that the rest is taken away.
            let is_left = |_: &&String| is_same || is_part(documents, before, site);
            let known = self.own.get(site).filter(|_| is_same && is_same_key);
            let opened = known.cloned().map_or_else(|| loaded.open(config, site, text), Ok);
            match (opened, self.unusable.get(site).filter(is_left)) {
                (Ok(own), _) => _ = loaded.own.insert(site.to_owned(), own),
                (Err(_), Some(why)) => _ = loaded.unusable.insert(site.to_owned(), why.clone()),
                (Err(error), None) => return Err(CertificateError::Own(site.to_owned(), error)),
            }
        }
        Ok(loaded)
    }

    fn files(config: &Config, issued: Arc<Issued>) -> Result<Self, CertificateError> {
        let read = |path: &std::path::PathBuf| {
            StoreKey::read(path).map(Arc::new).map_err(|error| CertificateError::StoreKey(path.clone(), error))
        };
        Ok(Self {
            files: Arc::new(Certificates::load(&config.tls)?),
            key: config.tls.store_key.as_ref().map(read).transpose()?,
            issued,
            own: BTreeMap::new(),
            unusable: BTreeMap::new(),
        })
    }

    /// The certificates of a document. A node that does no handshakes and has no key need not open them.
    fn open(&self, config: &Config, site: &str, text: &str) -> Result<Arc<[OwnCertificate]>, OwnError> {
        if config.listen.https.is_empty() && self.key.is_none() {
            return Ok(Arc::new([]));
        }
        own::open(site, text, self.key.as_deref()).map(Arc::from)
    }

    /// Those of files and those of sites, by name.
    pub fn certificates(&self, config: &Config) -> Arc<Certificates> {
        let own = self.own.iter().map(|(site, own)| (site.as_str(), &**own));
        Arc::new(self.files.with_own(own, &Hosts::of(&config.sites)).beside(self.issued.clone()))
    }

    /// What keys of certificates are sealed with.
    pub fn key(&self) -> Option<&Arc<StoreKey>> {
        self.key.as_ref()
    }

    pub fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    /// How many sites have certificates that cannot be used.
    pub fn unusable(&self) -> usize {
        self.unusable.len()
    }
}

/// The documents that hold certificates, and whose.
fn certificates(documents: &Texts) -> impl Iterator<Item = (&str, &str)> {
    documents.iter().filter_map(|(which, text)| match which {
        Which::Certificates(site) => Some((site.as_str(), text.text.as_str())),
        _ => None,
    })
}

/// Whether all certificates that a site has in these documents were there before.
fn is_part(documents: &Texts, before: &Texts, site: &str) -> bool {
    let which = Which::Certificates(site.to_owned());
    let fingerprints = |texts: &Texts| texts.get(&which).map(|text| own::fingerprints(&text.text)).unwrap_or_default();
    let known = fingerprints(before);
    fingerprints(documents).iter().all(|fingerprint| known.contains(fingerprint))
}

/// Whether two sets of documents have the same but for certificates.
pub fn are_the_same_configuration(one: &Texts, other: &Texts) -> bool {
    fn configuration(texts: &Texts) -> impl Iterator<Item = (&Which, &Text)> {
        texts.iter().filter(|(which, _)| !which.is_certificates())
    }
    configuration(one).eq(configuration(other))
}

fn state(
    site: Option<&str>,
    leaf: &Leaf,
    names: Vec<String>,
    unused: Vec<String>,
    from: &'static str,
) -> CertificateState {
    CertificateState {
        site: site.map(str::to_owned),
        names,
        unused,
        issuer: leaf.issuer.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        fingerprint: leaf.fingerprint.clone(),
        from,
    }
}

/// Every certificate, once for each site that has hosts among its names.
fn states(loaded: &Loaded, config: &Config) -> Vec<CertificateState> {
    let hosts = Hosts::of(&config.sites);
    let mut states = Vec::new();
    for (site, own) in &loaded.own {
        for OwnCertificate { leaf, .. } in own.iter() {
            let (used, unused) = leaf.names.iter().cloned().partition(|name| hosts.is_of(site, name));
            states.push(state(Some(site), leaf, used, unused, "api"));
        }
    }
    for IssuedCertificate { site, leaf, .. } in loaded.issued.all() {
        states.push(state(Some(&site), &leaf, leaf.names.clone(), Vec::new(), "acme"));
    }
    for leaf in loaded.files.leaves() {
        let mut of_nobody = leaf.names.clone();
        for site in &config.sites {
            let used: Vec<_> = leaf.names.iter().filter(|name| hosts.is_of(&site.name, name)).cloned().collect();
            of_nobody.retain(|name| !used.contains(name));
            if !used.is_empty() {
                // What else it is for is of other sites.
                states.push(state(Some(&site.name), leaf, used, Vec::new(), "file"));
            }
        }
        if !of_nobody.is_empty() {
            states.push(state(None, leaf, Vec::new(), of_nobody, "file"));
        }
    }
    states
}

impl Control {
    /// Handshakes are done with these certificates from now on; everything else stays.
    pub(super) fn replace_certificates(&self, current: &mut InForce, documents: &Texts) -> Result<(), Refused> {
        let refused = |error: CertificateError| Refused::Start(StartError::Certificate(error));
        let loaded = current.certificates.with(&current.config, documents, &current.documents).map_err(refused)?;
        if let Some(tls) = &self.tls {
            let certificates = loaded.certificates(&current.config);
            let tickets = tls.tickets();
            let server = server_config(&current.config.tls, certificates.clone(), tickets).map_err(refused)?;
            let handshake_timeout = current.config.tls.handshake_timeout.get();
            tls.replace(Settings { certificates, server, handshake_timeout });
        }
        current.certificates = loaded;
        Ok(())
    }

    pub(super) fn held(&self) -> Held {
        let current = self.current.lock();
        let certificates = states(&current.certificates, &current.config);
        let mut unusable: Vec<Unusable> = (current.certificates.unusable.iter())
            .map(|(site, why)| {
                let text = current.documents.get(&Which::Certificates(site.clone()));
                let fingerprints = text.map(|text| own::fingerprints(&text.text)).unwrap_or_default();
                Unusable { site: site.clone(), why: why.clone(), fingerprints }
            })
            .collect();
        drop(current);
        let standings = self.shares.shelf.as_ref().map(|shelf| shelf.standings()).unwrap_or_default();
        unusable.extend(standings.into_iter().filter_map(|standing| match (standing.which, standing.refused) {
            (Which::Certificates(site), Some(refused)) => {
                let document = standing.heard.and_then(|heard| heard.document.ok());
                let fingerprints = document.map(|document| own::fingerprints(&document.text)).unwrap_or_default();
                Some(Unusable { site, why: refused.why, fingerprints })
            }
            _ => None,
        }));
        Held { certificates, unusable }
    }

    /// The document of a site with a change, made of the latest text there is.
    pub(super) fn changed(&self, site: &str, latest: &str, change: &Change) -> Result<Changed, NotChanged> {
        let current = self.current.lock();
        let (config, key) = (current.config.clone(), current.certificates.key.clone());
        drop(current);
        make(site, latest, change, &config, key.as_deref())
    }

    /// Puts a change in force on this node, which follows no hub, and keeps it.
    pub(super) fn change_here(&self, site: &str, change: &Change) -> Result<String, NotChanged> {
        let mut current = self.current.lock();
        let which = Which::Certificates(site.to_owned());
        let latest = current.documents.get(&which).cloned().unwrap_or_default();
        let Changed { text, fingerprint } =
            make(site, &latest.text, change, &current.config, current.certificates.key.as_deref())?;
        let mut documents = current.documents.clone();
        match text.is_empty() {
            true => _ = documents.remove(&which),
            false => _ = documents.insert(which, Text { version: latest.version + 1, text }),
        }
        // First on the disk: what is answered to be in force is so after a restart.
        let directory = current.config.purge.directory();
        let failed = |error: std::io::Error| {
            tracing::error!(%error, directory = %directory.display(), "certificates cannot be kept");
            NotChanged::Storage
        };
        copy::save(&directory, &documents).map_err(failed)?;
        let put = self.replace_certificates(&mut current, &documents);
        if let Err(refused) = put {
            let _ = copy::save(&directory, &current.documents);
            return Err(NotChanged::NotNow(refused.text()));
        }
        current.documents = documents;
        drop(current);
        self.report();
        Ok(fingerprint)
    }
}

fn make(
    site: &str,
    latest: &str,
    change: &Change,
    config: &Config,
    key: Option<&StoreKey>,
) -> Result<Changed, NotChanged> {
    let made = match change {
        Change::Add { chain, key: private } => {
            let now = i64::try_from(clock::wall().0 / 1_000).unwrap_or(i64::MAX);
            own::add(site, latest, (chain, private), key, &Hosts::of(&config.sites), now)
        }
        Change::Remove { fingerprint } => own::remove(latest, fingerprint),
    };
    made.map_err(|error| match error {
        OwnError::Unknown => NotChanged::Unknown(error.to_string()),
        OwnError::NoStoreKey | OwnError::Sealed | OwnError::TooMany | OwnError::Unreadable(_) | OwnError::Random => {
            NotChanged::NotNow(error.to_string())
        }
        error => NotChanged::NotGood(error.to_string()),
    })
}
