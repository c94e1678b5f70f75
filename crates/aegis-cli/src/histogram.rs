//! A distribution in one line of text.

use aegis::wcet::Campaign;

/// Cells of the line.
const CELLS: usize = 24;
/// Heights of a cell; a cell with a single sample has the lowest but none.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How many samples lie where between the shortest and the longest, as heights on a logarithmic scale:
/// one outlier shows beside a thousand others.
pub(crate) fn line(campaign: &Campaign) -> String {
    let counts = counts(campaign);
    let most = counts.iter().copied().max().unwrap_or(1);
    counts.into_iter().map(|count| HEIGHTS[height(count, most)]).collect()
}

fn counts(campaign: &Campaign) -> [usize; CELLS] {
    let (low, high) = (campaign.min().as_nanos(), campaign.max().as_nanos());
    let width = u128::from(high - low) + 1;
    let mut counts = [0; CELLS];
    for time in campaign.times() {
        let part = u128::from(time.as_nanos() - low) * CELLS as u128 / width;
        counts[usize::try_from(part).expect("below the number of cells")] += 1;
    }
    counts
}

fn height(count: usize, most: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let part = (1.0 + count as f64).ln() / (1.0 + most as f64).ln();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 8")]
    let height = (part * 8.0).round() as usize;
    height.clamp(1, 8)
}

#[cfg(test)]
mod tests {
    use aegis::Nanos;

    use super::*;

    fn shown(times: &[u64]) -> String {
        line(&Campaign::new(times.iter().copied().map(Nanos).collect()).expect("valid times"))
    }

    #[test]
    fn an_outlier_shows_beside_the_mass() {
        let mut times = vec![100; 1000];
        times.push(123);
        assert_eq!(shown(&times), "█                      ▁");
        assert_eq!(shown(&[7]), "█                       ");
        assert_eq!(shown(&[1, u64::MAX]), "█                      █");
    }
}
