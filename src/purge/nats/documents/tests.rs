use super::*;

fn site(name: &str) -> Which {
    Which::Site(name.into())
}

fn text(version: u64, text: &str) -> Text {
    Text { version, text: text.into() }
}

fn full(version: u64, text: &str) -> Heard {
    Heard { version, document: Ok(Document::new(text.into(), 1, "ci", String::new(), 100, None)) }
}

fn staged(version: u64, text: &str, share: u8, latest: &Heard) -> Heard {
    Heard { version, document: Ok(Document::new(text.into(), 1, "ci", String::new(), share, Some(latest))) }
}

fn nodes(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("{number:016x}")).collect()
}

#[test]
fn subjects_say_which() {
    let certificates = |name: &str| Which::Certificates(name.into());
    for which in
        [Which::Node, site("shop"), site("shop.example"), site("a_b-c.D"), certificates("shop"), certificates("a.b")]
    {
        assert_eq!(Which::of_subject(&which.subject()), Some(which.clone()), "{which}");
    }
    assert_ne!(site("a.b").subject(), site("a_b").subject());
    assert_ne!(site("a").subject(), certificates("a").subject());
    for subject in [
        "config.certificates",
        "config.certificates.",
        "config.certificates.a b",
        "config.other.a",
        "config.other",
        "config.site.",
        "config.site.a b",
        "config.site",
        "config.node.a",
        "node.a",
    ] {
        assert_eq!(Which::of_subject(subject), None, "{subject}");
    }
}

#[test]
fn a_share_is_exactly_that_of_the_nodes() {
    for count in [1, 2, 3, 4, 8, 100] {
        let nodes = nodes(count);
        let mut smaller = BTreeSet::new();
        for share in [1, 10, 33, 50, 51, 99, 100] {
            let chosen: BTreeSet<_> =
                nodes.iter().filter(|node| is_chosen(share, &site("shop"), node, &nodes)).cloned().collect();
            assert_eq!(chosen.len(), (count * usize::from(share)).div_ceil(100), "{share} % of {count}");
            assert!(chosen.is_superset(&smaller), "{share} % of {count} have those that fewer have");
            smaller = chosen;
        }
    }
    let nodes = nodes(100);
    let of = |name: &str| nodes.iter().filter(|node| is_chosen(50, &site(name), node, &nodes)).collect::<Vec<_>>();
    assert_ne!(of("shop"), of("blog"), "it is not always the same nodes that try what is new");
    assert!(is_chosen(1, &Which::Node, "alone", &BTreeSet::new()), "a node that has not heard itself counts itself");
}

/// What was heard, what the node has, which node it is, the nodes, and what it is to have.
type Row<'a> = (&'a str, Option<&'a Heard>, Option<Text>, &'a str, Option<&'a BTreeSet<String>>, Option<Text>);

#[test]
fn what_a_node_is_to_have() {
    let (a, nodes) = (site("a"), nodes(4));
    let (first, second) = (full(5, "one"), full(7, "two"));
    let some = staged(8, "three", 50, &second);
    let more = staged(9, "four", 75, &some);
    let bad = Heard { version: 9, document: Err("unreadable".into()) };
    let is_in = |node: &str| is_chosen(50, &a, node, &nodes);
    let chosen = nodes.iter().find(|node| is_in(node)).expect("one that is chosen");
    let other = nodes.iter().find(|node| !is_in(node)).expect("one that is not");
    let known = Some(&nodes);
    let rows: [Row<'_>; 12] = [
        ("nothing was heard", None, Some(text(5, "one")), chosen, known, Some(text(5, "one"))),
        ("a first one", Some(&first), None, chosen, known, Some(text(5, "one"))),
        ("a new one", Some(&second), Some(text(5, "one")), other, None, Some(text(7, "two"))),
        (
            "an older one, of a hub that was restored",
            Some(&first),
            Some(text(7, "two")),
            chosen,
            known,
            Some(text(5, "one")),
        ),
        (
            "a staged one, for a node that is chosen",
            Some(&some),
            Some(text(7, "two")),
            chosen,
            known,
            Some(text(8, "three")),
        ),
        ("and one that is not", Some(&some), Some(text(7, "two")), other, known, Some(text(7, "two"))),
        ("and has missed the one before", Some(&some), Some(text(5, "one")), other, known, Some(text(7, "two"))),
        ("nobody is known, and it has it", Some(&some), Some(text(8, "three")), chosen, None, Some(text(8, "three"))),
        ("nobody is known, and it has not", Some(&some), Some(text(7, "two")), chosen, None, Some(text(7, "two"))),
        ("staged on staged", Some(&more), None, "nobody", Some(&BTreeSet::new()), Some(text(9, "four"))),
        ("unreadable", Some(&bad), Some(text(7, "two")), chosen, known, Some(text(7, "two"))),
        ("unreadable, and the first", Some(&bad), None, chosen, known, None),
    ];
    for (name, heard, has, node, known, expected) in rows {
        let heard: BTreeMap<_, _> = heard.map(|heard| (a.clone(), heard.clone())).into_iter().collect();
        let has: Texts = has.map(|text| (a.clone(), text)).into_iter().collect();
        let wanted = wanted(&heard, &has, node, known);
        assert_eq!(wanted.get(&a).cloned(), expected, "{name}");
    }
    assert_eq!(more.everywhere(), text(7, "two"), "what is before two staged ones is before both");
    assert_eq!(staged(3, "new", 10, &bad).everywhere(), Text::default(), "the first of a site is nowhere else");
}

#[test]
fn documents_that_are_none() {
    let good = Document::new("a".into(), 1, "ci", "a note".into(), 100, None);
    let bytes = |document: &Document| serde_json::to_vec(document).expect("it can be written");
    assert_eq!(Document::read(&bytes(&good)), Ok(good.clone()));
    for (text, expected) in [
        (b"[site.a]".to_vec(), "cannot be read"),
        (bytes(&Document { v: 2, ..good.clone() }), "the form 2"),
        (bytes(&Document { share: 0, ..good.clone() }), "0 percent"),
        (bytes(&Document { share: 101, ..good.clone() }), "101 percent"),
        (bytes(&Document { share: 50, ..good.clone() }), "what other nodes have"),
    ] {
        let said = Document::read(&text).expect_err(expected);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_a_rollback_goes_back_to() {
    let (one, two) = (full(1, "one"), full(2, "two"));
    let some = staged(3, "three", 50, &two);
    let bad = Heard { version: 4, document: Err("unreadable".into()) };
    let rows: [(&str, Vec<Heard>, Option<u64>); 8] = [
        ("nothing", vec![], None),
        ("the first", vec![one.clone()], None),
        ("one before", vec![one.clone(), two.clone()], Some(1)),
        ("a staged one", vec![one.clone(), two.clone(), some.clone()], Some(2)),
        ("a staged one that was completed", vec![one.clone(), two.clone(), some, full(5, "three")], Some(2)),
        ("the same text twice", vec![one.clone(), two.clone(), full(6, "two")], Some(1)),
        ("there and back", vec![one.clone(), two.clone(), full(6, "one")], Some(2)),
        ("one that cannot be read", vec![one, two, bad], Some(2)),
    ];
    for (name, versions, expected) in rows {
        assert_eq!(before_latest(&versions).map(|text| text.version), expected, "{name}");
    }
}

#[test]
fn a_digest_is_of_what_is_there() {
    let texts = |rows: &[(&str, u64, &str)]| -> Texts {
        rows.iter().map(|(name, version, said)| (site(name), text(*version, said))).collect()
    };
    let one = digest(&texts(&[("a", 1, "x"), ("b", 2, "y")]));
    assert_eq!((one.len(), digest(&texts(&[("c", 3, "")]))), (16, String::new()));
    assert_eq!(one, digest(&texts(&[("a", 1, "x"), ("b", 2, "y"), ("c", 0, "")])));
    for other in [&[("a", 1, "x")][..], &[("a", 3, "x"), ("b", 2, "y")], &[("a", 1, "z"), ("b", 2, "y")]] {
        assert_ne!(one, digest(&texts(other)), "{other:?}");
    }
}
