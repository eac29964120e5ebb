use super::*;
use proptest::prelude::*;

fn at(seq: u64) -> LogPosition {
    LogPosition::new(1, seq)
}

fn position(seq: u64) -> Position {
    Position { log: at(seq), local: 1 }
}

fn verdict(ledger: &Ledger, selectors: &Selectors<'_>, seq: u64) -> Verdict {
    ledger.judge(selectors, position(seq)).verdict
}

const PURGED: Verdict = Verdict::Gone(Gone::Purged);

/// A response with everything to be found by, and every target that names it.
fn response(ledger: &Ledger) -> (crate::purge::selector::OwnedSelectors, Vec<Target>) {
    let site = SiteId::of("shop");
    let host = ledger.name(Named::Host, b"www.example.com");
    let key = ledger.name(Named::Key, b"product-7");
    let mut selectors = crate::purge::selector::OwnedSelectors {
        site,
        host,
        url: 0xabcd_1234,
        path: (*b"/a/b").into(),
        ..Default::default()
    };
    selectors.add_key(ledger.name(Named::Key, b"other"));
    selectors.add_key(key);
    let prefix = |path: &[u8], host| Target::Prefix { site, host, path: path.into() };
    let targets = vec![
        Target::Everything,
        Target::Site(site),
        Target::Host(site, host),
        Target::Url(site, 0xabcd_1234),
        Target::Key(site, key),
        prefix(b"/a/", None),
        prefix(b"/a/b", Some(host)),
        prefix(b"", None),
    ];
    (selectors, targets)
}

#[test]
fn a_lease_runs_out_and_ends() {
    let ledger = Ledger::default();
    let is_current = |at: u64| ledger.is_current(|| at);
    assert!(is_current(u64::MAX - 1), "a node alone needs none");
    ledger.vouch(100);
    assert_eq!((is_current(99), is_current(100), ledger.isolated_for(|| 130)), (true, false, Some(30)));
    ledger.vouch(200);
    assert!(is_current(199));
    ledger.end();
    ledger.vouch(300);
    assert!(!is_current(199), "nobody vouches for what is followed no more");
}

#[test]
fn every_selector_reaches_what_it_names_and_what_began_after_is_live() {
    let naming = Ledger::default();
    let (_, targets) = response(&naming);
    for index in 0..targets.len() {
        let ledger = Ledger::default();
        let (selectors, targets) = response(&ledger);
        let (selectors, target) = (selectors.get(), &targets[index]);
        ledger.restore(at(1), LogPosition::default());
        assert_eq!(verdict(&ledger, &selectors, 1), Verdict::Live, "{target:?}");
        ledger.apply(at(2), UnixMs(9), Mode::Delete, std::slice::from_ref(target));
        assert_eq!(verdict(&ledger, &selectors, 1), PURGED, "{target:?}");
        assert_eq!(verdict(&ledger, &selectors, 2), Verdict::Live, "{target:?}");
        ledger.apply(at(3), UnixMs(9), Mode::Invalidate, std::slice::from_ref(target));
        assert_eq!(verdict(&ledger, &selectors, 1), PURGED, "a soft purge hides no hard one: {target:?}");
        assert_eq!(verdict(&ledger, &selectors, 2), Verdict::StaleSince(UnixMs(9)), "{target:?}");
        assert_eq!(verdict(&ledger, &selectors, 3), Verdict::Live, "{target:?}");
    }
}

#[test]
fn what_does_not_name_it_leaves_it_alone() {
    let ledger = Ledger::default();
    let (selectors, _) = response(&ledger);
    let (site, other) = (SiteId::of("shop"), SiteId::of("other"));
    let elsewhere = ledger.name(Named::Host, b"elsewhere");
    let key = ledger.name(Named::Key, b"product-7");
    let targets = [
        Target::Site(other),
        Target::Host(other, selectors.host),
        Target::Url(other, selectors.url),
        Target::Key(other, key),
        Target::Host(site, elsewhere),
        Target::Key(site, ledger.name(Named::Key, b"product-8")),
        Target::Url(site, selectors.url + 1),
        Target::Prefix { site: other, host: None, path: Box::default() },
        Target::Prefix { site, host: Some(elsewhere), path: Box::default() },
        Target::Prefix { site, host: None, path: (*b"/a/bc").into() },
    ];
    ledger.apply(at(5), UnixMs(9), Mode::Delete, &targets);
    assert_eq!(verdict(&ledger, &selectors.get(), 4), Verdict::Live);
}

#[test]
fn a_local_invalidation_concerns_its_key_and_its_group_alone() {
    let ledger = Ledger::default();
    let mut selectors = crate::purge::selector::OwnedSelectors { url: 7, ..Default::default() };
    selectors.add_group(90_000);
    let (before, version) = (ledger.applied(), ledger.version());
    let judge = |at| ledger.judge(&selectors.get(), at).verdict;
    ledger.invalidate(8);
    assert_eq!(judge(before), Verdict::Live);
    ledger.invalidate(7);
    assert_eq!(judge(before), Verdict::Gone(Gone::Invalidated));
    let between = ledger.applied();
    assert_eq!(judge(between), Verdict::Live);
    ledger.invalidate_group(90_000);
    assert_eq!(judge(between), Verdict::Gone(Gone::Invalidated));
    assert_eq!(judge(ledger.applied()), Verdict::Live);
    assert!(ledger.version() >= version + 3);
    assert_eq!(ledger.applied().log, before.log, "the log knows nothing of it");
}

#[test]
fn a_position_from_the_future_or_from_a_lost_log_is_gone() {
    let ledger = Ledger::default();
    assert_eq!(verdict(&ledger, &Selectors::default(), 1), PURGED);
    ledger.restore(LogPosition::new(2, 0), LogPosition::new(2, 0));
    assert_eq!(verdict(&ledger, &Selectors::default(), 1), PURGED);
    let now = ledger.applied();
    assert_eq!(ledger.judge(&Selectors::default(), now).verdict, Verdict::Live);
    assert_eq!(
        ledger.judge(&Selectors::default(), Position { local: 99, ..now }).verdict,
        Verdict::Gone(Gone::Invalidated)
    );
}

#[test]
fn too_many_entries_fold_into_their_site() {
    let ledger = Ledger::new(0);
    let site = SiteId::of("shop");
    let key = |number: u64| ledger.name(Named::Key, &number.to_le_bytes());
    let kept = 3_000_u64;
    for seq in 1..=kept {
        ledger.apply(at(seq), UnixMs(0), Mode::Invalidate, &[Target::Key(site, key(seq))]);
    }
    assert!(ledger.len() <= 1025, "{}", ledger.len());
    for seq in 1..=kept {
        let mut selectors = crate::purge::selector::OwnedSelectors { site, ..Default::default() };
        selectors.add_key(key(seq));
        assert_ne!(verdict(&ledger, &selectors.get(), seq - 1), Verdict::Live, "purge {seq} is forgotten");
        assert_eq!(verdict(&ledger, &selectors.get(), kept), Verdict::Live);
    }
    let other = Selectors { site: SiteId::of("other"), ..Selectors::default() };
    assert_eq!(verdict(&ledger, &other, 0), Verdict::Live, "another site pays nothing");
}

#[test]
fn too_many_prefixes_fold_into_their_site() {
    let ledger = Ledger::default();
    let site = SiteId::of("shop");
    let purged = PREFIXES_MAX as u64 + 9;
    for seq in 1..=purged {
        let path = format!("/{seq}/").into_bytes().into_boxed_slice();
        ledger.apply(at(seq), UnixMs(0), Mode::Delete, &[Target::Prefix { site, host: None, path }]);
    }
    assert_eq!(ledger.len(), PREFIXES_MAX + 1);
    let path = b"/1/x".to_vec();
    let selectors = Selectors { site, path: &path, ..Selectors::default() };
    assert_eq!(verdict(&ledger, &selectors, 0), PURGED);
    assert_eq!(verdict(&ledger, &selectors, purged), Verdict::Live);
}

proptest! {
    /// Applied twice, in any order, or folded: never more live than applied once in order (I2).
    #[test]
    fn applying_is_idempotent_and_its_order_makes_no_difference(
        purges in proptest::collection::vec((0..8_usize, any::<bool>()), 1..12),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        began in 0..13_u64,
    ) {
        let (once, more) = (Ledger::default(), Ledger::default());
        let apply = |ledger: &Ledger, seq: usize| {
            let (target, hard) = purges[seq];
            let (_, targets) = response(ledger);
            let mode = if hard { Mode::Delete } else { Mode::Invalidate };
            ledger.apply(at(seq as u64 + 1), UnixMs(seq as u64), mode, &targets[target..=target]);
        };
        (0..purges.len()).for_each(|seq| apply(&once, seq));
        again.iter().for_each(|index| apply(&more, index.index(purges.len())));
        (0..purges.len()).rev().for_each(|seq| apply(&more, seq));
        let began = began.min(purges.len() as u64);
        let judged = |ledger: &Ledger| verdict(ledger, &response(ledger).0.get(), began);
        prop_assert_eq!(judged(&once), judged(&more));
        // And it is what the definition says.
        let later = purges.get(began as usize..).unwrap_or_default();
        let expected = match (later.iter().any(|(_, hard)| *hard), later.is_empty()) {
            (true, _) => PURGED,
            (false, true) => Verdict::Live,
            (false, false) => judged(&once),
        };
        prop_assert_eq!(judged(&once), expected);
    }
}
