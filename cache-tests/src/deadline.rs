//! Waiting: for a condition, never for a time. Every wait ends, well or with a message that says what was missing.

use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that should happen at once, on a machine that has much else to do. Shorter than any
/// time after which the node, left to its defaults, would do it anyway: the shortest are 10 seconds.
pub const PATIENCE: Duration = Duration::from_secs(9);

/// How often a condition that nobody announces is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// The output of `future`.
///
/// # Panics
/// When `limit` passes first; the message names `what`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Asks `attempt` again until it gives `Ok`.
///
/// # Panics
/// When `limit` passes first; the message has the last `Err`.
pub async fn until<T, F: Future<Output = Result<T, String>>>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let mut last = String::from("the first attempt never ended");
    let wait = async {
        loop {
            match attempt().await {
                Ok(output) => break output,
                Err(error) => last = error,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(output) => output,
        Err(_) => panic!("waited {limit:?} in vain: {what}; last: {last}"),
    }
}
