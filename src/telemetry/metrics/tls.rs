//! What is counted of TLS with clients.

use super::Metrics;

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// Its first name.
    pub name: String,
    /// The site that has brought it; nothing, where the operator has.
    pub site: String,
    /// Since 1970.
    pub seconds: i64,
}

impl Metrics {
    /// Counts a handshake that succeeded.
    pub fn handshake(&self, version: &'static str, resumed: bool) {
        let resumed = if resumed { "yes" } else { "no" };
        self.families.tls_handshakes.with_label_values(&[version, resumed]).inc();
    }

    /// Says when certificates end; those it does not name are gone.
    pub fn certificates(&self, expiries: &[CertificateEnd]) {
        self.families.certificate_expiry.reset();
        for CertificateEnd { name, site, seconds } in expiries {
            self.families.certificate_expiry.with_label_values(&[name, site]).set(*seconds);
        }
    }

    /// Says when one certificate ends.
    pub fn certificate(&self, CertificateEnd { name, site, seconds }: &CertificateEnd) {
        self.families.certificate_expiry.with_label_values(&[name, site]).set(*seconds);
    }

    /// Counts an order of a certificate; `outcome` is `issued`, `failed`, `limited` where the authority said that there were too
    /// many, `bounded` where `orders_per_hour` did, or `unproven` where the name of the host does not lead here any more.
    pub fn certificate_order(&self, outcome: &'static str) {
        self.families.certificate_orders.with_label_values(&[outcome]).inc();
    }

    /// Counts a question whether a certificate is revoked.
    pub fn ocsp_asked(&self, outcome: &'static str) {
        self.families.ocsp_requests.with_label_values(&[outcome]).inc();
    }

    /// Says how many certificates have an answer that holds.
    pub fn ocsp_stapled(&self, count: usize) {
        self.families.ocsp_staples.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
