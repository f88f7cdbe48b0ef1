//! Units and currencies.

use std::sync::LazyLock;

use super::super::text::{Ask, Word};
use super::table::Table;

/// Units of time and percent come first: "how long" and "how many minutes" want the same, so that one of them alone says nothing.
const TIMES: u32 = 9;
const ROWS: &[&[&str]] = &[
    &["millisecond", "milliseconds", "ms", "millisekunden"],
    &[
        "seconds", "sec", "sekunde", "sekunden", "secondes", "segundos", "secondi", "seconden",
    ],
    &[
        "minute", "minutes", "min", "mins", "minuten", "minutos", "minuti", "minuut",
    ],
    &[
        "hour", "hours", "hourly", "stunde", "stunden", "heure", "heures", "hora", "horas", "ora", "ore",
        "uur",
    ],
    &[
        "day", "days", "daily", "tag", "tage", "tagen", "taglich", "jour", "jours", "dia", "dias", "giorno",
        "giorni", "dag", "dagen",
    ],
    &[
        "week",
        "weeks",
        "weekly",
        "woche",
        "wochen",
        "semaine",
        "semaines",
        "semana",
        "semanas",
        "settimana",
        "settimane",
        "weken",
    ],
    &[
        "month",
        "months",
        "monthly",
        "monat",
        "monate",
        "monaten",
        "monatlich",
        "mois",
        "mes",
        "meses",
        "mese",
        "mesi",
        "maand",
        "maanden",
    ],
    &[
        "year", "years", "yearly", "annual", "jahr", "jahre", "jahren", "jahrlich", "annee", "ano", "anos",
        "anno", "anni", "jaar",
    ],
    &["%", "percent", "percentage", "prozent", "porcentaje"],
    &[
        "km",
        "kilometre",
        "kilometres",
        "kilometer",
        "kilometers",
        "kilometern",
        "kilometro",
        "kilometros",
        "kilometri",
        "kmh",
    ],
    &[
        "m", "metre", "metres", "meter", "meters", "metern", "metro", "metros", "metri",
    ],
    &[
        "cm",
        "centimetre",
        "centimetres",
        "centimeter",
        "centimeters",
        "zentimeter",
        "zentimetern",
        "centimetro",
        "centimetros",
    ],
    &[
        "mm",
        "millimetre",
        "millimetres",
        "millimeter",
        "millimeters",
        "millimetern",
    ],
    &[
        "mile", "miles", "mi", "mph", "meile", "meilen", "milla", "millas", "miglia",
    ],
    &["foot", "feet", "ft", "fuss", "pieds"],
    &["inch", "inches", "zoll", "pouces", "pulgadas"],
    &[
        "kg",
        "kilo",
        "kilos",
        "kilogram",
        "kilograms",
        "kilogramm",
        "kilogrammes",
        "kilogramo",
        "kilogramos",
    ],
    &[
        "g", "gram", "grams", "gramm", "gramme", "grammes", "gramo", "gramos", "grammi",
    ],
    &["mg", "milligram", "milligrams"],
    &["lb", "lbs", "pound", "pounds", "pfund", "£", "gbp"],
    &["oz", "ounce", "ounces", "unze", "unzen"],
    &["tonne", "tonnes", "ton", "tons", "tonnen"],
    &["stone", "stones"],
    &[
        "l", "litre", "litres", "liter", "liters", "litro", "litros", "litri",
    ],
    &["ml", "millilitre", "millilitres", "milliliter", "milliliters"],
    &["gallon", "gallons"],
    &["pint", "pints"],
    &["cup", "cups", "tasse", "tassen"],
    &["tablespoon", "tablespoons", "tbsp", "esslöffel"],
    &["teaspoon", "teaspoons", "tsp", "teelöffel"],
    &["celsius", "c", "°c"],
    &["fahrenheit", "f"],
    &["kelvin", "k"],
    &["kb", "kilobyte", "kilobytes"],
    &["mb", "megabyte", "megabytes"],
    &["gb", "gigabyte", "gigabytes"],
    &["tb", "terabyte", "terabytes"],
    &["$", "usd", "dollar", "dollars", "dolares"],
    &["€", "eur", "euro", "euros"],
    &["chf", "franc", "francs", "franken"],
    &["calorie", "calories", "kcal", "kalorien"],
    &["square"],
];

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(ROWS));

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let (a, b) = (of(a), of(b));
    let times = (1 << TIMES) - 1;
    let (time_a, time_b) = (a & times, b & times);
    let several = time_a.count_ones() > 1 && time_b.count_ones() > 1;
    a & !times != b & !times
        || (time_a & !time_b != 0 && time_b & !time_a != 0)
        // A conversion among units of time: each of them counts.
        || (several && time_a != time_b)
}

/// The row of a word, whatever stands around it.
pub(super) fn row(low: &str) -> u128 {
    if low == "c" || low == "f" || is_one(low) {
        TABLE.word(low)
    } else {
        0
    }
}

/// The unit of a number and the word behind it.
pub(super) fn of_pair(number: &Word, unit: &Word) -> u128 {
    if number.number.is_some() {
        TABLE.word(&unit.low)
    } else {
        0
    }
}

/// The word is a unit of time, or percent.
pub(super) fn is_time(low: &str) -> bool {
    TABLE.word(low) & ((1 << TIMES) - 1) != 0
}

/// The word is a unit by itself.
pub(super) fn is_one(low: &str) -> bool {
    TABLE.word(low) != 0 && !DOUBTFUL.contains(&low)
}

/// Also words of other meanings: units only behind a number, or behind "in" with a unit before it ("350 F in C").
const DOUBTFUL: &[&str] = &["m", "g", "l", "c", "f", "k", "mi", "min", "sec", "stone"];

/// Units of a text.
pub(in crate::semantic) fn of(ask: &Ask) -> u128 {
    let mut all = 0;
    for (at, bits) in TABLE.found(ask) {
        let word = |back: usize| at.checked_sub(back).and_then(|at| ask.words.get(at));
        let measured = match word(1) {
            Some(w) if w.low == "in" => word(2).is_some_and(|w| w.low == "°" || TABLE.word(&w.low) != 0),
            Some(w) => w.number.is_some() || w.low == "°",
            None => false,
        };
        if measured || word(0).is_none_or(|w| !DOUBTFUL.contains(&w.low.as_str())) {
            all |= bits;
        }
    }
    all | seconds(ask)
}

/// "Per second" is a unit, "the second" is none.
fn seconds(ask: &Ask) -> u128 {
    let unit = ask.words.windows(2).any(|pair| match pair {
        [before, word] => {
            word.low == "second"
                && (before.number.is_some()
                    || matches!(before.low.as_str(), "per" | "a" | "one" | "each" | "every"))
        }
        _ => false,
    });
    if unit { TABLE.word("seconds") } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn other_units() {
        assert!(refused("how far in kilometres", "how far in miles"));
        assert!(refused("100 MB", "100 KB"));
        assert!(refused("100 dollars a month", "100 dollars a week"));
        assert!(refused("how heavy in tonnes", "how heavy"));
    }

    #[test]
    fn the_same_units() {
        assert!(!refused("350F in C", "350 degrees Fahrenheit in Celsius"));
        assert!(!refused("$100 monthly", "100 dollars per month"));
        assert!(!refused("how long does it take", "how many minutes does it take"));
        assert!(!refused("km per second", "kilometres in one second"));
    }
}
