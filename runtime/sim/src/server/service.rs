//! The gRPC services over the control plane.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenon_polymetis::collect_chunks;
use tenon_polymetis::proto::polymetis_controller_server_server::PolymetisControllerServer;
use tenon_polymetis::proto::{self, ControllerChunk, Empty, LogInterval, RobotClientMetadata, TorqueCommand};
use tenon_polymetis::script::evaluate_parameters;
use tokio::sync::OwnedMutexGuard;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::delay::DelaySource;
use super::law::Law;
use super::plane::{ControlPlane, Interval, PlaneError, parameter_error};
use super::realtime::monotonic_time;
use super::robot_client::lock;

/// How the real server waits for its robot, and between bursts of a state stream.
const POLL: Duration = Duration::from_millis(20);
/// Records copied under one lock, so that a long log does not hold up the control loop.
const STREAM_BATCH: usize = 64;

type StateStream = Pin<Box<dyn Stream<Item = Result<proto::RobotState, Status>> + Send>>;

/// The controller server's services.
#[derive(Debug)]
pub struct ControllerService {
    plane: Arc<Mutex<ControlPlane>>,
    /// Serialises Set, Update and Terminate among all clients; held while waiting for the robot.
    turn: Arc<tokio::sync::Mutex<()>>,
    death: std::sync::mpsc::Sender<()>,
    /// Where loading an update is to take as long as on another machine.
    delays: Option<Mutex<DelaySource>>,
}

impl ControllerService {
    /// `death` is told when the process would die.
    pub fn new(
        plane: Arc<Mutex<ControlPlane>>,
        death: std::sync::mpsc::Sender<()>,
        delays: Option<DelaySource>,
    ) -> Self {
        Self { plane, turn: Arc::default(), death, delays: delays.map(Mutex::new) }
    }

    /// Runs a call that changes the controller to its end even if its client gives up, as the real server does: it
    /// keeps its turn while it waits for a robot that does not call.
    async fn in_turn<F>(
        &self,
        call: impl FnOnce(Arc<Mutex<ControlPlane>>) -> F,
    ) -> Result<Response<LogInterval>, Status>
    where
        F: Future<Output = Result<Interval, PlaneError>> + Send + 'static,
    {
        let turn: OwnedMutexGuard<()> = Arc::clone(&self.turn).lock_owned().await;
        let call = call(Arc::clone(&self.plane));
        let task = tokio::spawn(async move {
            let _turn = turn;
            call.await
        });
        match task.await {
            Ok(Ok(Interval { start, end })) => Ok(Response::new(LogInterval { start, end })),
            Ok(Err(PlaneError::Died(of))) => {
                tracing::error!("{of}: the real server dies of it (SIGSEGV), and so does this one");
                // A receiver that is gone means that the server ends anyway.
                let _ = self.death.send(());
                // The connection breaks before there is an answer.
                std::future::pending().await
            }
            Ok(Err(error)) => Err(status(&error)),
            Err(error) => Err(Status::unknown(format!("Unexpected error in RPC handling: {error}"))),
        }
    }
}

/// The real server answers nearly everything with CANCELLED.
fn status(error: &PlaneError) -> Status {
    match error {
        PlaneError::EmptyBuffer => Status::failed_precondition(error.to_string()),
        PlaneError::Uncaught => Status::unknown(error.to_string()),
        _ => Status::cancelled(error.to_string()),
    }
}

async fn receive(mut upload: Streaming<ControllerChunk>) -> Result<Vec<u8>, Status> {
    let mut archive = Vec::new();
    while let Some(chunk) = upload.message().await? {
        collect_chunks(&mut archive, &chunk).map_err(|e| Status::cancelled(e.to_string()))?;
    }
    Ok(archive)
}

#[tonic::async_trait]
impl PolymetisControllerServer for ControllerService {
    async fn set_controller(
        &self,
        request: Request<Streaming<ControllerChunk>>,
    ) -> Result<Response<LogInterval>, Status> {
        let archive = receive(request.into_inner()).await?;
        let present = lock(&self.plane).last_reading();
        let law = Law::load(&archive).and_then(|law| law.warm_up(&present).map(|()| law));
        let law = law.map_err(|error| status(&PlaneError::Load(error)));
        let law = law.inspect_err(|error| tracing::warn!("SetController: {}", error.message()))?;
        self.in_turn(|plane| async move {
            lock(&plane).set_controller(law)?;
            loop {
                tokio::time::sleep(POLL).await;
                if !lock(&plane).is_ready() {
                    break;
                }
            }
            let interval = lock(&plane).interval();
            tracing::info!("a controller runs since step {}", interval.start);
            Ok(interval)
        })
        .await
    }

    async fn update_controller(
        &self,
        request: Request<Streaming<ControllerChunk>>,
    ) -> Result<Response<LogInterval>, Status> {
        let archive = receive(request.into_inner()).await?;
        let begin = std::time::Instant::now();
        // Loaded before the state machine is looked at, as the real server does.
        let parameters = evaluate_parameters(&archive);
        if let Some(delays) = &self.delays {
            let delay = delays.lock().unwrap_or_else(PoisonError::into_inner).draw();
            // On a thread, which is what loading occupies; the runtime's timer knows whole milliseconds only.
            let rest = move || std::thread::sleep(delay.saturating_sub(begin.elapsed()));
            tokio::task::spawn_blocking(rest).await.map_err(|e| Status::unknown(e.to_string()))?;
        }
        let parameters = parameters.map_err(|error| {
            tracing::warn!("UpdateController: {error}");
            status(&parameter_error(&error))
        })?;
        self.in_turn(|plane| async move { lock(&plane).update_controller(&parameters) }).await
    }

    async fn terminate_controller(&self, _: Request<Empty>) -> Result<Response<LogInterval>, Status> {
        self.in_turn(|plane| async move {
            lock(&plane).terminate()?;
            loop {
                tokio::time::sleep(POLL).await;
                if !lock(&plane).is_terminating() {
                    break;
                }
            }
            let interval = lock(&plane).interval();
            tracing::info!("the controller ended at step {}; the default controller holds the arm", interval.end);
            Ok(interval)
        })
        .await
    }

    async fn get_robot_state(&self, _: Request<Empty>) -> Result<Response<proto::RobotState>, Status> {
        let record = *lock(&self.plane).state().map_err(|error| status(&error))?;
        Ok(Response::new(record.to_message()))
    }

    type GetRobotStateStreamStream = StateStream;

    async fn get_robot_state_stream(&self, _: Request<Empty>) -> Result<Response<StateStream>, Status> {
        let first = lock(&self.plane).recorded();
        Ok(Response::new(states(Arc::clone(&self.plane), first, None, false)))
    }

    type GetRobotStateLogStream = StateStream;

    async fn get_robot_state_log(&self, request: Request<LogInterval>) -> Result<Response<StateStream>, Status> {
        let LogInterval { start, end } = request.into_inner();
        let recorded = lock(&self.plane).recorded();
        let start = usize::try_from(start).unwrap_or(0);
        // A far end keeps the real server spinning over the range until the client cancels; here it waits as long.
        let end = usize::try_from(end).map_or(recorded, |end| end.saturating_add(1));
        let patience = end > recorded;
        Ok(Response::new(states(Arc::clone(&self.plane), start, Some(end.min(recorded)), patience)))
    }

    async fn get_episode_interval(&self, _: Request<Empty>) -> Result<Response<LogInterval>, Status> {
        let Interval { start, end } = lock(&self.plane).interval();
        Ok(Response::new(LogInterval { start, end }))
    }

    async fn get_robot_client_metadata(&self, _: Request<Empty>) -> Result<Response<RobotClientMetadata>, Status> {
        let plane = lock(&self.plane);
        let metadata = plane.metadata(monotonic_time()).map_err(|error| status(&error))?;
        Ok(Response::new(metadata.clone()))
    }

    async fn init_robot_client(&self, _: Request<RobotClientMetadata>) -> Result<Response<Empty>, Status> {
        Err(built_in_arm())
    }

    async fn control_update(&self, _: Request<proto::RobotState>) -> Result<Response<TorqueCommand>, Status> {
        Err(built_in_arm())
    }
}

fn built_in_arm() -> Status {
    Status::already_exists(
        "this server has its own simulated arm; start a controller server without one for another robot client",
    )
}

/// Records from `next` on, up to `end` (exclusive) or, without one, for as long as the client listens. Indices that the
/// log has forgotten are skipped. With `lingers` the stream stays open after the last one.
fn states(plane: Arc<Mutex<ControlPlane>>, next: usize, end: Option<usize>, lingers: bool) -> StateStream {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<proto::RobotState>>(2);
    tokio::spawn(async move {
        let mut next = next;
        loop {
            let (batch, last) = {
                let plane = lock(&plane);
                let last = end.unwrap_or(plane.recorded());
                let upto = last.min(next.saturating_add(STREAM_BATCH)).max(next);
                let batch: Vec<_> =
                    (next..upto).filter_map(|i| plane.recorded_state(i)).map(|record| record.to_message()).collect();
                next = upto;
                (batch, last)
            };
            if !batch.is_empty() && sender.send(batch).await.is_err() {
                return;
            }
            if next >= last {
                if lingers {
                    sender.closed().await;
                }
                if end.is_some() || sender.is_closed() {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        }
    });
    let batches = tokio_stream::wrappers::ReceiverStream::new(receiver);
    Box::pin(Flatten { batches, current: Vec::new().into_iter() }.map(Ok))
}

/// Hands the records of the batches out one by one.
struct Flatten {
    batches: tokio_stream::wrappers::ReceiverStream<Vec<proto::RobotState>>,
    current: std::vec::IntoIter<proto::RobotState>,
}

impl Stream for Flatten {
    type Item = proto::RobotState;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        use std::task::Poll;
        loop {
            if let Some(state) = self.current.next() {
                return Poll::Ready(Some(state));
            }
            match Pin::new(&mut self.batches).poll_next(context) {
                Poll::Ready(Some(batch)) => self.current = batch.into_iter(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
