//! What is counted and said about certificates.

use super::{CertificateEnd, Metrics};

impl Metrics {
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
}
