//! tract: graphs are optimised when they are loaded and run by the calling thread.

use tract_onnx::prelude::*;

use super::{Input, Port, RunError, Sink};
use crate::onnx::ElementType;

pub(super) struct TractSession {
    state: TypedSimpleState,
    shapes: Vec<TVec<usize>>,
}

impl TractSession {
    pub(super) fn load(model: &[u8], inputs: &[Port]) -> Result<Self, String> {
        let plan = optimized(model, inputs)
            // Some graphs of other exporters do not survive tract's full set of transformations.
            .or_else(|full| {
                typed(model, inputs)
                    .and_then(|mut typed| {
                        typed.optimize()?;
                        typed.into_runnable()
                    })
                    .map_err(|partial| format!("{full:#}; without decluttering: {partial:#}"))
            })?;
        let state = plan.spawn().map_err(|e| format!("{e:#}"))?;
        Ok(Self { state, shapes: inputs.iter().map(|p| p.shape.iter().copied().collect()).collect() })
    }

    pub(super) fn run(&mut self, inputs: &[Input], sink: &mut Sink) -> Result<(), RunError> {
        let engine = |e: TractError| RunError::Engine(format!("{e:#}"));
        let mut values: TVec<TValue> = tvec![];
        for (input, shape) in inputs.iter().zip(&self.shapes) {
            let tensor = match input {
                Input::F32(x) => Tensor::from_shape(shape, x),
                Input::I64(x) => Tensor::from_shape(shape, x),
            };
            values.push(tensor.map_err(engine)?.into());
        }
        let outputs = self.state.run(values).map_err(engine)?;
        for (i, output) in outputs.iter().enumerate() {
            let view = output.try_as_plain_ram().map_err(engine)?;
            sink.put(i, view.as_slice::<f32>().map_err(engine)?)?;
        }
        Ok(())
    }
}

fn typed(model: &[u8], inputs: &[Port]) -> TractResult<TypedModel> {
    let mut model = tract_onnx::onnx().model_for_read(&mut &*model)?;
    for (i, port) in inputs.iter().enumerate() {
        let datum_type = match port.element_type {
            ElementType::I64 => i64::datum_type(),
            _ => f32::datum_type(),
        };
        model.set_input_fact(i, InferenceFact::dt_shape(datum_type, &port.shape))?;
    }
    // The output facts of a model with an open batch still name the open dimension.
    for i in 0..model.output_outlets()?.len() {
        model.set_output_fact(i, InferenceFact::default())?;
    }
    model.into_typed()
}

fn optimized(model: &[u8], inputs: &[Port]) -> TractResult<Arc<TypedRunnableModel>> {
    typed(model, inputs)?.into_optimized()?.into_runnable()
}
