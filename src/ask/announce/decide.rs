//! Whether a prefix is to be announced: what was seen of the node, and for how often. Pure.

/// What was seen of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is to be announced.
    Good,
    /// It says that it is not.
    Refused(String),
    /// It says nothing: it may be gone, or busy.
    Silent(String),
}

/// How often something is seen until it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub fall: u32,
    pub rise: u32,
}

/// What is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is left as it is: a loop that was started anew withdraws nothing that is good.
    AsItIs,
    Announced,
    Withdrawn,
}

/// What has been seen so far.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    patience: Patience,
    good: u32,
    silent: u32,
    pub wanted: Wanted,
}

impl Watch {
    pub fn new(patience: Patience) -> Self {
        Self { patience, good: 0, silent: 0, wanted: Wanted::AsItIs }
    }

    /// Takes note. True: something else is wanted now.
    pub fn see(&mut self, seen: &Seen) -> bool {
        let before = self.wanted;
        match seen {
            Seen::Good => {
                (self.good, self.silent) = (self.good.saturating_add(1), 0);
                if self.good >= self.patience.rise {
                    self.wanted = Wanted::Announced;
                }
            }
            Seen::Refused(_) => {
                self.good = 0;
                self.wanted = Wanted::Withdrawn;
            }
            Seen::Silent(_) => {
                (self.good, self.silent) = (0, self.silent.saturating_add(1));
                // Of one that was never seen nothing good is known.
                if self.silent >= self.patience.fall || before == Wanted::AsItIs {
                    self.wanted = Wanted::Withdrawn;
                }
            }
        }
        before != self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_after_what_was_seen() {
        // g: good, r: refused, s: silent; what is wanted after each: =, + or -.
        for (name, fall, rise, seen, wanted) in [
            ("a node that comes up", 2, 2, "ssrrgg", "-----+"),
            ("one that was announced when the loop began", 2, 2, "gg", "=+"),
            ("one that refuses is believed at once", 2, 2, "ggr", "=+-"),
            ("one that says nothing once is not", 2, 2, "ggsggs", "=+++++"),
            ("one that is gone", 2, 2, "ggss", "=++-"),
            ("one that comes back has to stay", 2, 3, "gggssgsggg", "==++-----+"),
            ("a patient one", 3, 1, "gsssg", "+++-+"),
            ("silence is counted in a row", 3, 1, "gssgss", "++++++"),
            ("refusals between do not make it good", 2, 2, "rgrgg", "----+"),
        ] {
            let mut watch = Watch::new(Patience { fall, rise });
            let mut after = String::new();
            for letter in seen.chars() {
                let seen = match letter {
                    'g' => Seen::Good,
                    'r' => Seen::Refused("drained".into()),
                    _ => Seen::Silent("refused".into()),
                };
                let before = watch.wanted;
                assert_eq!(watch.see(&seen), before != watch.wanted, "{name}");
                after.push(match watch.wanted {
                    Wanted::AsItIs => '=',
                    Wanted::Announced => '+',
                    Wanted::Withdrawn => '-',
                });
            }
            assert!(after.starts_with(wanted), "{name}: {after}, expected {wanted}");
        }
    }
}
