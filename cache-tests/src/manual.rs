//! The parts of a page of Markdown that can be followed: fenced blocks, and what stands behind their language.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line the fence is in, for messages.
    pub line: usize,
    pub heading: String,
    pub step: Step,
    pub text: String,
}

/// What is to be done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Names and addresses, as in /etc/hosts.
    Names,
    /// What others than the CDN have in DNS from now on: lines of a zone file.
    Records,
    /// It is the contents of a file.
    File { on: Vec<String>, path: String },
    /// It is typed; where `until`, again until it shows what it should.
    Run { on: Vec<String>, until: bool },
    /// Each line is part of what the block before has shown.
    Shows,
}

/// The blocks below a heading of the second level that are to be followed; those that say nothing of it are for reading.
///
/// # Panics
/// When there is no such heading, or a block says something that is not known.
pub fn blocks(page: &str, chapter: &str) -> Vec<Block> {
    let mut lines = page.lines().enumerate().skip_while(|(_, line)| *line != format!("## {chapter}")).skip(1);
    let mut blocks = Vec::new();
    let mut heading = String::new();
    while let Some((number, line)) = lines.next() {
        if line.starts_with("## ") {
            break;
        }
        if let Some(name) = line.strip_prefix("### ") {
            name.clone_into(&mut heading);
        }
        let Some(information) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let line = number + 1;
        if let Some(step) = step(information).unwrap_or_else(|problem| panic!("line {line}: {problem}")) {
            blocks.push(Block { line, heading: heading.clone(), step, text: text.join("\n") + "\n" });
        }
    }
    assert!(!blocks.is_empty(), "no chapter {chapter} with blocks to follow");
    blocks
}

/// What stands behind the three backticks: a language, then words.
fn step(information: &str) -> Result<Option<Step>, String> {
    let mut words = information.split_whitespace();
    let language = words.next().unwrap_or_default();
    let (mut on, mut path, mut until, mut other) = (Vec::new(), None, false, None);
    for word in words {
        match word.split_once('=') {
            Some(("on", machines)) => on = machines.split(',').map(str::to_owned).collect(),
            Some(("file", name)) => path = Some(name.to_owned()),
            None if word == "until" => until = true,
            None if other.is_none() => other = Some(word),
            _ => return Err(format!("unknown: {word}")),
        }
    }
    match (language, other, path) {
        ("text", Some("names"), None) => Ok(Some(Step::Names)),
        ("text", Some("records"), None) => Ok(Some(Step::Records)),
        ("text", Some("shows"), None) => Ok(Some(Step::Shows)),
        (_, None, Some(path)) if !on.is_empty() && !until => Ok(Some(Step::File { on, path })),
        ("sh", None, None) if !on.is_empty() => Ok(Some(Step::Run { on, until })),
        (_, None, None) if on.is_empty() && !until => Ok(None),
        _ => Err(format!("cannot be followed: {information}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_say_what_is_to_be_done_with_them() {
        let on = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (information, expected) in [
            ("sh", Ok(None)),
            ("toml", Ok(None)),
            ("sh on=a", Ok(Some(Step::Run { on: on(&["a"]), until: false }))),
            ("sh on=a,b until", Ok(Some(Step::Run { on: on(&["a", "b"]), until: true }))),
            ("toml on=a file=/f", Ok(Some(Step::File { on: on(&["a"]), path: "/f".into() }))),
            ("text shows", Ok(Some(Step::Shows))),
            ("text names", Ok(Some(Step::Names))),
            ("text records", Ok(Some(Step::Records))),
            ("toml on=a", Err("cannot be followed: toml on=a".into())),
            ("sh on=a sometimes", Err("cannot be followed: sh on=a sometimes".into())),
            ("sh at=a", Err("unknown: at=a".into())),
        ] {
            assert_eq!(step(information), expected, "{information}");
        }
    }

    #[test]
    fn only_the_chapter_is_followed() {
        let page = "## One\n```sh on=a\nno\n```\n## Two\n### Part\n```sh on=a\nyes\n```\n```\nread\n```\n## Three\n```sh on=a\nno\n```\n";
        let found = blocks(page, "Two");
        let texts: Vec<_> =
            found.iter().map(|block| (block.line, block.heading.as_str(), block.text.as_str())).collect();
        assert_eq!(texts, [(7, "Part", "yes\n")]);
    }
}
