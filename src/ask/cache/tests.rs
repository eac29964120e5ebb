use super::*;

#[test]
fn what_is_stored_is_said_in_words() {
    let answer = json!({
        "url": "http://a/b", "site": "shop", "vary": ["accept"], "unreadable": ["0f: it is damaged, and forgotten"],
        "records": [
            { "key": "00ff", "memory": true, "disk": { "path": "/d", "segment": 1, "offset": 64, "bytes": 128 },
              "status": 200, "body_bytes": 1_048_576, "body": "apart", "age": 5, "lifetime": 60, "ttl": 55,
              "chunks": { "all": 4, "there": 3 }, "generation": "aa", "etag": "\"e\"", "last_modified": null,
              "ledger": "live", "surrogate_keys": 1, "doubtful": true,
              "fill_position": { "log": { "generation": 1, "seq": 7 }, "local": 2 } },
            { "key": "01", "memory": true, "disk": null, "status": 404, "body_bytes": 9, "body": "memory", "age": 9,
              "lifetime": 5, "ttl": -4, "chunks": null, "ledger": "gone", "gone": "purged", "surrogate_keys": 0 },
        ],
    });
    let expected = "http://a/b of the site shop: 2 responses stored.\nWhat is stored for it is selected by accept.\n\n\
        00ff 200, in memory and on the disk /d (segment 1, offset 64, 128 bytes)\n  body        1.0 MiB, apart from its head\n  \
        age         5 s of 60 s, fresh for 55 s more\n  chunks      3 of 4, the others are fetched when they are wanted; generation aa\n  \
        validators  etag \"e\"\n  purges      live; 1 surrogate key, fill at 1-7-2\n  \
        doubtful    the disk has lost something: it is validated before it is used\n\n\
        01 404, in memory alone\n  body        9 B\n  age         9 s of 5 s, stale since 4 s\n  validators  none\n  \
        purges      gone: purged, never served again; 0 surrogate keys, fill at 0-0-0\n\
        Cannot be read: 0f: it is damaged, and forgotten.";
    assert_eq!(shown_in_words(&answer), expected);
}

#[test]
fn pages_are_joined_and_said_in_words() {
    let object = json!({ "url": "http://a/b", "status": 200, "bytes": 5, "age": 1, "ttl": 9, "tier": "disk" });
    let first = json!({ "site": "shop", "objects": [object], "looked": 2_000, "gone": 1, "unreadable": 0, "next": "0.1.2",
        "in_memory_alone": { "objects": 3, "at_least": true } });
    let second = json!({ "site": "shop", "objects": [object], "looked": 5, "gone": 1, "unreadable": 1, "next": null,
        "in_memory_alone": null });
    let all = joined(first.clone(), &second);
    assert_eq!((number(&all, "/looked"), number(&all, "/gone"), text(&all, "/next")), (2_005, 2, None));
    let line = "200        5 B        1 s old, fresh for 9 s more       disk   http://a/b\n";
    let alone = "At least 3 more responses in memory alone: only `littoral cache show URL` finds them.";
    let expected =
        format!("{line}{line}2 responses on disks for the site shop.\n{alone}\n1 response could not be read.");
    assert_eq!(listed_in_words(&all), expected);
    let expected =
        format!("{line}1 response on disks for the site shop.\n{alone}\nThere may be more: go on with --cursor 0.1.2");
    assert_eq!(listed_in_words(&first), expected);
}

#[test]
fn verifications_are_said_in_words() {
    let record = json!({ "key": "00ff", "disk": "/d", "bytes": 2048, "chunks": ["right", "damaged"], "left": 1 });
    let answer = json!({ "url": "http://a/b", "right": false, "unreadable": [], "records": [record] });
    let expected = "What is on disks for http://a/b is not all what was written; it is fetched again when it is wanted.\n\
        00ff on /d: head and 2 chunks read, 2.0 KiB\n  chunk 1 is damaged\n  1 chunk not read: there are too many for one request";
    assert_eq!(verified_in_words(&answer), expected);
    for (progress, expected) in [
        (
            json!({ "started_at": null }),
            "Nothing was verified since the node started: littoral cache verify --all begins it.",
        ),
        (
            json!({ "started_at": 1, "running": true, "disk": "/d", "frames": 2, "frames_at_start": 4, "bytes": 1024,
                "right": 2, "mib_per_second": 64 }),
            "Verifying /d: 2 of 4 frames, 1.0 KiB read so far, at 64 MiB/s at most. `littoral cache verify` says how far it is.\n\
             2 right, none damaged.",
        ),
        (
            json!({ "started_at": 1, "running": false, "frames": 4, "frames_at_start": 4, "bytes": 1024, "seconds": 2.4,
                "right": 2, "damaged": 1, "gone": 1 }),
            "Verified: 4 of 4 frames, 1.0 KiB read in 2.4 s.\n\
             2 right, 1 damaged and forgotten, 0 unreadable: look at the disk's health (smartctl).\n\
             1 replaced or evicted meanwhile.",
        ),
    ] {
        assert_eq!(progress_in_words(&progress), expected);
    }
}
