//! Many nodes, one configuration: what is pushed is live on all of them, or on as many as it is for; what is not good on none.

use std::time::Instant;

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::fleet::{
    body, called, following, live, live_on_all, live_within, post, push, rejects, sets, site, start,
};
use cache_tests::hub::Hub;
use cache_tests::table::{Table, same, that};
use serde_json::json;

#[tokio::test]
async fn a_good_version_is_live_everywhere_and_a_bad_one_nowhere() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 3, "").await;
    let mut table = Table::new("versions");
    for node in &nodes {
        table.row("before", that(body(node, "shop.test").await != "one", || "a site of nobody".into()));
    }
    let begun = Instant::now();
    let first = push(&nodes[0], &site("shop", "shop.test", &one)).await;
    live_on_all(&nodes, "shop.test", "one").await;
    let took = begun.elapsed();
    table.row("a first one", that(took < live_within(), || format!("{took:?}")));
    let begun = Instant::now();
    let second = push(&nodes[1], &site("shop", "shop.test", &two)).await;
    live_on_all(&nodes, "shop.test", "two").await;
    let took = begun.elapsed();
    table.row("another one", that(took < live_within(), || format!("{took:?}")));
    table.row("versions grow", that(second > first, || format!("{first} {second}")));

    let bad = post(
        &nodes[2],
        "push",
        json!({ "site": "shop", "text": "[site.shop]\nhosts = \"shop.test\"\norigin = 1\n" }),
        None,
    );
    let bad = bad.await;
    let errors = bad.json();
    table.row("a bad one", same("status", bad.status, 422));
    table.row(
        "a bad one",
        same("line and column", (&errors["errors"][0]["line"], &errors["errors"][0]["column"]), (&json!(1), &json!(1))),
    );
    table.row(
        "a bad one",
        same("message", errors["errors"][1]["message"].as_str(), Some("unknown key `origin` in [site.shop]")),
    );
    let taken = post(&nodes[0], "push", json!({ "site": "blog", "text": site("blog", "shop.test", &one) }), None).await;
    table.row("a host of another site", same("status", taken.status, 422));
    for (name, body, status) in [
        (
            "an older version is expected",
            json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": first }),
            409,
        ),
        (
            "none is expected",
            json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": 0 }),
            409,
        ),
        ("no text", json!({ "site": "shop" }), 400),
        ("no share", json!({ "site": "shop", "text": "", "share": 0 }), 400),
        ("site and node", json!({ "site": "shop", "node": true, "text": "" }), 400),
        ("no name", json!({ "site": "a b", "text": "" }), 400),
    ] {
        let response = post(&nodes[0], "push", body, None).await;
        table.row(name, same("status", response.status, status));
    }
    live_on_all(&nodes, "shop.test", "two").await;
    let diff =
        post(&nodes[0], "diff", json!({ "site": "shop", "text": site("shop", "shop.test", &one) }), None).await.json();
    let text = diff["diff"].as_str().unwrap_or_default();
    table.row("a difference", same("version", diff["version"].as_u64(), Some(second)));
    table.row("a difference", that(text.contains(&format!("+origins = \"{}\"", one.url())), || text.to_owned()));
    let expected = json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": second });
    table.row("the latest is expected", same("status", post(&nodes[0], "push", expected, None).await.status, 200));
    live_on_all(&nodes, "shop.test", "one").await;
    for node in &nodes {
        table.row("nothing was refused by a node", same("rejects", rejects(node).await, 0));
    }

    let begun = Instant::now();
    let back = post(&nodes[2], "rollback", json!({ "site": "shop" }), None).await;
    table.row("back", same("status", back.status, 200));
    live_on_all(&nodes, "shop.test", "two").await;
    let took = begun.elapsed();
    table.row("back", that(took < live_within(), || format!("{took:?}")));
    let history = nodes[1].admin_get("/v1/config/history?site=shop").await.expect("an answer").json();
    table.row("versions", same("count", history["versions"].as_array().map(Vec::len), Some(4)));
    let target = format!("/v1/config/history?site=shop&version={first}");
    let version = nodes[1].admin_get(&target).await.expect("an answer").json();
    table.row(
        "versions",
        same("text", version["versions"][0]["text"].as_str(), Some(site("shop", "shop.test", &one).as_str())),
    );
    table.row(
        "versions",
        same(
            "rollback to no such one",
            post(&nodes[0], "rollback", json!({ "site": "shop", "version": 77 }), None).await.status,
            404,
        ),
    );
    post(&nodes[0], "rollback", json!({ "site": "shop", "version": first }), None).await;
    live_on_all(&nodes, "shop.test", "one").await;
    push(&nodes[0], "").await;
    until(PATIENCE, "a site that is removed", || async {
        let found = body(&nodes[1], "shop.test").await;
        if found == "one" { Err(found) } else { Ok(()) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn what_was_published_past_every_check_is_in_force_nowhere() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (machine, nodes) = start(&hub, 2, "").await;
    push(&nodes[0], &site("shop", "shop.test", &one)).await;
    live_on_all(&nodes, "shop.test", "one").await;
    let client = hub.client().await;
    let mut table = Table::new("published past every check");
    let document = |text: &str| json!({ "v": 1, "text": text, "at": 1, "by": "x", "share": 100 }).to_string();
    let rows = [
        ("no document", "config.site.shop", "[site.shop]".to_owned()),
        (
            "of another form",
            "config.site.shop",
            json!({ "v": 2, "text": "", "at": 1, "by": "x", "share": 100 }).to_string(),
        ),
        ("no TOML", "config.site.shop", document("[site")),
        ("another site", "config.site.shop", document(&site("blog", "blog.test", &two))),
        ("a host of another site", "config.site.blog", document(&site("blog", "shop.test", &two))),
        ("what is a node's own", "config.node", document("workers = 7\n")),
    ];
    for (count, (name, subject, payload)) in (1..).zip(rows) {
        client.publish(subject, payload.into()).await.expect("it is sent").await.expect("it is kept");
        for node in &nodes {
            until(PATIENCE, &format!("{name}: it is refused"), || async {
                let found = rejects(node).await;
                if found == count { Ok(()) } else { Err(format!("{found} of {count}: {}", node.said())) }
            })
            .await;
            table.row(name, same("what is served", body(node, "shop.test").await, "one".into()));
        }
    }
    let state = nodes[0].admin_get("/v1/config").await.expect("an answer").text();
    table.row("it is told", that(state.contains("is there no") || state.contains("refused"), || state.clone()));
    // Other documents do not wait for those that are not good.
    let response =
        post(&nodes[0], "push", json!({ "site": "news", "text": site("news", "news.test", &two) }), None).await;
    table.row("another site", same("status", response.status, 200));
    live_on_all(&nodes, "news.test", "two").await;
    // And a good one takes the place of a bad one.
    push(&nodes[1], &site("shop", "shop.test", &two)).await;
    live_on_all(&nodes, "shop.test", "two").await;
    // A node that is new has what is good.
    let late = following(&hub.url(), "late", "").within(&machine).start().await;
    live(&late, "shop.test", "two").await;
    live(&late, "news.test", "two").await;
    until(PATIENCE, "what is not good is refused by it too", || async {
        let found = rejects(&late).await;
        if found == 2 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn a_staged_version_is_on_exactly_its_share() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 4, "").await;
    push(&nodes[0], &site("shop", "shop.test", &one)).await;
    live_on_all(&nodes, "shop.test", "one").await;
    let mut table = Table::new("staged");
    let with_new = async || {
        let mut count = 0;
        for node in &nodes {
            count += usize::from(body(node, "shop.test").await == "two");
        }
        count
    };
    let staged = async |share: u8| {
        let text = site("shop", "shop.test", &two);
        let response = post(&nodes[0], "push", json!({ "site": "shop", "text": text, "share": share }), None).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let version = response.json()["version"].as_u64().expect("a version");
        for node in &nodes {
            until(PATIENCE, "a node that has heard of it", || async {
                let state = node.admin_get("/v1/config").await?.json();
                let latest = state["documents"][0]["latest"]["version"].as_u64();
                if latest == Some(version) { Ok(()) } else { Err(format!("{state}")) }
            })
            .await;
        }
        let expected = (nodes.len() * usize::from(share)).div_ceil(100);
        let begun = Instant::now();
        until(PATIENCE, &format!("{share} % of the nodes"), || async {
            let found = with_new().await;
            if found == expected { Ok(()) } else { Err(format!("{found} of {expected}")) }
        })
        .await;
        begun.elapsed()
    };
    for share in [25, 50, 75] {
        let took = staged(share).await;
        table.row(&format!("{share} %"), that(took < live_within(), || format!("{took:?}")));
    }
    until(PATIENCE, "two sets of documents", || async {
        let sets = sets(&nodes[3]).await;
        let count = |set: &String| sets.iter().filter(|other| *other == set).count();
        let mut counts: Vec<usize> = sets.iter().map(count).collect();
        counts.sort_unstable();
        if counts == [1, 3, 3, 3] { Ok(()) } else { Err(format!("{sets:?}")) }
    })
    .await;
    staged(100).await;
    table.row(
        "completed",
        same("rollback", post(&nodes[1], "rollback", json!({ "site": "shop" }), None).await.status, 200),
    );
    live_on_all(&nodes, "shop.test", "one").await;
    // Of a staged one a rollback leaves nothing.
    staged(50).await;
    post(&nodes[1], "rollback", json!({ "site": "shop" }), None).await;
    let took = live_on_all(&nodes, "shop.test", "one").await;
    table.row("a staged one is taken back", that(took < live_within(), || format!("{took:?}")));
    // A new site that is staged is on no other node.
    let text = site("news", "news.test", &two);
    let response = post(&nodes[0], "push", json!({ "site": "news", "text": text, "share": 50 }), None).await;
    table.row("a new site", same("status", response.status, 200));
    until(PATIENCE, "half of the nodes have it", || async {
        let mut count = 0;
        for node in &nodes {
            count += usize::from(body(node, "news.test").await == "two");
        }
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn of_two_sites_that_claim_a_host_at_once_one_gets_it() {
    let one = called("one");
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 2, "").await;
    let mut table = Table::new("claims");
    for round in 0..8 {
        let host = format!("host-{round}.test");
        let claim = |number: usize| {
            let name = format!("site-{round}-{number}");
            let text = site(&name, &host, &one);
            let node = &nodes[number];
            async move { post(node, "push", json!({ "site": name, "text": text }), None).await.status }
        };
        let (first, second) = tokio::join!(claim(0), claim(1));
        let mut statuses = [first, second];
        statuses.sort_unstable();
        table.row(&format!("round {round}"), same("statuses", statuses, [200, 422]));
    }
    // Others do not stand in one another's way.
    let push = |number: usize| {
        let text = site(&format!("other-{number}"), &format!("other-{number}.test"), &one);
        let node = &nodes[number];
        async move { post(node, "push", json!({ "site": format!("other-{number}"), "text": text }), None).await.status }
    };
    let statuses = tokio::join!(push(0), push(1));
    table.row("two other sites", same("statuses", statuses, (200, 200)));
    for node in &nodes {
        table.row("what was refused", same("counted", rejects(node).await, 0));
    }
    table.finish();
}
