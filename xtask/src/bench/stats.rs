//! Order statistics of a handful of repetitions.

/// The middle value; the mean of the two middle ones; NaN of nothing.
#[must_use]
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.get(middle)) {
        (_, None) => f64::NAN,
        (length, Some(high)) if length % 2 == 1 => *high,
        (_, Some(high)) => {
            values.get(middle - 1).map_or(f64::NAN, |low| f64::midpoint(*low, *high))
        }
    }
}

/// Half the distance between the first and the third quartile, in percent of
/// the median: the usual distance of one repetition from the middle.
#[must_use]
pub(super) fn spread(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let (Some(low), Some(high)) = (values.get(..half), values.get(values.len() - half..)) else {
        return f64::NAN;
    };
    let between = median(high.iter().copied()) - median(low.iter().copied());
    100.0 * between / 2.0 / median(values.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median([9.0, 1.0, 3.0]), 3.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn one_outlier_does_not_move_the_spread() {
        let calm = [97.0, 98.0, 99.0, 100.0, 101.0, 102.0, 103.0];
        let mut wild = calm;
        wild[6] = 9e9;
        assert_eq!(spread(calm), spread(wild));
        assert_eq!(spread(calm), 2.0);
    }
}
