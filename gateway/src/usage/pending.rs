//! What is added up and not written yet. Bounded: by the names of plan and keys, and for tags, which callers make up, by
//! number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::sums::{NO_TAG, OTHER, Place, Sums, Told};

/// Rows that wait at most, where the database cannot be written for long.
pub const MOST_WAITING: usize = 16_384;
/// Different tags of a tenant in a day. What is one too many is counted as [`OTHER`].
pub const TAGS_OF_TENANT: usize = 200;
/// Of all tenants together.
const TAGS_IN_ALL: usize = 10_000;

/// Rows of the database, or on their way there.
pub type Rows = HashMap<Place, Sums>;

/// A tag that a caller has made up: day, tenant, and the tag.
pub type MadeUp = (u32, Arc<str>, Arc<str>);

/// See the module.
#[derive(Debug, Default)]
pub struct Pending {
    rows: Rows,
    tags: Tags,
}

impl Pending {
    /// Goes on with tags that were counted before.
    pub fn resumed(known: impl IntoIterator<Item = MadeUp>) -> Self {
        let mut tags = Tags::default();
        for (day, tenant, tag) in known {
            tags.counted(day, &tenant, &tag);
        }
        Self {
            rows: Rows::new(),
            tags,
        }
    }

    /// Adds a request. `false`: too many rows wait already.
    pub fn add(&mut self, told: Told) -> bool {
        let tags = self.tags_of(&told);
        let needed = told.by_model.len() * (tags.len() + 1);
        if self.rows.len() + needed > MOST_WAITING {
            return false;
        }
        for (model, sums) in &told.by_model {
            for tag in &tags {
                let place = Place {
                    model: Arc::clone(model),
                    tag: Arc::clone(tag),
                    ..told.place.clone()
                };
                self.rows.entry(place).or_default().add(sums);
            }
        }
        true
    }

    /// The tags that its sums stand under: each once, and [`Place::tag`]'s empty one, where it has any.
    fn tags_of(&mut self, told: &Told) -> SmallVec<[Arc<str>; 4]> {
        let mut found: SmallVec<[Arc<str>; 4]> = SmallVec::new();
        let own = told.tags.iter();
        let counted = own.map(|tag| self.tags.counted(told.place.day, &told.place.tenant, tag));
        for tag in counted.chain(told.rule_tags.iter().cloned()) {
            if !found.contains(&tag) {
                found.push(tag);
            }
        }
        found.push(if found.is_empty() {
            NO_TAG.into()
        } else {
            Arc::default()
        });
        found
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Rows {
        std::mem::take(&mut self.rows)
    }

    /// What could not be written waits on, beside what has come meanwhile.
    pub fn back(&mut self, rows: Rows) {
        if self.rows.is_empty() {
            self.rows = rows;
            return;
        }
        for (place, sums) in rows {
            self.rows.entry(place).or_default().add(&sums);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The tags of the present days.
#[derive(Debug, Default)]
struct Tags {
    days: HashMap<u32, OfDay>,
}

#[derive(Debug, Default)]
struct OfDay {
    all: usize,
    by_tenant: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

impl Tags {
    /// The tag itself as long as there is room for it, else [`OTHER`].
    fn counted(&mut self, day: u32, tenant: &Arc<str>, tag: &Arc<str>) -> Arc<str> {
        if !self.days.contains_key(&day) {
            // Requests of the day before may still end.
            self.days.retain(|&known, _| known.saturating_add(1) >= day);
        }
        let today = self.days.entry(day).or_default();
        let known = today.by_tenant.entry(Arc::clone(tenant)).or_default();
        if let Some(tag) = known.get(tag) {
            return Arc::clone(tag);
        }
        if known.len() >= TAGS_OF_TENANT || today.all >= TAGS_IN_ALL {
            return OTHER.into();
        }
        known.insert(Arc::clone(tag));
        today.all += 1;
        Arc::clone(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::sums::Measure;

    fn told(tenant: &str, tags: &[&str], rule_tags: &[&str]) -> Told {
        let mut sums = Sums::default();
        sums.more(Measure::Requests, 1);
        Told {
            place: Place {
                day: 9,
                tenant: tenant.into(),
                ..Place::default()
            },
            by_model: [("m".into(), sums)].into_iter().collect(),
            tags: tags.iter().map(|tag| Arc::from(*tag)).collect(),
            rule_tags: rule_tags.iter().map(|tag| Arc::from(*tag)).collect(),
        }
    }
    fn requests(rows: &Rows, tag: &str) -> u64 {
        let of = rows.iter().filter(|(place, _)| &*place.tag == tag);
        of.map(|(_, sums)| sums.get(Measure::Requests)).sum()
    }

    #[test]
    fn a_request_stands_under_each_of_its_tags_and_once_in_all() {
        let mut pending = Pending::default();
        assert!(pending.add(told("t", &[], &[])));
        assert!(pending.add(told("t", &["a=1", "b=2", "a=1"], &["house", "a=1"])));
        let rows = pending.take();
        let of = |tag| requests(&rows, tag);
        assert_eq!(
            (of(NO_TAG), of(""), of("a=1"), of("b=2"), of("house")),
            (1, 1, 1, 1, 1)
        );
        assert_eq!((rows.len(), pending.len()), (5, 0));
    }

    #[test]
    fn tags_that_callers_make_up_end_at_a_number_and_a_rules_do_not() {
        let mut pending = Pending::default();
        for i in 0..TAGS_OF_TENANT * 3 {
            let tag = format!("n={i}");
            assert!(pending.add(told("hostile", &[&tag, "also=this"], &[])));
        }
        assert!(pending.add(told("polite", &["a=1"], &[])));
        assert!(pending.add(told("hostile", &["x=1", "y=2"], &["house"])));
        let rows = pending.take();
        let tags = rows.keys().filter(|place| &*place.tenant == "hostile").count();
        // Its own, `(other)`, the rule's, and all of them once.
        assert_eq!(tags, TAGS_OF_TENANT + 3);
        assert_eq!(
            requests(&rows, OTHER),
            TAGS_OF_TENANT as u64 * 2 + 2,
            "once a request"
        );
        assert_eq!((requests(&rows, "a=1"), requests(&rows, "house")), (1, 1));
        // The next day begins anew, and after a restart the day goes on.
        let mut next = told("hostile", &["new=1"], &[]);
        next.place.day = 10;
        assert!(pending.add(next));
        assert_eq!(requests(&pending.take(), "new=1"), 1);
        let known = (0..TAGS_OF_TENANT).map(|i| (9, "hostile".into(), format!("n={i}").into()));
        let mut resumed = Pending::resumed(known);
        assert!(resumed.add(told("hostile", &["new=1", "n=0"], &[])));
        let rows = resumed.take();
        assert_eq!((requests(&rows, OTHER), requests(&rows, "n=0")), (1, 1));
    }

    #[test]
    fn what_waits_is_bounded_and_what_comes_back_is_added() {
        let mut pending = Pending::default();
        let mut refused = 0;
        for i in 0..MOST_WAITING * 2 {
            refused += usize::from(!pending.add(told(&i.to_string(), &[], &[])));
        }
        assert!(
            pending.len() <= MOST_WAITING && refused >= MOST_WAITING,
            "{}",
            pending.len()
        );
        let rows = pending.take();
        assert!(pending.add(told("0", &[], &[])));
        pending.back(rows);
        assert_eq!(
            requests(&pending.take(), NO_TAG),
            (MOST_WAITING * 2 - refused + 1) as u64
        );
    }
}
