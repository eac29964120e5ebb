use std::sync::Arc;

use super::*;
use crate::front::tls::hosts::tests::sites;
use crate::front::tls::own::tests::own;

/// Certificates as if they had been in files.
fn files(given: &[&OwnCertificate], unknown_is_first: bool) -> Certificates {
    let mut files = Certificates { unknown_is_first, ..Certificates::default() };
    for OwnCertificate { leaf, key } in given {
        files.enter(leaf.clone(), key.clone());
    }
    files
}

/// Certificates of sites are for hosts of those sites, whatever they say.
#[test]
fn which_certificate_is_chosen() {
    let sites = sites(&[
        ("shop", &["shop.test", "*.shop.test", "one.mixed.test"]),
        ("blog", &["blog.test", "blog.shop.test", "two.mixed.test", "*.mixed.test"]),
    ]);
    let hosts = Hosts::of(&sites);
    let (file_shop, file_all) =
        (own(&["shop.test", "www.shop.test"]), own(&["blog.test", "*.shop.test", "*.mixed.test"]));
    let shop_wide = own(&["*.shop.test", "blog.test", "blog.shop.test", "*.mixed.test", "*.test"]);
    let (shop_old, shop_new) = (own(&["shop.test", "a.shop.test"]), own(&["shop.test"]));
    let blog = own(&["blog.test", "shop.test", "*.shop.test"]);
    let with_files = files(&[&file_shop, &file_all], false);
    let without = files(&[], false);
    let all_own: [(&str, &[OwnCertificate]); 2] =
        [("shop", &[shop_old.clone(), shop_new.clone(), shop_wide.clone()]), ("blog", std::slice::from_ref(&blog))];
    let shop_alone: [(&str, &[OwnCertificate]); 1] = [("shop", std::slice::from_ref(&shop_wide))];
    let nobody: [(&str, &[OwnCertificate]); 0] = [];
    let (everything, alone, bare, none) = (
        with_files.with_own(all_own.into_iter(), &hosts),
        with_files.with_own(shop_alone.into_iter(), &hosts),
        without.with_own(shop_alone.into_iter(), &hosts),
        with_files.with_own(nobody.into_iter(), &hosts),
    );
    let rows = [
        // Its own before a file's, and of several the last one; a whole name before a wildcard.
        ("everything", &everything, "shop.test", Some(&shop_new)),
        ("everything", &everything, "SHOP.test.", Some(&shop_new)),
        ("everything", &everything, "a.shop.test", Some(&shop_old)),
        ("everything", &everything, "b.shop.test", Some(&shop_wide)),
        ("everything", &everything, "www.shop.test", Some(&shop_wide)),
        ("everything", &everything, "one.mixed.test", Some(&shop_wide)),
        // Hosts of another site, by whole names and by wildcards.
        ("everything", &everything, "blog.test", Some(&blog)),
        ("everything", &everything, "blog.shop.test", Some(&blog)),
        ("everything", &everything, "two.mixed.test", Some(&file_all)),
        ("everything", &everything, "three.mixed.test", Some(&file_all)),
        ("alone", &alone, "blog.test", Some(&file_all)),
        ("alone", &alone, "blog.shop.test", Some(&file_all)),
        // `*.test` is for it.
        ("alone", &alone, "shop.test", Some(&shop_wide)),
        ("bare", &bare, "blog.test", None),
        ("bare", &bare, "blog.shop.test", None),
        ("bare", &bare, "two.mixed.test", None),
        ("bare", &bare, "three.mixed.test", None),
        ("bare", &bare, "shop.test", Some(&shop_wide)),
        ("bare", &bare, "one.mixed.test", Some(&shop_wide)),
        ("bare", &bare, "www.shop.test", Some(&shop_wide)),
        // A wildcard is one label.
        ("bare", &bare, "a.b.shop.test", None),
        ("none", &none, "shop.test", Some(&file_shop)),
        ("none", &none, "blog.shop.test", Some(&file_all)),
        ("none", &none, "else.test", None),
    ];
    for (set, certificates, name, expected) in rows {
        let found = certificates.find(Some(name));
        let is_it = match (found, expected) {
            (Some(found), Some(expected)) => Arc::ptr_eq(&found, &expected.key),
            (None, None) => true,
            _ => false,
        };
        assert!(is_it, "{set}: {name}");
    }
}

#[test]
fn the_first_is_the_operators() {
    let sites = sites(&[("shop", &["shop.test", "*.shop.test"]), ("blog", &["blog.shop.test"])]);
    let hosts = Hosts::of(&sites);
    let (file, shop) = (own(&["else.test"]), own(&["shop.test", "*.shop.test"]));
    let brought: [(&str, &[OwnCertificate]); 1] = [("shop", std::slice::from_ref(&shop))];
    let all = files(&[&file], true).with_own(brought.into_iter(), &hosts);
    for (name, expected) in [
        (None, Some(&file)),
        (Some("nobody.test"), Some(&file)),
        (Some("blog.shop.test"), Some(&file)),
        (Some("shop.test"), Some(&shop)),
    ] {
        let is_it = all.find(name).zip(expected).is_some_and(|(found, expected)| Arc::ptr_eq(&found, &expected.key));
        assert!(is_it, "{name:?}");
    }
    let alone = files(&[], true).with_own(brought.into_iter(), &hosts);
    assert!(
        alone.find(None).is_none() && alone.find(Some("blog.shop.test")).is_none(),
        "what sites bring is for nobody else"
    );
}

#[test]
fn ends_are_told_of_all() {
    let sites = sites(&[("shop", &["shop.test"])]);
    let (file, shop) = (own(&["else.test"]), own(&["shop.test"]));
    let brought: [(&str, &[OwnCertificate]); 1] = [("shop", std::slice::from_ref(&shop))];
    let all = files(&[&file], false).with_own(brought.into_iter(), &Hosts::of(&sites));
    let ends: Vec<_> = all.ends().iter().map(|end| (end.name.as_str(), end.site.as_str(), end.seconds)).collect();
    assert_eq!(ends, [("else.test", "", file.leaf.not_after), ("shop.test", "shop", shop.leaf.not_after)]);
}
