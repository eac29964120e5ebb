//! Plans against a second reading of the same sections that nobody would serve with: every number wide enough, every
//! list a vector, every part a slice.

use proptest::prelude::*;

use super::*;

/// What a client would be given.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Whole,
    Parts(Vec<Vec<u8>>),
    Unsatisfiable,
}

/// The ends of one spec, or of a suffix its length with no first.
type Ends = (Option<i128>, Option<i128>);

/// What the planned parts are of `body`.
fn given(plan: RangePlan, body: &[u8]) -> Given {
    let slice = |part: Range<u64>| body[part.start as usize..part.end as usize].to_vec();
    match plan {
        RangePlan::Whole => Given::Whole,
        RangePlan::One(part) => Given::Parts(vec![slice(part)]),
        RangePlan::Many(parts) => {
            assert!(parts.len() > 1, "many are more than one");
            Given::Parts(parts.into_iter().map(slice).collect())
        }
        RangePlan::Unsatisfiable => Given::Unsatisfiable,
    }
}

/// The second reading of `plan`.
fn expected(value: &str, body: &[u8]) -> Given {
    let Some(specs) = specs(value) else { return Given::Whole };
    let spans: Vec<_> = specs.iter().map(|spec| span(*spec, body.len() as i128)).collect();
    let mut owner = vec![None; body.len()];
    for (index, span) in spans.iter().enumerate() {
        for at in span.clone() {
            if owner[at].replace(index).is_some() {
                return Given::Whole;
            }
        }
    }
    let parts: Vec<_> = spans.into_iter().filter(|span| !span.is_empty()).map(|span| body[span].to_vec()).collect();
    let is_suffix_of_nothing = body.is_empty() && specs.iter().any(|spec| matches!(spec, (None, Some(1..))));
    match parts.is_empty() {
        true if is_suffix_of_nothing => Given::Whole,
        true => Given::Unsatisfiable,
        false => Given::Parts(parts),
    }
}

/// The indices of a body of `length` bytes that a spec covers.
fn span(spec: Ends, length: i128) -> Range<usize> {
    let (start, end) = match spec {
        (Some(first), Some(last)) => (first, (last + 1).min(length)),
        (Some(first), None) => (first, length),
        (None, suffix) => ((length - suffix.unwrap_or(0)).max(0), length),
    };
    if start < end { start as usize..end as usize } else { 0..0 }
}

/// Every spec; none when `Range` is to be ignored for its form.
fn specs(value: &str) -> Option<Vec<Ends>> {
    let (unit, set) = value.split_once('=')?;
    let blank = [' ', '\t'];
    let members: Vec<_> = set.split(',').map(|member| member.trim_matches(blank)).filter(|m| !m.is_empty()).collect();
    if unit.to_lowercase() != "bytes" || members.is_empty() || members.len() > PARTS_MAX {
        return None;
    }
    let read = |member: &str| {
        let (first, last) = member.split_once('-')?;
        let (first, last) = (first.trim_matches(blank), last.trim_matches(blank));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(first) || !is_number(last) || (first.is_empty() && last.is_empty()) {
            return None;
        }
        // What 64 bits cannot hold is as good as the most they can.
        let number = |text: &str| (!text.is_empty()).then(|| text.parse().map_or(MOST, |n: i128| n.min(MOST)));
        let ends = (number(first), number(last));
        let is_backwards = matches!(ends, (Some(first), Some(last)) if first > last);
        (!is_backwards).then_some(ends)
    };
    members.into_iter().map(read).collect()
}

const MOST: i128 = u64::MAX as i128;

/// A number: within a small body most of the time, else at the ends of what integers can say.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (0..40_u64).prop_map(|number| number.to_string()),
        1 => "0{1,3}[0-9]{1,2}",
        1 => prop::sample::select(vec![
            "18446744073709551614", "18446744073709551615", "18446744073709551616", "9223372036854775808",
            "99999999999999999999999999", "340282366920938463463374607431768211456", "4294967296",
        ]).prop_map(str::to_owned),
    ]
}

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (number(), 0..8_u64).prop_map(|(first, more)| {
            let last = first.parse::<u64>().unwrap_or(0).saturating_add(more);
            format!("{first}-{last}")
        }),
        2 => (number(), number()).prop_map(|(first, last)| format!("{first}-{last}")),
        2 => number().prop_map(|first| format!("{first}-")),
        2 => number().prop_map(|length| format!("-{length}")),
        1 => "[ \t]{0,2}",
        1 => (number(), "[ \t]{0,2}", number()).prop_map(|(first, blank, last)| format!("{first}{blank}-{blank}{last}")),
    ]
}

/// The value of a `Range`: well-formed most of the time.
fn value() -> impl Strategy<Value = String> {
    let hostile =
        prop::sample::select(vec!["x", "-", "--1", "+1-2", "1-2-3", "\"0-1\"", "\"", "0-1;2-3", "é-1", "=0-1"]);
    let set = prop_oneof![
        6 => prop::collection::vec(member(), 0..5),
        2 => prop::collection::vec(member(), 0..20),
        1 => (prop::collection::vec(member(), 0..4), hostile, prop::collection::vec(member(), 0..4))
            .prop_map(|(before, wrong, behind)| [before, vec![wrong.to_owned()], behind].concat()),
    ];
    let unit =
        prop_oneof![9 => Just("bytes="), 1 => prop::sample::select(vec!["Bytes=", "lines=", "bytes", "bytes ="])];
    let separator = prop::sample::select(vec![",", ", ", " ,\t", ",,"]);
    prop_oneof![
        14 => (unit, set, separator).prop_map(|(unit, set, separator)| unit.to_owned() + &set.join(separator)),
        1 => "[ -~]{0,30}",
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(vec![]), 9 => prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_plan_slices_as_the_second_reading_does(value in value(), body in body()) {
        let request = format!("range: {value}\r\n");
        let plan = plan(Fields::new(request.as_bytes()), Fields::default(), 200, body.len() as u64);
        // Blanks at the ends are no part of a value (section 5.5).
        prop_assert_eq!(given(plan, &body), expected(value.trim_matches([' ', '\t']), &body), "{}", value);
    }

    #[test]
    fn what_is_wanted_first_is_what_is_planned(value in value(), length in prop_oneof![0..40_u64, any::<u64>()]) {
        let request = format!("range: {value}\r\n");
        let plan = plan(Fields::new(request.as_bytes()), Fields::default(), 200, length);
        let specs = specs(value.trim_matches([' ', '\t']));
        let wanted = first_wanted(Fields::new(request.as_bytes()));
        prop_assert_eq!(wanted.is_some(), specs.is_some(), "the form alone");
        let (Some(wanted), Some(specs)) = (wanted, specs) else {
            prop_assert_eq!(plan, RangePlan::Whole);
            return Ok(());
        };
        let wide = |spec: &Ends| match *spec {
            (Some(first), last) => first..last.map_or(i128::from(length), |last| (last + 1).min(length.into())),
            (None, suffix) => (i128::from(length) - suffix.unwrap_or(0)).max(0)..length.into(),
        };
        let spans: Vec<_> = specs.iter().map(wide).filter(|span| !span.is_empty()).collect();
        let overlaps = spans.iter().enumerate().any(|(index, one)| {
            spans.iter().skip(index + 1).any(|other| one.start < other.end && other.start < one.end)
        });
        let is_suffix_of_nothing = length == 0 && specs.iter().any(|spec| matches!(spec, (None, Some(1..))));
        prop_assert_eq!(plan == RangePlan::Whole, overlaps || is_suffix_of_nothing, "{:?}", plan);
        let first = match wanted {
            Wanted::From { first, last } => first..last.map_or(length, |last| length.min(last + 1)),
            Wanted::Suffix { length: suffix } => length.saturating_sub(suffix)..length,
        };
        if let (1, RangePlan::One(part)) = (specs.len(), &plan) {
            prop_assert_eq!(part, &first);
        }
        if let (false, RangePlan::Many(parts)) = (first.is_empty(), &plan) {
            prop_assert_eq!(&parts[0], &first);
        }
        prop_assert!(!first.is_empty() || !matches!((specs.len(), plan), (1, RangePlan::One(_))));
    }
}
