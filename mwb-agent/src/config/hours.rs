//! Times of day at which something counts, by the machine's clock on the wall.

use std::fmt;

/// Days of the week and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Days on which it begins, a bit for each, Monday's the lowest.
    pub days: u8,
    /// Minute of the day at which it begins.
    pub from: u16,
    /// Minute of the day at which it ends, up to 24:00. Not after `from`: on the next day.
    pub to: u16,
}

/// A moment of a week: what the clock on the wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Day, Monday is 0.
    pub day: u8,
    /// Minute of that day.
    pub minute: u16,
}

/// Minutes of a day.
pub(super) const DAY: u16 = 24 * 60;
/// Their words.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Hours {
    /// Every minute.
    pub const ALWAYS: Hours = Hours { days: 0x7f, from: 0, to: DAY };

    /// Whether it counts at a moment.
    #[must_use]
    pub fn has(&self, at: Moment) -> bool {
        let begins = |day: u8| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return begins(at.day) && (self.from..self.to).contains(&at.minute);
        }
        // Over midnight: the evening of this day, or the morning after the one before.
        (begins(at.day) && at.minute >= self.from) || (begins(at.day + 6) && at.minute < self.to)
    }

    /// In how many minutes, by a clock that is not set meanwhile, it is otherwise than at a
    /// moment; `None`: never.
    #[must_use]
    pub fn next_change(&self, at: Moment) -> Option<u32> {
        let (day, week) = (u32::from(DAY), 7 * u32::from(DAY));
        let start = u32::from(at.day % 7) * day + u32::from(at.minute);
        let now = self.has(at);
        let ends = [self.from, self.to % DAY].map(u32::from);
        (0..7)
            .flat_map(|number| ends.map(|end| number * day + end))
            .filter(|end| self.has(Moment::of_week(*end)) != now)
            .map(|end| (end + week - start) % week)
            .min()
    }
}

impl Moment {
    /// A minute of the week, from Monday's first on.
    fn of_week(minute: u32) -> Self {
        let day = u32::from(DAY);
        Self {
            day: u8::try_from(minute / day).unwrap_or_default(),
            minute: u16::try_from(minute % day).unwrap_or_default(),
        }
    }
}

/// As it is written in the file.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = Vec::new();
        if self.days != Self::ALWAYS.days {
            keys.push(format!("days: {}", show_days(self.days)));
        }
        if (self.from, self.to) != (0, DAY) {
            keys.push(format!("from: \"{}\"", show_time(self.from)));
            keys.push(format!("to: \"{}\"", show_time(self.to)));
        }
        write!(f, "{{{}}}", keys.join(", "))
    }
}

/// `mon-fri`, `sat`, or a list of such.
fn show_days(days: u8) -> String {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for day in (0..DAYS.len()).filter(|day| days & (1 << day) != 0) {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == day => *last = day,
            _ => spans.push((day, day)),
        }
    }
    let word = |day: usize| DAYS.get(day).copied().unwrap_or_default();
    let span = |&(first, last): &(usize, usize)| match last - first {
        0 => word(first).to_owned(),
        _ => format!("{}-{}", word(first), word(last)),
    };
    match spans.as_slice() {
        [one] => span(one),
        several => format!("[{}]", several.iter().map(span).collect::<Vec<_>>().join(", ")),
    }
}

fn show_time(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Reads `mon` or `fri-mon` as bits of days. `None` if it is not one.
pub(super) fn parse_days(text: &str) -> Option<u8> {
    let day = |word: &str| DAYS.iter().position(|day| *day == word);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    let count = (last + 7 - first) % 7;
    Some((first..=first + count).fold(0, |days, day| days | 1 << (day % 7)))
}

/// Reads `08:00`, and `24:00` for the end of a day, as a minute of the day. `None` if it
/// is not one.
pub(super) fn parse_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, most: usize| {
        let digits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    if minute.len() != 2 {
        return None;
    }
    let (hour, minute) = (number(hour, 2)?, number(minute, 2)?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(day: u8, time: &str) -> Moment {
        Moment { day, minute: parse_time(time).expect(time) }
    }

    fn hours(days: &str, from: &str, to: &str) -> Hours {
        let days = parse_days(days).expect(days);
        Hours { days, from: parse_time(from).expect(from), to: parse_time(to).expect(to) }
    }

    #[test]
    fn a_time_of_day_begins_with_its_first_minute_and_ends_before_its_last() {
        let office = hours("mon-fri", "08:00", "18:00");
        for (day, time, expected) in [
            (0, "07:59", false),
            (0, "08:00", true),
            (4, "17:59", true),
            (4, "18:00", false),
            (5, "12:00", false),
            (6, "12:00", false),
        ] {
            assert_eq!(office.has(at(day, time)), expected, "{day} {time}");
        }
    }

    #[test]
    fn what_goes_over_midnight_is_of_the_day_on_which_it_begins() {
        let night = hours("sun", "22:00", "06:00");
        for (day, time, expected) in [
            (6, "21:59", false),
            (6, "22:00", true),
            (6, "23:59", true),
            (0, "00:00", true),
            (0, "05:59", true),
            (0, "06:00", false),
            (6, "05:00", false),
            (0, "22:30", false),
        ] {
            assert_eq!(night.has(at(day, time)), expected, "{day} {time}");
        }
    }

    #[test]
    fn the_next_change_is_the_first_minute_that_is_otherwise() {
        let office = hours("mon-fri", "08:00", "18:00");
        assert_eq!(office.next_change(at(0, "07:00")), Some(60));
        assert_eq!(office.next_change(at(0, "17:59")), Some(1));
        assert_eq!(office.next_change(at(4, "18:00")), Some((14 + 48) * 60));
        assert_eq!(Hours::ALWAYS.next_change(at(3, "12:00")), None);
    }

    #[test]
    fn days_are_words_or_go_round_the_week() {
        assert_eq!(parse_days("mon"), Some(1));
        assert_eq!(parse_days("sat-sun"), Some(0b110_0000));
        assert_eq!(parse_days("fri-mon"), Some(0b111_0001));
        assert_eq!(parse_days("tue-mon"), Some(0x7f));
        for text in ["", "monday", "mon-", "-mon", "mon-fri-sun", "Mon"] {
            assert_eq!(parse_days(text), None, "{text}");
        }
        assert_eq!(show_days(0b111_0001), "[mon, fri-sun]");
    }

    #[test]
    fn a_time_has_hours_and_two_digits_of_minutes() {
        let right = [("08:00", 480), ("8:00", 480), ("23:59", 1439), ("24:00", 1440)];
        for (text, minute) in right {
            assert_eq!(parse_time(text), Some(minute), "{text}");
        }
        for text in ["", "8", "8:0", "08:60", "24:01", "25:00", "-1:00", "08:000", "1e:00", "+8:00"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_next_change(
            days in 1_u8..0x80,
            from in 0..DAY,
            to in 1..=DAY,
            minute in 0_u32..7 * 1440,
        ) {
            let hours = Hours { days, from, to };
            let at = |minutes: u32| Moment::of_week((minute + minutes) % (7 * 1440));
            let changes = |minutes: &u32| hours.has(at(*minutes)) != hours.has(at(0));
            prop_assert_eq!(hours.next_change(at(0)), (1..7 * 1440).find(changes));
        }
    }
}
