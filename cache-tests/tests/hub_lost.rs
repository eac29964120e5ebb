//! A hub whose log is not what it was: nodes notice, and nothing that was purged comes back.

use std::time::Duration;

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::many::{current, following, isolated, page, purge, purge_everywhere, version};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};
use serde_json::json;

/// What happens to a hub while nodes are away or there.
#[tokio::test]
async fn a_log_that_was_lost_is_noticed() {
    let mut table = Table::new("lost logs");
    for name in ["trimmed", "recreated", "restored", "restored and refilled", "another server", "killed and restarted"]
    {
        let origin = Origin::start();
        origin.serve("/page", page());
        let mut hub = Hub::start().await;
        let machine = Machine::shared();
        let wire = Wire::to(hub.address()).await;
        let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
        let far = following(&origin, &wire.url(), "far", "").within(&machine).start().await;
        current(&near).await;
        current(&far).await;
        for _ in 0..20 {
            purge(&near, "other").await;
        }
        hub.kill().await;
        let saved = hub.saved();
        hub.start_again().await;
        current(&near).await;
        current(&far).await;
        for _ in 0..20 {
            purge(&near, "other").await;
        }
        until(PATIENCE, "a node that has caught up", || async {
            let stat = far.admin_get("/v1/stat").await?.json();
            if stat["purge"]["position"]["seq"].as_u64() >= Some(40) {
                Ok(())
            } else {
                Err(format!("{}", stat["purge"]))
            }
        })
        .await;
        let (first_near, first_far) = (version(&near, "/page").await, version(&far, "/page").await);
        // The far node is away; what it stored is purged; and then the log is not what it was.
        wire.cut(Cut::Reset);
        purge(&near, "page").await;
        isolated(&far).await;
        let lost = match name {
            "trimmed" => {
                let stream = hub.client().await.get_stream("PURGE").await.expect("the stream");
                stream.purge().await.expect("it is emptied");
                true
            }
            "recreated" => {
                hub.client().await.delete_stream("PURGE").await.expect("it is deleted");
                hub.init();
                true
            }
            "restored" | "restored and refilled" => {
                hub.kill().await;
                hub.restore(&saved);
                hub.start_again().await;
                if name == "restored and refilled" {
                    let client = hub.client().await;
                    for number in 0..60 {
                        let record = json!({ "v": 1, "id": format!("01ARZ3NDEKTSV4RRFFQ69G5{number:03}"), "at": 1,
                            "selectors": [], "mode": "delete", "by": "somebody" });
                        let sent = client.publish("purge.shop", record.to_string().into()).await.expect("it is sent");
                        sent.await.expect("it is kept");
                    }
                }
                true
            }
            "another server" => {
                let other = Hub::start().await;
                hub.kill().await;
                let mut other = other;
                other.kill().await;
                hub.restore(&other.saved());
                hub.start_again().await;
                true
            }
            _ => {
                hub.kill().await;
                hub.start_again().await;
                false
            }
        };
        wire.cut(Cut::No);
        // Who is there all the time misses nothing of what was trimmed away. What was lost of a store that was restored the near
        // node sends again, and the hub knows what it has by its ids: the far node may find the very log it has followed.
        let near_notices = if name == "trimmed" { None } else { Some(lost) };
        let far_notices = if name == "restored" { None } else { Some(lost) };
        for (node, first, notices) in [(&far, first_far, far_notices), (&near, first_near, near_notices)] {
            if notices == Some(true) {
                until(Duration::from_secs(10), &format!("{name}: a node that has noticed"), || async {
                    let resets = node.metrics().await.sum("littoral_floor_resets_total", &[]);
                    if resets > 0.0 { Ok(()) } else { Err(node.admin_get("/v1/stat").await?.text()) }
                })
                .await;
            }
            current(node).await;
            let found = version(node, "/page").await;
            table.row(name, that(found > first, || format!("{found} is served, {first} was purged")));
            let resets = node.metrics().await.sum("littoral_floor_resets_total", &[]);
            table.row(name, same("it has noticed", resets > 0.0, notices.unwrap_or(resets > 0.0)));
        }
        // And it goes on as before, once the near node has found the hub again.
        until(PATIENCE, "a purge that the hub has", || async {
            let response = near.admin_json("POST", "/v1/purge", &json!({ "tags": ["other"] }), None).await;
            if response.json()["position"].is_null() { Err(response.text()) } else { Ok(()) }
        })
        .await;
        let before = version(&far, "/page").await;
        let (status, receipt) = purge_everywhere(&near, "10s").await;
        table.row(name, same("a receipt", status, 200));
        let found = version(&far, "/page").await;
        table.row(name, that(found > before, || format!("{found} after {before}: {receipt}")));
    }
    table.finish();
}
