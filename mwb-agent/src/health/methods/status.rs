//! Lists of HTTP status codes, such as `200,204,300-399`. Pure.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Invalid;

/// The final status codes of RFC 9110, 15: those of 1xx are never the last.
const FINAL: RangeInclusive<u16> = 200..=599;

/// The status codes that are as they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusList(Vec<RangeInclusive<u16>>);

impl StatusList {
    /// Whether the status is in the list.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusList {
    fn default() -> Self {
        Self(vec![200..=200])
    }
}

impl FromStr for StatusList {
    type Err = Invalid;

    /// Codes and ranges with commas between.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: &str| Invalid::new("status", text, why);
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let code: Option<u16> = text.parse().ok().filter(|_| digits);
            code.filter(|code| FINAL.contains(code)).ok_or_else(|| {
                invalid("is no list of codes from 200 to 599, as 200 or 200-299,304")
            })
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (code(first.trim())?, code(last.trim())?);
            if first > last {
                return Err(invalid("has a range that ends before it begins"));
            }
            Ok(first..=last)
        };
        text.split(',').map(|part| range(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for StatusList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_and_ranges_are_in_the_list_and_their_neighbours_are_not() {
        let list: StatusList = "200, 204,300-302".parse().expect("it is a list");
        let inside: Vec<u16> = (0..=999).filter(|code| list.contains(*code)).collect();
        assert_eq!(inside, [200, 204, 300, 301, 302]);
        assert_eq!(list.to_string(), "200,204,300-302");
    }

    #[test]
    fn without_a_list_200_alone_is_right() {
        let inside = |code: &u16| StatusList::default().contains(*code);
        assert_eq!((0..=999).filter(inside).collect::<Vec<u16>>(), [200]);
    }

    #[test]
    fn what_is_no_list_of_final_codes_is_refused() {
        for text in ["", ",", "200,", "abc", "100", "600", "2000", "+20", "299-200", "200-", "-200"]
        {
            let error = text.parse::<StatusList>().expect_err(text);
            assert_eq!((error.option, error.value.as_str()), ("status", text));
        }
    }

    proptest! {
        #[test]
        fn a_list_says_itself(ranges in prop::collection::vec((200u16..600, 0u16..50), 1..8)) {
            let list = StatusList(
                ranges.into_iter().map(|(from, more)| from..=(from + more).min(599)).collect(),
            );
            prop_assert_eq!(list.to_string().parse::<StatusList>(), Ok(list));
        }

        #[test]
        fn no_text_is_a_list_with_another_code(text in "[0-9,\\- ]{0,16}") {
            if let Ok(list) = text.parse::<StatusList>() {
                prop_assert!((0..200).chain(600..1000).all(|code| !list.contains(code)));
            }
        }
    }
}
