use super::*;

fn metrics_of(sites: &[&str]) -> Arc<Metrics> {
    let metrics = Metrics::new("1.2.3");
    sites.iter().enumerate().for_each(|(index, site)| assert_eq!(metrics.site(site), index));
    metrics
}

/// Makes every metric move once.
fn drive(metrics: &Metrics) -> String {
    metrics.request(0, CacheOutcome::Hit, 200, 1024);
    metrics.ttfb(CacheOutcome::Hit, 0.0002);
    metrics.refusal("bad-host");
    metrics.connections.inc();
    metrics.handshake("TLSv1.3", true);
    metrics.certificates(&[CertificateEnd {
        name: "www.example.com".into(),
        site: "default".into(),
        seconds: 1_800_000_000,
    }]);
    metrics.ocsp_asked("good");
    metrics.certificate_order("issued");
    metrics.ocsp_stapled(4);
    metrics.configured(2);
    metrics.config_refused();
    metrics.origin_request(0, "a.example.net:443", "ok");
    let address = ([192, 0, 2, 1], 443).into();
    metrics.origin_up(0, "a.example.net:443", address, true);
    metrics.origin_draining(0, "a.example.net:443", address, true);
    metrics.origin_in_flight(0, "a.example.net:443", address, 2);
    metrics.origin_queue(0, "canary", 3);
    metrics.origin_rejected(0, "");
    metrics.origin_ejection(0, "a.example.net:443", "ejected");
    metrics.origin_hedged(0, true);
    metrics.origin_seconds(0.3);
    metrics.mirrored(0, "shadow", "answered");
    metrics.mirror_dropped(0, "shadow", "busy").inc();
    metrics.fill_waiters.inc();
    metrics.fill_resumed(0);
    metrics.node_request("shield", "ok");
    metrics.store_evictions.inc();
    metrics.admission("stored");
    metrics.purged("default", "tag", "delete");
    metrics.purge_applied(0.002);
    metrics.reclaimed(3);
    metrics.access_log_dropped.inc();
    metrics.disk_admission("stored");
    metrics.disk_lost("busy", 2);
    metrics.disk_up("/cache", true);
    metrics.disk_read(0.0002);
    metrics.disk_write(0.001);
    metrics.floor_reset();
    let disk = Some(DiskLevels { bytes: 11, objects: 4, written_bytes: 12, evicted: 6, damaged: 1 });
    metrics.encode(&Levels {
        store_bytes: 7,
        store_objects: 3,
        fill_bytes: 5,
        purge_applied_seq: 9,
        purge_lag: 4,
        purge_pending: 2,
        is_current: true,
        disk,
    })
}

/// The samples of a family, and their values.
fn samples<'a>(text: &'a str, family: &str) -> Vec<(&'a str, f64)> {
    let ours = |sample: &str| {
        let name = sample.split('{').next().unwrap_or_default();
        name.strip_prefix(family).is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.filter(|(sample, _)| ours(sample)).map(|(sample, value)| (sample, value.parse().unwrap())).collect()
}

#[test]
fn every_row_of_the_table_has_help_and_is_driven() {
    let text = drive(&metrics_of(&["default"]));
    for (name, labels, help) in TABLE {
        assert!(help.ends_with('.'), "{name}: the help is not a sentence: {help:?}");
        assert!(text.contains(&format!("# HELP {name} {}\n", help.trim())), "{name} is not registered");
        let samples = samples(&text, name);
        assert!(samples.iter().any(|(_, value)| *value > 0.0), "{name} is not driven: {samples:?}");
        for label in *labels {
            let has = |(sample, _): &(&str, f64)| sample.contains(&format!("{label}=\""));
            assert!(samples.iter().all(has), "{name} has no label {label}: {samples:?}");
        }
    }
}

#[test]
fn nothing_with_labels_is_shown_before_it_happens() {
    let text = metrics_of(&["default"]).encode(&Levels::default());
    // These are levels, and as true at zero as at any other time.
    let levels = ["littoral_store_bytes", "littoral_store_objects", "littoral_build_info"];
    for (name, labels, _) in TABLE {
        let expected = labels.is_empty() || levels.contains(name);
        assert_eq!(!samples(&text, name).is_empty(), expected, "{name}");
    }
}

#[test]
fn samples_are_what_happened() {
    let metrics = metrics_of(&["default", "shop"]);
    for (site, cache, status) in
        [(0, CacheOutcome::Hit, 200), (0, CacheOutcome::Hit, 200), (1, CacheOutcome::Miss, 404)]
    {
        metrics.request(site, cache, status, 10);
    }
    for status in [0, 99, 600, u16::MAX] {
        metrics.request(0, CacheOutcome::Pass, status, 0);
    }
    let text = drive(&metrics);
    let rows = [
        ("littoral_requests_total{cache=\"hit\",site=\"default\",status=\"200\"}", 3.0),
        ("littoral_requests_total{cache=\"miss\",site=\"shop\",status=\"404\"}", 1.0),
        ("littoral_requests_total{cache=\"pass\",site=\"default\",status=\"other\"}", 4.0),
        ("littoral_response_bytes_total{cache=\"hit\",site=\"default\"}", 1044.0),
        ("littoral_ttfb_seconds_bucket{cache=\"hit\",le=\"0.0001\"}", 0.0),
        ("littoral_ttfb_seconds_bucket{cache=\"hit\",le=\"0.00025\"}", 1.0),
        ("littoral_refusals_total{reason=\"bad-host\"}", 1.0),
        ("littoral_origin_requests_total{origin=\"a.example.net:443\",outcome=\"ok\",site=\"default\"}", 1.0),
        ("littoral_origin_up{address=\"192.0.2.1:443\",origin=\"a.example.net:443\",site=\"default\"}", 1.0),
        ("littoral_origin_seconds_sum", 0.3),
        ("littoral_store_bytes{tier=\"memory\"}", 7.0),
        ("littoral_store_objects{tier=\"memory\"}", 3.0),
        ("littoral_store_evictions_total{reason=\"capacity\",tier=\"memory\"}", 1.0),
        ("littoral_store_admissions_total{outcome=\"stored\",tier=\"memory\"}", 1.0),
        ("littoral_fill_bytes", 5.0),
        ("littoral_purge_applied_seq", 9.0),
        ("littoral_purge_lag_records", 4.0),
        ("littoral_purges_pending", 2.0),
        ("littoral_current", 1.0),
        ("littoral_build_info{version=\"1.2.3\"}", 1.0),
    ];
    for (sample, value) in rows {
        assert!(text.lines().any(|line| line == format!("{sample} {value}")), "no {sample} {value} in:\n{text}");
    }
    assert_eq!(samples(&text, "littoral_requests_total").len(), 3);
}

#[test]
fn outcomes_are_in_the_order_of_their_indices() {
    for (index, outcome) in CacheOutcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index, "{outcome:?}");
    }
}
