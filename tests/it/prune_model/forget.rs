//! A forget, step by step, of a snapshot that a policy might name at any moment.

use super::model::Protocol;
use super::rules::Rule;
use super::state::{ABSENT, FIRST_SNAPSHOTS, Forget, SNAPSHOTS, State, TOMBSTONE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads a manifest that is to go.
    Choose,
    /// Looks whether the session's object is there.
    Session,
    /// If it is not, reads the manifest once more.
    Again,
    /// Deletes it, or overwrites it with a tombstone.
    Drop,
}

pub const PROGRAM: [Step; 4] = [Step::Choose, Step::Session, Step::Again, Step::Drop];

impl Protocol {
    /// The ways in which the forget's next step may go.
    pub fn forget_choices(&self, state: &State, f: usize, out: &mut Vec<u8>) {
        match PROGRAM.get(usize::from(state.forgets[f].at)) {
            Some(Step::Choose) => out.extend((0..SNAPSHOTS).filter(|s| state.is_manifest(*s)).map(|s| s as u8)),
            Some(_) => out.push(0),
            None => {}
        }
    }

    pub fn forget_step(&self, state: &mut State, f: usize, how: u8) {
        let step = PROGRAM[usize::from(state.forgets[f].at)];
        let me = &mut state.forgets[f];
        me.at += 1;
        let snapshot = usize::from(me.snapshot);
        match step {
            Step::Choose => {
                me.snapshot = how;
                // No session belongs to those that were there at the start.
                if usize::from(how) < FIRST_SNAPSHOTS {
                    me.at += 2;
                }
            }
            Step::Session => {
                me.has_session = state.sessions[snapshot - FIRST_SNAPSHOTS] != 0;
                if me.has_session || !self.keeps(Rule::ForgetReadsAgain) {
                    me.at += 1;
                }
            }
            Step::Again => {
                if !state.is_manifest(snapshot) {
                    state.forgets[f] = Forget { at: PROGRAM.len() as u8, ..Forget::default() };
                }
            }
            Step::Drop => {
                let stays = me.has_session && self.keeps(Rule::TombstoneWhileSession);
                state.snapshots[snapshot] = if stays { TOMBSTONE } else { ABSENT };
                state.told &= !(1 << snapshot);
                state.forgets[f] = Forget { at: PROGRAM.len() as u8, ..Forget::default() };
            }
        }
    }
}
