//! The law in Rust: pure, without input or output, and without allocation once it exists.

use super::{Gains, LIMIT_OF_NUMBERS, MAX_WAYPOINTS, Plan, Waypoint, WaypointSettings};

type Joints = [f64; 7];

/// A command as near as this to the way is on it, and has its velocity.
const ON_THE_WAY_RAD: f64 = 1e-9;

/// What the robot says at a step, in the precision of the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub positions_rad: [f32; 7],
    pub velocities_rad_s: [f32; 7],
}

/// What the robot model says at the measured state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelTerms {
    /// 6×7 Jacobian of the flange, linear rows first, base axes.
    pub jacobian: [[f64; 7]; 6],
    /// Coriolis torque, N·m.
    pub coriolis_nm: Joints,
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Command {
    pub torques_nm: [f32; 7],
    /// Commanded joints and velocities.
    pub positions_rad: Joints,
    pub velocities_rad_s: Joints,
    /// Whether a plan is being followed; otherwise the arm brakes or rests.
    pub follows: bool,
}

/// What became of a plan that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It is followed from the next step on.
    Joined,
    /// Its sequence number is not above the last one.
    Old,
    /// All its waypoints lie in the past.
    Over,
}

/// Why a plan was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("plan: wrong shape or format")]
    Format,
    #[error("plan: not finite")]
    NotFinite,
    #[error("plan: of another session")]
    Session,
    #[error("plan: cannot be joined within the limits")]
    CannotJoin,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Format, Self::NotFinite, Self::Session, Self::CannotJoin];

    /// The refusal that a server's answer tells of. A traceback may quote others before: the last one counts.
    pub fn in_text(text: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().filter_map(|refusal| Some((text.rfind(&refusal.to_string())?, refusal)));
        found.max_by_key(|(at, _)| *at).map(|(_, refusal)| refusal)
    }
}

/// The present piece of the way: a polynomial in the share of its length that is over.
#[derive(Debug, Clone, Copy)]
struct Piece {
    c: [Joints; 5],
    begin: i64,
    steps: i64,
}

/// The law and its state.
#[derive(Debug, Clone)]
pub struct WaypointLaw {
    settings: WaypointSettings,
    gains: Gains,
    dt: f64,
    step: i64,
    started: bool,
    follows: bool,
    sequence: i64,
    heard: i64,
    lower: Joints,
    upper: Joints,
    /// Commanded joints and their velocity; velocity over the last step and its change.
    q: Joints,
    v: Joints,
    u: Joints,
    du: Joints,
    piece: Piece,
    waypoints: Vec<Waypoint>,
    spacing: i64,
    /// The waypoint that ends the present piece.
    next: usize,
}

fn each(function: impl Fn(usize) -> f64) -> Joints {
    std::array::from_fn(function)
}

impl WaypointLaw {
    /// A law before its first step.
    pub fn new(settings: &WaypointSettings, gains: &Gains) -> Self {
        Self {
            settings: *settings,
            gains: *gains,
            dt: settings.period_s(),
            step: 0,
            started: false,
            follows: false,
            sequence: 0,
            heard: 0,
            lower: [0.0; 7],
            upper: [0.0; 7],
            q: [0.0; 7],
            v: [0.0; 7],
            u: [0.0; 7],
            du: [0.0; 7],
            piece: Piece { c: [[0.0; 7]; 5], begin: 0, steps: 1 },
            waypoints: Vec::with_capacity(MAX_WAYPOINTS),
            spacing: 1,
            next: 0,
        }
    }

    /// Number of the next step.
    pub fn next_step(&self) -> i64 {
        self.step
    }

    /// One step of the loop. `model` is needed where the gains use it ([`Gains::uses_model`]) and ignored otherwise.
    pub fn step(&mut self, measured: &Measured, model: Option<&ModelTerms>) -> Command {
        let qm = measured.positions_rad.map(f64::from);
        let vm = measured.velocities_rad_s.map(f64::from);
        let n = self.step;
        self.step += 1;
        if !self.started {
            self.begin(&qm, n);
        } else if self.follows {
            self.advance(n);
        }
        self.command(n);
        let v = self.v;
        let e = each(|i| self.q[i] - qm[i]);
        let de = each(|i| v[i] - vm[i]);
        let (kq, kqd) = (self.gains.kq, self.gains.kqd);
        let mut tau = each(|i| f64::from(kq[i]) * e[i] + f64::from(kqd[i]) * de[i]);
        if let Some(model) = model.filter(|_| self.gains.uses_model()) {
            let along = |row: usize, x: &Joints| (0..7).map(|i| model.jacobian[row][i] * x[i]).sum::<f64>();
            let force: [f64; 6] = std::array::from_fn(|row| {
                let (kx, kxd) = (f64::from(self.gains.kx[row]), f64::from(self.gains.kxd[row]));
                kx * along(row, &e) + kxd * along(row, &de)
            });
            tau = each(|i| {
                let cartesian: f64 = (0..6).map(|row| model.jacobian[row][i] * force[row]).sum();
                tau[i] + cartesian + model.coriolis_nm[i]
            });
        }
        Command { torques_nm: tau.map(|x| x as f32), positions_rad: self.q, velocities_rad_s: v, follows: self.follows }
    }

    /// Holds the first state that is a state.
    fn begin(&mut self, q: &Joints, n: i64) {
        if q.iter().all(|x| x.abs() < LIMIT_OF_NUMBERS.0) {
            self.lower = each(|i| self.settings.lower_rad[i].min(q[i]));
            self.upper = each(|i| self.settings.upper_rad[i].max(q[i]));
            self.q = *q;
            self.v = [0.0; 7];
            self.u = [0.0; 7];
            self.du = [0.0; 7];
            self.piece.c[0] = *q;
            self.piece.begin = n;
            self.started = true;
        }
    }

    /// Goes on to the next piece, or begins to brake.
    fn advance(&mut self, n: i64) {
        let ended = n > self.piece.begin + self.piece.steps;
        let next = self.next + 1;
        let over = ended && next >= self.waypoints.len();
        let silent = n - self.heard > i64::from(self.settings.patience_steps);
        if over || silent {
            self.brake(n);
        } else if ended {
            let (a, b) = (self.waypoints[self.next], self.waypoints[next]);
            self.next = next;
            let (from, to) = ((&a.positions_rad, &a.velocities_rad_s), (&b.positions_rad, &b.velocities_rad_s));
            self.piece = self.cubic(from, to, n - 1, self.spacing);
        }
    }

    fn cubic(&self, from: (&Joints, &Joints), to: (&Joints, &Joints), begin: i64, steps: i64) -> Piece {
        let per = steps as f64 * self.dt;
        let e = each(|i| to.0[i] - from.0[i]);
        let m0 = each(|i| from.1[i] * per);
        let m1 = each(|i| to.1[i] * per);
        let c2 = each(|i| e[i] * 3.0 - m0[i] * 2.0 - m1[i]);
        let c3 = each(|i| m0[i] + m1[i] - e[i] * 2.0);
        Piece { c: [*from.0, m0, c2, c3, [0.0; 7]], begin, steps }
    }

    /// From the state commanded last to rest. Does nothing to an arm that brakes or rests already.
    fn brake(&mut self, n: i64) {
        let v = self.v;
        let least = (0..7).map(|i| v[i].abs() * 1.5 / self.settings.braking_rad_s2[i]).fold(0.0, f64::max);
        let steps = ((least / self.dt) as i64 + 1).max(i64::from(self.settings.shortest_brake_steps));
        let per = steps as f64 * self.dt;
        let a = each(|i| {
            let bound = v[i].abs() * 3.0 / per;
            (self.du[i] / self.dt).max(-bound).min(bound)
        });
        let m = each(|i| v[i] * per);
        let b = each(|i| a[i] * (per * per));
        let c3 = each(|i| -m[i] - b[i] * 2.0 / 3.0);
        let c4 = each(|i| m[i] / 2.0 + b[i] / 4.0);
        self.piece = Piece { c: [self.q, m, each(|i| b[i] / 2.0), c3, c4], begin: n - 1, steps };
        self.follows = false;
    }

    /// Moves the command one step along the present piece, inside the limits.
    fn command(&mut self, n: i64) {
        let Piece { c, begin, steps } = &self.piece;
        let x = ((n - begin) as f64 / *steps as f64).min(1.0);
        let per = *steps as f64 * self.dt;
        let dt = self.dt;
        for i in 0..7 {
            let c4 = c[4][i] * x;
            let c3 = (c[3][i] + c4) * x;
            let c2 = (c[2][i] + c3) * x;
            let qd = c[0][i] + (c[1][i] + c2) * x;
            let d3 = (c[3][i] * 3.0 + c4 * 4.0) * x;
            let d2 = (c[2][i] * 2.0 + d3) * x;
            let vd = (c[1][i] + d2) / per;

            let (q, before) = (self.q[i], self.u[i]);
            let off = qd - (q + vd * dt);
            let size = off.abs();
            let twice = self.settings.acceleration_rad_s2[i] * 2.0;
            let sign = if off > 0.0 {
                1.0
            } else if off < 0.0 {
                -1.0
            } else {
                0.0
            };
            let mut u = vd + sign * (size / dt).min((size * twice).sqrt());
            let most = self.settings.acceleration_rad_s2[i] * dt;
            u = u.max(before - most).min(before + most);
            let fastest = self.settings.velocity_rad_s[i];
            let up = fastest.min(((self.upper[i] - q) * twice).sqrt());
            let down = fastest.min(((q - self.lower[i]) * twice).sqrt());
            u = u.max(-down).min(up);
            self.q[i] = (q + u * dt).max(self.lower[i]).min(self.upper[i]);
            self.du[i] = u - before;
            self.u[i] = u;
            let there = (self.q[i] - qd).abs() < ON_THE_WAY_RAD;
            self.v[i] = if there { vd } else { u + self.du[i] * 0.5 };
        }
    }

    /// Takes a plan over, as the server does between two steps.
    ///
    /// # Errors
    /// [`Refusal`]. Except for another session's, an arm that follows a plan then brakes.
    pub fn update(&mut self, plan: &Plan) -> Result<Reception, Refusal> {
        let taken = self.take(plan);
        if self.follows && matches!(taken, Err(Refusal::Format | Refusal::NotFinite | Refusal::CannotJoin)) {
            self.brake(self.step);
        }
        taken
    }

    fn take(&mut self, plan: &Plan) -> Result<Reception, Refusal> {
        if plan.waypoints.is_empty() || plan.waypoints.len() > MAX_WAYPOINTS {
            return Err(Refusal::Format);
        }
        let small = |x: f64| x.abs() < LIMIT_OF_NUMBERS.0;
        let rows = plan.waypoints.iter().flat_map(|w| w.positions_rad.iter().chain(&w.velocities_rad_s));
        let header = [plan.sequence as f64, plan.first_step as f64];
        if !rows.chain(&header).all(|&x| small(x)) {
            return Err(Refusal::NotFinite);
        }
        if plan.spacing_steps < 1 {
            return Err(Refusal::Format);
        }
        if plan.session != self.settings.session || !self.started {
            return Err(Refusal::Session);
        }
        if plan.sequence <= self.sequence {
            return Ok(Reception::Old);
        }
        self.sequence = plan.sequence;
        self.join(plan)
    }

    /// Finds the first waypoint that can be reached within the acceleration limits, and the cubic to it.
    fn join(&mut self, plan: &Plan) -> Result<Reception, Refusal> {
        let before = self.step - 1;
        let v = self.v;
        let fastest = self.settings.velocity_rad_s;
        let inside = |w: &Waypoint| Waypoint {
            positions_rad: each(|i| w.positions_rad[i].max(self.lower[i]).min(self.upper[i])),
            velocities_rad_s: each(|i| w.velocities_rad_s[i].max(-fastest[i]).min(fastest[i])),
        };
        let spacing = i64::from(plan.spacing_steps);
        let mut ahead = false;
        for (i, waypoint) in plan.waypoints.iter().enumerate() {
            let steps = plan.first_step + i as i64 * spacing - before;
            if steps > i64::from(self.settings.longest_join_steps) {
                return Err(Refusal::CannotJoin);
            }
            if steps <= 0 {
                continue;
            }
            ahead = true;
            let Waypoint { positions_rad: q1, velocities_rad_s: v1 } = inside(waypoint);
            let per = steps as f64 * self.dt;
            let gentle = (0..7).all(|j| {
                let e = (q1[j] - self.q[j]) * 6.0 / per;
                let a0 = e - v[j] * 4.0 - v1[j] * 2.0;
                let a1 = v[j] * 2.0 + v1[j] * 4.0 - e;
                a0.abs().max(a1.abs()) / per <= self.settings.acceleration_rad_s2[j]
            });
            if gentle {
                self.piece = self.cubic((&self.q, &v), (&q1, &v1), before, steps);
                self.waypoints.clear();
                // Within the capacity: the count has been checked.
                self.waypoints.extend(plan.waypoints.iter().map(|w| Waypoint {
                    positions_rad: each(|i| w.positions_rad[i].max(self.lower[i]).min(self.upper[i])),
                    velocities_rad_s: each(|i| w.velocities_rad_s[i].max(-fastest[i]).min(fastest[i])),
                }));
                self.spacing = spacing;
                self.next = i;
                self.heard = self.step;
                self.follows = true;
                return Ok(Reception::Joined);
            }
        }
        if ahead { Err(Refusal::CannotJoin) } else { Ok(Reception::Over) }
    }
}
