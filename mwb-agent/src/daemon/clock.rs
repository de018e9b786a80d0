//! What the clock on the wall shows, in the zone of the machine.

use std::mem::MaybeUninit;

use crate::config::Moment;

/// Now. `None` if the system does not tell.
pub(super) fn moment() -> Option<Moment> {
    let mut shown = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: a null pointer asks for no copy of the time that is returned.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    // SAFETY: both point to values that live until the call returns; zeros are a `tm`.
    let shown = unsafe {
        let done = libc::localtime_r(&raw const now, shown.as_mut_ptr());
        (!done.is_null()).then(|| shown.assume_init())
    }?;
    let minute = u16::try_from(shown.tm_hour * 60 + shown.tm_min).ok()?;
    // The system's week begins with Sunday.
    let day = u8::try_from((shown.tm_wday + 6) % 7).ok()?;
    Some(Moment { day, minute })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_a_minute_of_a_week() {
        let now = moment().expect("a time");
        assert!(now.day < 7 && now.minute < 24 * 60, "{now:?}");
    }
}
