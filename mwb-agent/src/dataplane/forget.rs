//! A path id that another WAN gets: what was counted for the one before is not
//! that WAN's.

use mwb_common::maps::{Direction, counter_entry};

use super::error::Error;
use super::tables::Tables;

impl Tables {
    /// Zeroes all counters of a path. What a CPU counts at that moment may stay.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn forget_path(&self, path: u8) -> Result<(), Error> {
        for direction in Direction::ALL {
            self.clear_counters(counter_entry(direction, path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_network;
    use super::super::{DataPlane, Options, ProgramId, Programs};

    #[test]
    fn only_the_counters_of_that_path_are_forgotten() {
        in_network("only_the_counters_of_that_path_are_forgotten", || {
            let options = Options {
                flow_entries: 64,
                mapping_entries: 64,
                programs: Programs::Steering,
                ..Options::new("forget")
            };
            let plane = DataPlane::open_unpinned(&options).expect("a data plane");
            // A frame from nowhere is counted for path 0.
            plane.test_run(ProgramId::OutsideTc, &[0; 64], None, 3).expect("a run");
            let tables = plane.tables();
            let before = tables.counters().expect("a read");
            assert_eq!(
                before.iter().map(|row| (row.path, row.packets)).collect::<Vec<_>>(),
                [(0, 3)]
            );
            for path in 1..=32 {
                tables.forget_path(path).expect("written");
            }
            assert_eq!(tables.counters().expect("a read"), before);
            tables.forget_path(0).expect("written");
            assert_eq!(tables.counters().expect("a read"), []);
        });
    }
}
