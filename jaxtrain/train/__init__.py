"""Training: the step, four ways to run it, the loop, evaluation and checkpoints."""

from jaxtrain.train._checkpoint import Checkpoints as Checkpoints
from jaxtrain.train._evaluate import evaluate as evaluate
from jaxtrain.train._evaluate import evaluation_state as evaluation_state
from jaxtrain.train._evaluate import evaluator as evaluator
from jaxtrain.train._evaluate import predict as predict
from jaxtrain.train._files import read_config as read_config
from jaxtrain.train._fit import Fit as Fit
from jaxtrain.train._fit import fit as fit
from jaxtrain.train._global import global_sum as global_sum
from jaxtrain.train._load import Model as Model
from jaxtrain.train._load import load as load
from jaxtrain.train._parallel import Run as Run
from jaxtrain.train._parallel import parallelize as parallelize
from jaxtrain.train._parallel import take as take
from jaxtrain.train._parallel import use_cpu_cores as use_cpu_cores
from jaxtrain.train._processes import use_processes as use_processes
from jaxtrain.train._safetensors import load_safetensors as load_safetensors
from jaxtrain.train._safetensors import save_safetensors as save_safetensors
from jaxtrain.train._step import EvalStep as EvalStep
from jaxtrain.train._step import Guard as Guard
from jaxtrain.train._step import Step as Step
from jaxtrain.train._step import TrainState as TrainState
from jaxtrain.train._step import make_eval_step as make_eval_step
from jaxtrain.train._step import make_step as make_step
