//! The law as TorchScript: the text that the server runs, and the archive around it.
//!
//! [`WaypointLaw`](super::WaypointLaw) is the same law in Rust, statement by statement; a test compares the two. Only
//! operators that PyTorch has had since 1.x are used, each by the name that it is serialised under.

use super::{Gains, LIMIT_OF_NUMBERS, MAX_WAYPOINTS, WaypointSettings};
use crate::archive::{ArchiveError, ControllerArchiveBuilder, TensorValue};

/// Attributes and torque of the law without a robot model.
const JOINT_PARTS: (&str, &str) = ("", "");

/// Attributes and torque that the Cartesian gains and the Coriolis term add.
const MODEL_PARTS: (&str, &str) = (
    "  kx : Tensor
  kxd : Tensor
  ee : int
  model : __torch__.torch.classes.torchscript_pinocchio.RobotModelPinocchio
",
    "    m = self.model
    J = torch.to((m).compute_jacobian(qm, self.ee), qm)
    f = torch.add(torch.mul(self.kx, torch.matmul(J, e)), torch.mul(self.kxd, torch.matmul(J, de)))
    z = torch.zeros_like(qm)
    c = torch.sub((m).inverse_dynamics(qm, vm, z), (m).inverse_dynamics(qm, z, z))
    tau = torch.add(torch.add(tau, torch.matmul(torch.t(J), f)), torch.to(c, qm))
",
);

/// The class, with `@ATTRIBUTES@` and `@MODEL@` for the parts above.
const TEXT: &str = r#"class C(Module):
  kq : Tensor
  kqd : Tensor
@ATTRIBUTES@  lower : Tensor
  upper : Tensor
  vmax : Tensor
  amax : Tensor
  braking : Tensor
  dt : float
  patience : int
  longest : int
  shortest : int
  session : int
  n : int
  started : bool
  follow : bool
  seq : int
  heard : int
  lo : Tensor
  hi : Tensor
  qs : Tensor
  vs : Tensor
  us : Tensor
  du : Tensor
  c0 : Tensor
  c1 : Tensor
  c2 : Tensor
  c3 : Tensor
  c4 : Tensor
  t0 : int
  d : int
  w : Tensor
  every : int
  k : int
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    qm = torch.to(s["joint_positions"], self.qs)
    vm = torch.to(s["joint_velocities"], self.qs)
    n = self.n
    self.n = torch.add(n, 1)
    if self.started:
      if self.follow:
        _0 = (self).advance(n)
      else:
        pass
    else:
      _1 = (self).begin(qm, n)
    x = ops.prim.min(torch.div(float(torch.sub(n, self.t0)), float(self.d)), 1.)
    per = torch.mul(float(self.d), self.dt)
    c4 = torch.mul(self.c4, x)
    c3 = torch.mul(torch.add(self.c3, c4), x)
    c2 = torch.mul(torch.add(self.c2, c3), x)
    qd = torch.add(self.c0, torch.mul(torch.add(self.c1, c2), x))
    d3 = torch.mul(torch.add(torch.mul(self.c3, 3.), torch.mul(c4, 4.)), x)
    d2 = torch.mul(torch.add(torch.mul(self.c2, 2.), d3), x)
    vd = torch.div(torch.add(self.c1, d2), per)
    qs = self.qs
    off = torch.sub(qd, torch.add(qs, torch.mul(vd, self.dt)))
    size = torch.abs(off)
    twice = torch.mul(self.amax, 2.)
    back = torch.min(torch.div(size, self.dt), torch.sqrt(torch.mul(size, twice)))
    u = torch.add(vd, torch.mul(torch.sign(off), back))
    most = torch.mul(self.amax, self.dt)
    u = torch.min(torch.max(u, torch.sub(self.us, most)), torch.add(self.us, most))
    up = torch.min(self.vmax, torch.sqrt(torch.mul(torch.sub(self.hi, qs), twice)))
    down = torch.min(self.vmax, torch.sqrt(torch.mul(torch.sub(qs, self.lo), twice)))
    u = torch.min(torch.max(u, torch.neg(down)), up)
    q = torch.min(torch.max(torch.add(qs, torch.mul(u, self.dt)), self.lo), self.hi)
    du = torch.sub(u, self.us)
    there = torch.lt(torch.abs(torch.sub(q, qd)), 1e-09)
    v = torch.where(there, vd, torch.add(u, torch.mul(du, 0.5)))
    self.qs = q
    self.vs = v
    self.us = u
    self.du = du
    e = torch.sub(q, qm)
    de = torch.sub(v, vm)
    tau = torch.add(torch.mul(self.kq, e), torch.mul(self.kqd, de))
@MODEL@    return {"joint_torques": torch.to(tau, s["joint_positions"])}
  def begin(self: __torch__.C,
    q: Tensor,
    n: int) -> NoneType:
    if bool(torch.all(torch.lt(torch.abs(q), @LIMIT@))):
      z = torch.zeros_like(q)
      self.lo = torch.min(self.lower, q)
      self.hi = torch.max(self.upper, q)
      self.qs = q
      self.vs = z
      self.us = z
      self.du = z
      self.c0 = q
      self.t0 = n
      self.started = True
    else:
      pass
    return None
  def advance(self: __torch__.C,
    n: int) -> NoneType:
    ended = torch.gt(n, torch.add(self.t0, self.d))
    k = torch.add(self.k, 1)
    over = torch.__and__(ended, torch.ge(k, torch.size(self.w, 0)))
    silent = torch.gt(torch.sub(n, self.heard), self.patience)
    if torch.__or__(over, silent):
      _0 = (self).brake(n)
    else:
      if ended:
        a = torch.select(self.w, 0, self.k)
        b = torch.select(self.w, 0, k)
        self.k = k
        _1 = (self).cubic(torch.slice(a, 0, 0, 7), torch.slice(a, 0, 7, 14), torch.slice(b, 0, 0, 7), torch.slice(b, 0, 7, 14), torch.sub(n, 1), self.every)
      else:
        pass
    return None
  def cubic(self: __torch__.C,
    q0: Tensor,
    v0: Tensor,
    q1: Tensor,
    v1: Tensor,
    t0: int,
    d: int) -> NoneType:
    per = torch.mul(float(d), self.dt)
    e = torch.sub(q1, q0)
    m0 = torch.mul(v0, per)
    m1 = torch.mul(v1, per)
    self.c0 = q0
    self.c1 = m0
    self.c2 = torch.sub(torch.sub(torch.mul(e, 3.), torch.mul(m0, 2.)), m1)
    self.c3 = torch.sub(torch.add(m0, m1), torch.mul(e, 2.))
    self.c4 = torch.zeros_like(q0)
    self.t0 = t0
    self.d = d
    return None
  def brake(self: __torch__.C,
    n: int) -> NoneType:
    v = self.vs
    size = torch.abs(v)
    least = float(torch.max(torch.div(torch.mul(size, 1.5), self.braking)))
    d = ops.prim.max(torch.add(int(torch.div(least, self.dt)), 1), self.shortest)
    per = torch.mul(float(d), self.dt)
    bound = torch.div(torch.mul(size, 3.), per)
    a = torch.min(torch.max(torch.div(self.du, self.dt), torch.neg(bound)), bound)
    m = torch.mul(v, per)
    b = torch.mul(a, torch.mul(per, per))
    self.c0 = self.qs
    self.c1 = m
    self.c2 = torch.div(b, 2.)
    self.c3 = torch.sub(torch.neg(m), torch.div(torch.mul(b, 2.), 3.))
    self.c4 = torch.add(torch.div(m, 2.), torch.div(b, 4.))
    self.t0 = torch.sub(n, 1)
    self.d = d
    self.follow = False
    return None
  def is_terminated(self: __torch__.C) -> bool:
    return False
  def update(self: __torch__.C,
    u: Dict[str, Tensor]) -> NoneType:
    p = torch.to(u["plan"], self.qs)
    n = self.n
    fault = 1
    if torch.eq(torch.dim(p), 2):
      rows = torch.size(p, 0)
      if torch.__and__(torch.eq(torch.size(p, 1), 14), torch.__and__(torch.gt(rows, 1), torch.le(rows, @ROWS@))):
        fault = 2
        if bool(torch.all(torch.lt(torch.abs(p), @LIMIT@))):
          fault = (self).take(p, torch.sub(rows, 1))
        else:
          pass
      else:
        pass
    else:
      pass
    if torch.__and__(self.follow, torch.__or__(torch.eq(fault, 1), torch.__or__(torch.eq(fault, 2), torch.eq(fault, 4)))):
      _0 = (self).brake(n)
    else:
      pass
    if torch.gt(fault, 0):
      if torch.eq(fault, 1):
        ops.prim.RaiseException("plan: wrong shape or format")
      else:
        pass
      if torch.eq(fault, 2):
        ops.prim.RaiseException("plan: not finite")
      else:
        pass
      if torch.eq(fault, 3):
        ops.prim.RaiseException("plan: of another session")
      else:
        pass
      ops.prim.RaiseException("plan: cannot be joined within the limits")
    else:
      pass
    return None
  def take(self: __torch__.C,
    p: Tensor,
    count: int) -> int:
    h = torch.select(p, 0, 0)
    seq = int(torch.select(h, 0, 2))
    first = int(torch.select(h, 0, 3))
    every = int(torch.select(h, 0, 4))
    fault = 0
    if torch.__or__(torch.ne(int(torch.select(h, 0, 0)), 1), torch.lt(every, 1)):
      fault = 1
    else:
      if torch.__or__(torch.ne(int(torch.select(h, 0, 1)), self.session), torch.__not__(self.started)):
        fault = 3
      else:
        if torch.gt(seq, self.seq):
          self.seq = seq
          fault = (self).join(torch.slice(p, 0, 1, torch.add(count, 1)), first, every, count)
        else:
          pass
    return fault
  def join(self: __torch__.C,
    p: Tensor,
    first: int,
    every: int,
    count: int) -> int:
    n = self.n
    wq = torch.min(torch.max(torch.slice(p, 1, 0, 7), self.lo), self.hi)
    wv = torch.min(torch.max(torch.slice(p, 1, 7, 14), torch.neg(self.vmax)), self.vmax)
    v = self.vs
    i = 0
    fault = 0
    search = True
    while search:
      d = torch.sub(torch.add(first, torch.mul(i, every)), torch.sub(n, 1))
      if torch.gt(d, self.longest):
        fault = 4
        search = False
      else:
        if torch.gt(d, 0):
          fault = 4
          per = torch.mul(float(d), self.dt)
          v1 = torch.select(wv, 0, i)
          e = torch.div(torch.mul(torch.sub(torch.select(wq, 0, i), self.qs), 6.), per)
          a0 = torch.sub(torch.sub(e, torch.mul(v, 4.)), torch.mul(v1, 2.))
          a1 = torch.sub(torch.add(torch.mul(v, 2.), torch.mul(v1, 4.)), e)
          a = torch.div(torch.max(torch.abs(a0), torch.abs(a1)), per)
          if bool(torch.all(torch.le(a, self.amax))):
            fault = 0
            search = False
            self.w = torch.cat([wq, wv], 1)
            self.every = every
            self.k = i
            self.heard = n
            self.follow = True
            _0 = (self).cubic(self.qs, v, torch.select(wq, 0, i), v1, torch.sub(n, 1), d)
          else:
            pass
        else:
          pass
      i = torch.add(i, 1)
      if torch.ge(i, count):
        search = False
      else:
        pass
    return fault
"#;

/// The class text for a law with or without a robot model.
pub(super) fn text(with_model: bool) -> String {
    let (attributes, torque) = if with_model { MODEL_PARTS } else { JOINT_PARTS };
    TEXT.replace("@ATTRIBUTES@", attributes)
        .replace("@MODEL@", torque)
        .replace("@LIMIT@", LIMIT_OF_NUMBERS.1)
        .replace("@ROWS@", &(MAX_WAYPOINTS + 1).to_string())
}

/// Tenon's controller as an archive for SetController.
///
/// `urdf_text` is the robot client's; it is only used where the gains have Cartesian parts, whose torque comes from the
/// server's robot model together with the Coriolis term (without them the law is the joints' alone).
///
/// # Errors
/// [`ArchiveError::NotFinite`], [`ArchiveError::Setting`] for settings that no arm can obey, and the errors of
/// [`hybrid_controller`](crate::archive::hybrid_controller) about the URDF.
pub fn waypoint_controller(
    settings: &WaypointSettings,
    gains: &Gains,
    urdf_text: &str,
) -> Result<Vec<u8>, ArchiveError> {
    settings.check()?;
    let mut archive = ControllerArchiveBuilder::new();
    let zeros = [0.0; 7];
    archive.f64_vector("kq", "kq", &gains.kq.map(f64::from))?;
    archive.f64_vector("kqd", "kqd", &gains.kqd.map(f64::from))?;
    let with_model = gains.uses_model();
    if with_model {
        archive.f64_vector("kx", "kx", &gains.kx.map(f64::from))?;
        archive.f64_vector("kxd", "kxd", &gains.kxd.map(f64::from))?;
        archive.int("ee", crate::archive::PANDA_LINK8_FRAME);
        archive.robot_model("model", urdf_text)?;
    }
    archive.f64_vector("lower", "lower_rad", &settings.lower_rad)?;
    archive.f64_vector("upper", "upper_rad", &settings.upper_rad)?;
    archive.f64_vector("vmax", "velocity_rad_s", &settings.velocity_rad_s)?;
    archive.f64_vector("amax", "acceleration_rad_s2", &settings.acceleration_rad_s2)?;
    archive.f64_vector("braking", "braking_rad_s2", &settings.braking_rad_s2)?;
    archive.float("dt", settings.period_s());
    archive.int("patience", i64::from(settings.patience_steps));
    archive.int("longest", i64::from(settings.longest_join_steps));
    archive.int("shortest", i64::from(settings.shortest_brake_steps));
    archive.int("session", i64::from(settings.session));
    archive.int("n", 0);
    archive.bool("started", false);
    archive.bool("follow", false);
    archive.int("seq", 0);
    archive.int("heard", 0);
    for name in ["lo", "hi", "qs", "vs", "us", "du", "c0", "c1", "c2", "c3", "c4"] {
        archive.f64_vector(name, name, &zeros)?;
    }
    archive.int("t0", 0);
    archive.int("d", 1);
    archive.tensor("w", &TensorValue::new(vec![1, 14], crate::archive::TensorData::F64(vec![0.0; 14]))?);
    archive.int("every", 1);
    archive.int("k", 0);
    archive.finish(&text(with_model))
}
