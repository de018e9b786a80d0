//! `mwb notify`: how it goes with those who are told of events.

use mwb_agent::notify::Status;

use crate::show::Style;
use crate::table::{Align, Cell, Colour, Table};
use crate::units::{ago, grouped, span};

/// A table, and what went wrong last.
pub(crate) fn table(status: &Status, style: &Style) -> String {
    if status.receivers.is_empty() {
        return "nobody is told: there are no `notify.receivers`\n".to_owned();
    }
    let heads = [
        ("RECEIVER", Align::Left),
        ("BY", Align::Left),
        ("WAITING", Align::Right),
        ("TOLD", Align::Right),
        ("AGAIN", Align::Right),
        ("DROPPED", Align::Right),
        ("NEXT", Align::Right),
    ];
    let mut table = Table::new(&heads);
    let mut errors = String::new();
    for receiver in &status.receivers {
        let dropped = receiver.dropped.total();
        let next = receiver
            .next_attempt_unix_ms
            .map_or_else(|| "-".to_owned(), |at| span(at.saturating_sub(style.now_ms) / 1_000));
        table.push(vec![
            receiver.name.as_str().into(),
            receiver.kind.as_str().into(),
            grouped(receiver.queued).into(),
            grouped(receiver.delivered).into(),
            grouped(receiver.retried).into(),
            if dropped > 0 {
                style.paint(grouped(dropped), Colour::Red)
            } else {
                Cell::from(grouped(dropped))
            },
            next.into(),
        ]);
        if let Some(error) = &receiver.last_error {
            let when = ago(error.unix_ms, style.now_ms);
            errors += &format!("{}, {when}: {}\n", receiver.name, error.message);
        }
    }
    let mut text = table.render();
    if status.missed > 0 {
        text += &format!("{} events went by before they could be taken\n", grouped(status.missed));
    }
    text + &errors
}

#[cfg(test)]
mod tests {
    use mwb_agent::notify::{Dropped, LastError, ReceiverStatus};

    use super::*;

    #[test]
    fn what_waits_and_what_went_wrong_is_shown() {
        let style = Style { colour: false, now_ms: 100_000 };
        let ops = ReceiverStatus {
            name: "ops".to_owned(),
            kind: "webhook".to_owned(),
            queued: 3,
            delivered: 1_234,
            retried: 5,
            dropped: Dropped { refused: 1, ..Dropped::default() },
            last_error: Some(LastError { unix_ms: 40_000, message: "status 503".to_owned() }),
            next_attempt_unix_ms: Some(104_000),
        };
        let status = Status { receivers: vec![ops], missed: 2, ..Status::default() };
        assert_eq!(
            table(&status, &style),
            "RECEIVER  BY       WAITING   TOLD  AGAIN  DROPPED  NEXT\n\
             ops       webhook        3  1,234      5        1    4s\n\
             2 events went by before they could be taken\n\
             ops, 1m ago: status 503\n"
        );
        assert!(table(&Status::default(), &style).contains("nobody is told"));
    }
}
