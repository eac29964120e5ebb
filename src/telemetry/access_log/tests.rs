use std::net::Ipv4Addr;
use std::sync::mpsc::{Sender, channel};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// 1994-11-06 08:49:37.123.
const AT: UnixMs = UnixMs(784_111_777_123);

fn record() -> Record<'static> {
    Record {
        ts: AT,
        site: "default",
        client: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 17))),
        country: Some("DE"),
        method: "GET",
        host: b"www.example.test",
        target: b"/assets/app.js?v=12&x",
        status: 200,
        bytes: 1024,
        cache: "hit",
        reason: Some("no-store"),
        key: Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        ttl: Some(-5),
        age: Some(55),
        ttfb_us: Some(40),
        total_us: 61,
        group: "canary",
        origin: Some("origin.example.test:443"),
        retries: 1,
        proto: "HTTP/1.1",
        tls: Some("TLSv1.3"),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        tier: Some("memory"),
    }
}

fn written(record: &Record<'_>) -> Value {
    let mut out = Vec::new();
    record.write_json(&mut out);
    assert!(out.is_ascii() && !out.contains(&b'\n'), "{}", out.escape_ascii());
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()))
}

#[test]
fn a_record_has_the_documented_names() {
    let expected = json!({
        "ts": "1994-11-06T08:49:37.123Z", "site": "default", "client": "192.0.2.17", "country": "DE", "method": "GET",
        "host": "www.example.test", "path": "/assets/app.js", "query": "v=12&x", "status": 200, "bytes": 1024,
        "cache": "hit", "reason": "no-store", "key": "0123456789abcdef0123456789abcdef", "ttl": -5, "age": 55,
        "tier": "memory", "group": "canary", "origin": "origin.example.test:443", "ttfb_us": 40, "total_us": 61, "retries": 1,
        "proto": "HTTP/1.1", "tls": "TLSv1.3", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    });
    assert_eq!(written(&record()), expected);
}

#[test]
fn what_is_absent_or_empty_is_left_out() {
    let refused = Record {
        site: "",
        client: None,
        country: None,
        method: "",
        host: b"",
        target: b"",
        reason: None,
        key: None,
        ttl: None,
        age: None,
        ttfb_us: None,
        group: "",
        origin: None,
        trace_id: None,
        tier: None,
        tls: None,
        ..record()
    };
    let expected = json!({
        "ts": "1994-11-06T08:49:37.123Z", "status": 200, "bytes": 1024, "cache": "hit", "total_us": 61, "retries": 1,
        "proto": "HTTP/1.1",
    });
    assert_eq!(written(&refused), expected);
}

#[test]
fn timestamps() {
    let rows = [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_827_696_009, "2000-02-29T12:34:56.009Z"),
        (951_827_696_010, "2000-02-29T12:34:56.010Z"),
        (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
        (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
    ];
    for (ms, expected) in rows {
        assert_eq!(written(&Record { ts: UnixMs(ms), ..record() })["ts"], expected);
    }
}

#[test]
fn clients() {
    let rows = [
        ("127.0.0.1", "127.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
    ];
    for (client, expected) in rows {
        assert_eq!(written(&Record { client: client.parse().ok(), ..record() })["client"], expected);
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

proptest! {
    #[test]
    fn any_bytes_make_valid_json(host in any::<Vec<u8>>(), path in any::<Vec<u8>>(), query in any::<Vec<u8>>(), id: String) {
        let path: Vec<u8> = path.into_iter().filter(|byte| *byte != b'?').collect();
        let target = [&path[..], b"?", &query].concat();
        let json = written(&Record { host: &host, target: &target, trace_id: Some(&id), ..record() });
        for (name, bytes) in [("host", &host[..]), ("path", &path), ("query", &query), ("trace_id", id.as_bytes())] {
            let expected = if bytes.is_empty() { Value::Null } else { latin1(bytes).into() };
            prop_assert_eq!(&json[name], &expected, "{}", name);
        }
    }
}

/// What was written to a target, and how it fails.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn records(&self) -> usize {
        let text = self.0.lock();
        text.split(|byte| *byte == b'\n').filter(|line| serde_json::from_slice::<Value>(line).is_ok()).count()
    }
}

/// Says that it is being written to, then takes nothing until it is let go.
struct Stalled {
    entered: Sender<()>,
    go: Receiver<()>,
    written: Written,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Both fail once the test has seen enough.
        let _ = self.entered.send(());
        let _ = self.go.recv();
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes some bytes, fails once, and is well again.
struct Fails {
    take: usize,
    failed: bool,
    written: Written,
}

impl Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.take > 0 {
            let taken = self.take.min(bytes.len());
            self.take -= taken;
            return self.written.write(&bytes[..taken]);
        }
        if !std::mem::replace(&mut self.failed, true) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new("test")
}

fn length() -> usize {
    let mut out = Vec::new();
    record().write_json(&mut out);
    out.len() + 1
}

#[test]
fn all_records_of_all_threads_are_written_by_the_end() {
    let (written, metrics) = (Written::default(), metrics());
    let log = AccessLog::start(Box::new(written.clone()), None, metrics.clone()).expect("a thread");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| log.record(&record())));
        }
    });
    log.close();
    assert_eq!((written.records(), metrics.access_log_dropped.get()), (2000, 0));
    log.record(&record());
    assert_eq!((written.records(), metrics.access_log_dropped.get()), (2000, 1), "closed");
}

#[test]
fn a_target_that_stalls_costs_records_and_nothing_else() {
    let (written, metrics) = (Written::default(), metrics());
    let ((entered, is_entered), (go, going)) = (channel(), channel());
    let stalled = Stalled { entered, go: going, written: written.clone() };
    let log = AccessLog::start(Box::new(stalled), None, metrics.clone()).expect("a thread");
    log.record(&record());
    is_entered.recv().expect("the writer writes");
    let (room, more) = (SHARD_BYTES_MAX / length(), 10);
    (0..room + more).for_each(|_| log.record(&record()));
    assert_eq!(metrics.access_log_dropped.get(), more as u64);
    drop(go);
    log.close();
    assert_eq!(written.records(), 1 + room);
}

#[test]
fn records_that_a_target_does_not_take_are_counted() {
    for (take, torn) in [(0, 0), (10, 0), (length(), 1), (length() + 10, 1)] {
        let (written, metrics) = (Written::default(), metrics());
        let sink = Fails { take, failed: false, written: written.clone() };
        let mut sink = Sink { out: Box::new(sink), path: None, metrics: metrics.clone(), torn: false, warned: None };
        let mut lines = Vec::new();
        for _ in 0..3 {
            record().write_json(&mut lines);
            lines.push(b'\n');
        }
        sink.write(&lines);
        assert_eq!((written.records(), metrics.access_log_dropped.get()), (torn, 3 - torn as u64), "{take}");
        sink.write(&lines);
        assert_eq!(written.records(), torn + 3, "after {take} bytes the next record begins a line");
    }
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let directory = std::env::temp_dir().join(format!("littoral-access-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (file, rotated) = (directory.join("access.log"), directory.join("access.log.1"));
    let log = AccessLog::open(&Target::File(file.clone()), metrics()).expect("a file");
    std::fs::rename(&file, &rotated).expect("renamed");
    log.reopen();
    log.record(&record());
    log.close();
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file").lines().count();
    // The record goes to either, depending on when the writer looked; the new file is there.
    assert_eq!(read(&file) + read(&rotated), 1);
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn off_is_nothing() {
    let metrics = metrics();
    let log = AccessLog::open(&Target::Off, metrics.clone()).expect("nothing to open");
    assert!(log.is_off());
    log.record(&record());
    log.reopen();
    log.close();
    assert_eq!(metrics.access_log_dropped.get(), 0);
}
