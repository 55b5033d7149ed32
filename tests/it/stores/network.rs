//! A network that fails: answers that are lost, connections that end, servers that say nothing, too
//! much or the wrong thing.

use super::double::{Asked, Dialect, Double, Fate};
use super::servers::Server;
use super::{assert_tells_nothing, brief, open};
use bytes::Bytes;
use estrato::error::StoreFault;
use estrato::store::{Patience, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn double() -> (Double, Arc<dyn Store>) {
    let double = Double::new(Dialect::S3);
    let store = open(&format!("s3://bucket/p?endpoint={}", double.endpoint()), brief()).unwrap();
    (double, store)
}

fn noise(len: usize) -> Bytes {
    crate::support::noise("network", len).into()
}

/// The first request has this fate, all others are done.
fn first(double: &Double, fate: Fate) {
    let mut fate = Some(fate);
    double.decide(move |_| fate.take().unwrap_or(Fate::Done));
}

fn methods(double: &Double) -> Vec<String> {
    double.asked().into_iter().map(|asked| asked.method).collect()
}

#[test]
fn an_object_whose_answer_was_lost_is_known_as_ours() {
    let (double, store) = double();
    let data = noise(1_000_000);
    first(&double, Fate::LoseAnswer);
    store.create("packs/a", data.clone()).unwrap();
    assert_eq!(methods(&double), ["PUT", "PUT", "GET"]);
    // Lost, and then the comparison is interrupted.
    double.decide(|asked: &Asked| match asked.number {
        1 => Fate::LoseAnswer,
        3 => Fate::CutAnswer(300_000),
        _ => Fate::Done,
    });
    store.create("packs/b", data.clone()).unwrap();
    assert_eq!(methods(&double), ["PUT", "PUT", "GET", "GET"]);
    // Another's object, before a lost answer and without one.
    for (fate, expected) in [
        (Fate::Done, vec!["PUT"]),
        (Fate::LoseAnswer, vec!["PUT", "PUT", "GET"]),
        (Fate::Refuse(503, "", String::new()), vec!["PUT", "PUT", "GET"]),
    ] {
        for theirs in [&data[..999_999], &[&data[..], b"x"].concat(), &noise(2_000_000)[1_000_000..]] {
            double.plant("p/packs/c", theirs);
            first(&double, fate.clone());
            assert_eq!(store.create("packs/c", data.clone()).unwrap_err().fault, StoreFault::Exists);
            assert_eq!(methods(&double), expected, "{fate:?}");
        }
    }
    assert_eq!(store.read("packs/b", 1_000_000).unwrap(), data);
}

#[test]
fn an_object_that_froze_at_once_is_known_as_ours_by_its_length() {
    let (double, store) = double();
    let decide = |asked: &Asked| match (asked.number, &*asked.method) {
        (1, _) => Fate::LoseAnswer,
        (_, "GET") => Fate::Refuse(403, "", "<Error><Code>InvalidObjectState</Code></Error>".into()),
        _ => Fate::Done,
    };
    double.decide(decide);
    store.create_cold("packs/a", noise(300_000)).unwrap();
    assert_eq!(methods(&double), ["PUT", "PUT", "GET", "HEAD"]);
    double.plant("p/packs/b", &noise(300_001));
    double.decide(decide);
    assert_eq!(store.create_cold("packs/b", noise(300_000)).unwrap_err().fault, StoreFault::Exists);
    // What is no pack may have any name: it is not believed by its length.
    double.plant("p/packs/c", &noise(300_000));
    double.decide(decide);
    assert_eq!(store.create("packs/c", noise(300_000)).unwrap_err().fault, StoreFault::Frozen);
}

#[test]
fn uploads_and_deletes_that_break_off_are_made_again() {
    let (double, store) = double();
    let data = noise(3_000_000);
    double.decide(|asked| if asked.number <= 3 { Fate::CutUpload(asked.number * 100_000) } else { Fate::Done });
    store.create("a", data.clone()).unwrap();
    assert_eq!(store.read("a", 3_000_000).unwrap(), data);
    double.decide(|asked| if asked.number % 2 == 1 { Fate::CutUpload(1) } else { Fate::Done });
    store.write("a", noise(10)).unwrap();
    assert_eq!(store.size("a").unwrap(), 10);
    // A delete that was done and not heard of finds nothing the second time, or says nothing.
    double.decide(|asked| if asked.number == 1 { Fate::LoseAnswer } else { Fate::Done });
    store.delete("a").unwrap();
    assert_eq!(methods(&double), ["DELETE", "DELETE"]);
    assert_eq!(store.read("a", 10).unwrap_err().fault, StoreFault::NotFound);
    let google = Double::new(Dialect::Google);
    let there = open(&format!("gs://bucket/p?endpoint={}", google.endpoint()), brief()).unwrap();
    there.create("a", noise(10)).unwrap();
    first(&google, Fate::LoseAnswer);
    there.delete("a").unwrap();
    assert_eq!(there.delete("a").unwrap_err().fault, StoreFault::NotFound);
}

#[test]
fn a_download_goes_on_where_it_was_interrupted() {
    let (double, store) = double();
    let data = noise(5_000_000);
    store.create("a", data.clone()).unwrap();
    double.decide(|asked| if asked.number <= 3 { Fate::CutAnswer(1_000_000) } else { Fate::Done });
    assert_eq!(store.read("a", 5_000_000).unwrap(), data);
    let asked = double.asked();
    let begins: Vec<u64> = asked
        .iter()
        .skip(1)
        .map(|asked| {
            assert!(asked.headers.contains_key("if-match"), "of the same object only");
            asked.headers["range"].trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(begins.len() == 3 && begins[0] > 0 && begins.is_sorted_by(|a, b| a < b), "{begins:?}");
    assert!(begins[2] > 2_000_000, "{begins:?}");
    // A range of it.
    double.decide(|asked| if asked.number == 1 { Fate::CutAnswer(100_000) } else { Fate::Done });
    assert_eq!(store.read_range("a", 1_000_000, 300_000).unwrap(), data[1_000_000..1_300_000]);
    assert_eq!(double.asked().len(), 2);
}

#[test]
fn an_object_that_changes_in_between_is_read_anew() {
    let double = Arc::new(Double::new(Dialect::S3));
    let store = open(&format!("s3://bucket/p?endpoint={}", double.endpoint()), brief()).unwrap();
    double.plant("p/a", &noise(2_000_000));
    let other: Bytes = crate::support::noise("other", 2_000_000).into();
    let (planter, planted) = (Arc::downgrade(&double), other.clone());
    double.decide(move |asked| match asked.number {
        1 => Fate::CutAnswer(500_000),
        2 => {
            planter.upgrade().unwrap().plant("p/a", &planted);
            Fate::Done
        }
        _ => Fate::Done,
    });
    assert_eq!(store.read("a", 2_000_000).unwrap(), other);
    assert_eq!(double.asked().len(), 3);
}

#[test]
fn what_is_slow_is_waited_for_and_what_is_silent_is_not() {
    let (double, store) = double();
    let data = noise(200_000);
    store.create("a", data.clone()).unwrap();
    // Twice as long as silence may last, and always something.
    first(&double, Fate::Trickle(5_000, Duration::from_millis(20)));
    assert_eq!(store.read("a", 200_000).unwrap(), data);
    assert_eq!(double.asked().len(), 1);
    for request in ["read", "create", "list"] {
        first(&double, Fate::Silence);
        let began = Instant::now();
        match request {
            "read" => assert_eq!(store.read("a", 200_000).unwrap(), data),
            "create" => store.write("b", data.clone()).unwrap_or_else(|e| panic!("{e}")),
            _ => assert!(!store.list("").unwrap().is_empty()),
        }
        assert_eq!(double.asked().len(), 2, "{request}");
        assert!(began.elapsed() >= Duration::from_millis(if request == "create" { 0 } else { 300 }), "{request}");
    }
}

#[test]
fn a_store_that_is_busy_is_asked_again_and_not_for_ever() {
    let (double, store) = double();
    store.create("a", noise(10)).unwrap();
    let busy = || Fate::Refuse(503, "Retry-After: 0\r\n", "<Error><Code>SlowDown</Code></Error>".into());
    for status in [429, 500, 502, 503, 504] {
        double
            .decide(move |asked| if asked.number < 6 { Fate::Refuse(status, "", String::new()) } else { Fate::Done });
        assert_eq!(store.read("a", 10).unwrap().len(), 10);
        assert_eq!(double.asked().len(), 6);
    }
    // Each page of a listing has patience of its own.
    for n in 0..9 {
        store.write(&format!("l/{n}"), noise(1)).unwrap();
    }
    double.decide(move |asked| if asked.number % 3 == 0 { Fate::Done } else { Fate::Refuse(500, "", String::new()) });
    assert_eq!(store.list("l").unwrap().len(), 9);
    double.decide(move |_| busy());
    let patience = Patience { retry: Duration::from_millis(700), first: Duration::from_millis(700), ..brief() };
    let store = open(&format!("s3://bucket/p?endpoint={}", double.endpoint()), patience).unwrap();
    let began = Instant::now();
    let e = store.create("b", noise(10)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(e.fault, StoreFault::Unavailable);
    assert!(e.why.contains("503 SlowDown (tried "), "{e}");
    assert_tells_nothing(&e.to_string());
}

#[test]
fn nobody_there_is_said_soon() {
    let patience = Patience { retry: Duration::from_secs(300), ..brief() };
    for host in ["127.0.0.1:1", "no-such-host.invalid"] {
        let store = open(&format!("s3://bucket/p?endpoint=http://{host}"), patience.clone()).unwrap();
        let began = Instant::now();
        let e = store.list("").unwrap_err();
        assert_eq!(e.fault, StoreFault::Unavailable, "{e}");
        assert!(e.why.contains("cannot be reached") && began.elapsed() < Duration::from_secs(8), "{e}");
        assert_tells_nothing(&e.to_string());
    }
}

#[test]
fn refusals_are_short_and_show_no_secret() {
    let (double, store) = double();
    let signed = "<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIATESTTESTTEST</AWSAccessKeyId>\
        <StringToSign>AWS4-HMAC-SHA256 topsecret</StringToSign></Error>";
    for (status, headers, body, fault, words) in [
        (403, "", signed.to_owned(), StoreFault::Denied, "SignatureDoesNotMatch"),
        (403, "", "<Error><Code>AccessDenied</Code></Error>".into(), StoreFault::Denied, "access denied"),
        (400, "", "<Error><Code>ExpiredToken</Code></Error>".into(), StoreFault::Denied, "have expired"),
        (403, "", "<Error><Code>RequestTimeTooSkewed</Code></Error>".into(), StoreFault::Denied, "clock"),
        (507, "", "topsecret".into(), StoreFault::Full, "the store is full"),
        (
            301,
            "x-amz-bucket-region: eu-west-1\r\nLocation: http://127.0.0.1:1/\r\n",
            String::new(),
            StoreFault::Other,
            "region=eu-west-1",
        ),
        (404, "", "<Error><Code>NoSuchBucket</Code></Error>".into(), StoreFault::Other, "no such bucket"),
        (418, "", "topsecret ".repeat(1_000_000), StoreFault::Other, "it answered 418"),
    ] {
        let fate = Fate::Refuse(status, headers, body);
        double.decide(move |_| fate.clone());
        for e in [
            store.read("a", 10).unwrap_err(),
            store.read_range("a", 1, 10).unwrap_err(),
            store.create("a", noise(100)).unwrap_err(),
            store.write("a", noise(100)).unwrap_err(),
            store.list("f").unwrap_err(),
        ] {
            assert!(e.fault == fault && e.why.contains(words), "{status}: {e}");
            assert_tells_nothing(&e.to_string());
        }
    }
    // Credentials that expired may have been renewed: once more, and no oftener.
    double.decide(|_| Fate::Refuse(400, "", "<Error><Code>ExpiredToken</Code></Error>".into()));
    store.read("a", 10).unwrap_err();
    assert_eq!(double.asked().len(), 2);
}

#[test]
fn answers_are_bounded_and_listings_are_whole_or_fail() {
    let (double, store) = double();
    store.create("large", noise(1_000_000)).unwrap();
    double.decide(|_| Fate::Done);
    assert_eq!(store.read("large", 999_999).unwrap_err().fault, StoreFault::Size);
    assert_eq!(methods(&double), ["GET"]);
    let page = |body: &str| {
        let fate = Fate::Refuse(200, "", format!("<ListBucketResult>{body}</ListBucketResult>"));
        double.decide(move |_| fate.clone());
        store.list("f").map_err(|e| {
            assert_tells_nothing(&e.to_string());
            e.why
        })
    };
    let object = |name: &str| {
        format!(
            "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
        )
    };
    let e = page(&format!("{}<IsTruncated>true</IsTruncated>", object("p/f/a"))).unwrap_err();
    assert!(e.contains("there is more"), "{e}");
    let again = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
    let e = page(&format!("{}{again}", object("p/f/a"))).unwrap_err();
    assert!(e.contains("does not come to an end"), "{e}");
    let e = page(&" ".repeat(17 * 1024 * 1024)).unwrap_err();
    assert!(e.contains("more than 16777216 bytes"), "{e}");
    assert!(page("<Contents><Key>").is_err() && page("&topsecret;").is_err());
    // The empty objects that some tools make of folders, and what a store should not have sent.
    let found = page(&["p/f/", "p/f/x/", "p/f//y", "p/f/a", "p/fa", "q/f/b"].map(object).concat()).unwrap();
    assert_eq!(found.into_iter().map(|object| object.name).collect::<Vec<_>>(), ["f/a"]);
}

#[test]
fn requests_are_bounded_across_threads() {
    let (double, store) = double();
    let data = noise(100_000);
    store.create("a", data.clone()).unwrap();
    double.decide(|_| Fate::Trickle(50_000, Duration::from_millis(5)));
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| assert_eq!(store.read("a", 100_000).unwrap(), data));
        }
    });
    assert_eq!(double.asked().len(), 64);
    // The double is done with a request a moment after its client.
    let most = double.most();
    assert!(most > 1 && most <= 2 * estrato::limits::CLOUD_CONNECTIONS, "{most}");
}

#[test]
fn a_server_that_is_killed_and_started_again_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let Some(mut rclone) = Server::rclone(folder.path(), super::ID, super::SECRET) else { return };
    let location = format!("s3://bucket/p?endpoint={}", rclone.endpoint());
    let patience = Patience { retry: Duration::from_secs(120), ..Patience::default() };
    let store = open(&location, patience).unwrap();
    store.write("first", noise(1)).unwrap();
    let data = noise(8_000_000);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (store, data) = (&store, &data);
            scope.spawn(move || {
                for n in 0..4 {
                    store.create(&format!("packs/{writer}-{n}"), data.slice(n * 1000..)).unwrap();
                }
            });
        }
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(250));
            rclone.kill();
            std::thread::sleep(Duration::from_millis(300));
            rclone.restart();
        }
    });
    for writer in 0..4 {
        for n in 0..4 {
            assert_eq!(store.read(&format!("packs/{writer}-{n}"), 8_000_000).unwrap(), data[n * 1000..]);
        }
    }
}
