//! A stream of look-ups, and what each way of deciding makes of it.

use std::collections::HashMap;

use routing::balance::mix;
use routing::semantic::guards;
use routing::semantic::text::Ask;
use routing::semantic::{Limits, Look, Partition, Parts, Question, Semantic, Vector, Verdict};
use routing::units::Time;
use serde::Serialize;

use super::data::Family;
use super::embed::Vectors;
use super::evidence::Errors;

/// A question with its truth: questions of one meaning want the same answer.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    text: &'a str,
    meaning: usize,
    family: usize,
}

/// All questions of a half.
pub fn members(families: &[Family]) -> Vec<Vec<Member<'_>>> {
    let mut meanings = 0;
    let mut meaning = || {
        meanings += 1;
        meanings
    };
    families
        .iter()
        .enumerate()
        .map(|(family, f)| {
            let own = meaning();
            let same = std::iter::once(&f.ask).chain(&f.same);
            let mut all: Vec<Member<'_>> = same
                .map(|text| Member {
                    text,
                    meaning: own,
                    family,
                })
                .collect();
            for near in &f.near {
                all.push(Member {
                    text: &near.ask,
                    meaning: meaning(),
                    family,
                });
            }
            all
        })
        .collect()
}

/// Draws.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Rng {
        Rng(mix(seed))
    }
    /// Fresh bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    /// In 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

/// Families by Zipf (the one of rank r with weight 1/r, ranks by the seed), inside of a family each member alike.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: Rng,
    order: Vec<usize>,
    sums: Vec<f64>,
}

impl Stream {
    /// Over so many families.
    pub fn new(families: usize, seed: u64) -> Stream {
        let mut rng = Rng::new(seed);
        let mut order: Vec<usize> = (0..families).collect();
        for n in (1..families).rev() {
            order.swap(n, rng.below(n + 1));
        }
        let mut sum = 0.0;
        let sums = (1..=families).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let sums = sums.collect();
        Stream { rng, order, sums }
    }

    fn next<'m, 'a>(&mut self, members: &'m [Vec<Member<'a>>]) -> Option<&'m Member<'a>> {
        let at = self.rng.unit() * self.sums.last()?;
        let rank = self.sums.partition_point(|s| *s <= at);
        let family = members.get(*self.order.get(rank)?)?;
        family.get(self.rng.below(family.len()))
    }
}

/// How it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// As Weir does.
    Weir {
        /// The bound.
        max_error_rate: f64,
        /// Whether guards are asked.
        guards: bool,
    },
    /// A hit from this similarity on.
    Threshold {
        /// Least similarity of a hit.
        least: f32,
        /// Whether guards are asked.
        guards: bool,
    },
}

/// Counts of one family, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Look-ups.
    pub lookups: u64,
    /// Hits among them.
    pub hits: u64,
    /// Wrong hits.
    pub wrong: u64,
    /// Look-ups of a meaning that was asked for before in other words.
    pub paraphrases: u64,
    /// Of these, answered rightly without a call.
    pub found: u64,
}

impl Counts {
    /// Sums up.
    pub fn add(&mut self, other: &Counts) {
        self.lookups += other.lookups;
        self.hits += other.hits;
        self.wrong += other.wrong;
        self.paraphrases += other.paraphrases;
        self.found += other.found;
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// By family.
    pub families: Vec<Counts>,
    /// Greatest share of wrong answers over look-ups at any time after the first thousand.
    pub worst: f64,
    /// Upper bound on wrong answers that the decision itself knows of, at the end.
    pub known: Option<f64>,
}

impl Played {
    /// Over all families.
    pub fn total(&self) -> Counts {
        let mut all = Counts::default();
        self.families.iter().for_each(|f| all.add(f));
        all
    }
}

enum Answered {
    Hit(usize),
    Called,
}

/// Plays a stream of so many look-ups. Each is taken for a new wording: an entry with the very text is passed over, for users
/// hardly ever repeat each other letter by letter, and what they do repeat is the exact cache's.
///
/// # Errors
/// When a text was not embedded.
pub fn play(
    families: &[Family],
    vectors: &Vectors,
    way: Way,
    noise: Errors,
    lookups: u64,
    seed: u64,
) -> Result<Played, String> {
    let members = members(families);
    let mut stream = Stream::new(families.len(), seed);
    let mut coins = Rng::new(seed ^ 0xc01);
    // By meaning: the text that it was asked in first, and whether in others since.
    let mut asked: HashMap<usize, (&str, bool)> = HashMap::new();
    let mut played = Played {
        families: vec![Counts::default(); families.len()],
        worst: 0.0,
        known: None,
    };
    let mut memory = Memory::new(way, noise)?;
    let mut wrong = 0_u64;
    for done in 1..=lookups {
        let Some(member) = stream.next(&members) else {
            break;
        };
        let vector = vectors
            .get(member.text)
            .ok_or_else(|| format!("not embedded: {:?}", member.text))?;
        let answered = memory.decide(member, vector, &mut coins);
        let Some(counts) = played.families.get_mut(member.family) else {
            break;
        };
        let (first, others) = asked.entry(member.meaning).or_insert((member.text, false));
        let paraphrase = *others || *first != member.text;
        *others |= *first != member.text;
        counts.paraphrases += u64::from(paraphrase);
        match answered {
            Answered::Hit(meaning) => {
                counts.hits += 1;
                counts.wrong += u64::from(meaning != member.meaning);
                wrong += u64::from(meaning != member.meaning);
                counts.found += u64::from(paraphrase && meaning == member.meaning);
            }
            Answered::Called => {}
        }
        counts.lookups += 1;
        if done >= 1_000 {
            played.worst = played.worst.max(wrong as f64 / done as f64);
        }
    }
    played.known = memory.store.bound(&memory.partition).map(|(wrong, _)| wrong);
    Ok(played)
}

/// What the way that is being played remembers.
struct Memory {
    way: Way,
    noise: Errors,
    /// One for all languages: the guards must tell them apart by themselves.
    partition: Partition,
    store: Semantic<usize>,
    /// For thresholds.
    plain: Vec<(String, Vector, usize)>,
}

impl Memory {
    fn new(way: Way, noise: Errors) -> Result<Memory, String> {
        let guards = match way {
            Way::Weir { guards, .. } | Way::Threshold { guards, .. } => guards,
        };
        let partition = Partition::of(&Parts {
            tenant: "bench",
            policy: 0,
            space: "minilm-l6-v2",
            context: b"",
            tools: b"",
            parameters: b"",
            language: [0; 2],
        });
        Ok(Memory {
            way,
            noise,
            partition: partition.ok_or("the partition is too long")?,
            store: Semantic::new(Limits {
                per_partition: 4_096,
                guards,
                repeats: false,
                ..Limits::default()
            }),
            plain: Vec::new(),
        })
    }

    fn decide(&mut self, member: &Member<'_>, vector: &Vector, coins: &mut Rng) -> Answered {
        match self.way {
            Way::Weir { max_error_rate, .. } => self.weir(member, vector, max_error_rate, coins),
            Way::Threshold { least, guards } => self.threshold(member, vector, least, guards),
        }
    }

    fn weir(
        &mut self,
        member: &Member<'_>,
        vector: &Vector,
        max_error_rate: f64,
        coins: &mut Rng,
    ) -> Answered {
        let question = Question {
            partition: &self.partition,
            text: member.text,
            vector,
            max_error_rate,
        };
        match self.store.look(question, Time(0), coins.bits()) {
            Look::Repeat(answer) => return Answered::Hit(answer),
            Look::Hit { answer, .. } => return Answered::Hit(answer),
            Look::Explore { answer, trial } => {
                // The truth, as wrong as the comparison of answers is.
                let said = if answer == member.meaning {
                    self.noise.same
                } else {
                    self.noise.other
                };
                let verdict = said.draw(coins.unit());
                self.store.learn(&trial, verdict);
                if verdict == Verdict::Same {
                    return Answered::Called;
                }
            }
            Look::Miss { .. } => {}
        }
        self.store.insert(question, member.meaning, 0, Time::NEVER);
        Answered::Called
    }

    fn threshold(&mut self, member: &Member<'_>, vector: &Vector, least: f32, guarded: bool) -> Answered {
        let mut near: Vec<(f32, &str, usize)> = Vec::new();
        let mut known = false;
        for (text, other, meaning) in &self.plain {
            if text == member.text {
                known = true;
                continue;
            }
            let similarity = vector.similarity(other);
            if similarity >= least {
                near.push((similarity, text, *meaning));
            }
        }
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let asked = Ask::of(member.text);
        let allowed = |text: &str| !guarded || guards::refuse(&asked, &Ask::of(text)).is_none();
        let found = near
            .iter()
            .take(8)
            .find(|(_, text, _)| allowed(text))
            .map(|(.., meaning)| *meaning);
        match found {
            Some(meaning) => Answered::Hit(meaning),
            None => {
                if !known {
                    self.plain
                        .push((member.text.to_owned(), vector.clone(), member.meaning));
                }
                Answered::Called
            }
        }
    }
}
