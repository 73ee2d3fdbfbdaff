//! Which of the candidates now: the model says who may, live load says who.
//!
//! Outstanding work and the round-robin position are per worker: no counter is shared, and the shares even out over many requests.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
};

use mesh_model::{
    decide::Candidate,
    name::{ServiceKey, SubsetName},
    traffic::Balancer,
};

/// Re-picks that avoid an endpoint which was tried already; Envoy's `host_selection_retry_max_attempts` of Istio.
const REPICKS: usize = 5;

/// Entries of endpoints without work are dropped beyond this many.
const KEPT_IDLE: usize = 4096;

/// Live load of one worker.
#[derive(Debug, Default)]
pub struct Load {
    outstanding: RefCell<HashMap<SocketAddr, Rc<Cell<u32>>>>,
    turns: RefCell<HashMap<Turn, usize>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Turn {
    service: Option<ServiceKey>,
    subset: Option<SubsetName>,
    port: u16,
}

/// Whose turn counter is meant.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The service; None for a workload dialled by its own address.
    pub service: Option<&'a ServiceKey>,
    /// Its subset.
    pub subset: Option<&'a SubsetName>,
    /// Its port.
    pub port: u16,
}

/// One piece of outstanding work at an endpoint; over when dropped.
#[derive(Debug)]
pub struct Outstanding {
    count: Rc<Cell<u32>>,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
    }
}

impl Load {
    /// Says that work begins at this endpoint.
    pub fn begin(&self, addr: SocketAddr) -> Outstanding {
        let mut all = self.outstanding.borrow_mut();
        if all.len() > KEPT_IDLE {
            all.retain(|_, count| count.get() > 0);
        }
        let count = all.entry(addr).or_default().clone();
        count.set(count.get() + 1);
        Outstanding { count }
    }

    /// Picks one of `candidates`, by preference none of `tried`. None only if there are no candidates.
    pub fn pick<'c>(
        &self,
        balancer: Balancer,
        group: Group<'_>,
        candidates: &'c [Candidate],
        tried: &[SocketAddr],
    ) -> Option<&'c Candidate> {
        let mut picked = self.pick_once(balancer, group, candidates)?;
        for _ in 0..REPICKS {
            if !tried.contains(&picked.addr.get()) {
                return Some(picked);
            }
            picked = self.pick_once(balancer, group, candidates)?;
        }
        // Chance did not find one that is new. Take the first that is; if all were tried, the one whose try is longest ago: it may
        // have come back, while the last one failed just now.
        let last_try = |candidate: &&Candidate| tried.iter().rposition(|addr| *addr == candidate.addr.get());
        candidates.iter().min_by_key(last_try).or(Some(picked))
    }

    fn pick_once<'c>(
        &self,
        balancer: Balancer,
        group: Group<'_>,
        candidates: &'c [Candidate],
    ) -> Option<&'c Candidate> {
        if candidates.len() < 2 {
            return candidates.first();
        }
        match balancer {
            Balancer::RoundRobin => {
                let turn =
                    Turn { service: group.service.cloned(), subset: group.subset.cloned(), port: group.port };
                let mut turns = self.turns.borrow_mut();
                if turns.len() > KEPT_IDLE {
                    turns.clear();
                }
                // Workers start at different places, or all of them would send their first request to one endpoint.
                let at = turns.entry(turn).or_insert_with(|| rand::random_range(0..candidates.len()));
                *at = at.wrapping_add(1);
                candidates.get(*at % candidates.len())
            }
            // The dialled address has no tunnel port when it is a VIP, so an endpoint is drawn.
            Balancer::Random | Balancer::Passthrough => {
                candidates.get(rand::random_range(0..candidates.len()))
            }
            Balancer::LeastRequest => {
                let first = rand::random_range(0..candidates.len());
                let mut second = rand::random_range(0..candidates.len() - 1);
                if second >= first {
                    second += 1;
                }
                let (first, second) = (candidates.get(first)?, candidates.get(second)?);
                Some(if self.at(second) < self.at(first) { second } else { first })
            }
        }
    }

    fn at(&self, candidate: &Candidate) -> u32 {
        self.outstanding.borrow().get(&candidate.addr.get()).map_or(0, |count| count.get())
    }
}

#[cfg(test)]
mod tests;
