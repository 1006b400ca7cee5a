//! What new namespaces have: looked at, and looked at again.

use std::sync::Arc;
use std::time::Instant;

use super::super::supervise::{Failure, blocking};
use super::{MEASURE_AGAIN, Run};
use crate::kernel::netns::{self, NsId};
use crate::pods::fresh::Fresh;
use crate::pods::register::Purpose;
use crate::sysctl::glob::Subject;
use crate::sysctl::key::Key;

impl Run {
    /// Applies everything everywhere again, after another look at what new namespaces have.
    pub(super) async fn reapply(&mut self) -> Result<(), Failure> {
        self.measure().await?;
        let ids: Vec<NsId> = self.register.spaces().map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.register.want(id, Purpose::ApplySurely, false));
        Ok(())
    }

    pub(super) async fn refresh_stale(&mut self) -> Result<(), Failure> {
        if self.stale.is_empty() {
            return Ok(());
        }
        self.measure().await?;
        for id in std::mem::take(&mut self.stale) {
            self.register.want(id, Purpose::ApplySurely, true);
        }
        Ok(())
    }

    /// Looks at what new namespaces have, in one that is made for it.
    pub(super) async fn measure(&mut self) -> Result<(), Failure> {
        let (plan, before) = (self.plan.clone(), self.fresh.clone());
        let originals = self.originals();
        let ((), measured) = blocking((), move |()| {
            let mut fresh = Fresh::measure(&plan.tree, &plan.keys(), plan.kernel, Some(&before))?;
            originals.iter().for_each(|(key, original)| fresh.remember(key, original));
            Ok::<_, netns::NetnsError>(fresh)
        })
        .await?;
        self.unmeasured = match measured {
            Ok(fresh) => {
                self.fresh = Arc::new(fresh);
                None
            }
            Err(error) => Some((error.to_string(), Instant::now() + MEASURE_AGAIN)),
        };
        self.say_trouble();
        Ok(())
    }

    /// What the node's keys were before the agent changed them: namespaces from then have that.
    fn originals(&self) -> Vec<(Key, String)> {
        self.context.node.read(|state| {
            let keys = state.keys.iter().flatten();
            let originals = keys.filter_map(|status| match &status.key {
                Subject::Key(key) => Some((key.clone(), status.original.clone()?)),
                Subject::Glob(_) => None,
            });
            originals.collect()
        })
    }
}
