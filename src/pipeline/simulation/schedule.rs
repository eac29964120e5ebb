//! The schedule of a simulated run: which task moves next is drawn, nothing waits for I/O or real time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Moves after which a run counts as one that never ends; a usual one takes some hundreds.
const MOVES_MAX: usize = 100_000;

thread_local! {
    static SPAWNED: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
}

pub(in crate::pipeline) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Numbers that follow from a seed.
pub(in crate::pipeline) struct Rng(u64);

impl Rng {
    pub(in crate::pipeline) fn of(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(in crate::pipeline) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % n as u64) as usize
    }

    pub(in crate::pipeline) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(in crate::pipeline) struct Task {
    work: Work,
    woken: Arc<Woken>,
    vanishes: bool,
}

/// A task that begins ready. `vanishes`: the schedule may drop it halfway.
pub(in crate::pipeline) fn task(work: impl Future<Output = ()> + Send + 'static, vanishes: bool) -> Task {
    Task { work: Box::pin(work), woken: Arc::new(Woken(AtomicBool::new(true))), vanishes }
}

/// Has what a pipeline starts run among the other tasks of this thread's run.
pub(in crate::pipeline) fn spawn(work: Work) {
    SPAWNED.with_borrow_mut(|spawned| spawned.push(work));
}

/// Lets others move, so many times.
pub(in crate::pipeline) async fn give_way(mut times: usize) {
    poll_fn(|context| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Moves one ready task after another, until all are done. `below` draws a number; `judge` looks before every move.
pub(in crate::pipeline) fn run(
    mut tasks: Vec<Task>,
    below: impl Fn(usize) -> usize,
    judge: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    SPAWNED.take();
    for _ in 0..MOVES_MAX {
        judge()?;
        tasks.extend(SPAWNED.take().into_iter().map(|work| task(work, false)));
        let any = |tasks: &[Task], wanted: &dyn Fn(&Task) -> bool| {
            let all: Vec<usize> = (0..tasks.len()).filter(|at| wanted(&tasks[*at])).collect();
            (!all.is_empty()).then(|| all[below(all.len())])
        };
        if below(64) == 0 {
            any(&tasks, &|task| task.vanishes).map(|at| tasks.swap_remove(at));
        }
        let Some(at) = any(&tasks, &|task| task.woken.0.load(Ordering::Relaxed)) else {
            return if tasks.is_empty() { Ok(()) } else { Err(format!("{} tasks wait for ever", tasks.len())) };
        };
        let woken = tasks[at].woken.clone();
        woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(woken);
        if tasks[at].work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            tasks.swap_remove(at);
        }
    }
    Err("it goes on for ever".into())
}
