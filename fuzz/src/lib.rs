//! What several targets share.

pub mod answer;

/// Places to cut at, in order, drawn from the bytes themselves: two pairs, or all of a short input.
pub fn two_places(data: &[u8]) -> Vec<[usize; 2]> {
    let n = data.len();
    if n <= 8 {
        return (0..=n).flat_map(|b| (0..=b).map(move |a| [a, b])).collect();
    }
    // FNV-1a: any hash that spreads.
    let mut hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    let mut draw = move || {
        hash = hash
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (hash >> 33) as usize % (n + 1)
    };
    (0..2)
        .map(|_| {
            let (a, b) = (draw(), draw());
            [a.min(b), a.max(b)]
        })
        .collect()
}

/// A text in parts, divided by lines that are just `---`.
pub fn parts(text: &str) -> Vec<&str> {
    let mut parts = vec![];
    let mut rest = text;
    while let Some((part, behind)) = rest.split_once("\n---\n") {
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts
}
