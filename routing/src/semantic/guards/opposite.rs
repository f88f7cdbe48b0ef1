//! Opposites: the other of two things that exclude each other.

use std::sync::LazyLock;

use super::super::text::Ask;
use super::table::Table;

/// Row by row: what one side may say, and what the other one then may not.
const PAIRS: &[(&str, &str)] = &[
    (
        "on|turn on|switch on|enable|activate|anschalten|einschalten|aktivieren",
        "off|turn off|switch off|disable|deactivate|ausschalten|abschalten|deaktivieren",
    ),
    (
        "accept|accepting|accepts|agree|zusage|zusagen|annehmen",
        "decline|declining|refuse|refusing|reject|turn down|absage|absagen|ablehnen",
    ),
    ("install|installing|set up", "uninstall|uninstalling|remove"),
    (
        "add|adding|give|invite|grant|include|hinzufügen|agregar|ajouter",
        "remove|removing|take away|delete|revoke|exclude|entfernen|quitar|supprimer",
    ),
    (
        "open|opening|opens|ouvre|abrir",
        "close|closing|closes|ferme|cerrar",
    ),
    (
        "start|starting|begin|begins|beginning|started",
        "stop|stopping|end|ends|ended",
    ),
    (
        "connect|connecting|link|pair|pairing",
        "disconnect|disconnecting|unlink|unpair",
    ),
    ("upgrade|upgrading", "downgrade|downgrading"),
    ("import|importing", "export|exporting"),
    ("download|downloading|herunterladen", "upload|uploading|hochladen"),
    (
        "buy|buying|bought|purchase|kaufen|gekauft",
        "sell|selling|sold|verkaufen|verkauft",
    ),
    (
        "send|sending|sent|senden|schicken",
        "receive|receiving|received|get back|empfangen|erhalten",
    ),
    (
        "read|reading|reads|parse|parsing|load|lesen|lese|einlesen|deserialise|deserialize",
        "write|writing|writes|schreibe|schreiben|serialise|serialize",
    ),
    (
        "raise|increase|increasing|more|erhöhen",
        "lower|reduce|decrease|less|senken",
    ),
    (
        "advantage|advantages|pros|benefits|pro|vorteile|ventajas|avantages",
        "disadvantage|disadvantages|cons|drawbacks|nachteile|desventajas|inconvénients",
    ),
    ("synonym|synonyms", "antonym|antonyms|opposite"),
    ("lock|locking|block", "unlock|unlocking|unblock"),
    ("subscribe|subscribing", "unsubscribe|cancel"),
    ("best|better", "worst|worse"),
    (
        "ascending|aufsteigend",
        "descending|absteigend|décroissant|descendente",
    ),
    (
        "before|vor|avant|antes",
        "after|afterwards|nach dem|après|después",
    ),
    (
        "cause|causes|ursache|ursachen",
        "symptom|symptoms|treatment|symptome",
    ),
    ("win|won|winner|champion", "lose|lost|loser"),
    ("arrival|arrives", "departure|departs"),
    (
        "withdraw|withdrawing|take out|abheben",
        "deposit|pay in|einzahlen",
    ),
    ("lend|lending", "borrow|borrowing"),
    ("positive", "negative"),
    ("cooked|boiled", "uncooked|raw"),
    ("opened", "unopened"),
    (
        "used|second-hand|gebraucht|gebrauchtes|gebrauchter",
        "unused|new|neu|neues|neuer",
    ),
    ("legal|allowed|permitted|erlaubt", "illegal|forbidden|verboten"),
    ("encode|encrypt", "decode|decrypt"),
    (
        "largest|biggest|highest|tallest|longest|most|maximum|max|greatest",
        "smallest|lowest|shortest|least|minimum|min",
    ),
    ("newest|latest|most recent", "oldest|earliest"),
    ("closest|nearest|innermost", "farthest|furthest|outermost"),
    ("present tense|present", "past tense|past|future tense|future"),
    ("past tense|past", "future tense|future"),
    ("plural", "singular"),
    ("domestic|inland", "international|abroad|ausland"),
    ("charged|billed", "refunded"),
    (
        "build|built|construction|building",
        "fall|fell|demolished|torn down",
    ),
    (
        "male|man|men|mann|boy|he|his",
        "female|woman|women|frau|girl|she|her",
    ),
    (
        "prevent|avoid|avoiding|keep from|stop from|hinder|verhindern|vermeiden",
        "make|get|want|cause",
    ),
    ("deliver|delivered|delivery|shipping", "return|returned|pick up"),
    ("hire|hiring", "fire|dismiss|dismisses|fired|resign"),
    ("resign|quit|quits|hand in", "dismiss|dismisses|fire|fired"),
    ("tenant|renter|mieter", "landlord|owner|vermieter"),
    ("inside|indoor|indoors|in the", "outside|outdoor|outdoors"),
    (
        "first|erste|ersten|premier|primero",
        "last|letzte|letzten|dernier|último",
    ),
];

static SIDES: LazyLock<(Table, Table)> = LazyLock::new(|| {
    let split = |side: fn(&(&'static str, &'static str)) -> &'static str| -> Table {
        let rows: Vec<Vec<&str>> = PAIRS.iter().map(|pair| side(pair).split('|').collect()).collect();
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        Table::new(&rows)
    };
    (split(|pair| pair.0), split(|pair| pair.1))
});

pub(super) fn differ(a: &Ask, b: &Ask) -> bool {
    let (one, other) = &*SIDES;
    let (plus_a, minus_a) = (one.of(a), other.of(a));
    let (plus_b, minus_b) = (one.of(b), other.of(b));
    // Only what one text says and the other one's opposite; a text that has both ("buy or sell") says nothing.
    let (only_a, only_b) = (
        (plus_a & !minus_a, minus_a & !plus_a),
        (plus_b & !minus_b, minus_b & !plus_b),
    );
    only_a.0 & only_b.1 != 0 || only_a.1 & only_b.0 != 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    fn refused(a: &str, b: &str) -> bool {
        both_ways(differ, a, b)
    }

    #[test]
    fn the_opposite_is_another_question() {
        assert!(refused("turn on notifications", "turn off notifications"));
        assert!(refused("advantages of wind power", "disadvantages of wind power"));
        assert!(refused("the largest lake", "the smallest lake"));
        assert!(refused(
            "a polite mail accepting it",
            "a polite mail declining it"
        ));
    }

    #[test]
    fn who_says_both_says_nothing() {
        assert!(!refused("buy or sell a car", "is it better to sell a car"));
        assert!(!refused("turn off notifications", "disable notifications"));
    }
}
