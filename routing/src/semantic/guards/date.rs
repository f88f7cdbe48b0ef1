//! Days, months, seasons, times of day. Years are numbers.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

const ROWS: &[&[&str]] = &[
    &[
        "monday", "mondays", "montag", "montags", "lundi", "lunes", "lunedi", "maandag",
    ],
    &[
        "tuesday",
        "tuesdays",
        "dienstag",
        "dienstags",
        "mardi",
        "martes",
        "martedi",
        "dinsdag",
    ],
    &[
        "wednesday",
        "wednesdays",
        "mittwoch",
        "mittwochs",
        "mercredi",
        "miercoles",
        "mercoledi",
        "woensdag",
    ],
    &[
        "thursday",
        "thursdays",
        "donnerstag",
        "donnerstags",
        "jeudi",
        "jueves",
        "giovedi",
        "donderdag",
    ],
    &[
        "friday", "fridays", "freitag", "freitags", "vendredi", "viernes", "venerdi", "vrijdag",
    ],
    &[
        "saturday",
        "saturdays",
        "samstag",
        "samstags",
        "samedi",
        "sabado",
        "sabato",
        "zaterdag",
    ],
    &[
        "sunday", "sundays", "sonntag", "sonntags", "dimanche", "domingo", "domenica", "zondag",
    ],
    &["weekend", "weekends", "wochenende"],
    &[
        "january", "jan", "januar", "janvier", "enero", "gennaio", "janeiro", "januari",
    ],
    &[
        "february",
        "feb",
        "februar",
        "fevrier",
        "febrero",
        "febbraio",
        "fevereiro",
        "februari",
    ],
    &["march", "märz", "marzo", "março", "maart"],
    &["april", "apr", "avril", "abril", "aprile"],
    &["mai", "mayo", "maggio", "maio", "mei"],
    &["june", "jun", "juni", "juin", "junio", "giugno", "junho"],
    &["july", "jul", "juli", "juillet", "julio", "luglio", "julho"],
    &["august", "aug", "août", "agosto", "augustus"],
    &[
        "september",
        "sep",
        "sept",
        "septembre",
        "septiembre",
        "settembre",
        "setembro",
    ],
    &[
        "october", "oct", "oktober", "octobre", "octubre", "ottobre", "outubro",
    ],
    &["november", "nov", "novembre", "noviembre", "novembro"],
    &[
        "december",
        "dec",
        "dezember",
        "decembre",
        "diciembre",
        "dicembre",
        "dezembro",
    ],
    &["spring", "frühling", "frühjahr", "printemps", "primavera"],
    &[
        "summer",
        "summertime",
        "sommer",
        "été",
        "verano",
        "estate",
        "zomer",
    ],
    &["autumn", "herbst", "automne", "otoño", "autunno"],
    &["winter", "wintertime", "hiver", "invierno", "inverno"],
    &["christmas", "xmas", "weihnachten", "noel", "navidad", "natale"],
    &["easter", "ostern"],
    &[
        "yesterday",
        "gestern",
        "hier",
        "ayer",
        "ieri",
        "ontem",
        "gisteren",
    ],
    &["tomorrow", "morgen", "demain", "mañana", "domani", "amanha"],
    &[
        "night", "nights", "at night", "nachts", "nacht", "nuit", "noche", "notte",
    ],
    &["morning", "morgens", "vormittag", "matin", "mattina"],
    &["afternoon", "nachmittag"],
    &["evening", "abend", "abends", "soir", "sera"],
    &["noon", "midday", "mittag", "mittags", "midi"],
    &["midnight", "mitternacht", "minuit", "medianoche"],
    &["sunset", "sonnenuntergang"],
    &["sunrise", "sonnenaufgang"],
    &["am"],
    &["pm"],
    &["since", "seit", "depuis", "desde"],
    &["until", "till", "bis", "hasta", "fino"],
    &["before", "vor", "avant", "antes", "prima"],
    &["after", "nach dem", "après", "después", "dopo", "afterwards"],
    &["ago", "vor kurzem"],
];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(ROWS));
static MAY: LazyLock<u128> = LazyLock::new(|| TABLE.word("mai"));
/// "am" is a verb too.
static AM: LazyLock<u128> = LazyLock::new(|| TABLE.word("am"));
/// These make another question of it only where both texts name one: "the tallest of all" may say "before".
static LOOSE: LazyLock<u128> = LazyLock::new(|| {
    ["after", "before", "until", "since"]
        .iter()
        .fold(0, |all, word| all | TABLE.word(word))
});

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let (a, b) = (of(a), of(b));
    let (loose_a, loose_b) = (a & *LOOSE, b & *LOOSE);
    a & !*LOOSE != b & !*LOOSE || (loose_a != loose_b && loose_a != 0 && loose_b != 0)
}

/// The word is a day, a month, a season.
pub(super) fn is_one(low: &str) -> bool {
    TABLE.word(low) != 0
}

fn of(ask: &Ask) -> u128 {
    let mut all = 0;
    for (at, bits) in TABLE.found(ask) {
        let before = at.checked_sub(1).and_then(|at| ask.words.get(at));
        if bits != *AM || before.is_some_and(|w| w.number.is_some()) {
            all |= bits;
        }
    }
    // "May" is a month where it is written like a name, or beside a number.
    let month = ask.words.iter().enumerate().any(|(at, word)| {
        let beside = [at.checked_sub(1), Some(at + 1)];
        let number = beside
            .into_iter()
            .flatten()
            .any(|at| ask.words.get(at).is_some_and(|w| w.number.is_some()));
        word.low == "may" && ((word.capital && !word.first) || number)
    });
    if month { all | *MAY } else { all }
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_days_are_other_questions() {
        assert!(refused("invoice for March", "invoice for May"));
        assert!(refused("open on Monday", "open on Tuesday"));
        assert!(refused("at noon", "at midnight"));
        assert!(refused("open", "open in winter"));
    }

    #[test]
    fn the_same_day() {
        assert!(!refused("my March bill", "the bill of march"));
        assert!(!refused("May I pay?", "can I pay?"));
        assert!(!refused("I am late", "I'm late"));
    }
}
