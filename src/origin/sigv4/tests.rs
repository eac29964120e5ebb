use edge_config::section::secret::Secret;

use super::*;

fn signing(access_key: &str, secret: &str, service: &str) -> Signing {
    Signing {
        region: "us-east-1".into(),
        service: service.into(),
        access_key: access_key.into(),
        secret: Secret::new(secret),
        session_token: None,
    }
}

/// The examples of the manual of S3, "Examples: Signature Calculations".
#[test]
fn examples_of_s3() {
    let signing = signing("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "s3");
    let of_text = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let rows: &[Row<'_>] = &[
        (
            "GET",
            "/test.txt",
            &[("range", "bytes=0-9")],
            EMPTY_PAYLOAD,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            of_text,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle", &[], EMPTY_PAYLOAD, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/?prefix=J&max-keys=2",
            &[],
            EMPTY_PAYLOAD,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ];
    for (method, target, more, payload, signature) in rows {
        let stamp = stamp(UnixMs::from_seconds(1_369_353_600));
        assert_eq!(stamp, "20130524T000000Z");
        let mut fields: Vec<(&str, &[u8])> = vec![
            ("x-amz-date", stamp.as_bytes()),
            ("host", b"examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", payload.as_bytes()),
        ];
        fields.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
        let target = normal(target.as_bytes(), "s3");
        let request = Signed { method, target: &target, fields: &fields, payload, stamp: &stamp };
        let authorization = authorization(&signing, &request);
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{method} {target}: {authorization}");
    }
}

/// Of the suite of tests AWS publishes for Signature Version 4 (`aws-sig-v4-test-suite`).
#[test]
fn vectors_of_the_suite() {
    let signing = signing("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "service");
    let stamp = "20150830T123600Z";
    type Row<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: &[Row<'_>] = &[
        ("get-vanilla", "GET", "/", &[], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "get-vanilla-query-order-key-case",
            "GET",
            "/?Param2=value2&Param1=value1",
            &[],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        ("post-vanilla", "POST", "/", &[], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "get-header-value-trim",
            "GET",
            "/",
            &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
    ];
    for (name, method, target, more, signature) in rows {
        let mut fields: Vec<(&str, &[u8])> = vec![("host", b"example.amazonaws.com"), ("x-amz-date", stamp.as_bytes())];
        fields.extend(more.iter().map(|(name, value)| (*name, value.as_bytes())));
        let target = normal(target.as_bytes(), "service");
        let request = Signed { method, target: &target, fields: &fields, payload: EMPTY_PAYLOAD, stamp };
        let authorization = authorization(&signing, &request);
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{name}: {authorization}");
    }
}

#[test]
fn targets() {
    for (service, target, expected) in [
        ("s3", "/a/b.txt", "/a/b.txt"),
        ("s3", "/a b(1)+\u{e9}~!*'", "/a%20b%281%29%2B%C3%A9~%21%2A%27"),
        ("s3", "/a%20b%28c%2fd%2F", "/a%20b%28c/d/"),
        ("s3", "/100%/%zz%4", "/100%25/%25zz%254"),
        ("s3", "/a//b/../c", "/a//b/../c"),
        ("s3", "/?", "/?"),
        ("s3", "/a?versionId=x%2fy&acl&b=&=c&&d=1=2", "/a?versionId=x%2Fy&acl&b=&=c&&d=1%3D2"),
        ("s3", "/a?b?c/d", "/a?b%3Fc%2Fd"),
        ("execute-api", "/a%2Fb/c d", "/a%2Fb/c%20d"),
        ("s3", "", ""),
    ] {
        assert_eq!(normal(target.as_bytes(), service), expected, "{service} {target}");
    }
}

/// What is normal stays as it is, whatever it was made of.
#[test]
fn normal_is_normal() {
    crate::fuzz::target("targets that are signed", &[b"/a%20b?c=d&e", b"/%%2", b"/%2525?%"], |target| {
        for service in ["s3", "execute-api"] {
            let once = normal(target, service);
            assert_eq!(normal(once.as_bytes(), service), once, "{service}");
            let visible = once.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(visible && !once.contains('#'), "{once}");
        }
    });
}

#[test]
fn other_services_encode_a_path_twice() {
    let fields: [(&str, &[u8]); 1] = [("host", b"a.test")];
    let request = Signed { method: "GET", target: "/a%20b?c=d", fields: &fields, payload: "p", stamp: "s" };
    assert_eq!(canonical(&request, true).0, "GET\n/a%20b\nc=d\nhost:a.test\n\nhost\np");
    assert_eq!(canonical(&request, false).0, "GET\n/a%2520b\nc=d\nhost:a.test\n\nhost\np");
}

#[test]
fn lines_of_one_name_are_one() {
    let fields: [(&str, &[u8]); 3] = [("b", b"2  3"), ("a", b" x "), ("b", b"1")];
    let request = Signed { method: "GET", target: "/", fields: &fields, payload: "p", stamp: "s" };
    assert_eq!(canonical(&request, true), ("GET\n/\n\na:x\nb:2 3,1\n\na;b\np".into(), "a;b".into()));
}
